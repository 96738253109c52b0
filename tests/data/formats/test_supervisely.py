"""Supervisely: pixel indexes, both included, and the folders of a project."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.supervisely import sniff_supervisely
from boxtune.errors import DataError

from .tool_cases import boxes, finding, pictures, put, raw_of, read

META = {
    "classes": [{"title": "dog", "shape": "rectangle", "id": 7}, {"title": "cat", "shape": "any", "id": 8}],
    "tags": [],
}


def one(
    points: Any = ((10, 5), (29, 24)), title: Any = "cat", kind: str | None = "rectangle", **more: Any
) -> dict[str, Any]:
    geometry = {} if kind is None else {"geometryType": kind}
    return {"id": 1, "classTitle": title, **geometry, "points": {"exterior": points, "interior": []}, **more}


def write(folder: Path, name: str, *objects: Any, tags: Any = (), picture: bool = True) -> None:
    """A picture and its annotations in a data set's folder."""
    if picture:
        pictures(folder / "img", name)
    content = {"description": "", "tags": list(tags), "size": {"height": 48, "width": 64}, "objects": list(objects)}
    put(folder / "ann" / f"{name}.json", content)


def test_the_far_edge_of_a_pixel_index_is_one_further(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "a.png", one(), one(((0, 0), (63, 47))), one(((29, 24), (10, 5))))
    write(tmp_path / "ds", "b.png")
    for path in (tmp_path, tmp_path / "meta.json", tmp_path / "ds"):
        dataset = read(path, "supervisely")
        cat = ("cat", [10, 5, 30, 25])
        assert boxes(dataset) == {"a.png": [cat, ("cat", [0, 0, 64, 48]), cat], "b.png": []}
        assert "indexes of pixels, so 1 is added" in dataset.why and dataset.classes == ("cat",)


@pytest.mark.parametrize("proof", [((10.5, 5), (30, 25)), ((0, 0), (64, 20))])
def test_continuous_coordinates_stay(tmp_path: Path, proof: Any) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "a.png", one(((10, 5), (30, 25))), one(proof))
    dataset = read(tmp_path, "supervisely")
    assert boxes(dataset)["a.png"] == [("cat", [10, 5, 30, 25]), ("cat", [*proof[0], *proof[1]])]
    assert "continuous" in dataset.why


def test_data_sets_named_for_splits(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "train_1", "a.png", one())
    write(tmp_path / "train_2", "a.png", one(title="dog"))
    write(tmp_path / "val" / "datasets" / "night", "c.png", one())
    dataset = read(tmp_path, "supervisely")
    assert {split: len(samples) for split, samples in dataset.splits.items()} == {"train": 2, "valid": 1}
    write(tmp_path / "train_val", "d.png", one())
    with pytest.raises(DataError, match="the split of train_val/ cannot be told"):
        read_dataset(tmp_path)


def test_splits_by_tags(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "a.png", one(), tags=[{"name": "train", "value": None}])
    write(tmp_path / "ds", "b.png", one(), tags=["val", "night"])
    assert list(read(tmp_path, "supervisely").splits) == ["train", "valid"]
    write(tmp_path / "ds", "c.png", one(), tags=["night"])
    assert {split: len(rows) for split, rows in read(tmp_path, "supervisely").splits.items()} == {"train": 3}


def test_names_without_the_suffix_and_awkward_ones(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "ä b#1.png", one())
    pictures(tmp_path / "ds" / "img", "old.png")
    put(tmp_path / "ds" / "ann" / "old.json", {"size": {"height": 48, "width": 64}, "objects": [one()]})
    assert sorted(boxes(read(tmp_path, "supervisely"))) == ["old.png", "ä b#1.png"]


def test_images_in_another_folder(tmp_path: Path) -> None:
    put(tmp_path / "p" / "meta.json", META)
    write(tmp_path / "p" / "ds", "a.png", one(), picture=False)
    pictures(tmp_path / "elsewhere" / "ds", "a.png")
    dataset = read(tmp_path / "p", "supervisely", images=tmp_path / "elsewhere")
    assert dataset.splits["train"][0].image == tmp_path / "elsewhere" / "ds" / "a.png"


def test_shapes_other_than_rectangles(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    polygon = one(((10, 5), (29, 10), (20, 24)), kind="polygon")
    turned = one(kind="oriented_bbox", angle=math.pi / 2) | {"points": [[10, 10], [30, 18]]}
    masks = [
        one(kind="bitmap", bitmap={"data": "x", "origin": [1, 2]}),
        one(kind=None, bitmap={"data": "x", "origin": [1, 2]}),
        one(kind="line"),
        one(((3, 4),), kind="point"),
    ]
    write(tmp_path / "ds", "a.png", polygon, turned, *masks, one(((1, 2), (3, 4)), kind=None))
    dataset = read(tmp_path, "supervisely")
    assert boxes(dataset)["a.png"] == [
        ("cat", [10, 5, 30, 25]),
        ("cat", [16, 4, 25, 25]),
        ("cat", [1, 2, 4, 5]),
    ]
    hull, no_box = finding(dataset, "supervisely.hull"), finding(dataset, "supervisely.no_box")
    assert hull is not None and ": 2 (ds/a.png object 1, ds/a.png object 1)" in hull.seen
    assert no_box is not None and ": 4 (ds/a.png object 1 (bitmap)" in no_box.seen


def test_classes_by_id_and_objects_without_one(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "a.png", one(title=None, classId=7), one(title=None, classId=9), one(title=""))
    dataset = read(tmp_path, "supervisely")
    assert boxes(dataset)["a.png"] == [("dog", [10, 5, 30, 25])]
    found = finding(dataset, "supervisely.unlabelled")
    assert found is not None and "left out: 2" in found.seen


def test_images_without_annotations_are_counted(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "a.png", one())
    assert finding(read(tmp_path, "supervisely"), "supervisely.not_annotated") is None
    pictures(tmp_path / "ds" / "img", "b.png")
    dataset = read(tmp_path, "supervisely")
    found = finding(dataset, "supervisely.not_annotated")
    assert found is not None and ": 1 (ds/b.png)" in found.seen and list(boxes(dataset)) == ["a.png"]


def test_broken_entries_are_named(tmp_path: Path) -> None:
    put(tmp_path / "meta.json", META)
    write(tmp_path / "ds", "a.png", one(((1, 2),)), one(((1, "x"), (3, 4))), "object", one())
    with pytest.raises(
        DataError, match=r"cannot be read: 3 \(ds/a\.png object 1 has no points of two numbers"
    ) as caught:
        read_dataset(tmp_path)
    assert "object 2 is no object" in caught.value.what
    put(tmp_path / "ds" / "ann" / "a.png.json", {"size": {}})
    with pytest.raises(DataError, match="lacks the list `objects`"):
        read_dataset(tmp_path)
    put(tmp_path / "meta.json", {"classes": 3})
    with pytest.raises(DataError, match="lacks the list `classes`"):
        raw_of(tmp_path, "supervisely")


def test_the_sniffer_is_quiet_elsewhere(tmp_path: Path) -> None:
    assert sniff_supervisely(tmp_path) is None
    put(tmp_path / "meta.json", META)
    assert sniff_supervisely(tmp_path) is None
    with pytest.raises(DataError, match="no Supervisely project was found"):
        raw_of(tmp_path, "supervisely")
    write(tmp_path / "ds", "a.png", one())
    put(tmp_path / "meta.json", {"classes": ["cat"]})
    assert sniff_supervisely(tmp_path) is None
    assert sniff_supervisely(put(tmp_path / "other.json", META)) is None
