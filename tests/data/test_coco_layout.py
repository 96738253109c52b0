"""Which file is which split, and where its images lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data.formats.coco_layout import require_layout, sniff_coco
from boxtune.data.places import splits_in_name
from boxtune.errors import DataError

from .cases import box_entry, image_entry, names, picture, read_coco, save, write_json, write_splits


def write_split(folder: Path, annotation: str, image: str, listed: str | None = None) -> None:
    """One annotation file and one image, as paths below `folder`; `listed` is its file_name."""
    seed = sum(image.encode())
    save(picture(seed), folder / image)
    write_json(folder / annotation, [image_entry(1, listed or Path(image).name)], [box_entry(1, 1)])


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("instances_train2017", ("train",)),
        ("val", ("valid",)),
        ("Validation", ("valid",)),
        ("my-test-v2", ("test",)),
        ("trainval", ("train", "valid")),
        ("train_test", ("train", "test")),
        ("latest", ()),
        ("contest_2", ()),
        ("instances_default", ()),
    ],
)
def test_splits_in_name(name: str, splits: tuple[str, ...]) -> None:
    assert splits_in_name(name) == splits


@pytest.mark.parametrize("words", [("train", "valid", "test"), ("Train", "val", "testing"), ("training", "validation")])
def test_split_folders(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_splits(tmp_path, dict.fromkeys(words, 2))
    dataset = read_coco(tmp_path)
    assert list(dataset.splits) == ["train", "valid", "test"][: len(words)]
    assert all(len(samples) == 2 for samples in dataset.splits.values())
    assert "_annotations.coco.json in" in dataset.why


def test_two_folders_for_one_split(tmp_path: Path) -> None:
    write_splits(tmp_path, {"train": 1, "val": 1, "valid": 1})
    with pytest.raises(DataError, match="val/ and valid/ are both a `valid` split"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("annotation", "image", "listed"),
    [
        ("annotations/instances_train2017.json", "train2017/a.png", None),
        ("annotations/instances_train2017.json", "images/train2017/a.png", None),
        ("annotations/instances_train.json", "images/train/a.png", None),
        ("annotations/train.json", "images/a.png", None),
        ("annotations/train.json", "train/a.png", None),
        ("annotations/train.json", "train/a.png", "train/a.png"),
        ("annotations/train.json", "images/train/a.png", "images/train/a.png"),
        ("annotations/train.json", "annotations/a.png", None),
        ("annotations/train.json", "images/a.png", "../images/a.png"),
        ("annotations/instances_default.json", "images/default/a.png", None),
        ("train.json", "images/a.png", None),
        ("labels.json", "data/a.png", None),
        ("truth.JSON", "a.png", None),
        ("_annotations.coco.json", "a.png", None),
    ],
)
def test_image_folders(tmp_path: Path, annotation: str, image: str, listed: str | None) -> None:
    write_split(tmp_path, annotation, image, listed)
    for path in (tmp_path, tmp_path / annotation):
        dataset = read_coco(path)
        (sample,) = dataset.splits["train"]
        assert sample.image.resolve() == (tmp_path / image).resolve() and dataset.findings == ()


def test_same_name_in_every_split(tmp_path: Path) -> None:
    """images/train/1.png and images/val/1.png are two images."""
    for split in ("train", "val"):
        write_split(tmp_path, f"annotations/instances_{split}2017.json", f"images/{split}/1.png")
    dataset = read_coco(tmp_path)
    found = {split: samples[0].image for split, samples in dataset.splits.items()}
    assert found == {"train": tmp_path / "images/train/1.png", "valid": tmp_path / "images/val/1.png"}


def test_images_elsewhere(tmp_path: Path) -> None:
    write_split(tmp_path, "truth/x.json", "pictures/a.png")
    assert names(read_coco(tmp_path / "truth", images=tmp_path / "pictures"), "train") == ["a.png"]
    with pytest.raises(DataError, match="none of the 1 images"):
        read_coco(tmp_path / "truth")
    with pytest.raises(DataError, match=r"image folder .*nowhere is not there"):
        read_coco(tmp_path / "truth", images=tmp_path / "nowhere")


def test_captions_and_keypoints_are_left_alone(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_split(tmp_path, f"annotations/instances_{split}2017.json", f"{split}2017/{split}.png")
        for other in ("captions", "person_keypoints"):
            write_json(tmp_path / "annotations" / f"{other}_{split}2017.json", [], [])
    dataset = read_coco(tmp_path)
    assert list(dataset.splits) == ["train", "valid"]
    assert "not read: 4 .json" in dataset.why or "not read: annotations/ (4 .json)" in dataset.why


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["trainval.json"], r"trainval\.json cannot be told: its name speaks of train and valid"),
        (["train_test.json"], "speaks of train and test"),
        (["train.json", "more.json"], r"more\.json cannot be told: its name speaks of none"),
        (["train_a.json", "train_b.json"], r"train_a\.json and train_b\.json are both a `train` split"),
    ],
)
def test_unclear_splits(tmp_path: Path, files: list[str], words: str) -> None:
    for file in files:
        write_split(tmp_path, f"annotations/{file}", "images/a.png")
    with pytest.raises(DataError, match=words) as caught:
        read_coco(tmp_path)
    assert caught.value.fix


def test_lone_file_takes_the_split_of_its_name_or_folder(tmp_path: Path) -> None:
    write_splits(tmp_path, {"valid": 1})
    assert list(require_layout(tmp_path / "valid").files) == ["valid"]
    assert list(require_layout(tmp_path / "valid" / "_annotations.coco.json").files) == ["valid"]
    write_split(tmp_path, "x/val.json", "x/a.png")
    write_split(tmp_path, "test/anything.json", "test/a.png")
    assert list(require_layout(tmp_path / "x").files) == ["valid"]
    assert list(require_layout(tmp_path / "test" / "anything.json").files) == ["train"]


def test_other_json_is_no_coco(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"shapes": [], "imagePath": "a.png"}')
    (tmp_path / "b.json").write_text('[{"image": "a.png"}]')
    assert sniff_coco(tmp_path) is None and sniff_coco(tmp_path / "a.json") is None
    assert sniff_coco(tmp_path / "gone") is None
    with pytest.raises(DataError, match=r"no COCO file was found, only a\.json, b\.json"):
        read_coco(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "gone")
    write_split(tmp_path, "c.json", "c.png")
    assert sniff_coco(tmp_path) == "c.json"
