"""Any size, any boxes, any draw: boxes stay inside, are never inverted, keep their labels, and go with their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boxtune.boxes import Boxes, box_areas
from boxtune.data import augment_image
from boxtune.data.augment import CHANGES
from boxtune.data.augment_geometry import LEAST_VISIBLE, is_visible, show_window, to_window

GEOMETRY = ("flip", "turn", "scale", "crop")
SIZES = st.tuples(st.integers(1, 120), st.integers(1, 120))
KEYS = st.integers(0, 2**32 - 1)


@st.composite
def corners_in(draw: st.DrawFn, size_wh: tuple[int, int], *, whole: bool) -> list[list[float]]:
    """Up to six boxes inside an image, `whole` ones on pixel borders and not empty."""
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        spans = []
        for side in size_wh:
            one, other = (draw(st.integers(0, side) if whole else st.floats(0, side)) for _ in range(2))
            low, high = sorted((one, other))
            if whole and low == high:
                low, high = (low - 1, high) if low else (0, 1)
            spans.append((low, high))
        rows.append([spans[0][0], spans[1][0], spans[0][1], spans[1][1]])
    return rows


def numbered(rows: list[list[float]]) -> Boxes:
    """Boxes with the labels b0, b1, ..."""
    xyxy = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return Boxes(xyxy_px=xyxy, labels=tuple(f"b{i}" for i in range(len(rows))))


def compass(size_wh: tuple[int, int]) -> Image.Image:
    """Every pixel says where it is: its column as red, its row as green."""
    width, height = size_wh
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.dstack([columns, rows, np.zeros_like(rows)]).astype(np.uint8))


def within(places: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Which pixels of a turned or cropped compass come from inside the box of the first image."""
    columns, rows = places[..., 0].astype(int), places[..., 1].astype(int)
    return (columns >= box[0]) & (columns < box[2]) & (rows >= box[1]) & (rows < box[3])


@given(st.data(), SIZES, KEYS, st.sets(st.sampled_from(CHANGES)))
def test_boxes_are_inside_and_keep_their_labels(
    data: st.DataObject, size_wh: tuple[int, int], key: int, changes: set[str]
) -> None:
    before = numbered(data.draw(corners_in(size_wh, whole=False)))
    image, boxes = augment_image(compass(size_wh), before, changes, np.random.default_rng(key))
    assert (boxes.xyxy_px >= 0).all() and (boxes.xyxy_px <= np.tile(image.size, 2)).all()
    assert (boxes.xyxy_px[:, :2] <= boxes.xyxy_px[:, 2:]).all()
    assert list(boxes.labels) == [label for label in before.labels if label in boxes.labels]
    assert len(boxes) or not len(before)
    if not changes & {"scale", "crop"}:
        assert boxes.labels == before.labels and sorted(image.size) == sorted(size_wh)
        assert np.allclose(np.sort(box_areas(boxes.xyxy_px)), np.sort(box_areas(before.xyxy_px)))


@given(st.data(), SIZES, KEYS, st.sets(st.sampled_from(["flip", "turn", "crop"])))
def test_pixels_agree_with_boxes_one_by_one(
    data: st.DataObject, size_wh: tuple[int, int], key: int, changes: set[str]
) -> None:
    before = numbered(data.draw(corners_in(size_wh, whole=True)))
    image, boxes = augment_image(compass(size_wh), before, changes, np.random.default_rng(key))
    places = np.asarray(image)
    after = dict(zip(boxes.labels, boxes.xyxy_px.astype(int).tolist(), strict=True))
    for label, box in zip(before.labels, before.xyxy_px, strict=True):
        seen = within(places, box)
        area = (box[2] - box[0]) * (box[3] - box[1])
        # Kept if, and only if, enough of its pixels are still in the picture.
        assert (label in after) == (seen.sum() >= LEAST_VISIBLE * area and seen.any())
        if label in after:
            x1, y1, x2, y2 = after[label]
            assert seen[y1:y2, x1:x2].all() and seen.sum() == (x2 - x1) * (y2 - y1)


