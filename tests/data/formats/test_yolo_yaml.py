"""A data.yaml in all its forms: where its paths lead, and the names it gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from .made_sets import ROW, XYXY, boxes_of, checks_of, counts_of, image, labelled, seen_of, write

SETS = {"train": (2, 2), "valid": (1, 1)}


def write_set(folder: Path) -> Path:
    """images/train with a.png and b.png, images/val with c.png, and their labels."""
    labelled(folder, {"train/a.png": ROW, "train/b.png": ROW, "val/c.png": ROW})
    return folder


@pytest.mark.parametrize(
    "yaml",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: [cat]",
        "train: images/train/\nval: images/val\ntest:\nnames:\n  0: cat\nnc: 1",
        "train: ./images/train\nval: [images/val]\nnames:\n  '0': cat",
        "path: ''\ntrain: [images/train/a.png, images/train/b.png]\nval: images/val/c.png\nnames:\n- cat",
        "train: images/train/*.png\nval: images/v*\nnames: [cat]",
        "train: train.txt\nval: [val.txt]\nnames: [cat]",
        '{"train": "images/train", "valid": "images/val", "names": ["cat"]}',
        "names: {0: cat}\ntrain: images\\train\nvalidation: .\\images\\val",
    ],
)
def test_forms(tmp_path: Path, yaml: str) -> None:
    write_set(tmp_path)
    write(tmp_path / "train.txt", "./images/train/a.png\n\nimages/train/b.png\n")
    write(tmp_path / "val.txt", f"{tmp_path}/images/val/c.png\n")
    file = write(tmp_path / "data.yaml", yaml)
    for path in (tmp_path, file):
        dataset = read_dataset(path)
        assert dataset.format == "yolo" and counts_of(dataset) == SETS
        assert boxes_of(dataset)["images/train/a.png"] == [("cat", XYXY)]
        assert checks_of(dataset) == {}


@pytest.mark.parametrize(
    ("yaml", "moved"),
    [
        ("path: datasets/mine\ntrain: images/train\nval: images/val", False),
        ("path: ../mine\ntrain: images/train\nval: images/val", False),
        ("path: C:\\Users\\me\\mine\ntrain: images/train\nval: images/val", False),
        ("train: ../images/train\nval: ../images/val", False),
        ("train: /content/mine/images/train\nval: /content/mine/images/val", True),
        ("train: D:\\data\\images\\train\nval: D:\\data\\images\\val", True),
        ("train: ../images/train\nval: ../images/valid", True),
    ],
)
def test_paths_of_other_machines(tmp_path: Path, yaml: str, moved: bool) -> None:
    folder = write_set(tmp_path / "mine")
    write(folder / "data.yaml", f"{yaml}\nnames: [cat]\n")
    dataset = read_dataset(folder)
    assert counts_of(dataset) == SETS
    assert ("yolo.split_moved" in checks_of(dataset)) is moved


def test_roboflow(tmp_path: Path) -> None:
    """../valid/images while the folder is val/, and a test split that was not exported."""
    for split in ("train", "val"):
        labelled(tmp_path / split, {f"{split}.jpg": ROW})
    yaml = (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cat']\nroboflow:\n  x: 1"
    )
    write(tmp_path / "data.yaml", yaml)
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1), "valid": (1, 1)}
    assert checks_of(dataset) == {"yolo.split_moved": "warn", "yolo.split_missing": "warn"}
    assert "val: ../valid/images is not there" in seen_of(dataset, "yolo.split_moved")
    assert "1 (test: ../test/images)" in seen_of(dataset, "yolo.split_missing")
    assert counts_of(read_dataset(tmp_path / "val")) == {"valid": (1, 1)}
    assert read_dataset(tmp_path / "val").classes == ("cat",)


def test_list_of_cvat(tmp_path: Path) -> None:
    """CVAT writes `data/` before the paths of its lists, which is no folder of the archive."""
    write_set(tmp_path)
    write(tmp_path / "train.txt", "data/images/train/a.png\ndata/images/train/b.png\ndata/images/train/gone.png\n")
    write(tmp_path / "data.yaml", "path: .\ntrain: train.txt\nnames: {0: cat}\n")
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset)["images/train/a.png"] == [("cat", XYXY)]
    assert "2 (data/images/train/a.png is images/train/a.png" in seen_of(dataset, "yolo.moved")
    assert "data/images/train/gone.png" in seen_of(dataset, "image.missing")


def test_two_names_for_one_file(tmp_path: Path) -> None:
    """cam1/a.png is not cam2/a.png, so a lone a.png is neither."""
    labelled(tmp_path, {"a.png": ROW, "b.png": ROW})
    write(tmp_path / "train.txt", "cam1/images/a.png\ncam2/images/a.png\nimages/b.png\n")
    write(tmp_path / "data.yaml", "train: train.txt\nnames: [cat]\n")
    dataset = read_dataset(tmp_path)
    assert ": 2 (cam1/images/a.png, cam2/images/a.png)" in seen_of(dataset, "image.missing")
    assert boxes_of(dataset)["images/b.png"] == [("cat", XYXY)]


def test_images_that_lists_name_without_folders(tmp_path: Path) -> None:
    """Their labels are found as well: nothing becomes a negative because its path was short."""
    write_set(tmp_path)
    write(tmp_path / "train.txt", "a.png\nb.png\n")
    write(tmp_path / "data.yaml", "train: train.txt\nnames: [cat]\n")
    assert counts_of(read_dataset(tmp_path)) == {"train": (2, 2)}


def test_names_keep_their_spelling(tmp_path: Path) -> None:
    labelled(tmp_path, {"train/a.png": "\n".join(f"{i} 0.5 0.5 0.{i + 1} 0.5" for i in range(5))})
    write(tmp_path / "data.yaml", "train: images/train\nnames: [no, 007, 1.50, 'null', off-road vehicle]\n")
    assert read_dataset(tmp_path).classes == ("no", "007", "1.50", "null", "off-road vehicle")


def test_names_elsewhere_or_nowhere(tmp_path: Path) -> None:
    write_set(tmp_path)
    write(tmp_path / "data.yaml", "train: images/train\nnc: 1\n")
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("0",) and checks_of(dataset) == {"yolo.no_names": "warn"}
    write(tmp_path / "classes.txt", "cat\n")
    assert read_dataset(tmp_path).classes == ("cat",)


def test_counts_and_names_that_disagree(tmp_path: Path) -> None:
    write_set(tmp_path)
    write(tmp_path / "data.yaml", "train: images/train\nnc: 3\nnames: [cat, cat]\n")
    dataset = read_dataset(tmp_path)
    assert checks_of(dataset) == {"yolo.count_differs": "warn", "yolo.name_twice": "warn"}
    assert "3 classes are declared but 2 are named" in seen_of(dataset, "yolo.count_differs")


def test_keypoints(tmp_path: Path) -> None:
    labelled(tmp_path, {"train/a.png": f"{ROW} 0.5 0.5 2 0.4 0.4 1\n{ROW}"})
    file = write(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\n")
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset)["images/train/a.png"] == [("cat", XYXY), ("cat", XYXY)]
    assert checks_of(dataset) == {"yolo.keypoints": "ok"}
    write(file, "train: images/train\nnames: [cat]\nkpt_shape: [3, 3]\n")
    with pytest.raises(DataError, match=r"11 numbers, which are neither box and 9 numbers of keypoints"):
        read_dataset(tmp_path)
    write(file, "train: images/train\nnames: [cat]\nkpt_shape: 3\n")
    with pytest.raises(DataError, match=r"kpt_shape in data.yaml is '3'"):
        read_dataset(tmp_path)


def test_unlabelled_test_split(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name in ("x.png", "y.png"):
        image(tmp_path / "images" / "test" / name)
    write(tmp_path / "data.yaml", "train: images/train\nval: images/val\ntest: images/test\nnames: [cat]\n")
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == SETS and checks_of(dataset) == {"yolo.test_unlabelled": "warn"}
    assert "none of the 2 images" in seen_of(dataset, "yolo.test_unlabelled")
    write(tmp_path / "labels" / "test" / "x.txt", ROW)
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset)["test"] == (2, 1) and checks_of(dataset) == {"yolo.negative": "ok"}


def test_the_same_images_twice(tmp_path: Path) -> None:
    write_set(tmp_path)
    write(tmp_path / "data.yaml", "train: images/train\nval: images/train\nnames: [cat]\n")
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (2, 2)} and checks_of(dataset) == {"yolo.split_copied": "warn"}
    assert "valid lists the same 2 images as train" in seen_of(dataset, "yolo.split_copied")


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("train: images/train\nnames: [cat", "data.yaml is not YAML"),
        ("train: images/train\nnames: cat", "names in data.yaml are no list"),
        ("train: images/train\nnames: {one: cat}", "names in data.yaml are no list"),
        ("train: {a: b}\nnames: [cat]", "train in data.yaml is no path"),
        ("train: nowhere\nval: neither\nnames: [cat]", r"leads to no image \(train: nowhere, val: neither\)"),
        ("val: images/val\nvalid: images/val\nnames: [cat]", "gives the valid split twice, as val and valid"),
        ("train: /a/images\nval: /b/images\nnames: [cat]", "the paths of train and valid are not there, and both"),
    ],
)
def test_broken_files(tmp_path: Path, yaml: str, words: str) -> None:
    write_set(tmp_path)
    write(tmp_path / "data.yaml", yaml)
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(tmp_path)
    assert caught.value.fix and caught.value.where


def test_a_missing_train_split_fails(tmp_path: Path) -> None:
    write_set(tmp_path)
    write(tmp_path / "data.yaml", "train: gone\nval: images/val\nnames: [cat]\n")
    assert checks_of(read_dataset(tmp_path)) == {"yolo.split_missing": "fail"}


def test_several_files(tmp_path: Path) -> None:
    write_set(tmp_path)
    for name in ("a.yaml", "b.yml"):
        write(tmp_path / name, "train: images/train\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"there are 2 data sets: a.yaml, b.yml"):
        read_dataset(tmp_path)
    write(tmp_path / "data.yaml", "val: images/val\nnames: [cat]\n")
    write(tmp_path / "hyp.yaml", "lr0: 0.01\n")
    assert counts_of(read_dataset(tmp_path)) == {"valid": (1, 1)}
    assert counts_of(read_dataset(tmp_path / "a.yaml")) == {"train": (2, 2)}


def test_images_elsewhere(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "mine")
    write(folder / "data.yaml", "train: images/train\nval: images/val\nnames: [cat]\n")
    (folder / "images").rename(tmp_path / "photos")
    assert counts_of(read_dataset(folder, images=tmp_path / "photos")) == SETS


def test_other_yaml_is_quiet(tmp_path: Path) -> None:
    file = write(tmp_path / "recipe.yaml", "model: tiny\ntrain:\n  epochs: 3\n")
    assert sniff(tmp_path) == {} and sniff(file) == {}
    file = write(tmp_path / "data.yaml", "# names: x\nnames: [cat]\nval: images\n")
    assert list(sniff(tmp_path)) == list(sniff(file)) == ["yolo"]
