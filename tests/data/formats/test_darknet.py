"""Darknet: obj.data, lists of images, and labels beside the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from .made_sets import ROW, XYXY, boxes_of, checks_of, counts_of, image, labelled, seen_of, write


def write_set(folder: Path, prefix: str = "") -> Path:
    """obj.data, obj.names, train.txt and valid.txt with images in obj_train_data/, whose paths begin with `prefix`."""
    labelled(folder, {"a.jpg": ROW, "b.jpg": "", "c.jpg": ROW}, labels="obj_train_data", images="obj_train_data")
    write(folder / "train.txt", f"{prefix}obj_train_data/a.jpg\n{prefix}obj_train_data/b.jpg\n")
    write(folder / "valid.txt", f"{prefix}obj_train_data/c.jpg\r\n")
    write(folder / "obj.names", "cat\ndog\n")
    lists = f"train  = {prefix}train.txt\nvalid={prefix}valid.txt\nnames = {prefix}obj.names\nbackup = backup/\n"
    write(folder / "obj.data", f"# made\nclasses= 2\n{lists}\n")
    return folder


@pytest.mark.parametrize("prefix", ["", "data/", "./", "C:\\darknet\\data\\"])
def test_cvat_archive(tmp_path: Path, prefix: str) -> None:
    """CVAT's YOLO 1.1: paths begin with data/, which is no folder of the archive."""
    write_set(tmp_path, prefix)
    for path in (tmp_path, tmp_path / "obj.data"):
        dataset = read_dataset(path)
        assert dataset.format == "darknet" and counts_of(dataset) == {"train": (2, 1), "valid": (1, 1)}
        assert boxes_of(dataset)["obj_train_data/a.jpg"] == [("cat", XYXY)]
    assert counts_of(read_dataset(tmp_path / "valid.txt")) == {"valid": (1, 1)}


def test_yolo_mark(tmp_path: Path) -> None:
    """Paths are relative to the folder above data/, and one list is both splits."""
    labelled(tmp_path / "x64" / "data", {"a.jpg": ROW, "b c.jpg": ROW}, labels="img", images="img")
    write(tmp_path / "x64" / "data" / "train.txt", "data/img/a.jpg\ndata/img/b c.jpg\n")
    write(tmp_path / "x64" / "data" / "obj.names", "cat")
    lists = "classes= 1\ntrain = data/train.txt\nvalid = data/train.txt\nnames = data/obj.names\n"
    write(tmp_path / "x64" / "data" / "obj.data", lists)
    for path in (tmp_path / "x64", tmp_path / "x64" / "data"):
        dataset = read_dataset(path)
        assert counts_of(dataset) == {"train": (2, 2)} and dataset.classes == ("cat",)
        assert checks_of(dataset) == {"yolo.split_copied": "warn"}


def test_labels_apart(tmp_path: Path) -> None:
    """darknet puts labels/ for images/ as it reads; a list alone is enough where names lie in the folder above."""
    labelled(tmp_path, {"train/a.png": ROW})
    write(tmp_path / "voc.names", "cat\n")
    write(tmp_path / "lists" / "train.txt", "../images/train/a.png\n")
    dataset = read_dataset(tmp_path / "lists" / "train.txt")
    assert dataset.format == "darknet" and checks_of(dataset) == {} and dataset.classes == ("cat",)
    write(tmp_path / "train.txt", "images/train/a.png\n")
    assert "train.txt with paths of images" in sniff(tmp_path)["darknet"]
    assert boxes_of(read_dataset(tmp_path, format="darknet")) == {"images/train/a.png": [("cat", XYXY)]}


def test_missing_list_and_count(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train.txt").unlink()
    write(tmp_path / "obj.names", "cat\n")
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"valid": (1, 1)}
    assert checks_of(dataset) == {"darknet.list_missing": "fail", "yolo.count_differs": "warn"}
    assert "train = train.txt in obj.data is not there" in seen_of(dataset, "darknet.list_missing")
    (tmp_path / "valid.txt").unlink()
    with pytest.raises(DataError, match=r"obj\.data leads to no list"):
        read_dataset(tmp_path)


def test_broken_files(tmp_path: Path) -> None:
    write_set(tmp_path)
    write(tmp_path / "obj_train_data" / "a.txt", "7 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"obj_train_data/a\.txt line 1: class 7, where the names have 0 to 1"):
        read_dataset(tmp_path)
    write(tmp_path / "obj.data", "train = train.txt\nnonsense\n")
    with pytest.raises(DataError, match="has a line without =: 'nonsense'") as caught:
        read_dataset(tmp_path)
    assert caught.value.where.endswith("obj.data, line 2")
    write(tmp_path / "more.data", "train = train.txt\n")
    with pytest.raises(DataError, match="there are 2 data sets"):
        read_dataset(tmp_path)
    write(tmp_path / "train_valid.txt", "obj_train_data/a.jpg\n")
    with pytest.raises(DataError, match="speaks of train and valid"):
        read_dataset(tmp_path / "train_valid.txt")


def test_missing_images(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "obj_train_data" / "a.jpg").unlink()
    dataset = read_dataset(tmp_path)
    assert "obj_train_data/a.jpg" in seen_of(dataset, "image.missing")
    for file in (tmp_path / "obj_train_data").glob("*.jpg"):
        file.unlink()
    with pytest.raises(DataError, match="none of the 2 images"):
        read_dataset(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no obj\.data and no list of images"):
        read_dataset(tmp_path, format="darknet")
    assert sniff(write(tmp_path / "notes.txt", "one line\nof words.jpg no\n")) == {}
    assert sniff(write(tmp_path / "ids.txt", "000001\n000002\n")) == {}
    assert sniff(write(tmp_path / "model.data", "\x00\x01")) == {}
    image(tmp_path / "a.png")
    assert list(sniff(write(tmp_path / "list.txt", "a.png\n"))) == ["darknet"]
