"""Open Images: shares of the sides, labels by their descriptions, images by their ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.openimages import sniff_openimages
from boxtune.errors import DataError

from .tool_cases import boxes, finding, pictures, put, raw_of, raw_rows, read

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
NAMES = "/m/cat,Cat\n/m/dog,Dog\n"


def row(image: str = "a1", label: str = "/m/cat", x: str = "0.25,0.5", y: str = "0.5,0.75", group: str = "0") -> str:
    return f"{image},xclick,{label},1,{x},{y},0,0,{group},0,0"


def table(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_the_layout_of_the_project(tmp_path: Path) -> None:
    pictures(tmp_path / "images" / "train", "a1.jpg", "unboxed.jpg")
    pictures(tmp_path / "images" / "validation", "b1.png")
    pictures(tmp_path / "images" / "test", "c1.jpg")
    home = tmp_path / "annotations"
    put(home / "oidv6-train-annotations-bbox.csv", table(row(), row(label="/m/dog", group="1")))
    put(home / "validation-annotations-bbox.csv", table(row("b1")))
    put(home / "test-annotations-bbox.csv", table(row("c1", "/m/dog")))
    put(home / "class-descriptions-boxable.csv", NAMES)
    put(home / "train-annotations-human-imagelabels.csv", "ImageID,Source,LabelName,Confidence\nunboxed,v,/m/cat,1\n")
    dataset = read(tmp_path, "openimages")
    assert boxes(dataset) == {"a1.jpg": [("Cat", [16, 24, 32, 36]), ("Dog", [16, 24, 32, 36])]}
    assert boxes(dataset, "valid") == {"b1.png": [("Cat", [16, 24, 32, 36])]}
    assert list(boxes(dataset, "test")) == ["c1.jpg"] and dataset.classes == ("Cat", "Dog")
    assert dataset.splits["train"][0].crowd.tolist() == [False, True]
    found = finding(dataset, "openimages.not_boxed")
    assert found is not None and ": 1 (unboxed.jpg)" in found.seen
    assert "class-descriptions-boxable.csv" in dataset.why


def test_one_file_beside_its_images(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "a1.jpg")
    file = put(tmp_path / "train-annotations-bbox.csv", table(row()))
    put(tmp_path / "class-descriptions.csv", "LabelName,DisplayName\n" + NAMES)
    dataset = read(file, "openimages")
    assert boxes(dataset) == {"a1.jpg": [("Cat", [16, 24, 32, 36])]}
    assert finding(dataset, "openimages.not_boxed") is None and finding(dataset, "openimages.unnamed") is None


def test_a_download_of_fiftyone(tmp_path: Path) -> None:
    pictures(tmp_path / "validation" / "data", "a1.jpg")
    put(tmp_path / "validation" / "labels" / "detections.csv", table(row()))
    put(tmp_path / "validation" / "metadata" / "classes.csv", NAMES)
    assert boxes(read(tmp_path, "openimages"), "valid") == {"a1.jpg": [("Cat", [16, 24, 32, 36])]}


def test_the_first_versions_have_fewer_columns(tmp_path: Path) -> None:
    pictures(tmp_path / "train", "a1.jpg")
    put(tmp_path / "train" / "annotations-human-bbox.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\na1,/m/x,0,0.5,0,1\n")
    dataset = read(tmp_path, "openimages")
    assert boxes(dataset) == {"a1.jpg": [("/m/x", [0, 0, 32, 48])]}
    found = finding(dataset, "openimages.unnamed")
    assert found is not None and "/m/x of a1" in found.seen


def test_sizes_of_images_meta_count_only_for_missing_pictures(tmp_path: Path) -> None:
    pictures(tmp_path, "a1.jpg")
    put(tmp_path / "bbox.csv", table(row(), row("gone"), row("odd one")))
    put(tmp_path / "images.meta", '# id height width\na1 8 8\ngone 10 20\n"odd one" 30 40  # quoted\n')
    dataset = read(tmp_path, "openimages")
    assert [sample.size_wh for sample in dataset.splits["train"]] == [(64, 48), (20, 10), (40, 30)]
    put(tmp_path / "images.meta", "a1 8\n")
    with pytest.raises(DataError, match="has a row without sizes") as caught:
        read_dataset(tmp_path)
    assert caught.value.where.endswith("images.meta, line 1")


def test_without_a_label(tmp_path: Path) -> None:
    pictures(tmp_path, "a1.jpg")
    put(tmp_path / "bbox.csv", table(row(label=""), row()))
    dataset = read(tmp_path, "openimages")
    assert len(boxes(dataset)["a1.jpg"]) == 1
    found = finding(dataset, "openimages.unlabelled")
    assert found is not None and "a1 line 2" in found.seen


def test_broken_rows_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a1.jpg")
    file = put(tmp_path / "bbox.csv", table(row(x="a,0.5"), row(y="nan,1"), "a1,xclick", row(image=""), row()))
    with pytest.raises(DataError) as caught:
        read_dataset(file)
    assert "cannot be read: 4 (bbox.csv line 2 lacks a number, bbox.csv line 3 lacks a number" in caught.value.what
    assert "bbox.csv line 4 has 2 cells and 1 more" in caught.value.what
    put(file, "ImageID,LabelName\n")
    with pytest.raises(DataError, match="lacks the columns XMin, YMin, XMax, YMax"):
        raw_of(file, "openimages")
    put(tmp_path / "class-descriptions.csv", "/m/cat\n")
    put(file, table(row()))
    with pytest.raises(DataError, match="has a row of one cell"):
        read_dataset(file)


def test_nothing_there_and_quiet_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Open Images box file was found"):
        raw_of(tmp_path, "openimages")
    assert sniff_openimages(put(tmp_path / "a.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n")) is None
    assert sniff_openimages(put(tmp_path / "b.csv", "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax\n")) is None
    assert sniff_openimages(put(tmp_path / "c.txt", HEADER)) is None


def test_out_of_range_shares_stay_as_they_are(tmp_path: Path) -> None:
    pictures(tmp_path, "a1.jpg")
    put(tmp_path / "bbox.csv", table(row(x="-0.5,1.5")))
    assert raw_rows(tmp_path, "openimages") == [("a1.jpg", "/m/cat", [-0.5, 0.5, 1.5, 0.75])]
