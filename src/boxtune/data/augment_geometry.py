"""Images flipped, turned, cropped and scaled, and their boxes with them.

Every function takes boxes in pixels of the image that it is given, and returns them in pixels of the image that it
returns. A box that a window cuts is clipped to it, or dropped where too little of it is left.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from boxtune.boxes import Boxes, box_areas

Number = float | int
Window = tuple[Number, Number, Number, Number]
"""x1, y1, x2, y2 in pixels of an image."""

LEAST_VISIBLE = 0.4
"""A box is dropped where a crop, a zoom or a mosaic leaves less than this share of its area."""
SMALLEST_CROP = 0.5
"""Least side of a crop as a share of the image's."""
CROP_SHARE, CROP_TRIES = 0.75, 8
"""How many images are cropped at all, and how often a window is drawn until it holds a box."""
SCALES = (0.5, 2.0)
"""Things become this much smaller to this much larger; smaller and larger are equally likely."""
SCALE_SHARE = 0.75
"""How many images are scaled at all."""
PADDING = (114, 114, 114)
"""Grey of the canvas around an image that was made smaller, as the YOLO trainers pad."""


def is_visible(xyxy_px: Float[np.ndarray, "n 4"], window: Window, least_share: float) -> Bool[np.ndarray, " n"]:
    """Which boxes have at least `least_share` of their area inside the window, and some of it.

    A box without area is visible in no window.
    """
    inside = box_areas(_clip(xyxy_px, window))
    return (inside >= least_share * box_areas(xyxy_px)) & (inside > 0)


def to_window(boxes: Boxes, window: Window, size_wh: tuple[int, int] | None = None) -> Boxes:
    """The boxes clipped to the window, in pixels of the window brought to `size_wh` (its own size if None)."""
    corner, side = np.tile(window[:2], 2), np.subtract(window[2:], window[:2])
    inside = _clip(boxes.xyxy_px, window) - corner
    if size_wh is None:
        return replace(boxes, xyxy_px=inside)
    # Clipped again: a product may end beyond the border by its rounding.
    return replace(boxes, xyxy_px=np.clip(inside * np.tile(size_wh / side, 2), 0, np.tile(size_wh, 2)))


def _clip(xyxy_px: Float[np.ndarray, "n 4"], window: Window) -> Float[np.ndarray, "n 4"]:
    return np.clip(xyxy_px, np.tile(window[:2], 2), np.tile(window[2:], 2))


def flip_image(image: Image.Image, boxes: Boxes) -> tuple[Image.Image, Boxes]:
    """Left becomes right."""
    x1, y1, x2, y2 = boxes.xyxy_px.T
    moved = replace(boxes, xyxy_px=np.column_stack([image.width - x2, y1, image.width - x1, y2]))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), moved


def turn_image(image: Image.Image, boxes: Boxes) -> tuple[Image.Image, Boxes]:
    """A quarter turn clockwise: (x, y) -> (height - y, x)."""
    x1, y1, x2, y2 = boxes.xyxy_px.T
    moved = replace(boxes, xyxy_px=np.column_stack([image.height - y2, x1, image.height - y1, x2]))
    return image.transpose(Image.Transpose.ROTATE_270), moved


def crop_image(image: Image.Image, boxes: Boxes, rng: np.random.Generator) -> tuple[Image.Image, Boxes]:
    """A window of 0.5 to 1 of the sides, drawn until it holds a box; the image as it is if none of 8 does."""
    size = np.array(image.size)
    for _ in range(CROP_TRIES):
        share = rng.uniform(SMALLEST_CROP, 1.0) * np.exp(rng.uniform(-0.15, 0.15, 2))
        sides = np.maximum(1, np.minimum(np.rint(share * size), size)).astype(int)
        left, top = rng.integers(0, size - sides + 1).tolist()
        window = (left, top, left + int(sides[0]), top + int(sides[1]))
        kept = is_visible(boxes.xyxy_px, window, LEAST_VISIBLE)
        if kept.any() or not len(boxes):
            return image.crop(window), to_window(boxes.take(kept), window)
    return image, boxes


def scale_image(image: Image.Image, boxes: Boxes, rng: np.random.Generator) -> tuple[Image.Image, Boxes]:
    """An image of the same size in which things are half to twice as large.

    Smaller: the whole image at a random place on grey. Larger: a random window of it, drawn until it holds a box;
    the image as it is if none of 8 does. Both sides are scaled alike but for the rounding to whole pixels.
    """
    size = np.array(image.size)
    factor = float(np.exp(rng.uniform(*np.log(SCALES))))
    if factor < 1:
        small = np.maximum(1, np.rint(factor * size)).astype(int)
        left, top = rng.integers(0, size - small + 1).tolist()
        canvas = Image.new("RGB", image.size, PADDING)
        canvas.paste(image.resize(tuple(small.tolist()), Image.Resampling.BICUBIC), (left, top))
        moved = boxes.xyxy_px * np.tile(small / size, 2) + np.tile((left, top), 2)
        return canvas, replace(boxes, xyxy_px=np.minimum(moved, np.tile(size, 2)))
    sides = np.maximum(1, np.rint(size / factor)).astype(int)
    for _ in range(CROP_TRIES):
        left, top = rng.integers(0, size - sides + 1).tolist()
        window = (left, top, left + int(sides[0]), top + int(sides[1]))
        if is_visible(boxes.xyxy_px, window, LEAST_VISIBLE).any() or not len(boxes):
            return show_window(image, boxes, window, image.size)
    return image, boxes


def show_window(
    image: Image.Image, boxes: Boxes, window: Window, size_wh: tuple[int, int]
) -> tuple[Image.Image, Boxes]:
    """The window of the image, brought to `size_wh`, with the boxes of which it shows enough.

    The window may lie between pixels; it must lie inside the image.
    """
    kept = boxes.take(is_visible(boxes.xyxy_px, window, LEAST_VISIBLE))
    return image.resize(size_wh, Image.Resampling.BICUBIC, box=window), to_window(kept, window, size_wh)
