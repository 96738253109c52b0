"""Changed images and their boxes stay together; what is not asked for does not happen; a key gives one result."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageDraw

from boxtune.boxes import Boxes
from boxtune.data import augment_image
from boxtune.data.augment import CHANGES
from boxtune.data.augment_geometry import LEAST_VISIBLE, PADDING, SMALLEST_CROP
from boxtune.settings import Change

SIZE = (120, 80)
CORNERS = ((10.0, 12.0, 50.0, 30.0), (70.0, 40.0, 100.0, 70.0))
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
GOLDEN = [
    ((67, 46), ("blue",), [[6.0, 0.0, 36.0, 23.0]]),
    ((74, 114), ("red", "blue"), [[6.0, 69.0, 24.0, 109.0], [34.0, 19.0, 64.0, 49.0]]),
    (SIZE, ("red", "blue"), [[70.0, 12.0, 110.0, 30.0], [20.0, 40.0, 50.0, 70.0]]),
]
"""Size, labels and boxes of the picture below for keys 0 to 2, as they were before there were other changes."""


def picture() -> tuple[Image.Image, Boxes]:
    """A red and a blue rectangle on grey, with their boxes."""
    image = Image.new("RGB", SIZE, (90, 90, 90))
    draw = ImageDraw.Draw(image)
    for (x1, y1, x2, y2), colour in zip(CORNERS, COLOURS.values(), strict=True):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    return image, Boxes(xyxy_px=np.array(CORNERS), labels=tuple(COLOURS))


def hull_of(image: Image.Image, label: str, least: int = 60) -> np.ndarray:
    """The pixels that are more of this colour than of any other, by `least`, as a box."""
    channel = {"red": 0, "blue": 2}[label]
    pixels = np.asarray(image).astype(int)
    ys, xs = np.nonzero(pixels[..., channel] > least + pixels[..., 2 - channel])
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=float)


@pytest.mark.parametrize("changes", [("flip",), ("turn",), ("crop",), ("colour",), ("flip", "turn", "crop", "colour")])
def test_boxes_go_with_their_things(changes: tuple[str, ...]) -> None:
    seen, changed = 0, 0
    for key in range(60):
        image, boxes = augment_image(*picture(), changes, np.random.default_rng(key))
        assert image.mode == "RGB" and len(boxes)
        assert (boxes.xyxy_px >= 0).all() and (boxes.xyxy_px <= np.tile(image.size, 2)).all()
        for box, label in zip(boxes.xyxy_px, boxes.labels, strict=True):
            assert np.array_equal(box, hull_of(image, label))
            seen += 1
        changed += image.tobytes() != picture()[0].tobytes()
    assert seen > 70 and changed > 20


def test_nothing_asked_is_nothing_done() -> None:
    image, boxes = augment_image(*picture(), (), np.random.default_rng(0))
    assert image.tobytes() == picture()[0].tobytes() and np.array_equal(boxes.xyxy_px, np.array(CORNERS))


def test_turns_are_quarter_turns_each_as_often() -> None:
    sizes = [augment_image(*picture(), ("turn",), np.random.default_rng(key))[0].size for key in range(200)]
    assert 70 < sum(size == SIZE[::-1] for size in sizes) < 130 and set(sizes) == {SIZE, SIZE[::-1]}


def test_a_crop_keeps_a_box_and_drops_those_it_hides() -> None:
    dropped = 0
    for key in range(200):
        image, boxes = augment_image(*picture(), ("crop",), np.random.default_rng(key))
        assert min(image.width / SIZE[0], image.height / SIZE[1]) > SMALLEST_CROP * 0.8
        dropped += 2 - len(boxes)
        for box, label in zip(boxes.xyxy_px, boxes.labels, strict=True):
            x1, y1, x2, y2 = CORNERS[list(COLOURS).index(label)]
            left = (box[2] - box[0]) * (box[3] - box[1])
            assert left >= LEAST_VISIBLE * (x2 - x1) * (y2 - y1)
    assert 5 < dropped < 150


def test_an_image_without_boxes_stays_without() -> None:
    image, _ = picture()
    for key in range(20):
        _, boxes = augment_image(image, Boxes.none(), ("flip", "turn", "crop"), np.random.default_rng(key))
        assert len(boxes) == 0


def test_one_key_gives_one_result() -> None:
    everything = ("flip", "turn", "crop", "colour")
    one, other, third = (augment_image(*picture(), everything, np.random.default_rng(key)) for key in (4, 4, 5))
    assert one[0].tobytes() == other[0].tobytes() and np.array_equal(one[1].xyxy_px, other[1].xyxy_px)
    assert one[0].tobytes() != third[0].tobytes()


def test_scaled_things_stay_within_a_pixel_of_their_boxes() -> None:
    seen, factors, dropped = 0, [], 0
    for key in range(120):
        image, boxes = augment_image(*picture(), ("scale",), np.random.default_rng(key))
        assert image.mode == "RGB" and image.size == SIZE and len(boxes)
        dropped += 2 - len(boxes)
        for box, label in zip(boxes.xyxy_px, boxes.labels, strict=True):
            # Half the colour of the thing is where its edge lies, since a resize mixes both sides alike.
            assert np.abs(box - hull_of(image, label, least=127)).max() <= 1
            seen += 1
            if label == "red" and (box[:2] > 0).all() and (box[2:] < SIZE).all():
                factors.append((box[2] - box[0]) / 40)
                assert (box[3] - box[1]) / 18 == pytest.approx(factors[-1], rel=0.05)
    assert seen > 150 and dropped > 10
    assert 0.49 < min(factors) < 0.6 and 1.7 < max(factors) < 2.01 and 15 < factors.count(1.0) < 60


def test_a_smaller_picture_stands_on_grey() -> None:
    plain = Image.new("RGB", SIZE, (255, 0, 255))
    whole = Boxes(xyxy_px=np.array([[0.0, 0.0, *SIZE]]), labels=("all",))
    num_padded = 0
    for key in range(40):
        image, boxes = augment_image(plain, whole, ("scale",), np.random.default_rng(key))
        pixels = np.asarray(image)
        inside = (pixels == (255, 0, 255)).all(axis=2)
        ys, xs = np.nonzero(inside)
        assert boxes.xyxy_px.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
        assert (pixels[~inside] == PADDING).all()
        num_padded += not inside.all()
    assert 8 < num_padded < 32


@pytest.mark.parametrize("change", ["colour", "blur", "jpeg"])
def test_light_leaves_things_in_place(change: str) -> None:
    large = picture()[0].resize((1200, 800), Image.Resampling.NEAREST)
    boxes = Boxes(xyxy_px=np.array(CORNERS) * 10, labels=tuple(COLOURS))
    changed = 0
    for key in range(20):
        image, moved = augment_image(large, boxes, (change,), np.random.default_rng(key))
        assert image.mode == "RGB" and image.size == large.size and moved is boxes
        for box, label in zip(moved.xyxy_px, moved.labels, strict=True):
            least = 127 if change == "jpeg" else 60  # JPEG lets colour run over, other light pales it
            assert np.abs(box - hull_of(image, label, least=least)).max() <= 8  # a block of JPEG's
        changed += image.tobytes() != large.tobytes()
    assert changed == 20 if change == "colour" else 5 <= changed <= 16


def test_blur_is_relative_to_the_image() -> None:
    def softness(scale: int) -> int:
        image = picture()[0].resize((SIZE[0] * scale, SIZE[1] * scale), Image.Resampling.NEAREST)
        # Key 8 draws a strong blur. Which pixels of a row through the red thing are neither red nor grey?
        row = np.asarray(augment_image(image, Boxes.none(), ("blur",), np.random.default_rng(8))[0])[20 * scale]
        return int(((row[:, 0] > 95) & (row[:, 0] < 250)).sum())

    assert softness(20) >= 2 * softness(8) > 0


def test_a_side_longer_than_jpeg_can_hold_is_left_alone() -> None:
    long = Image.new("RGB", (65_501, 1), (9, 99, 200))
    for key in range(6):
        image, _ = augment_image(long, Boxes.none(), ("jpeg",), np.random.default_rng(key))
        assert image.tobytes() == long.tobytes()


def test_changes_of_old_names_are_drawn_as_they_were() -> None:
    """The scores beside the recipes were measured with these draws."""
    everything = ("flip", "turn", "crop", "colour")
    rows = []
    for key in (0, 1, 2):
        image, boxes = augment_image(*picture(), everything, np.random.default_rng(key))
        rows.append((image.size, boxes.labels, boxes.xyxy_px.tolist()))
    assert rows == GOLDEN


def test_unknown_change_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown changes: \\['color'\\]; known are flip"):
        augment_image(*picture(), ("flip", "color"), np.random.default_rng(0))


def test_settings_name_no_other_changes() -> None:
    assert set(get_args(Change)) == set(CHANGES)
