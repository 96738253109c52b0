"""COCO: ids of two types, images that are not listed, numbers out of range, and JSON beside it that is no COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.data.formats.coco_layout import sniff_coco
from boxtune.errors import DataError

from ..cases import CATEGORIES, box_entry, find, image_entry, picture, read_coco, save, write_json
from .made_sets import ROW, labelled, write


def write_ids(folder: Path, images: list[Any], annotations: list[Any], **more: Any) -> Path:
    for number in range(len(images)):
        save(picture(number), folder / f"{number}.png")
    entries = [image_entry(i, f"{number}.png") for number, i in enumerate(images)]
    return write_json(folder / "truth.json", entries, annotations, **more)


def test_text_and_number_are_matched_by_what_they_spell(tmp_path: Path) -> None:
    rows = [box_entry(1, "0"), box_entry(2, 1, category="1"), box_entry(3, 1)]
    dataset = read_coco(write_ids(tmp_path, [0, 1], rows, categories=CATEGORIES))
    assert [len(sample.boxes) for sample in dataset.splits["train"]] == [1, 2]
    finding = find(dataset, "coco.id_types")
    assert finding is not None and finding.level == "warn" and "2 (annotation 1, annotation 2)" in finding.seen
    back = read_coco(write_ids(tmp_path / "back", ["0", "1"], [box_entry(1, 0), box_entry(2, "1")]))
    assert [len(sample.boxes) for sample in back.splits["train"]] == [1, 1]
    assert "1 (annotation 1)" in find(back, "coco.id_types").seen  # type: ignore[union-attr]


def test_ids_of_one_type_are_not_remarked_on(tmp_path: Path) -> None:
    dataset = read_coco(write_ids(tmp_path, [0, "0"], [box_entry(1, 0), box_entry(2, "0"), box_entry(3, 0)]))
    assert find(dataset, "coco.id_types") is None
    assert [len(sample.boxes) for sample in dataset.splits["train"]] == [2, 1]


def test_a_mask_names_its_image_by_text(tmp_path: Path) -> None:
    mask = {"id": 2, "image_id": "7", "category_id": 1, "segmentation": {"counts": "x", "size": [1, 1]}}
    dataset = read_coco(write_ids(tmp_path, [7], [box_entry(1, 7), mask]))
    assert "0.png annotation 2" in find(dataset, "coco.mask_only").seen  # type: ignore[union-attr]


def test_half_of_the_images_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"images that are not listed: 1 of 2 \(annotation 2 of image '007'\)"
    ) as caught:
        read_coco(write_ids(tmp_path, [7], [box_entry(1, 7), box_entry(2, "007")]))
    assert caught.value.fix == "image ids there are: 7"


@pytest.mark.parametrize("key", ["bbox", "width", "id"])
def test_an_integer_that_no_float_holds(tmp_path: Path, key: str) -> None:
    huge = 10**400
    if key == "bbox":
        with pytest.raises(DataError, match="annotation 1 has the bbox"):
            read_coco(write_ids(tmp_path, [1], [box_entry(1, 1, [huge, 1, 2, 3])]))
        return
    save(picture(1), tmp_path / "a.png")
    image = image_entry(huge if key == "id" else 1, "a.png", (huge if key == "width" else 64, 48))
    dataset = read_coco(write_json(tmp_path / "x.json", [image], [box_entry(1, image["id"])]))
    assert len(dataset.splits["train"][0].boxes) == 1 and dataset.splits["train"][0].size_wh == (64, 48)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}}),
        ("info.json", {"licenses": ["MIT"], "name": "x"}),
        ("default.json", {"info": {}, "categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [{"id": "a"}]}),
    ],
)
def test_other_files_with_a_key_of_coco_are_none(tmp_path: Path, name: str, content: Any) -> None:
    labelled(tmp_path, {"a.jpg": ROW})
    write(tmp_path / "classes.txt", "cat\n")
    file = write(tmp_path / name, json.dumps(content))
    assert sniff_coco(file) is None and list(sniff(tmp_path)) == ["yolo"]
    assert read_dataset(tmp_path).classes == ("cat",)
    content["items"] = [{"id": "a" * 100}] * 1000
    write(file, json.dumps(content))
    assert sniff_coco(file) is None or name != "default.json"


def test_a_long_or_a_broken_coco_file_is_still_one(tmp_path: Path) -> None:
    file = write_ids(tmp_path, [1], [box_entry(n, 1) for n in range(2000)])
    assert file.stat().st_size > 65536 and sniff_coco(file) is not None
    write(file, '{"images": [], "annotations": [}')
    assert sniff_coco(file) is not None
