"""Drawn packages: the same from the same seed, boxes where the tables are, and a COCO folder that reads back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes, xywh_to_xyxy
from boxtune.errors import DataError
from boxtune.tiny import packages
from boxtune.tiny.package_art import Rect, Sheet, TableStyle
from boxtune.tiny.package_photo import hulls_of, place, warp
from boxtune.tiny.packages import LABEL, draw_package, write_packages

NUM_SEEDS = 300
SMALL = 180


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Image.Image, Boxes]]:
    return [draw_package(seed, size=SMALL) for seed in range(NUM_SEEDS)]


def test_the_same_seed_gives_the_same_picture() -> None:
    first = [draw_package(seed) for seed in (5, 6, 7)]
    again = [draw_package(seed) for seed in (7, 6, 5)][::-1]
    for (image, boxes), (image2, boxes2) in zip(first, again, strict=True):
        assert image.tobytes() == image2.tobytes()
        assert np.array_equal(boxes.xyxy_px, boxes2.xyxy_px)


def test_other_seeds_give_other_pictures(drawn: list[tuple[Image.Image, Boxes]]) -> None:
    assert len({(image.size, image.tobytes()) for image, _ in drawn}) == NUM_SEEDS


def test_boxes_lie_inside_and_are_neither_tiny_nor_huge(drawn: list[tuple[Image.Image, Boxes]]) -> None:
    seen = 0
    for image, boxes in drawn:
        assert image.mode == "RGB"
        assert all(0.8 * SMALL - 1 <= side <= 1.16 * SMALL + 1 for side in image.size)
        for (x1, y1, x2, y2), label in zip(boxes.xyxy_px, boxes.labels, strict=True):
            assert label == LABEL
            assert 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height
            shares = ((x2 - x1) / image.width, (y2 - y1) / image.height)
            assert min(shares) >= 0.08 and max(shares) <= 0.601
            seen += 1
    assert seen > 250


def test_most_pictures_have_one_table_and_some_none_or_two(drawn: list[tuple[Image.Image, Boxes]]) -> None:
    counts = np.bincount([len(boxes) for _, boxes in drawn])
    assert len(counts) == 3
    # Four standard deviations of shares of 0.25 and 0.15 among 300.
    assert abs(counts[0] / NUM_SEEDS - 0.25) < 0.1
    assert abs(counts[2] / NUM_SEEDS - 0.15) < 0.083


def _with_flat_tables(monkeypatch: pytest.MonkeyPatch, seed: int, grey: int) -> tuple[Image.Image, Boxes]:
    def paint(sheet: Sheet, rect: Rect, style: TableStyle) -> None:
        sheet.image.paste((grey, grey, grey), rect)

    monkeypatch.setattr(packages, "draw_table", paint)
    return draw_package(seed)


@pytest.mark.slow
def test_boxes_are_where_the_pixels_of_the_tables_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture with black and with white tables differs exactly inside the boxes, give or take blur."""
    seen = {0: 0, 1: 0, 2: 0}
    for seed in range(40):
        black, boxes = _with_flat_tables(monkeypatch, seed, 0)
        white, _ = _with_flat_tables(monkeypatch, seed, 255)
        change = np.asarray(white, dtype=int)[:, :, 1] - np.asarray(black, dtype=int)[:, :, 1]
        ys, xs = np.nonzero(change > change.max() * 0.4) if len(boxes) else np.nonzero(change)
        seen[len(boxes)] += 1
        if not len(boxes):
            assert len(xs) == 0
            continue
        hull = [*boxes.xyxy_px[:, :2].min(axis=0), *boxes.xyxy_px[:, 2:].max(axis=0)]
        assert np.abs(np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) - hull).max() < 2.5, seed
        covered = np.zeros(change.shape, dtype=bool)
        for x1, y1, x2, y2 in boxes.xyxy_px:
            covered[max(0, int(y1) - 3) : int(y2) + 4, max(0, int(x1) - 3) : int(x2) + 4] = True
        assert not (change > 20)[~covered].any(), seed
    assert min(seen.values()) >= 2


def test_hulls_are_tight_to_half_a_pixel_in_the_frame_of_the_warp() -> None:
    table = (150, 90, 260, 220)
    flat = Image.new("L", (400, 300), 0)
    flat.paste(255, table)
    for seed in range(20):
        matrix = place(np.random.default_rng(seed), flat.size, [table], (420, 380))
        pixels = np.asarray(warp(flat, matrix, (420, 380)))
        x1, y1, x2, y2 = hulls_of(matrix, [table])[0].clip(0, [420, 380, 420, 380])
        ys, xs = np.nonzero(pixels > 127)
        # A sharp corner covers its outermost pixel by less than half, hence the longer reach inwards.
        assert -0.6 < xs.min() - x1 < 2 and -0.6 < ys.min() - y1 < 2
        assert -0.6 < x2 - xs.max() - 1 < 2 and -0.6 < y2 - ys.max() - 1 < 2


