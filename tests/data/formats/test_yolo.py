"""YOLO label files and class names; a data.yaml in all its forms is in test_yolo_yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.data.formats.yolo_plan import label_places
from boxtune.errors import DataError

from ..cases import find
from .made_sets import ROW, XYXY, boxes_of, checks_of, counts_of, image, labelled, seen_of, write


def write_set(folder: Path, rows: str, names: str = "cat\ndog\n", **more: str) -> Path:
    """images/a.png with labels/a.txt, b.png with one sound box, and classes.txt."""
    labelled(folder, {"a.png": rows, "b.png": ROW, **more})
    write(folder / "classes.txt", names)
    return folder


@pytest.mark.parametrize(
    ("row", "xyxy", "check"),
    [
        (ROW, XYXY, None),
        ("0.0 5e-1 .5 0.25 0.5", XYXY, None),
        ("\t0   0.5 0.5  0.25 0.5 \r", XYXY, None),
        ("0 0.5 0.5 0.25 0.5 0.97", XYXY, "yolo.confidence"),
        ("0 0.5 0.25 0.625 0.5 0.375 0.75", XYXY, "yolo.hull"),
        ("0 0.5 0.25 0.625 0.5 0.5 0.75 0.375 0.5", XYXY, "yolo.hull"),
    ],
)
def test_rows(tmp_path: Path, row: str, xyxy: list[float], check: str | None) -> None:
    """Boxes, predictions with their confidence, a polygon, and an oriented box."""
    dataset = read_dataset(write_set(tmp_path, f"\n{row}\n\n"))
    assert dataset.format == "yolo"
    assert boxes_of(dataset)["images/a.png"] == [("cat", xyxy)]
    assert set(checks_of(dataset)) == ({check} if check else set())
    if check:
        assert ": 1 (labels/a.txt line 2)" in seen_of(dataset, check)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0 0.5 0.5 0.25", "labels/a.txt line 1: 4 numbers, where a box has 5"),
        ("cat 0.5 0.5 0.25 0.5", "line 1: 'cat' is no number"),
        ("0 0.5 nan 0.25 0.5", "line 1: nan is no place"),
        ("0.5 0.5 0.5 0.25 0.5", "line 1: 0.5 is no class"),
        ("-1 0.5 0.5 0.25 0.5", "line 1: -1 is no class"),
        ("2 0.5 0.5 0.25 0.5", "line 1: class 2, where the names have 0 to 1"),
        ("0 0.5 0.25 0.625 0.5 0.375 0.75 0.9", "line 1: 8 numbers, which are neither box nor points"),
    ],
)
def test_broken_rows(tmp_path: Path, row: str, words: str) -> None:
    write_set(tmp_path, row)
    with pytest.raises(DataError, match=r"label rows that cannot be used: 1") as caught:
        read_dataset(tmp_path)
    assert words in caught.value.what and "class cx cy width height" in caught.value.fix


def test_four_broken_rows_name_three(tmp_path: Path) -> None:
    write_set(tmp_path, f"{ROW}\n0 0\n{ROW}\n1 1\n2 2\n3 3")
    with pytest.raises(DataError, match=r"used: 4 \(labels/a.txt line 2: .* line 4: .* line 5: .* and 1 more\)"):
        read_dataset(tmp_path)


def test_text_that_is_none(tmp_path: Path) -> None:
    write_set(tmp_path, ROW)
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(DataError, match=r"labels/a.txt: no UTF-8 text"):
        read_dataset(tmp_path)


def test_pixels_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, "0 32 24 16 24\n0 30 20 10 10")
    with pytest.raises(DataError, match=r"2 of 3 label rows go beyond the image: labels/a.txt line 1") as caught:
        read_dataset(tmp_path)
    assert "divide x by the width" in caught.value.fix


def test_a_box_over_the_edge_is_cut(tmp_path: Path) -> None:
    write_set(tmp_path, "0 0.9 0.5 0.4 0.5")
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset)["images/a.png"] == [("cat", [44.8, 12.0, 64.0, 36.0])]
    assert find(dataset, "box.clipped") is not None


def test_negatives_and_leftovers(tmp_path: Path) -> None:
    write_set(tmp_path, "")
    image(tmp_path / "images" / "c.png")
    write(tmp_path / "labels" / "gone.txt", ROW)
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (3, 1)}
    assert checks_of(dataset) == {"yolo.label_missing": "warn", "yolo.label_unused": "warn"}
    assert "1 (c.png)" in seen_of(dataset, "yolo.label_missing")
    assert "1 (gone.txt)" in seen_of(dataset, "yolo.label_unused")


def test_not_one_label_file(tmp_path: Path) -> None:
    write_set(tmp_path, ROW)
    for file in (tmp_path / "labels").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"not one of 2 images has a label file, such as a.png") as caught:
        read_dataset(tmp_path, format="yolo")
    assert str(tmp_path / "labels" / "a.txt") in caught.value.where
    with pytest.raises(DataError, match=r"no data set was recognised"):
        read_dataset(tmp_path)


def test_no_names(tmp_path: Path) -> None:
    labelled(tmp_path, {"a.png": "3 0.5 0.5 0.25 0.5"})
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("3",) and checks_of(dataset) == {"yolo.no_names": "warn"}


def test_names_with_holes(tmp_path: Path) -> None:
    """The line is the id: an empty line is a class without a name."""
    write_set(tmp_path, f"{ROW}\n1 0.5 0.5 0.25 0.5\n2 0.5 0.5 0.5 0.5", names="\ufeffcat\r\n\r\nÄpfel, rot\r\n\r\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("cat", "Äpfel, rot")
    assert checks_of(dataset) == {"yolo.unlabelled": "warn"}
    assert "labels/a.txt line 2" in seen_of(dataset, "yolo.unlabelled")


def test_two_files_of_names(tmp_path: Path) -> None:
    write_set(tmp_path, ROW)
    write(tmp_path / "labels" / "classes.txt", "cat\ndog\n")
    assert read_dataset(tmp_path).classes == ("cat",)
    write(tmp_path / "labels" / "classes.txt", "dog\ncat\n")
    with pytest.raises(DataError, match=r"classes.txt give the classes different names"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("name", ["a b.png", "größe.png", "x#1=2.JPG", "50%20off.png", "v1.2.final.png", "c'est.png"])
def test_awkward_names(tmp_path: Path, name: str) -> None:
    labelled(tmp_path, {name: ROW})
    assert boxes_of(read_dataset(tmp_path)) == {f"images/{name}": [("0", XYXY)]}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        ({"images/train": "labels/train", "images/val": "labels/val"}, {"train", "valid"}),
        ({"train/images": "train/labels", "valid/images": "valid/labels", "test/images": "test/labels"}, None),
        ({"train": "train", "val": "val"}, {"train", "valid"}),
        ({"images/train2017": "labels/train2017", "images/val2017": "labels/val2017"}, {"train", "valid"}),
        ({"images/train": "images/train", "images/validation": "images/validation"}, {"train", "valid"}),
    ],
)
def test_splits_by_folders(tmp_path: Path, folders: dict[str, str], splits: set[str] | None) -> None:
    for images, labels in folders.items():
        labelled(tmp_path, {"a.png": ROW}, labels=labels, images=images)
    write(tmp_path / "classes.txt", "cat")
    dataset = read_dataset(tmp_path)
    assert set(dataset.splits) == (splits or {"train", "valid", "test"})
    assert boxes_of(dataset) == {f"{images}/a.png": [("cat", XYXY)] for images in folders}


def test_images_outside_of_the_splits(tmp_path: Path) -> None:
    labelled(tmp_path, {"train/a.png": ROW, "val/b.png": ROW, "extra/c.png": ROW})
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1), "valid": (1, 1)}
    assert "1 (images/extra/c.png)" in seen_of(dataset, "yolo.outside_splits")


def test_labelimg_folder(tmp_path: Path) -> None:
    """Labels and classes.txt beside the images; one image is not annotated yet."""
    labelled(tmp_path, {"a.jpg": ROW, "b.png": ""}, labels=".", images=".")
    image(tmp_path / "c.png")
    write(tmp_path / "classes.txt", "cat\n")
    dataset = read_dataset(tmp_path)
    assert "rows of numbers beside the images in the folder itself" in dataset.why
    assert boxes_of(dataset) == {"a.jpg": [("cat", XYXY)], "b.png": [], "c.png": []}
    assert checks_of(dataset) == {"yolo.label_missing": "warn"}


def test_roboflow_darknet(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        labelled(tmp_path / split, {"a.jpg": "1 0.5 0.5 0.25 0.5"}, labels=".", images=".")
        write(tmp_path / split / "_darknet.labels", "cat\ndog\n")
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1), "valid": (1, 1)} and dataset.classes == ("dog",)
    part = read_dataset(tmp_path / "valid")
    assert counts_of(part) == {"valid": (1, 1)} and part.classes == ("dog",)


def test_images_elsewhere(tmp_path: Path) -> None:
    """Label Studio exports labels without their images."""
    write(tmp_path / "export" / "labels" / "train" / "a.txt", ROW)
    write(tmp_path / "export" / "classes.txt", "cat\n")
    image(tmp_path / "photos" / "train" / "a.png")
    (tmp_path / "export" / "images").mkdir()
    with pytest.raises(DataError, match=r"no image was found; the folder holds classes.txt, images/, labels/"):
        read_dataset(tmp_path / "export")
    dataset = read_dataset(tmp_path / "export", images=tmp_path / "photos")
    assert counts_of(dataset) == {"train": (1, 1)} and boxes_of(dataset) == {"a.png": [("cat", XYXY)]}
    with pytest.raises(DataError, match=r"image folder .*gone is not there"):
        read_dataset(tmp_path / "export", images=tmp_path / "gone")


def test_label_places() -> None:
    assert label_places(Path("images/set/images/train/a.b.jpg"))[0] == Path("images/set/labels/train/a.b.txt")
    assert label_places(Path("set/photos/a.jpg")) == [Path("set/photos/a.txt")]


def test_sniffer_is_quiet(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.txt", "Car 0.00 0 -1.57 614.24 181.78 727.31 284.77")
    assert sniff(tmp_path) == {}
    write(tmp_path / "labels" / "a.txt", "10 20 30 40 5")  # corners in pixels and a class, as some tools write
    assert sniff(tmp_path) == {}
    image(tmp_path / "words" / "a.png")
    write(tmp_path / "words" / "a.txt", "a photo of a cat")
    assert sniff(tmp_path / "words") == {}
    labelled(tmp_path / "sound", {"a.png": ROW})
    assert list(sniff(tmp_path / "sound")) == ["yolo"]
