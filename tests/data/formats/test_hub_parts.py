"""What the boxes of a hub data set mean, where its class names stand, and what becomes of broken objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.data import Dataset, read_dataset
from boxtune.errors import DataError

from ..cases import find
from . import hub_cases as hub

WIDE = {"width": 64, "height": 48}
OFF_META = {"barcode": "1", "off_image_id": "1", "image_url": ""}


def read_boxes(folder: Path, bbox: Any, **more: Any) -> Dataset:
    one = {"image": hub.image(1, "a.jpg"), "objects": {"bbox": bbox, "category": ["cat"] * len(bbox), **more}}
    return read_dataset(hub.write_parquet(folder / "a.parquet", [one]))


def shares(xyxy: list[list[int]]) -> list[list[float]]:
    return (np.array(xyxy) / [64, 48, 64, 48]).tolist()


def boxes_of(dataset: Dataset) -> list[list[float]]:
    return dataset.splits["train"][0].boxes.xyxy_px.round(3).tolist()


def test_corners_in_pixels(tmp_path: Path) -> None:
    dataset = read_boxes(tmp_path, hub.XYXY)
    assert boxes_of(dataset) == hub.XYXY and "x1, y1, x2, y2 in pixels" in dataset.why


def test_centres_in_shares(tmp_path: Path) -> None:
    cxcywh = [[0.5, 0.5, 1.0, 1.0], [0.2, 0.9, 0.1, 0.2], [0.9, 0.1, 0.2, 0.2]]
    assert boxes_of(read_boxes(tmp_path, cxcywh))[1] == [9.6, 38.4, 16.0, 48.0]


def test_shares_with_either_axis_first_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"xyxy_unit .* or yxyx_unit") as caught:
        read_boxes(tmp_path, shares(hub.XYXY))
    assert "boxes=yxyx_unit" in caught.value.fix
    told = read_dataset(tmp_path / "a.parquet", boxes="xyxy_unit")
    assert boxes_of(told) == hub.XYXY


def test_areas_answer_the_question(tmp_path: Path) -> None:
    near = [[1.0, 1.0, 10.0, 20.0], [2.0, 3.0, 9.0, 30.0]]
    with pytest.raises(DataError, match=r"xywh_px .* or xyxy_px"):
        read_boxes(tmp_path, near)
    dataset = read_boxes(tmp_path, near, area=[200.0, 270.0])
    assert boxes_of(dataset)[0] == [1, 1, 11, 21] and "the areas beside the boxes are those of xywh_px" in dataset.why
    assert boxes_of(read_boxes(tmp_path, near, area=[171.0, 189.0]))[0] == [1, 1, 10, 20]
    with pytest.raises(DataError, match=r"xywh_px .* or xyxy_px"):  # areas of masks fit neither
        read_boxes(tmp_path, near, area=[50.0, 60.0])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["xmin", "ymin", "xmax", "ymax"], [1, 1, 10, 20]),
        (["x", "y", "width", "height"], [1, 1, 11, 21]),
        (["left", "top", "right", "bottom"], [1, 1, 10, 20]),
    ],
)
def test_named_numbers(tmp_path: Path, names: list[str], expected: list[int]) -> None:
    dataset = read_boxes(tmp_path, [dict(zip(names, (1, 1, 10, 20), strict=True))])
    assert boxes_of(dataset) == [expected] and "told by the names" in dataset.why


def test_unknown_names_of_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a box has the fields a, b"):
        read_boxes(tmp_path, [{"a": 1, "b": 2}])


def off_row(bbox: list[list[float]], **more: Any) -> dict[str, Any]:
    objects = {"bbox": bbox, "category_id": [0] * len(bbox), "category_name": ["nutrition-table"] * len(bbox)}
    return {"image_id": "1_1", "image": hub.image(1, "a.jpg"), **WIDE, "meta": OFF_META, "objects": objects} | more


def test_open_food_facts(tmp_path: Path) -> None:
    yxyx = [[one[1], one[0], one[3], one[2]] for one in shares(hub.XYXY)]
    dataset = read_dataset(hub.write_parquet(tmp_path / "a.parquet", [off_row(yxyx)]))
    assert boxes_of(dataset) == hub.XYXY and dataset.classes == ("nutrition-table",)
    assert "Open Food Facts" in dataset.why and find(dataset, "hf.size_differs") is None
    other = read_dataset(hub.write_parquet(tmp_path / "b.parquet", [off_row(yxyx, width=640, height=480)]))
    finding = find(other, "hf.size_differs")
    assert finding is not None and "1 (a.jpg: 640 x 480 declared, 64 x 48 real)" in finding.seen
    assert boxes_of(other) == hub.XYXY and other.splits["train"][0].size_wh == (64, 48)
    pixels = read_dataset(hub.write_parquet(tmp_path / "c.parquet", [off_row(hub.XYWH)]))
    assert boxes_of(pixels) == hub.XYXY  # the same columns with other numbers


def test_declared_sizes_of_pixels(tmp_path: Path) -> None:
    one = hub.row(1, hub.XYWH, ["cat"] * 3, width=640.0, height=480.0)
    dataset = read_dataset(hub.write_parquet(tmp_path / "a.parquet", [one]))
    assert dataset.splits["train"][0].size_wh == (640, 480)  # which leave_out_broken compares with the picture


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({"bbox": [[1, 2, 3]], "category": ["cat"]}, r"a box is \[1(\.0)?, 2(\.0)?, 3(\.0)?\], not four numbers"),
        ({"bbox": [[1, 2, 3, None]], "category": ["cat"]}, "not four finite numbers"),
        ({"bbox": [[1, 2, 3, 4]], "category": ["cat", "dog"]}, "there are 1 bbox but 2 category"),
        ({"bbox": [None], "category": ["cat"]}, "a box is None"),
        ("{not json", "text that is no list or object"),
        ([{"bbox": [1, 2, 3, 4]}, {"category": "cat"}], "not every object has a bbox"),
        ({"bbox": 5, "category": ["cat"]}, "no list of boxes"),
        ({"bbox": [[10**400, 1, 2, 3]], "category": ["cat"]}, "not four finite numbers"),
    ],
)
def test_broken_objects(tmp_path: Path, objects: Any, message: str) -> None:
    sound = hub.entry("a.png", hub.XYWH, ["cat"] * 3)
    file = hub.write_metadata(tmp_path, [sound, {"file_name": "b.png", "objects": objects}])
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path)
    assert f"{file}, row 1" in caught.value.where


def test_one_object_without_lists(tmp_path: Path) -> None:
    content = [hub.entry(f"{at}.png", hub.XYWH[at], ["cat"] if at else "cat") for at in range(3)]
    hub.write_metadata(tmp_path, content)
    assert [sample.boxes.labels for sample in read_dataset(tmp_path).splits["train"]] == [("cat",)] * 3


CARD = """---
dataset_info:
- config_name: default
  features:
  - name: objects
    sequence:
    - name: bbox
      sequence: float32
    - name: category
      dtype:
        class_label:
          names:
            '0': cat
            '10': ox
            '1': dog
