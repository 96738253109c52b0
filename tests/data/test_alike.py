"""Copies are found by bytes and by look, inside a split and across splits; different pictures are left in peace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from boxtune.boxes import Boxes
from boxtune.data import Sample, as_table
from boxtune.data.alike import MIN_STEPS, brightness_steps, check_alike, first_alike, label_alike
from boxtune.data.table import SampleTable
from boxtune.errors import Finding

from .cases import picture, save


def table_of(paths: list[Path]) -> SampleTable:
    no = np.zeros(0, dtype=bool)
    return as_table(
        [
            Sample(image=path, image_id=i, size_wh=(64, 48), boxes=Boxes.none(), crowd=no, ignore=no)
            for i, path in enumerate(paths)
        ]
    )


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.check: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def test_drawings_on_white_do_not_look_alike(tmp_path: Path) -> None:
    """Most of such pictures is blank, which must not make them one group; blank ones are told apart by bytes."""
    generator = np.random.default_rng(0)
    paths = []
    for i in range(60):
        image = Image.new("RGB", (128, 96), "white")
        for _ in range(3):
            x, y = (int(v) for v in generator.integers(0, 80, 2))
            corners = (x, y % 60, x + int(generator.integers(12, 40)), y % 60 + 25)
            ImageDraw.Draw(image).rectangle(corners, fill=tuple(int(v) for v in generator.integers(0, 200, 3)))
        paths.append(save(image, tmp_path / f"{i}.png"))
    paths += [save(Image.new("RGB", (128, 96), (250, 250, i)), tmp_path / f"blank{i}.png") for i in range(5)]
    labels = label_alike(np.array([brightness_steps(path) for path in paths]))
    assert len(set(labels.tolist())) >= 62


def test_chains_are_one_group_across_tiles() -> None:
    """3,000 rows, more than one tile holds: frames of five scenes in turn, and each step alone too few to tell."""
    generator = np.random.default_rng(0)
    scenes = generator.random((5, 512)) < 0.4
    rows = scenes[np.arange(3000) % 5] ^ (generator.random((3000, 512)) < 0.02)
    labels = label_alike(rows)
    assert len(set(labels.tolist())) == 5
    assert all(len(set(labels[start::5].tolist())) == 1 for start in range(5))
    chain = np.zeros((20, 512), dtype=bool)
    for i in range(20):
        chain[i, 10 * i : 10 * i + 100] = True
    assert len(set(label_alike(chain).tolist())) == 1
    assert len(set(label_alike(chain[[0, 19]]).tolist())) == 2
    blank = np.zeros((3, 512), dtype=bool)
    blank[:, : MIN_STEPS - 1] = True
    assert len(set(label_alike(blank).tolist())) == 3


def test_first_alike_is_the_first_of_the_other_side() -> None:
    generator = np.random.default_rng(0)
    scenes = generator.random((5, 512)) < 0.4
    right = np.concatenate([generator.random((2500, 512)) < 0.4, scenes[[1, 3, 1]]])
    assert first_alike(scenes, right).tolist() == [-1, 2500, -1, 2501, -1]
    assert first_alike(scenes, right[:0]).tolist() == [-1] * 5 and first_alike(scenes[:0], right).tolist() == []


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [save(picture(seed), folder / f"{seed}.png") for seed in range(30)]


def test_different_pictures_are_quiet(scenes: list[Path]) -> None:
    found = by_check(check_alike({"train": table_of(scenes[:20]), "valid": table_of(scenes[20:])}))
    assert list(found) == ["image.alike"] and found["image.alike"].level == "ok"
    assert "30 images looked at" in found["image.alike"].seen and "there are" not in found["image.alike"].seen


def test_copies_across_splits_are_named(scenes: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(scenes[4].read_bytes())
    near = save(picture(7), tmp_path / "near.jpg", quality=60)
    found = by_check(check_alike({"train": table_of(scenes[:20]), "valid": table_of([*scenes[20:], copy, near])}))
    assert set(found) == {"image.copy_in_two_splits", "image.near_in_two_splits"}
    assert found["image.copy_in_two_splits"].seen.startswith(
        "valid images with the bytes of one in train: 1 of 12 (copy.png ~ 4.png)"
    )
    assert "1 of 12 (near.jpg ~ 7.png)" in found["image.near_in_two_splits"].seen
    assert all(one.level == "warn" and one.fix for one in found.values())


def test_two_splits_without_train(scenes: list[Path], tmp_path: Path) -> None:
    near = save(picture(25), tmp_path / "near.jpg", quality=60)
    tables = {"train": table_of(scenes[:5]), "valid": table_of([near]), "test": table_of(scenes[20:])}
    assert (
        "valid images with the look of one in test: 1 of 1"
        in by_check(check_alike(tables))["image.near_in_two_splits"].seen
    )


def test_same_file_in_two_splits_is_left_to_reading(scenes: list[Path]) -> None:
    found = by_check(check_alike({"train": table_of(scenes[:5]), "valid": table_of(scenes[4:8])}))
    assert list(found) == ["image.alike"]


def test_copies_inside_a_split(scenes: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(scenes[0].read_bytes())
    near = save(picture(1), tmp_path / "near.jpg", quality=60)
    found = by_check(check_alike({"train": table_of([*scenes[:5], copy, near])}))
    assert "1 of 7 images looked at (copy.png = 0.png (train))" in found["image.copies"].seen
    assert found["image.copies"].level == "warn"
    assert "4 in 2 groups" in found["image.near_duplicates"].seen and found["image.near_duplicates"].level == "ok"


def test_a_sample_is_said_to_be_one(scenes: list[Path]) -> None:
    """Ten of thirty: the small split whole, of the large one every fourth."""
    tables = {"train": table_of(scenes[:25]), "valid": table_of([scenes[0], *scenes[26:29]])}
    seen = check_alike(tables, most=10)[0].seen
    assert "10 images looked at (29 there are)" in seen
    everything = check_alike(tables, most=29)[0].seen
    assert "29 images looked at" in everything and "there are" not in everything


def test_what_does_not_open_is_counted(scenes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    gone = [tmp_path / "text.png", tmp_path / "gone.png"]
    found = by_check(check_alike({"train": table_of([*scenes[:3], *gone]), "valid": table_of(gone[::-1])}))
    assert list(found) == ["image.alike"] and "4 of which do not open" in found["image.alike"].seen


def test_empty_splits(scenes: list[Path]) -> None:
    assert [one.level for one in check_alike({"train": table_of(scenes[:2]), "valid": table_of([])})] == ["ok"]
