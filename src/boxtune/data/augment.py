"""Training images changed anew each time they are seen, with their boxes: flipped, turned, cropped, in other light.

Done with Pillow alone: transposing is exact, and cropping moves corners by whole pixels. (torchvision's v2 transforms
would do, but cannot be had for every torch; albumentations is no longer maintained, its successor is under the AGPL.)
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from PIL import Image, ImageEnhance

from boxtune.boxes import Boxes

LEAST_VISIBLE = 0.4
"""A box is dropped when a crop leaves less than this share of its area."""
SMALLEST_CROP = 0.5
"""Least side of a crop as a share of the image's."""
CROP_SHARE, CROP_TRIES = 0.75, 8
"""How many images are cropped at all, and how often a window is drawn until it holds a box."""
LIGHT = 0.35
"""Brightness, contrast and saturation are changed by up to this share, each colour channel by a third of it."""


def augment_image(
    image: Image.Image, boxes: Boxes, changes: Collection[str], rng: np.random.Generator
) -> tuple[Image.Image, Boxes]:
    """The image and its boxes after the `changes` asked for, drawn from `rng`.

    - `flip`: left to right, every second time.
    - `turn`: by 0, 90, 180 or 270 degrees, each as often.
    - `crop`: to a window of 0.5 to 1 of the sides; boxes are clipped, and dropped where less than 0.4 of their area
      is left. An image with boxes keeps at least one.
    - `colour`: brightness, contrast, saturation, and the balance of the channels.

    Boxes are in pixels of the image given, and come back in pixels of the image returned.
    """
    if "flip" in changes and rng.random() < 0.5:
        image, boxes = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), _flip(boxes, image.width)
    if "turn" in changes:
        for _ in range(int(rng.integers(4))):
            # ROTATE_270 is a quarter turn clockwise: (x, y) -> (height - y, x).
            boxes = _turn(boxes, image.height)
            image = image.transpose(Image.Transpose.ROTATE_270)
    if "crop" in changes and rng.random() < CROP_SHARE:
        image, boxes = _crop(image, boxes, rng)
    if "colour" in changes:
        image = _light(image, rng)
    return image, boxes


def _moved(boxes: Boxes, xyxy_px: np.ndarray) -> Boxes:
    return Boxes(xyxy_px=xyxy_px, labels=boxes.labels, scores=boxes.scores)


def _flip(boxes: Boxes, width: int) -> Boxes:
    x1, y1, x2, y2 = boxes.xyxy_px.T
    return _moved(boxes, np.column_stack([width - x2, y1, width - x1, y2]))


def _turn(boxes: Boxes, height: int) -> Boxes:
    x1, y1, x2, y2 = boxes.xyxy_px.T
    return _moved(boxes, np.column_stack([height - y2, x1, height - y1, x2]))


def _crop(image: Image.Image, boxes: Boxes, rng: np.random.Generator) -> tuple[Image.Image, Boxes]:
    size = np.array(image.size)
    for _ in range(CROP_TRIES):
        share = rng.uniform(SMALLEST_CROP, 1.0) * np.exp(rng.uniform(-0.15, 0.15, 2))
        window = np.maximum(1, np.minimum(np.rint(share * size), size)).astype(int)
        corner = rng.integers(0, size - window + 1)
        clipped = np.clip(boxes.xyxy_px - np.tile(corner, 2), 0, np.tile(window, 2))
        whole, left = (np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1) for xyxy in (boxes.xyxy_px, clipped))
        kept = left >= LEAST_VISIBLE * whole
        if kept.any() or not len(boxes):
            cut = image.crop((*corner.tolist(), *(corner + window).tolist()))
            return cut, _moved(boxes, clipped).take(kept)
    return image, boxes


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(1 - LIGHT, 1 + LIGHT)))
    gains = rng.uniform(1 - LIGHT / 3, 1 + LIGHT / 3, 3)
    table = np.clip(np.rint(np.arange(256)[None] * gains[:, None]), 0, 255).astype(int)
    return image.point(table.reshape(-1).tolist())
