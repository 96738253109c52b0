"""Every annotation format of the shared conformance cases: what is read equals what is expected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.data import Dataset
from boxtune.data.assemble import assemble
from boxtune.data.draft import Draft
from boxtune.data.formats import FORMATS, read_raw, sniff

CASES = {
    "coco_hazards": "coco",
    "coco_instances_rle": "coco",
    "coco_toy": "coco",
    "coco_v1": "coco",
    "createml_generated": "createml",
    "cvat_xml": "cvat",
    "florence2_jsonl": "florence2_jsonl",
    "hf_imagefolder": "hf",
    "hf_off_parquet": "hf",
    "imagenet_xml": "voc",
    "labelme_paths": "labelme",
    "labelstudio_generated": "labelstudio",
    "llamafactory_messages": "llamafactory",
    "llava_norm": "llava",
    "msswift_qwen2vl_text": "msswift",
    "msswift_real": "msswift",
    "openimages_v6": "openimages",
    "paligemma_jsonl": "paligemma_jsonl",
    "qwenvl_finetune": "qwenvl",
    "retinanet_csv": "csv",
    "roboflow_coco": "coco",
    "roboflow_createml": "createml",
    "roboflow_voc": "voc",
    "roboflow_yolo": "yolo",
    "supervisely_generated": "supervisely",
    "tf_detection_api": "tfrecord",
    "tfrecord": "tfrecord",
    "ultralytics_yolo": "yolo",
    "via2_generated": "via",
    "voc_negative_image": "voc",
    "voc_xml": "voc",
    "vott_json": "vott",
    "yolo_darknet": "darknet",
    "yolo_mark": "darknet",
    "yolov8_detection": "yolo",
    "yolov8_detection_with_list_of_imgs": "yolo",
    "yolov8_detection_with_list_of_names": "yolo",
}

OWN_CASES = {"keras_txt"}
"""Formats of which the shared data have no case; tests/data/formats has their own."""

WITHOUT_IMAGES = ("tfrecord",)
"""Cases whose origin has annotations alone."""


def test_no_case_is_forgotten(shared_data: Path) -> None:
    there = {path.parent.name for path in (shared_data / "formats").glob("*/expected.json")}
    assert there == set(CASES)


def in_pixels(draft: Draft, place: int, size_wh: tuple[int, int]) -> list[tuple[str, list[float]]]:
    """The boxes of one image as they were annotated, in pixels of an image of that size."""
    rows = [row for row, owner in enumerate(draft.owners) if owner == place]
    factor = 1.0 if draft.scale is None else np.array(size_wh * 2) / draft.scale
    labels = draft.labels
    return [(labels[row], (draft.xyxy[row] * factor).tolist()) for row in rows]


def match(found: list[tuple[str, list[float]]], image: dict[str, Any], tolerance: float) -> None:
    """Each expected box has one of its own among the found, which has no other."""
    left = list(found)
    for box in image["boxes"]:
        near = [
            one
            for one in left
            if one[0] == box["label"] and np.abs(np.subtract(one[1], box["xyxy"])).max() <= tolerance
        ]
        assert near, f"{image['file']}: {box} is not among {left}"
        left.remove(near[0])
    assert not left, f"{image['file']}: {left} was not expected"


def named(file: str, drafts: list[Draft]) -> tuple[Draft, int]:
    """The draft and place of an expected file: by the longest common end of the path, which must be unique."""
    ends = {}
    for draft in drafts:
        for place, name in enumerate(draft.files):
            own = str(draft.paths.get(place, name)).replace("\\", "/").split("/")[::-1]
            length = next((i for i, (a, b) in enumerate(zip(own, file.split("/")[::-1], strict=False)) if a != b), None)
            ends[(draft.split, place)] = (len(file.split("/")) if length is None else length, draft)
    best = max(length for length, _ in ends.values())
    winners = [(draft, place) for (_, place), (length, draft) in ends.items() if length == best and best > 0]
    assert len(winners) == 1, f"{file}: {len(winners)} images of that name"
    return winners[0]


# Of coco_hazards only the sound boxes are expected; test_real_sets.py::test_hazards compares them.
@pytest.mark.parametrize("case", sorted(set(CASES) - {"coco_hazards"}))
def test_case(shared_data: Path, case: str) -> None:
    folder = shared_data / "formats" / case
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    name, raw = read_raw(folder)
    assert name == CASES[case], raw.why
    seen = 0
    for image in expected["images"]:
        draft, place = named(image["file"], list(raw.drafts))
        found = in_pixels(draft, place, (image["width"], image["height"]))
        match(found, image, expected["tolerance_px"])
        seen += len(found)
    assert seen == sum(len(draft.owners) for draft in raw.drafts) > 0


@pytest.mark.parametrize("case", sorted(CASES))
def test_checked_boxes_lie_inside_and_nothing_is_lost_in_silence(shared_data: Path, case: str) -> None:
    folder = shared_data / "formats" / case
    name, raw = read_raw(folder)
    dataset: Dataset = assemble(folder, name, raw, images=None, need_images=case not in WITHOUT_IMAGES)
    kept = 0
    for samples in dataset.splits.values():
        for sample in samples:
            assert (sample.boxes.xyxy_px >= 0).all() and (sample.boxes.xyxy_px <= np.array(sample.size_wh * 2)).all()
            kept += len(sample.boxes)
    lost = sum(len(draft.owners) for draft in raw.drafts) - kept
    said = [finding.seen for finding in dataset.findings if finding.check == "box.without_area"]
    assert lost == sum(int(re.search(r": ([\d,]+) \(", seen)[1].replace(",", "")) for seen in said)  # type: ignore[index]


@pytest.mark.parametrize("case", sorted(CASES))
def test_single_file_is_recognised_too(shared_data: Path, case: str) -> None:
    """An entry file alone is taken for the same format as its folder, where one file is enough to tell."""
    folder = shared_data / "formats" / case
    entry = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["entry"][0]
    file = sorted(folder.glob(entry))[0]
    fits = sniff(file)
    assert next(iter(fits), None) == CASES[case], fits


def test_every_format_has_a_case(shared_data: Path) -> None:
    assert set(CASES.values()) | OWN_CASES == set(FORMATS)
    assert not set(CASES.values()) & OWN_CASES
