"""The 1 % rule: a few training images may be left out and are named, validation never changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from boxtune.data import Dataset, SampleTable, leave_out_broken
from boxtune.errors import DataError

from .cases import find, names, picture, read_coco, save, write_splits


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_splits(tmp_path_factory.mktemp("broken"), {"train": 200, "valid": 3})


@pytest.fixture
def dataset(source: Path) -> Dataset:
    return read_coco(source)


def with_image(dataset: Dataset, split: str, places: list[int], image: Path) -> Dataset:
    """The data set with the files of some samples replaced."""
    samples = [
        replace(sample, image=image.with_name(f"{i}-{image.name}") if not image.exists() else image)
        if i in places
        else sample
        for i, sample in enumerate(dataset.splits[split])
    ]
    return dataset.with_splits({**dataset.splits, split: samples})


@pytest.mark.parametrize("open_all", [False, True])
def test_sound_set_stays(dataset: Dataset, open_all: bool) -> None:
    after = leave_out_broken(dataset, open_all=open_all)
    assert {split: len(samples) for split, samples in after.splits.items()} == {"train": 200, "valid": 3}
    finding = find(after, "image.left_out")
    assert finding is not None and finding.level == "ok" and finding.seen.startswith("203 images")
    assert find(after, "image.exif_turned") is None


def test_one_percent_is_left_out_and_named(dataset: Dataset, tmp_path: Path) -> None:
    after = leave_out_broken(with_image(dataset, "train", [3, 150], tmp_path / "gone.png"))
    assert len(after.splits["train"]) == 198 and "3-gone.png" not in names(after, "train")
    finding = find(after, "image.left_out")
    assert finding is not None and finding.level == "warn" and finding.seen.startswith("2 of 200")
    assert "3-gone.png" in finding.seen and "150-gone.png" in finding.seen


def test_more_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    damaged = with_image(dataset, "train", [3, 4, 5], tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"3 of 200 images of the train split cannot be used \(up to 1%") as caught:
        leave_out_broken(damaged)
    assert all(f"{i}-gone.png does not exist" in caught.value.what for i in (3, 4, 5))
    assert len(leave_out_broken(damaged, max_share=0.015).splits["train"]) == 197
    with pytest.raises(DataError, match="cannot be used"):
        leave_out_broken(damaged, max_share=0.0)


def test_validation_never_changes(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 3 images of the valid split .*never changes silently"):
        leave_out_broken(with_image(dataset, "valid", [1], tmp_path / "gone.png"), max_share=0.9)


def test_truncated_image_is_found_when_opened(dataset: Dataset, tmp_path: Path) -> None:
    whole = save(picture(7), tmp_path / "whole.png").read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    damaged = with_image(dataset, "train", [9], cut)
    assert len(leave_out_broken(damaged).splits["train"]) == 200
    after = leave_out_broken(damaged, open_all=True)
    finding = find(after, "image.left_out")
    assert len(after.splits["train"]) == 199 and finding is not None and "cut.png is broken" in finding.seen


def test_wrong_sizes_are_named(dataset: Dataset, tmp_path: Path) -> None:
    other = save(picture(7, (50, 40)), tmp_path / "other.png")
    swapped = save(picture(7, (48, 64)), tmp_path / "swapped.png")
    after = leave_out_broken(with_image(with_image(dataset, "train", [1], other), "train", [2], swapped))
    finding = find(after, "image.left_out")
    assert finding is not None
    assert "other.png is 50 x 40 but declared as 64 x 48" in finding.seen
    assert "swapped.png is 48 x 64 upright but declared as 64 x 48" in finding.seen
    assert "lost its EXIF orientation" in finding.seen


def turned(path: Path, orientation: int) -> Path:
    exif = picture(0).getexif()
    exif[0x0112] = orientation
    return save(picture(7, (48, 64) if orientation >= 5 else (64, 48)), path, exif=exif)


@pytest.mark.parametrize(("orientation", "level"), [(6, "ok"), (3, "cannot_tell")])
def test_exif_turns_are_said(dataset: Dataset, tmp_path: Path, orientation: int, level: str) -> None:
    path = turned(tmp_path / "turned.png", orientation)
    finding = find(leave_out_broken(with_image(dataset, "train", [1], path)), "image.exif_turned")
    assert finding is not None and finding.level == level and finding.seen.startswith("1 images")


def test_large_splits_are_looked_at_in_equal_steps(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 200 training images 100 are looked at: an odd place is not seen, and the small split is seen whole."""
    monkeypatch.setattr("boxtune.data.broken.MOST_HEADERS", 100)
    hidden = with_image(dataset, "train", [3], tmp_path / "gone.png")
    after = leave_out_broken(hidden)
    finding = find(after, "image.left_out")
    assert len(after.splits["train"]) == 200 and finding is not None and finding.level == "ok"
    assert "of 103 images in equal steps of 203" in finding.seen and "by name when training meets it" in finding.seen
    found = leave_out_broken(with_image(dataset, "train", [4], tmp_path / "gone.png"))
    finding = find(found, "image.left_out")
    assert finding is not None and finding.seen.startswith("1 of 100 training images left out")
    assert len(found.splits["train"]) == 199
    assert len(leave_out_broken(hidden, open_all=True).splits["train"]) == 199


def test_moved_boxes_ask_for_every_header(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image of the sample shows the stored frame, so that those between are read and turned too."""
    monkeypatch.setattr("boxtune.data.broken.MOST_HEADERS", 100)
    exif = picture(0).getexif()
    exif[0x0112] = 6
    stored = save(picture(7), tmp_path / "stored.png", exif=exif)  # stores the declared 64 x 48
    after = leave_out_broken(with_image(dataset, "train", [3, 4], stored))
    assert [after.splits["train"][i].size_wh for i in (2, 3, 4, 5)] == [(64, 48), (48, 64), (48, 64), (64, 48)]
    turned = find(after, "image.exif_turned")
    assert turned is not None and turned.seen.startswith("2 images")


def test_kept_samples_stay_a_table(dataset: Dataset, tmp_path: Path) -> None:
    assert leave_out_broken(dataset).splits["train"] is dataset.splits["train"]
    gone = Path(dataset.splits["train"][3].image)
    table = dataset.splits["train"]
    assert isinstance(table, SampleTable)
    files = [str(tmp_path / "gone.png") if i == 3 else file for i, file in enumerate(table.files)]
    after = leave_out_broken(dataset.with_splits({"train": replace(table, files=files)})).splits["train"]
    assert isinstance(after, SampleTable) and len(after) == 199 and str(gone) not in after.files
