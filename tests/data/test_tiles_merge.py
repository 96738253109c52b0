"""What tiles found, put together again: every thing once, whole where a tile saw it whole, and never two made one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxtune.boxes import Boxes
from boxtune.data.tiles import Tile, Tiling, cut_boxes, tile_windows
from boxtune.data.tiles_merge import merge_tiles

TILING = Tiling(size=100, overlap=0.3, min_visible=0.4)
LEFT: Tile = (0, 0, 100, 100)
RIGHT: Tile = (70, 0, 170, 100)


def found(*rows: list[float], labels: tuple[str, ...] = (), scores: list[float] | None = None) -> Boxes:
    return Boxes(
        xyxy_px=np.array(rows, dtype=np.float64).reshape(-1, 4),
        labels=labels or ("a",) * len(rows),
        scores=None if scores is None else np.array(scores),
    )


def rows_of(boxes: Boxes) -> set[tuple[str, tuple[float, ...]]]:
    return {
        (label, tuple(round(value, 6) for value in row))
        for label, row in zip(boxes.labels, boxes.xyxy_px.tolist(), strict=True)
    }


def through_tiles(boxes: Boxes, size_wh: tuple[int, int], tiling: Tiling) -> Boxes:
    """What a model that errs nowhere would give."""
    return merge_tiles([(w, cut_boxes(boxes, w, tiling.min_visible)) for w in tile_windows(size_wh, tiling)])


def scattered(size_wh: tuple[int, int], key: int, most: float, labels: str) -> Boxes:
    """Boxes of up to `most` pixels a side in the cells of a grid, so that none touches another."""
    rng = np.random.default_rng(key)
    cell = most + 2
    rows = []
    for x in np.arange(0, size_wh[0] - cell, cell):
        for y in np.arange(0, size_wh[1] - cell, cell):
            if rng.random() < 0.7:
                side = rng.uniform(3, most, 2)
                corner = np.array([x, y]) + 1 + rng.uniform(0, 1, 2) * (most - side)
                rows.append([*corner, *(corner + side)])
    return found(*rows, labels=tuple(rng.choice(list(labels), len(rows)).tolist()))


@pytest.mark.slow
@given(st.integers(40, 420), st.integers(40, 420), st.integers(0, 2**32 - 1))
def test_small_things_come_back_exactly(width: int, height: int, key: int) -> None:
    boxes = scattered((width, height), key, 28.0, "ab")
    back = through_tiles(boxes, (width, height), TILING)
    assert len(back) == len(boxes) and rows_of(back) == rows_of(boxes)


@pytest.mark.slow
@given(st.integers(101, 420), st.integers(101, 420), st.integers(0, 2**32 - 1))
def test_large_things_come_back_whole_from_their_parts(width: int, height: int, key: int) -> None:
    tiling = Tiling(size=100, overlap=0.3, min_visible=0.0)  # every part is told
    boxes = scattered((width, height), key, 90.0, "a")
    assert rows_of(through_tiles(boxes, (width, height), tiling)) == rows_of(boxes)


def test_a_thing_over_the_whole_image_is_one() -> None:
    boxes = found([0, 0, 380, 310], [5, 5, 15, 20], labels=("page", "mark"))
    tiling = Tiling(size=100, overlap=0.3, min_visible=0.0)
    assert rows_of(through_tiles(boxes, (380, 310), tiling)) == rows_of(boxes)


def test_a_cut_box_gives_way_to_the_whole_one() -> None:
    # 60..95 in the image: whole on the left; on the right cut by the border at 70, with the higher score.
    merged = merge_tiles([(LEFT, found([60, 10, 95, 30], scores=[0.3])), (RIGHT, found([0, 10, 25, 30], scores=[0.9]))])
    assert merged.xyxy_px.tolist() == [[60, 10, 95, 30]] and merged.scores is not None
    assert merged.scores.tolist() == [0.3]


def test_a_cut_box_that_lies_in_the_whole_one_is_dropped_though_they_disagree() -> None:
    # The right tile took half the height only: less than half of the part in common, but all inside.
    merged = merge_tiles([(LEFT, found([60, 10, 95, 30])), (RIGHT, found([0, 12, 25, 20]))])
    assert merged.xyxy_px.tolist() == [[60, 10, 95, 30]]
    # The same box away from the border is a thing of its own.
    merged = merge_tiles([(LEFT, found([60, 10, 95, 30])), (RIGHT, found([5, 12, 25, 20]))])
    assert len(merged) == 2


def test_of_two_whole_ones_the_surer_is_kept_else_the_first() -> None:
    one, other = [75.0, 10, 95, 30], [6.0, 10, 26, 30]
    merged = merge_tiles([(LEFT, found(one, scores=[0.4])), (RIGHT, found(other, scores=[0.6]))])
    assert merged.xyxy_px.tolist() == [[76, 10, 96, 30]] and merged.scores is not None
    assert merged.scores.tolist() == [0.6]
    assert merge_tiles([(LEFT, found(one)), (RIGHT, found(other))]).xyxy_px.tolist() == [one]


def test_parts_that_are_all_cut_become_their_hull() -> None:
    merged = merge_tiles(
        [(LEFT, found([40, 10, 100, 30], scores=[0.3])), (RIGHT, found([0, 11, 60, 30], scores=[0.5]))]
    )
    assert merged.xyxy_px.tolist() == [[40, 10, 130, 30]]
    assert merged.scores is not None and merged.scores.tolist() == [0.5]


def test_the_border_of_the_image_cuts_nothing() -> None:
    # The left box touches the image's own border: it is whole, and stands for the part that the right tile saw.
    merged = merge_tiles([(LEFT, found([0, 0, 90, 100])), (RIGHT, found([0, 0, 25, 100]))])
    assert merged.xyxy_px.tolist() == [[0, 0, 90, 100]]


def test_other_labels_and_other_places_stay_apart() -> None:
    merged = merge_tiles([(LEFT, found([75, 10, 95, 30])), (RIGHT, found([5, 10, 25, 30], labels=("b",)))])
    assert merged.labels == ("a", "b")
    merged = merge_tiles([(LEFT, found([75, 10, 95, 30])), (RIGHT, found([5, 25, 25, 45]))])
    assert len(merged) == 2


def test_what_one_tile_tells_apart_is_not_merged() -> None:
    # Two things that overlap by more than half, seen by both tiles.
    pair = [[75.0, 10, 95, 30], [75.0, 14, 95, 34]]
    moved = [[x1 - 70, y1, x2 - 70, y2] for x1, y1, x2, y2 in pair]
    merged = merge_tiles([(LEFT, found(*pair)), (RIGHT, found(*moved))])
    assert merged.xyxy_px.tolist() == pair
    # And where the second tile sees one of them only, the other stays.
    assert merge_tiles([(LEFT, found(*pair)), (RIGHT, found(moved[1]))]).xyxy_px.tolist() == pair


def test_a_part_that_nobody_else_saw_is_kept() -> None:
    merged = merge_tiles([(LEFT, found([40, 10, 100, 30])), (RIGHT, Boxes.none())])
    assert merged.xyxy_px.tolist() == [[40, 10, 100, 30]]


def test_without_overlap_a_thing_stays_in_parts() -> None:
    windows: list[Tile] = [(0, 0, 100, 100), (100, 0, 200, 100)]
    boxes = found([90, 10, 110, 30])
    assert len(merge_tiles([(w, cut_boxes(boxes, w, 0.1)) for w in windows])) == 2


def test_near_the_border_counts_as_cut() -> None:
    # An answer half a pixel off the border (1 % of 100 is allowed) is a cut box all the same; two pixels off is not.
    near = merge_tiles([(LEFT, found([60, 10, 99.5, 30])), (RIGHT, found([0, 10, 60, 30]))])
    assert near.xyxy_px.tolist() == [[60, 10, 130, 30]]
    off = merge_tiles([(LEFT, found([60, 10, 98, 30])), (RIGHT, found([0, 10, 60, 30]))])
    assert off.xyxy_px.tolist() == [[60, 10, 98, 30]]


def test_nothing_and_scores() -> None:
    assert len(merge_tiles([])) == 0 and merge_tiles([(LEFT, Boxes.none())]).scores is None
    mixed = [(LEFT, found([1, 1, 5, 5], scores=[0.5])), (RIGHT, found([50, 50, 60, 60]))]
    with pytest.raises(ValueError, match="some tiles have boxes with scores"):
        merge_tiles(mixed)
    # A tile without boxes has no scores to have.
    merged = merge_tiles([mixed[0], (RIGHT, Boxes.none())])
    assert merged.scores is not None and merged.scores.tolist() == [0.5]


def test_order_is_that_of_the_tiles_and_the_result_is_the_same_each_time() -> None:
    boxes = scattered((400, 300), 7, 40.0, "ab")
    one, other = (through_tiles(boxes, (400, 300), TILING) for _ in range(2))
    assert np.array_equal(one.xyxy_px, other.xyxy_px) and one.labels == other.labels
    first = merge_tiles([(LEFT, found([10, 50, 20, 60], [10, 10, 20, 20])), (RIGHT, found([90, 5, 95, 9]))])
    assert first.xyxy_px[:, 1].tolist() == [50, 10, 5]
