"""Tiles cover their image and show what they say; a tiled data set is the same geometry, made on demand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boxtune.boxes import Boxes, box_areas
from boxtune.data.ask import has_targets
from boxtune.data.sample import Dataset, Sample
from boxtune.data.tiles import TiledSamples, Tiling, cut_boxes, open_sample, open_tiles, tile_dataset, tile_windows
from boxtune.errors import ConfigError, DataError

from .cases import find, picture, save


def tiling(size: int = 100, overlap: float = 0.2, min_visible: float = 0.4) -> Tiling:
    return Tiling(size=size, overlap=overlap, min_visible=min_visible)


@pytest.mark.slow
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.integers(1, 120),
    st.floats(0, 0.95),
)
def test_tiles_cover_the_image_and_overlap(size_wh: tuple[int, int], size: int, overlap: float) -> None:
    windows = np.array(tile_windows(size_wh, tiling(size, overlap)))
    assert (windows[:, :2] >= 0).all() and (windows[:, 2:] <= size_wh).all()
    assert (windows[:, 2:] - windows[:, :2] == np.minimum(size, size_wh)).all()
    assert len(np.unique(windows, axis=0)) == len(windows)
    for low, high, side in ((0, 2, size_wh[0]), (1, 3, size_wh[1])):
        spans = np.unique(windows[:, [low, high]], axis=0)
        assert spans[0, 0] == 0 and spans[-1, 1] == side
        # Along a side each tile shares what was asked for with the next, but that a tile moves on by a pixel at least.
        shared = spans[:-1, 1] - spans[1:, 0]
        assert (shared >= min(overlap * size, size - 1) - 1e-9).all()
        assert len(windows) % len(spans) == 0


@pytest.mark.parametrize(
    ("size_wh", "expected"),
    [
        ((100, 100), [(0, 0, 100, 100)]),
        ((30, 250), [(0, 0, 30, 100), (0, 80, 30, 180), (0, 150, 30, 250)]),
        ((181, 60), [(0, 0, 100, 60), (80, 0, 180, 60), (81, 0, 181, 60)]),
        ((180, 60), [(0, 0, 100, 60), (80, 0, 180, 60)]),
        ((101, 101), [(0, 0, 100, 100), (1, 0, 101, 100), (0, 1, 100, 101), (1, 1, 101, 101)]),
    ],
)
def test_last_tile_is_moved_back(size_wh: tuple[int, int], expected: list[tuple[int, int, int, int]]) -> None:
    assert tile_windows(size_wh, tiling()) == expected


@pytest.mark.parametrize("bad", [{"size": 0}, {"overlap": 1.0}, {"overlap": -0.1}, {"min_visible": 1.5}])
def test_bad_tiling_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"data\.tile"):
        Tiling(**{"size": 64, "overlap": 0.2, "min_visible": 0.4, **bad})  # type: ignore[arg-type]


def test_cut_boxes_are_clipped_moved_and_dropped_by_share() -> None:
    boxes = Boxes(
        xyxy_px=np.array([[90.0, 90, 110, 110], [150, 150, 170, 160], [195, 100, 205, 110], [0, 0, 10, 10]]),
        labels=("quarter", "whole", "half", "outside"),
        scores=np.array([0.1, 0.2, 0.3, 0.4]),
    )
    cut = cut_boxes(boxes, (100, 100, 200, 200), 0.25)
    assert cut.labels == ("quarter", "whole", "half")
    assert cut.xyxy_px.tolist() == [[0, 0, 10, 10], [50, 50, 70, 60], [95, 0, 100, 10]]
    assert cut.scores is not None and cut.scores.tolist() == [0.1, 0.2, 0.3]
    assert cut_boxes(boxes, (100, 100, 200, 200), 0.26).labels == ("whole", "half")
    assert cut_boxes(boxes, (100, 100, 200, 200), 1.0).labels == ("whole",)


@pytest.mark.slow
@given(st.integers(200, 500), st.integers(200, 500), st.integers(0, 2**32 - 1))
def test_a_box_no_larger_than_the_overlap_is_seen_whole(width: int, height: int, key: int) -> None:
    rng = np.random.default_rng(key)
    side = rng.uniform(1, 20, 2)
    corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    boxes = Boxes(xyxy_px=np.concatenate([corner, corner + side])[None], labels=("a",))
    shown = [cut_boxes(boxes, window, 1.0) for window in tile_windows((width, height), tiling())]
    whole = [box_areas(cut.xyxy_px)[0] for cut in shown if len(cut)]
    assert whole and np.allclose(whole, box_areas(boxes.xyxy_px)[0])


def sample(
    folder: Path, number: int, size_wh: tuple[int, int], boxes: list[list[float]], ignored: tuple[int, ...] = ()
) -> Sample:
    path = save(picture(number, size_wh), folder / f"{number}.png")
    xyxy = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    ignore = np.isin(np.arange(len(xyxy)), ignored)
    return Sample(
        image=path,
        image_id=10 + number,
        size_wh=size_wh,
        boxes=Boxes(xyxy_px=xyxy, labels=("thing",) * len(xyxy)),
        crowd=np.zeros(len(xyxy), dtype=bool),
        ignore=ignore,
    )


def dataset(folder: Path) -> Dataset:
    """A wide image with a box on a tile border, one as small as a tile, one without boxes; the same for validation."""
    samples = [
        sample(folder, 0, (260, 90), [[92.0, 10, 104, 20], [210, 50, 250, 80]], ignored=(1,)),
        sample(folder, 1, (100, 70), [[5.0, 5, 20, 20]]),
        sample(folder, 2, (500, 300), []),
    ]
    splits = {"train": samples, "valid": samples}
    return Dataset(path=folder, format="made", why="here", classes=("thing",), splits=splits)


def test_tiles_of_a_data_set_show_what_they_say(tmp_path: Path) -> None:
    whole = dataset(tmp_path)
    tiled = tile_dataset(whole, tiling())
    tiles = tiled.splits["train"]
    assert isinstance(tiles, TiledSamples) and len(tiles) == 3 + 1 + 6 * 4 == len(tiled.splits["valid"])
    assert len({tile.image_id for tile in tiles}) == len(tiles)
    first, second, third, small = (tiles[i] for i in range(4))
    assert [tile.window for tile in (first, second, third, small)] == [
        (0, 0, 100, 90),
        (80, 0, 180, 90),
        (160, 0, 260, 90),
        None,
    ]
    # 8 of the 12 columns lie in the first tile, all of them in the second.
    assert first.targets.xyxy_px.tolist() == [[92, 10, 100, 20]]
    assert second.targets.xyxy_px.tolist() == [[12, 10, 24, 20]]
    assert len(third.targets) == 0 and third.boxes.xyxy_px.tolist() == [[50, 50, 90, 80]] and third.ignore.tolist()
    assert small.targets.xyxy_px.tolist() == [[5, 5, 20, 20]]
    for tile in tiles:
        image = open_sample(tile)
        assert image.size == tile.size_wh
        original = Image.open(tile.image)
        assert image.tobytes() == original.crop(tile.window or (0, 0, *original.size)).tobytes()
    assert has_targets(tiles).tolist() == [len(tile.targets) > 0 for tile in tiles]
    assert tiles[-1].window == (400, 200, 500, 300) and len(tiles[1:3]) == 2
    with pytest.raises(IndexError):
        tiles[len(tiles)]


def test_a_box_shown_too_little_is_ignored_there(tmp_path: Path) -> None:
    one = sample(tmp_path, 0, (180, 90), [[97.0, 10, 107, 20]])
    whole = Dataset(path=tmp_path, format="made", why="", classes=("thing",), splits={"train": [one]})
    left, right = tile_dataset(whole, tiling()).splits["train"]
    assert len(left.targets) == 0 and left.ignore.tolist() == [True]
    assert left.boxes.xyxy_px.tolist() == [[97, 10, 100, 20]]
    assert len(right.targets) == 1


def test_every_tile_is_there_in_every_split(tmp_path: Path) -> None:
    tiled = tile_dataset(dataset(tmp_path), tiling())
    kept = [len(tile.targets) for tile in tiled.splits["train"]]
    assert kept.count(0) == 25 and len(kept) == len(tiled.splits["valid"]) == 28
    assert [tile.image_id for tile in tiled.splits["train"]] == list(range(28))


def test_the_finding_counts(tmp_path: Path) -> None:
    one = Dataset(path=tmp_path, format="", why="", classes=(), splits={"train": dataset(tmp_path).splits["train"]})
    finding = find(tile_dataset(one, tiling()), "data.tiles")
    assert finding is not None and finding.level == "ok"
    assert finding.seen.startswith("train: 3 images in 28 tiles of 100 pixels, 3 of them with boxes;")
    assert "of 2 boxes 2 are seen whole by a tile, 0 by none; 0 have 40% of their area in no tile" in finding.seen


def test_boxes_too_large_for_any_tile_are_told_of(tmp_path: Path) -> None:
    large = sample(tmp_path, 0, (300, 300), [[0.0, 0, 300, 300], [50, 50, 120, 60]])
    whole = Dataset(path=tmp_path, format="", why="", classes=("thing",), splits={"train": [large]})
    finding = find(tile_dataset(whole, tiling()), "data.tiles")
    assert finding is not None and finding.level == "warn" and "overlap larger" in finding.fix
    assert "of 2 boxes 0 are seen whole by a tile, 2 by none; 1 have" in finding.seen


def test_what_is_cut_is_not_cut_again(tmp_path: Path) -> None:
    once = tile_dataset(dataset(tmp_path), tiling())
    with pytest.raises(ValueError, match="cut into tiles already"):
        tile_dataset(once, tiling())


def test_another_image_than_declared_is_refused(tmp_path: Path) -> None:
    tile = tile_dataset(dataset(tmp_path), tiling()).splits["train"][2]
    save(picture(0, (200, 90)), tile.image)
    with pytest.raises(DataError, match=r"the tile \(160, 0, 260, 90\) does not lie inside the image of 200 x 90"):
        open_sample(tile)
    one = dataset(tmp_path).splits["train"][1]
    save(picture(1, (70, 100)), one.image)
    with pytest.raises(DataError, match="the image is 70x100, its annotation says 100x70"):
        open_sample(one)


def test_an_image_is_decoded_once_for_its_tiles_and_let_go() -> None:
    whole = picture(3, (260, 90))
    windows = tile_windows(whole.size, tiling())
    opened = []

    def open_whole() -> Image.Image:
        opened.append(1)
        return whole.copy()

    openers = open_tiles(open_whole, windows)
    assert opened == []
    for opener, window in zip(openers, windows, strict=True):
        assert opener().tobytes() == whole.crop(window).tobytes()
    assert len(opened) == 1
    openers[0]()  # and again: it was let go
    assert len(opened) == 2