def test_a_seed_or_size_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="size 159"):
        draw_package(0, size=159)
    with pytest.raises(ValueError):
        draw_package(-1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packages(tmp_path_factory.mktemp("packages") / "set", num_train=9, num_valid=4, seed=3)


def _annotations(folder: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / split / "_annotations.coco.json").read_text(encoding="utf-8"))
    return content


def test_the_folder_reads_back_as_it_was_drawn(written: Path) -> None:
    seen = 0
    for split, first, num in (("train", 3_000_000, 9), ("valid", 3_500_000, 4)):
        content = _annotations(written, split)
        assert content["categories"] == [{"id": 1, "name": LABEL}]
        assert len(content["images"]) == len(list((written / split).glob("*.jpg"))) == num
        assert len({row["id"] for row in content["annotations"]}) == len(content["annotations"])
        for seed, row in enumerate(content["images"], start=first):
            image, boxes = draw_package(seed)
            with Image.open(written / split / row["file_name"]) as stored:
                assert stored.size == image.size == (row["width"], row["height"])
                far = np.abs(np.asarray(stored.convert("RGB"), dtype=int) - np.asarray(image, dtype=int))
            assert far.mean() < 8
            mine = [a for a in content["annotations"] if a["image_id"] == row["id"]]
            assert all(a["category_id"] == 1 and a["iscrowd"] == 0 for a in mine)
            assert all(abs(a["area"] - a["bbox"][2] * a["bbox"][3]) < 0.01 for a in mine)
            read = xywh_to_xyxy(np.array([a["bbox"] for a in mine], dtype=float).reshape(-1, 4))
            assert read.shape == boxes.xyxy_px.shape
            assert np.abs(read - boxes.xyxy_px).max(initial=0) < 0.011
            seen += 1
    assert seen == 13


def test_the_splits_share_no_picture(written: Path) -> None:
    files = sorted(written.glob("*/*.jpg"))
    assert len(files) == 13
    assert len({path.read_bytes() for path in files}) == 13


def test_pycocotools_reads_the_folder(written: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    index = coco.COCO(str(written / "train" / "_annotations.coco.json"))
    assert len(index.getImgIds()) == 9
    assert len(index.getAnnIds()) == len(_annotations(written, "train")["annotations"]) > 0


def test_the_same_call_leaves_a_complete_folder_as_it_is(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(seed: int) -> None:
        raise AssertionError("drew again")

    monkeypatch.setattr(packages, "draw_package", never)
    assert write_packages(written, num_train=9, num_valid=4, seed=3) == written


@pytest.mark.parametrize("change", [{"num_train": 8}, {"num_valid": 5}, {"seed": 4}])
def test_other_numbers_are_refused_for_a_complete_folder(written: Path, change: dict[str, int]) -> None:
    with pytest.raises(DataError, match="other pictures"):
        write_packages(written, **{"num_train": 9, "num_valid": 4, "seed": 3, **change})


def test_a_folder_of_something_else_is_refused_and_an_empty_one_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something else"):
        write_packages(tmp_path / "mine", num_train=1, num_valid=1)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert (write_packages(tmp_path / "empty", num_train=1, num_valid=1) / "valid").is_dir()


def test_a_run_that_dies_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(seed: int) -> tuple[Image.Image, Boxes]:
        if seed == 2:
            raise KeyboardInterrupt
        return draw_package(seed, size=SMALL)

    with monkeypatch.context() as patch:
        patch.setattr(packages, "draw_package", die)
        with pytest.raises(KeyboardInterrupt):
            write_packages(tmp_path / "set", num_train=4, num_valid=1)
    assert list(tmp_path.iterdir()) == []
    assert (write_packages(tmp_path / "set", num_train=4, num_valid=1) / "train").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("numbers", [{"num_train": 0}, {"num_valid": 0}, {"num_train": 500_001}, {"seed": -1}])
def test_numbers_that_cannot_be_drawn_are_refused(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(DataError, match="cannot draw"):
        write_packages(tmp_path / "set", **numbers)
    assert list(tmp_path.iterdir()) == []


def test_drawing_needs_no_torch() -> None:
    code = "import sys, boxtune.tiny.packages as p; p.draw_package(1); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
