"""A validation split is set aside the same way every time, and never holds a copy of a training image."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data import (
    HELD_OUT,
    Dataset,
    Sample,
    find_by_name,
    hold_out,
    image_name,
    limit_split,
    require_validation,
    split,
    write_split,
)
from boxtune.errors import ConfigError, DataError

from .cases import find, names, picture, read_coco, save, write_splits


def dataset_of(paths: list[Path], root: Path) -> Dataset:
    nothing = np.zeros(0, dtype=bool)
    samples = [
        Sample(image=path, image_id=i, size_wh=(64, 48), boxes=Boxes.none(), crowd=nothing, ignore=nothing)
        for i, path in enumerate(paths)
    ]
    return Dataset(path=root, format="coco", why="made here", classes=(), splits={"train": samples})


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_coco(write_splits(tmp_path_factory.mktemp("forty"), {"train": 40}))


def test_tenth_is_set_aside(forty: Dataset) -> None:
    after = require_validation(forty, seed=0)
    assert list(after.splits) == ["train", "valid"]
    assert len(after.splits["valid"]) == 4 and len(after.splits["train"]) == 36
    assert sorted(names(after, "train") + names(after, "valid")) == sorted(names(forty, "train"))
    finding = find(after, "data.split")
    assert finding is not None and finding.level == "ok"
    assert "4 of 40" in finding.seen and "seed 0" in finding.seen and "near-duplicates" not in finding.seen
    assert len(require_validation(forty, seed=0, share=0.5).splits["valid"]) == 20


def test_same_draw_in_any_order_and_place(forty: Dataset, tmp_path: Path) -> None:
    first = set(names(require_validation(forty, seed=3), "valid"))
    shuffled = list(forty.splits["train"])
    random.Random(1).shuffle(shuffled)
    assert set(names(require_validation(forty.with_splits({"train": shuffled}), seed=3), "valid")) == first
    moved = read_coco(write_splits(tmp_path / "elsewhere", {"train": 40}))
    assert set(names(require_validation(moved, seed=3), "valid")) == first
    assert set(names(require_validation(forty, seed=4), "valid")) != first


def test_own_validation_stays(tmp_path: Path) -> None:
    dataset = read_coco(write_splits(tmp_path, {"train": 2, "valid": 1}))
    assert require_validation(dataset, seed=0) is dataset


def test_test_split_is_kept(tmp_path: Path) -> None:
    after = require_validation(read_coco(write_splits(tmp_path, {"train": 4, "test": 2})), seed=0)
    assert {split: len(samples) for split, samples in after.splits.items()} == {"train": 3, "valid": 1, "test": 2}


@pytest.mark.parametrize("counts", [{"valid": 2}, {"test": 2}, {"train": 1}])
def test_nothing_to_split(tmp_path: Path, counts: dict[str, int]) -> None:
    dataset = read_coco(write_splits(tmp_path, counts))
    with pytest.raises(DataError, match=r"no training images; splits: |a single training image"):
        require_validation(dataset, seed=0)


def test_two_images_give_one_each(tmp_path: Path) -> None:
    after = require_validation(read_coco(write_splits(tmp_path, {"train": 2})), seed=0)
    assert [len(samples) for samples in after.splits.values()] == [1, 1]


@pytest.mark.parametrize("seed", range(6))
def test_copies_stay_together(tmp_path: Path, seed: int) -> None:
    """Twenty scenes, each also as a JPEG, at half the size, and byte by byte."""
    paths = []
    for scene in range(20):
        image = picture(scene)
        paths.append(save(image, tmp_path / f"{scene}_a.png"))
        paths.append(save(image, tmp_path / f"{scene}_b.jpg", quality=60))
        paths.append(save(image.resize((32, 24), Image.Resampling.BOX), tmp_path / f"{scene}_c.png"))
        paths.append(save(image, tmp_path / f"{scene}_d.png"))
    after = require_validation(dataset_of(paths, tmp_path), seed=seed)
    scenes = {split: {name.split("_")[0] for name in names(after, split)} for split in after.splits}
    assert not scenes["train"] & scenes["valid"] and len(scenes["valid"]) == 2
    assert len(after.splits["valid"]) == 8
    finding = find(after, "data.split")
    assert finding is not None and "80 near-duplicates in 20 groups kept together" in finding.seen


def test_everything_alike_is_parted_with_a_warning(tmp_path: Path) -> None:
    frames = []
    for i in range(20):
        image = picture(1)
        image.putpixel((i, 0), (0, 0, 0))
        frames.append(save(image, tmp_path / f"{i}.png"))
    after = require_validation(dataset_of(frames, tmp_path), seed=0)
    finding = find(after, "data.split")
    assert len(after.splits["valid"]) == 2
    assert finding is not None and finding.level == "warn" and "look alike" in finding.seen and finding.fix


def test_same_bytes_cannot_be_parted(tmp_path: Path) -> None:
    copies = [save(picture(1), tmp_path / f"{i}.png") for i in range(5)]
    with pytest.raises(DataError, match="all have the same bytes"):
        require_validation(dataset_of(copies, tmp_path), seed=0)
    two = [*copies, *(save(picture(2), tmp_path / f"b{i}.png") for i in range(2))]
    after = require_validation(dataset_of(two, tmp_path), seed=0)
    assert sorted(names(after, "valid")) == ["b0.png", "b1.png"]


def test_images_that_do_not_open_stay_in_train(tmp_path: Path) -> None:
    paths = [save(picture(i), tmp_path / f"{i}.png") for i in range(3)]
    for i in range(7):
        (tmp_path / f"broken{i}.png").write_bytes(b"no image %d" % i)
        paths.append(tmp_path / f"broken{i}.png")
    paths.append(tmp_path / "gone.png")
    for seed in range(5):
        after = require_validation(dataset_of(paths, tmp_path), seed=seed)
        assert len(after.splits["valid"]) == 1 and names(after, "valid")[0] in ("0.png", "1.png", "2.png")
        finding = find(after, "data.split")
        assert finding is not None and "8 that do not open stay in train" in finding.seen
    with pytest.raises(DataError, match="hardly any can be opened"):
        require_validation(dataset_of(paths[3:], tmp_path), seed=0)


def test_limit_split(forty: Dataset) -> None:
    samples = forty.splits["train"]
    assert limit_split(samples, None) is samples
    assert [one.image for one in limit_split(samples, 3)] == [one.image for one in samples][:3] and len(
        limit_split(samples, 999)
    ) == 40
    with pytest.raises(ConfigError, match="limit of 0"):
        limit_split(samples, 0)


def test_write_split(tmp_path: Path) -> None:
    dataset = read_coco(write_splits(tmp_path / "photos", {"train": 2, "valid": 1}))
    write_split(dataset, tmp_path / "split.json")
    written = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert written == {"train": ["train/0.png", "train/1.png"], "valid": ["valid/0.png"]}


def test_image_name_outside_the_folder(forty: Dataset, tmp_path: Path) -> None:
    sample = replace(forty.splits["train"][0], image=tmp_path / "x" / "ä.png")
    assert image_name(forty, sample) == "ä.png"
    assert image_name(forty, forty.splits["train"][0]) == "train/0.png"


def test_very_many_images_are_drawn_without_a_look(forty: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "MOST_LOOKED_AT", 39)
    monkeypatch.setattr(split, "MOST_SET_ASIDE", 3)
    after = require_validation(forty, seed=1)
    finding = find(after, "data.split")
    assert finding is not None and finding.level == "warn" and "not compared" in finding.seen
    assert len(after.splits["valid"]) == 3 and names(after, "valid") == names(
        require_validation(forty, seed=1), "valid"
    )
    assert not set(names(after, "valid")) & set(names(after, "train")) and len(after.splits["train"]) == 37


@pytest.mark.parametrize(("asked", "held"), [(None, 0), (0, 0), (7, 7)])
def test_training_images_are_held_out_where_they_are_enough(forty: Dataset, asked: int | None, held: int) -> None:
    after = hold_out(forty, asked, seed=0)
    assert len(after.splits["train"]) == 40 - held and len(after.splits.get(HELD_OUT, ())) == held
    both = names(after, "train") + (names(after, HELD_OUT) if held else [])
    assert sorted(both) == sorted(names(forty, "train"))
    finding = find(after, "data.held_out")
    assert (finding is not None) is bool(held) and (finding is None or finding.level == "ok")


def test_a_tenth_is_held_out_of_many(monkeypatch: pytest.MonkeyPatch, forty: Dataset) -> None:
    monkeypatch.setattr(split, "LEAST_HELD_OUT", 4)
    assert len(hold_out(forty, None, seed=0).splits[HELD_OUT]) == 4
    monkeypatch.setattr(split, "MOST_HELD_OUT", 3)
    assert HELD_OUT not in hold_out(forty, None, seed=0).splits


def test_held_out_images_are_no_validation_images(tmp_path: Path) -> None:
    dataset = require_validation(read_coco(write_splits(tmp_path, {"train": 40})), seed=0)
    after = hold_out(dataset, 5, seed=0)
    assert names(after, "valid") == names(dataset, "valid")
    assert not {*names(after, HELD_OUT)} & {*names(after, "valid"), *names(after, "train")}


def test_all_cannot_be_held_out(forty: Dataset) -> None:
    with pytest.raises(DataError, match="40 of 40 training images cannot be held out"):
        hold_out(forty, 40, seed=0)


def test_where_groups_are_large_nothing_is_held_out_unasked(monkeypatch: pytest.MonkeyPatch, forty: Dataset) -> None:
    """Frames of a scene stay together, so that a tenth cannot be taken; asked for, it is as near as can be."""
    monkeypatch.setattr(split, "LEAST_HELD_OUT", 4)
    groups = [list(range(start, start + 13)) for start in (0, 13, 26)] + [[39]]
    exact = [[place] for place in range(40)]
    monkeypatch.setattr(split, "group_alike", lambda paths: (groups, exact, []))
    after = hold_out(forty, None, seed=0)
    finding = find(after, "data.held_out")
    assert HELD_OUT not in after.splits and len(after.splits["train"]) == 40
    assert finding is not None and "no training images are held out" in finding.seen
    assert HELD_OUT in hold_out(forty, 4, seed=0).splits


def test_images_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    paths = [save(picture(number), tmp_path / "images" / folder / "a.png") for number, folder in enumerate("xyz")]
    (tmp_path / "annotations").mkdir()
    dataset = dataset_of(paths, tmp_path / "annotations")
    dataset = dataset.with_splits({"train": dataset.splits["train"][:1], "valid": dataset.splits["train"][1:]})
    write_split(dataset, tmp_path / "split.json")
    listed = json.loads((tmp_path / "split.json").read_text())
    found = find_by_name(dataset, [sample for samples in dataset.splits.values() for sample in samples])
    assert [found[name].image for name in listed["valid"]] == paths[1:] and "a.png" not in found
