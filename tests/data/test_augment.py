"""Changed images and their boxes stay together; what is not asked for does not happen; a key gives one result."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from boxtune.boxes import Boxes
from boxtune.data import augment_image
from boxtune.data.augment import LEAST_VISIBLE, SMALLEST_CROP

SIZE = (120, 80)
CORNERS = ((10.0, 12.0, 50.0, 30.0), (70.0, 40.0, 100.0, 70.0))
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def picture() -> tuple[Image.Image, Boxes]:
    """A red and a blue rectangle on grey, with their boxes."""
    image = Image.new("RGB", SIZE, (90, 90, 90))
    draw = ImageDraw.Draw(image)
    for (x1, y1, x2, y2), colour in zip(CORNERS, COLOURS.values(), strict=True):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    return image, Boxes(xyxy_px=np.array(CORNERS), labels=tuple(COLOURS))


def hull_of(image: Image.Image, label: str) -> np.ndarray:
    """The pixels that are more of this colour than of any other, as a box."""
    channel = {"red": 0, "blue": 2}[label]
    pixels = np.asarray(image).astype(int)
    ys, xs = np.nonzero(pixels[..., channel] > 60 + pixels[..., 2 - channel])
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
