"""Create ML: x and y are the centre."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.createml import sniff_createml
from boxtune.errors import DataError

from .tool_cases import boxes, finding, pictures, put, raw_of, raw_rows, read


def box(label: Any = "cat", x: Any = 20, y: Any = 24, width: Any = 10, height: Any = 8) -> dict[str, Any]:
    return {"label": label, "coordinates": {"x": x, "y": y, "width": width, "height": height}}


def entry(name: Any = "a.png", *annotations: Any) -> dict[str, Any]:
    return {"image": name, "annotations": list(annotations)}


def test_centre_in_pixels_and_a_negative(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    file = put(tmp_path / "_annotations.createml.json", [entry("a.png", box()), entry("b.png")])
    for path in (tmp_path, file):
        dataset = read(path, "createml")
        assert boxes(dataset) == {"a.png": [("cat", [15, 20, 25, 28])], "b.png": []}
        assert "centre x, centre y" in dataset.why


def test_splits_by_folder(tmp_path: Path) -> None:
    for split, name in (("train", "a.png"), ("valid", "b.png"), ("test", "c.png")):
        pictures(tmp_path / split, name)
        put(tmp_path / split / "_annotations.createml.json", [entry(name, box(split))])
    dataset = read(tmp_path, "createml")
    assert {split: [s.boxes.labels for s in samples] for split, samples in dataset.splits.items()} == {
        "train": [("train",)],
        "valid": [("valid",)],
        "test": [("test",)],
    }
    assert list(read(tmp_path / "valid" / "_annotations.createml.json", "createml").splits) == ["valid"]


def test_the_keys_of_older_files(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    put(tmp_path / "annotations.json", [{"imagefilename": "a.png", "annotation": [box()]}])
    assert raw_rows(tmp_path, "createml") == [("a.png", "cat", [15, 20, 25, 28])]


def test_shares_where_all_numbers_lie_within_one(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    put(tmp_path / "a.json", [entry("a.png", box("cat", 0.5, 0.5, 0.25, 0.5))])
    dataset = read(tmp_path, "createml")
    assert boxes(dataset) == {"a.png": [("cat", [24, 12, 40, 36])]}
    assert "all numbers lie within 0..1" in dataset.why


def test_another_meaning_can_be_asked_for(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    put(tmp_path / "a.json", [entry("a.png", box())])
    assert boxes(read(tmp_path, "createml", boxes="xywh_px")) == {"a.png": [("cat", [20, 24, 30, 32])]}


@pytest.mark.parametrize("name", ["ä ö.png", "a#1 50%.png", "a%20b.png"])
def test_awkward_names(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, name)
    put(tmp_path / "a.json", [entry(name, box())])
    assert list(boxes(read(tmp_path, "createml"))) == [name]


def test_encoded_and_foreign_paths(tmp_path: Path) -> None:
    pictures(tmp_path, "a b.png", "c.png")
    put(tmp_path / "a.json", [entry("a%20b.png", box()), entry("file:///home/me/pictures/c.png", box())])
    assert list(boxes(read(tmp_path, "createml"))) == ["a b.png", "c.png"]


def test_without_a_label_is_left_out_and_counted(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    put(tmp_path / "a.json", [entry("a.png", box(""), box(None), box("dog"))])
    dataset = read(tmp_path, "createml")
    assert boxes(dataset) == {"a.png": [("dog", [15, 20, 25, 28])]}
    found = finding(dataset, "createml.unlabelled")
    assert found is not None and "left out: 2 (a.png annotation 0, a.png annotation 1)" in found.seen
    put(tmp_path / "a.json", [entry("a.png", box())])
    assert finding(read(tmp_path, "createml"), "createml.unlabelled") is None


def test_broken_entries_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    broken = [box(x=None), box(width="wide"), box(height=float("nan")), box(y=True), box()]
    put(tmp_path / "a.json", [entry("a.png", *broken)])
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert "cannot be read: 4 (a.png annotation 0 has no number for x, a.png annotation 1 has no" in caught.value.what
    assert "and 1 more" in caught.value.what and str(tmp_path / "a.json") in caught.value.where
    put(
        tmp_path / "a.json", [entry("a.png", box()), {"image": "", "annotations": []}, {"image": "b", "annotations": 3}]
    )
    with pytest.raises(DataError, match="entry 1 has no image name, entry 2 has annotations that are no list"):
        read_dataset(tmp_path)


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Create ML file was found, only nothing"):
        raw_of(tmp_path, "createml")
    file = put(tmp_path / "a.json", [entry("a.png", box())])
    text = file.read_text()
    file.write_text(text[:-4])
    with pytest.raises(DataError, match=r"a\.json is not JSON") as caught:
        read_dataset(file)
    assert "line 1, column" in caught.value.where
    put(file, {"image": "a.png"})
    with pytest.raises(DataError, match="is JSON, but a dict"):
        raw_of(file, "createml")
    file.write_text("")
    with pytest.raises(DataError, match="is empty"):
        raw_of(file, "createml")


def test_the_sniffer_is_quiet_elsewhere(tmp_path: Path) -> None:
    for number, content in enumerate(
        (
            {"images": [], "annotations": [], "categories": []},
            [{"image": "a.png", "conversations": []}],
            [{"image": "a.png", "annotations": [{"label": "cat", "bbox": [1, 2, 3, 4]}]}],
            [{"id": 1, "image": "a.png", "annotations": []}],
            [1, 2],
            "[",
        )
    ):
        assert sniff_createml(put(tmp_path / f"{number}.json", content)) is None
    assert sniff_createml(tmp_path) is None
