"""What four numbers mean: the right reading is found, impossible ones are named, open questions are asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxtune.data.reading import READINGS, Reading, choose_reading
from boxtune.errors import ConfigError, DataError

PIXELS = ("xywh_px", "xyxy_px", "cxcywh_px")


def boxes(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Random corners in pixels all over images of 640 x 480, and the images' sizes."""
    rng = np.random.default_rng(seed)
    sizes = np.tile([640, 480], (n, 1))
    first, second = rng.random((n, 2)) * 0.98, rng.random((n, 2)) * 0.98
    low, high = np.minimum(first, second), np.maximum(first, second) + 0.02
    return np.concatenate([low, high], axis=1) * np.tile(sizes, 2), sizes


def written(xyxy_px: np.ndarray, sizes: np.ndarray, reading: Reading) -> np.ndarray:
    """The boxes as that reading would have them."""
    xyxy = xyxy_px if reading.scale is None else xyxy_px / np.tile(sizes, 2) * reading.scale
    low, high = xyxy[:, :2], xyxy[:, 2:]
    orders = {
        "xyxy": [low, high],
        "yxyx": [low[:, ::-1], high[:, ::-1]],
        "xywh": [low, high - low],
        "cxcywh": [(low + high) / 2, high - low],
    }
    return np.concatenate(orders[reading.order], axis=1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(READINGS)))
def test_each_reading_gives_the_corners_back(seed: int, name: str) -> None:
    xyxy_px, sizes = boxes(seed)
    reading = READINGS[name]
    corners = reading.to_xyxy(written(xyxy_px, sizes, reading))
    if reading.scale is not None:
        corners = corners / reading.scale * np.tile(sizes, 2)
    np.testing.assert_allclose(corners, xyxy_px, atol=1e-9)


@pytest.mark.parametrize("name", PIXELS)
def test_the_right_one_of_pixel_readings_is_chosen_and_the_others_are_named(name: str) -> None:
    xyxy_px, sizes = boxes(1)
    choice = choose_reading(written(xyxy_px, sizes, READINGS[name]), sizes, PIXELS, where="here")
    assert choice.reading.name == name and f"boxes={name}" in choice.why
    assert all(other in choice.why for other in PIXELS if other != name)


def test_x_or_y_first_is_asked_where_it_cannot_be_told() -> None:
    xyxy_px, sizes = boxes(2)
    numbers = written(xyxy_px, sizes, READINGS["yxyx_unit"])
    candidates = ("xywh_px", "xyxy_px", "xyxy_unit", "yxyx_unit", "xywh_unit", "cxcywh_unit")
    with pytest.raises(DataError, match=r"2 ways: xyxy_unit .* or yxyx_unit") as caught:
        choose_reading(numbers, sizes, candidates, where="here")
    assert "boxes=yxyx_unit" in caught.value.fix
    known = choose_reading(numbers, sizes, candidates, where="here", known=("yxyx_unit", "the schema of X"))
    assert known.reading.name == "yxyx_unit" and "the schema of X" in known.why
    asked = choose_reading(numbers, sizes, candidates, where="here", asked="xyxy_unit")
    assert asked.reading.name == "xyxy_unit"


def test_y_first_in_pixels_shows_on_images_that_are_no_squares() -> None:
    xyxy_px, sizes = boxes(3)
    numbers = written(xyxy_px, sizes, READINGS["yxyx_px"])
    assert choose_reading(numbers, sizes, (*PIXELS, "yxyx_px"), where="here").reading.name == "yxyx_px"
    square = np.tile([640, 640], (len(sizes), 1))
    with pytest.raises(DataError, match=r"xyxy_px .* or yxyx_px"):
        choose_reading(numbers, square, (*PIXELS, "yxyx_px"), where="here")


def test_pixels_and_thousandths_are_told_apart_by_how_far_boxes_reach() -> None:
    xyxy_px, sizes = boxes(4)
    candidates = ("xyxy_px", "xyxy_bin1000")
    pixels = choose_reading(xyxy_px, sizes, candidates, where="here")
    assert pixels.reading.name == "xyxy_px" and "by xyxy_bin1000 no box would get beyond" in pixels.why
    thousandths = written(xyxy_px, sizes, READINGS["xyxy_bin1000"])
    assert choose_reading(thousandths, sizes, candidates, where="here").reading.name == "xyxy_bin1000"
    large = written(xyxy_px, sizes, READINGS["xyxy_bin1000"])
    assert choose_reading(large, sizes * 4, candidates, where="here").reading.name == "xyxy_bin1000"
    with pytest.raises(DataError, match="2 ways"):  # images of about 1000 pixels: both are natural
        choose_reading(large, np.tile([1010, 1020], (len(sizes), 1)), candidates, where="here")
    with pytest.raises(DataError, match="2 ways"):  # too few boxes to tell
        choose_reading(xyxy_px[:5], sizes[:5], candidates, where="here")


def test_one_in_two_hundred_may_be_wrong_but_not_more() -> None:
    xyxy_px, sizes = boxes(5, n=1000)
    xyxy_px[:4, 2] += 10_000
    assert choose_reading(xyxy_px, sizes, PIXELS, where="here").reading.name == "xyxy_px"
    xyxy_px[:20, 2] += 10_000
    with pytest.raises(DataError, match=r"no reading fits[\s\S]*xyxy_px 98.0%"):
        choose_reading(xyxy_px, sizes, PIXELS, where="here")


def test_asking_for_no_reading_is_refused() -> None:
    with pytest.raises(ConfigError, match="'xxyy' is no way"):
        choose_reading(*boxes(1), PIXELS, where="here", asked="xxyy")


def test_no_boxes_are_no_question() -> None:
    nothing = choose_reading(np.zeros((0, 4)), np.zeros((0, 2), dtype=int), PIXELS, where="here")
    assert nothing.reading.name == "xywh_px"
