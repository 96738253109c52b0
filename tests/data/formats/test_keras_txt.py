"""Lists of images with their boxes in the same line."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from .made_sets import XYXY, boxes_of, checks_of, counts_of, image, seen_of, write

BOX = "24,12,40,36"


def roboflow(folder: Path, text: str = f"a.jpg {BOX},0 1,2,30,40,1\nb b.jpg\n", names: str = "cat\ndog\n") -> Path:
    for split in ("train", "valid"):
        for name in ("a.jpg", "b b.jpg"):
            image(folder / split / name)
        write(folder / split / "_annotations.txt", text)
        write(folder / split / "_classes.txt", names)
    return folder


def test_roboflow(tmp_path: Path) -> None:
    dataset = read_dataset(roboflow(tmp_path))
    assert dataset.format == "keras_txt" and dataset.classes == ("cat", "dog") and not checks_of(dataset)
    assert counts_of(dataset) == {"train": (2, 2), "valid": (2, 2)}
    assert boxes_of(dataset)["train/a.jpg"] == [("cat", XYXY), ("dog", [1.0, 2.0, 30.0, 40.0])]
    assert boxes_of(dataset)["valid/b b.jpg"] == []
    alone = read_dataset(tmp_path / "train" / "_annotations.txt")
    assert alone.format == "keras_txt" and counts_of(alone) == {"train": (2, 2)}


@pytest.mark.parametrize("names", ["model_data/voc_classes.txt", "classes.txt", "data/coco.names"])
def test_lists_of_keras_yolo3(tmp_path: Path, names: str) -> None:
    image(tmp_path / "images" / "a.jpg")
    image(tmp_path / "images" / "c.jpg")
    write(tmp_path / "2007_train.txt", f"/home/me/VOC/images/a.jpg {BOX},1\r\n")
    write(tmp_path / "2007_val.txt", f"images/c.jpg {BOX},0\n")
    write(tmp_path / names, "cat\ndog\n")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "keras_txt" and dataset.classes == ("cat", "dog")
    assert boxes_of(dataset) == {"images/a.jpg": [("dog", XYXY)], "images/c.jpg": [("cat", XYXY)]}


def test_without_names_numbers_are_taken(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "train.txt", f"a.jpg {BOX},3\na.jpg 1,2,30,40,0\n")
    dataset = read_dataset(tmp_path)
    assert sorted(dataset.classes) == ["0", "3"] and counts_of(dataset) == {"train": (1, 2)}
    assert checks_of(dataset) == {"keras_txt.no_names": "warn"} and "train.txt" in seen_of(
        dataset, "keras_txt.no_names"
    )


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2 is 'b\.jpg 1,2,3'"):
        read_dataset(roboflow(tmp_path / "a", f"a.jpg {BOX},0\nb.jpg 1,2,3\n"), format="keras_txt")
    with pytest.raises(DataError, match=r"line 1 has class 1, but 1 are named"):
        read_dataset(roboflow(tmp_path / "b", names="cat\n"))
    write(roboflow(tmp_path / "c") / "train" / "_annotations.txt", b"caf\xe9.jpg 1,2,3,4,0\n")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_dataset(tmp_path / "c")
    image(tmp_path / "d" / "a.jpg")
    write(tmp_path / "d" / "train.txt", f"a.jpg {BOX},0\n")
    for name in ("coco", "voc"):
        write(tmp_path / "d" / "model_data" / f"{name}_classes.txt", f"{name}\n")
    with pytest.raises(DataError, match=r"other names in each of coco_classes\.txt, voc_classes\.txt"):
        read_dataset(tmp_path / "d")
    with pytest.raises(DataError, match="no list of images with boxes was found"):
        read_dataset(tmp_path / "d" / "model_data", format="keras_txt")


def test_other_text_is_no_such_list(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    for text in ("a.jpg\n", "cat\n", "0 0.5 0.5 0.25 0.5\n", "", f"a {BOX},0\n", f"a.jpg {BOX}\n"):
        file = write(tmp_path / "train.txt", text)
        assert "keras_txt" not in sniff(tmp_path) and "keras_txt" not in sniff(file), text
