"""The reader against real data sets and the shared conformance cases."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.data import (
    Dataset,
    Sample,
    inspect_dataset,
    inspect_path,
    leave_out_broken,
    open_image,
    read_dataset,
    read_size,
)
from boxtune.errors import DataError

from .cases import find

CASES = ["coco_instances_rle", "coco_toy", "coco_v1", "roboflow_coco"]


def expected_of(case: Path) -> Any:
    return json.loads((case / "expected.json").read_text(encoding="utf-8"))


def compare(samples: dict[str, Sample], expected: Any) -> int:
    """Number of boxes, all of which are equal within the case's tolerance, whatever their order."""
    num_boxes = 0
    for image in expected["images"]:
        sample = samples[image["file"]]
        assert sample.size_wh == (image["width"], image["height"])
        ours = sorted(zip(sample.boxes.labels, sample.boxes.xyxy_px.tolist(), strict=True))
        theirs = sorted((box["label"], [float(value) for value in box["xyxy"]]) for box in image["boxes"])
        assert [label for label, _ in ours] == [label for label, _ in theirs]
        for (_, box), (_, truth) in zip(ours, theirs, strict=True):
            assert np.abs(np.array(box) - truth).max() <= expected["tolerance_px"]
        if "iscrowd" in image:
            assert sample.crowd.tolist() == [bool(flag) for flag in image["iscrowd"]]
        num_boxes += len(ours)
    return num_boxes


def by_file(dataset: Dataset, root: Path) -> dict[str, Sample]:
    return {s.image.relative_to(root).as_posix(): s for samples in dataset.splits.values() for s in samples}


@pytest.mark.parametrize("name", CASES)
def test_conformance_cases(shared_data: Path, name: str) -> None:
    case = shared_data / "formats" / name
    expected = expected_of(case)
    dataset = leave_out_broken(read_dataset(case))
    samples = by_file(dataset, case)
    assert len(samples) == len(expected["images"]) > 0
    assert compare(samples, expected) == sum(len(image["boxes"]) for image in expected["images"]) > 0
    for entry in expected["entry"]:  # each file given by its name reads the same
        alone = by_file(read_dataset(case / entry), case)
        assert alone.keys() <= samples.keys() and alone
    if "val" in str(expected["entry"]):
        assert list(dataset.splits) == ["train", "valid"]


def test_hazards(shared_data: Path, tmp_path: Path) -> None:
    """Every defect of the case is named by an error or a finding, and nothing else changes."""
    case = shared_data / "formats" / "coco_hazards"
    expected = expected_of(case)
    defects = {defect.get("annotation_id", "image"): defect["kind"] for defect in expected["defects"]}
    assert set(defects) == {115, 116, 117, 118, 119, 120, "image"}
    dataset = read_dataset(case)
    for check, annotation in [
        ("box.without_area", 115),
        ("box.clipped", 116),
        ("box.clipped", 117),
        ("box.crowd", 118),
        ("coco.image_unknown", 119),
        ("coco.category_unknown", 120),
    ]:
        finding = find(dataset, check)
        assert finding is not None and f"annotation {annotation}" in finding.seen
    missing, unused = find(dataset, "image.missing"), find(dataset, "class.unused")
    assert missing is not None and "not_there.jpg" in missing.seen
    assert unused is not None and "never used" in unused.seen and "never used" not in dataset.classes

    with pytest.raises(DataError, match=r"not_there\.jpg does not exist"):
        leave_out_broken(dataset)
    dataset = leave_out_broken(dataset, max_share=0.2)
    samples = by_file(dataset, case)
    assert len(samples) == 6 == len(expected["images"])
    defective = next(image for image in expected["images"] if image["file"].endswith("2007_000733.jpg"))
    for xyxy in ([0, 0, 27.5, 27], [440, 415, 450, 435], [5, 5, 105, 105]):
        defective["boxes"].append({"label": "aeroplane", "xyxy": xyxy})
    assert compare(samples, expected) == 15 + 3