---
# A card
"""


def names_by(folder: Path, file: str, text: str) -> tuple[str, ...]:
    hub.write_parquet(folder / "data" / "train-0.parquet", hub.rows())
    (folder / file).write_text(text, encoding="utf-8")
    dataset = read_dataset(folder)
    assert f"class names by {file}" in dataset.why
    return dataset.classes


def test_names_from_files(tmp_path: Path) -> None:
    listed = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    said = {"features": hub.features(["cat", "dog"])}
    for place, (file, text) in enumerate(
        {
            "README.md": CARD,
            "classes.txt": "cat\ndog\n",
            "classes.json": '{"dog": 1, "cat": 0}',
            "id2label.json": '{"0": "cat", "1": "dog"}',
            "dataset_info.json": json.dumps(said),
        }.items()
    ):
        assert names_by(tmp_path / str(place), file, text) == ("cat", "dog"), file
    assert names_by(tmp_path / "listed", "classes.json", json.dumps(listed)) == ("cat", "dog")


def test_names_of_a_card_in_either_direction(tmp_path: Path) -> None:
    before, _, behind = CARD.partition("            '0': cat\n            '10': ox\n            '1': dog\n")
    turned = f"{before}            dog: 1\n            cat: 0\n{behind}"
    assert names_by(tmp_path / "a", "README.md", turned) == ("cat", "dog")
    with pytest.raises(DataError, match=r"category in README\.md: names are .*, neither numbers with names"):
        names_by(tmp_path / "b", "README.md", f"{before}            cat: dog\n{behind}")


def test_names_in_latin_1(tmp_path: Path) -> None:
    hub.write_parquet(tmp_path / "data" / "train-0.parquet", hub.rows())
    (tmp_path / "classes.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"classes\.txt is not UTF-8 text"):
        read_dataset(tmp_path)


def test_a_class_or_an_area_that_no_float_holds_is_none(tmp_path: Path) -> None:
    content = [hub.entry("a.png", hub.XYWH, [10**400] * 3, area=[10**400] * 3)]
    hub.write_metadata(tmp_path, content)
    assert len(read_dataset(tmp_path).splits["train"][0].boxes) == 0


def test_names_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"classes\.json does not say the names"):
        names_by(tmp_path / "a", "classes.json", "[1, 2]")
    with pytest.raises(DataError, match=r"classes\.json is not JSON"):
        names_by(tmp_path / "b", "classes.json", "cat")
    with pytest.raises(DataError, match=r"the head of README\.md is no YAML"):
        names_by(tmp_path / "c", "README.md", "---\na: [\n---\n")
    with pytest.raises(DataError, match=r"class 1, but classes\.txt names 1 classes from 0"):
        names_by(tmp_path / "d", "classes.txt", "cat\n")


def test_broken_names_do_not_matter_where_the_schema_names(tmp_path: Path) -> None:
    hub.write_parquet(tmp_path / "train.parquet", hub.rows(), hub.features(["cat", "dog"]))
    (tmp_path / "classes.json").write_text("no json")
    assert read_dataset(tmp_path).classes == ("cat", "dog")