@given(st.data(), SIZES, KEYS)
def test_scaled_pixels_agree_with_boxes(data: st.DataObject, size_wh: tuple[int, int], key: int) -> None:
    before = numbered(data.draw(corners_in(size_wh, whole=True)))
    mask = np.zeros((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    for x1, y1, x2, y2 in before.xyxy_px[:1].astype(int).tolist():
        mask[y1:y2, x1:x2] = 255
    image, boxes = augment_image(Image.fromarray(mask), before, ("scale",), np.random.default_rng(key))
    if "b0" not in boxes.labels:
        return
    x1, y1, x2, y2 = boxes.xyxy_px[boxes.labels.index("b0")].tolist()
    # A pixel or more inside the box is of the thing, one or more outside is not (padding is grey, below half).
    white = np.asarray(image)[..., 0] > 127
    columns, rows = np.meshgrid(np.arange(image.width) + 0.5, np.arange(image.height) + 0.5)
    depth = np.minimum.reduce([columns - x1, x2 - columns, rows - y1, y2 - rows])
    edge = 1.01
    assert white[(depth > edge)].all()
    beyond = np.maximum.reduce([x1 - columns, columns - x2, y1 - rows, rows - y2])
    assert not white[beyond > edge].any()


@given(st.data(), SIZES, st.floats(0, 1))
def test_visible_share_is_exact(data: st.DataObject, size_wh: tuple[int, int], share: float) -> None:
    boxes = numbered(data.draw(corners_in(size_wh, whole=True)))
    left, right = sorted(data.draw(st.lists(st.integers(0, size_wh[0]), min_size=2, max_size=2, unique=True)))
    top, bottom = sorted(data.draw(st.lists(st.integers(0, size_wh[1]), min_size=2, max_size=2, unique=True)))
    window = np.zeros((size_wh[1], size_wh[0]), dtype=bool)
    window[top:bottom, left:right] = True
    kept = is_visible(boxes.xyxy_px, (left, top, right, bottom), share)
    for box, is_kept in zip(boxes.xyxy_px.astype(int).tolist(), kept.tolist(), strict=True):
        part = window[box[1] : box[3], box[0] : box[2]]
        assert is_kept == (part.sum() >= share * part.size and part.any())


@given(SIZES, KEYS)
def test_one_key_gives_one_result(size_wh: tuple[int, int], key: int) -> None:
    boxes = Boxes(xyxy_px=np.array([[0.0, 0.0, *size_wh]]), labels=("all",))
    one, other = (augment_image(compass(size_wh), boxes, CHANGES, np.random.default_rng(key)) for _ in range(2))
    assert one[0].tobytes() == other[0].tobytes() and np.array_equal(one[1].xyxy_px, other[1].xyxy_px)


def test_a_box_without_area_is_dropped_by_a_window_and_kept_by_a_flip() -> None:
    flat = Boxes(xyxy_px=np.array([[5.0, 5.0, 5.0, 9.0], [0.0, 0.0, 60.0, 60.0]]), labels=("flat", "all"))
    assert is_visible(flat.xyxy_px, (0, 0, 60, 60), 0.0).tolist() == [False, True]
    num_cropped = 0
    for key in range(20):
        image, boxes = augment_image(compass((60, 60)), flat, ("crop",), np.random.default_rng(key))
        assert boxes.labels == (("flat", "all") if image.size == (60, 60) else ("all",))
        num_cropped += image.size != (60, 60)
    assert num_cropped > 5
    assert augment_image(compass((60, 60)), flat, ("flip",), np.random.default_rng(3))[1].labels == flat.labels


def test_scores_go_along() -> None:
    boxes = Boxes(xyxy_px=np.array([[0.0, 0, 9, 9], [30, 30, 60, 60]]), labels=("a", "b"), scores=np.array([0.1, 0.9]))
    window = (20, 20, 60, 60)
    _, shown = show_window(compass((60, 60)), boxes, window, (80, 20))
    assert shown.labels == ("b",) and shown.scores is not None and shown.scores.tolist() == [0.9]
    assert shown.xyxy_px.tolist() == [[20.0, 5.0, 80.0, 20.0]]
    assert to_window(boxes, window).xyxy_px[1].tolist() == [10.0, 10.0, 40.0, 40.0]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_bounds_of_the_share(share: float) -> None:
    xyxy = np.array([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0]])
    assert is_visible(xyxy, (0, 0, 10, 10), share).tolist() == [True, share == 0.0, False]