@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [
        (
            "bccd",
            {"train": (205, 2804), "valid": (87, 1137), "test": (72, 945)},
            {"RBC": 4153, "WBC": 372, "Platelets": 361},
        ),
        (
            "microcontrollers",
            {"train": (142, 170), "valid": (7, 7)},
            {"Arduino_Nano": 43, "ESP8266": 47, "Heltec_ESP32_Lora": 44, "Raspberry_Pi_3": 43},
        ),
        ("chess_pieces", {"train": (30, 274), "valid": (12, 94)}, None),
        ("doc_tables", {"train": (100, 100), "valid": (40, 40)}, {"table": 140}),
    ],
)
def test_counts_of_real_sets(
    shared_data: Path, name: str, counts: dict[str, tuple[int, int]], classes: dict[str, int] | None
) -> None:
    """The numbers of each README."""
    inspection = inspect_dataset(leave_out_broken(read_dataset(shared_data / name)))
    assert {split: (one.images, one.boxes) for split, one in inspection.splits.items()} == counts
    if classes is not None:
        assert {label: sum(per_split.values()) for label, per_split in inspection.class_counts.items()} == classes
    assert not [finding for finding in inspection.findings if finding.level == "fail"]
    assert len(inspection.as_text().splitlines()) <= 40


def test_other_annotations_are_named(shared_data: Path) -> None:
    why = read_dataset(shared_data / "microcontrollers").why
    assert why.startswith("_annotations.coco.json in train/, valid/; could also be read as format=voc")
    assert why.endswith("not read: 2 .csv, voc/train/ (142 .xml), voc/valid/ (7 .xml)")


def test_exif_boxes_are_in_the_upright_frame(shared_data: Path) -> None:
    dataset = leave_out_broken(read_dataset(shared_data / "quirks" / "exif"), open_all=True)
    samples = dataset.splits["train"]
    for sample in samples:
        assert open_image(sample.image).size == sample.size_wh == read_size(sample.image)
    assert len(samples) == 18
    turned = find(dataset, "image.exif_turned")
    assert turned is not None and turned.level == "ok" and "14 images" in turned.seen


@pytest.mark.parametrize("name", ["_annotations.coco.json", "_annotations.stored.coco.json"])
def test_words_lie_in_their_boxes(shared_data: Path, name: str) -> None:
    """The pictures say "top", "left", ... in black on white: after the turn each word is inside its box."""
    num_words = 0
    dataset = leave_out_broken(read_dataset(shared_data / "quirks" / "exif" / name))
    for sample in dataset.splits["train"]:
        grey = np.asarray(open_image(sample.image).convert("L"))
        for box, label in zip(sample.boxes.xyxy_px.round().astype(int), sample.boxes.labels, strict=True):
            if label in ("top", "left", "right", "bottom"):
                x1, y1, x2, y2 = box
                inside = grey[y1:y2, x1:x2]
                assert inside.max() - inside.min() > 100, (sample.image.name, label)
                num_words += 1
    assert num_words == 72


def test_png_called_jpg(shared_data: Path) -> None:
    dataset = leave_out_broken(read_dataset(shared_data / "quirks" / "png_in_jpg" / "images"), open_all=True)
    samples = dataset.splits["train"]
    assert len(samples) == 3
    for sample in samples:
        image = open_image(sample.image)
        assert "#t=" in sample.image.name and image.mode == "RGB" and image.size == (1280, 720)


def test_bilevel_pages_open(shared_data: Path) -> None:
    sample = read_dataset(shared_data / "doc_tables").splits["valid"][0]
    image = open_image(sample.image)
    assert image.mode == "RGB" and image.size == sample.size_wh and image.getextrema()[0] == (0, 255)


def test_copied_set_reads_the_same(shared_data: Path, tmp_path: Path) -> None:
    """Without the image folder's name: `images=` leads to it."""
    source = shared_data / "formats" / "coco_v1"
    shutil.copy(source / "instances_default.json", tmp_path / "boxes.json")
    dataset = read_dataset(tmp_path / "boxes.json", images=source / "images")
    assert compare(by_file(dataset, source), expected_of(source)) == 15


@pytest.mark.slow
def test_copies_across_real_splits(shared_data: Path) -> None:
    """One field of BCCD stands in train and in valid; the boards of chess_pieces are one game in both."""
    found = {
        name: [one for one in inspect_path(shared_data / name, alike=True).findings if one.level == "warn"]
        for name in ("bccd", "chess_pieces", "microcontrollers")
    }
    seen = {name: {one.check: one.seen for one in rows} for name, rows in found.items()}
    assert "1 of 87 (BloodImage_00037.jpg ~ BloodImage_00038.jpg)" in seen["bccd"]["image.near_in_two_splits"]
    assert "11 of 12" in seen["chess_pieces"]["image.near_in_two_splits"]
    assert seen["microcontrollers"] == {}
