"""Four images in one: each fills a quarter of the canvas, so that things are small and stand in new company."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.augment_geometry import Window, show_window

MOSAIC_SHARE = 0.5
"""How many training images become part of a mosaic."""
MIDDLE = (0.3, 0.7)
"""Where the four meet, as a share of the canvas' sides."""
NUM_PARTS = 4


def draw_group(place: int, num_samples: int, changes: Collection[str], rng: np.random.Generator) -> tuple[int, ...]:
    """The places of the samples that make one training picture: `place`, and three others if it is a mosaic.

    Nothing is drawn from `rng` unless `mosaic` is asked for and there are two samples. The others are never `place`
    itself; in a small set one of them may come twice.
    """
    if "mosaic" not in changes or num_samples < 2 or rng.random() >= MOSAIC_SHARE:
        return (place,)
    others = rng.integers(0, num_samples - 1, NUM_PARTS - 1).tolist()
    return (place, *(other + (other >= place) for other in others))


def mosaic(
    parts: Sequence[tuple[Image.Image, Boxes]], size_wh: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, Boxes]:
    """One image of `size_wh` made of four, and the boxes of all of them in its pixels.

    The four meet at 0.3 to 0.7 of the sides, each in a quarter drawn for it. Of each the largest window with the shape
    of its quarter is shown, at a random place, scaled alike in both directions: no canvas stays empty. Boxes are
    clipped to the window and dropped where less than 0.4 of their area is left.

    Labels stay right as long as each part is annotated for every class that the picture is asked for, which holds
    for the images of one data set: then the boxes of the four are all there is to answer. Classes chosen because an
    image lacks them must be lacking in all four. Raises ValueError unless there are four parts.
    """
    if len(parts) != NUM_PARTS:
        raise ValueError(f"a mosaic is made of {NUM_PARTS} images, not {len(parts)}")
    size = np.array(size_wh)
    x, y = np.rint(size * rng.uniform(*MIDDLE, 2)).astype(int).tolist()
    quarters = [(0, 0, x, y), (x, 0, size_wh[0], y), (0, y, x, size_wh[1]), (x, y, size_wh[0], size_wh[1])]
    canvas = Image.new("RGB", size_wh)
    labels: list[str] = []
    corners = [np.zeros((0, 4))]
    for part, (left, top, right, bottom) in zip(rng.permutation(NUM_PARTS).tolist(), quarters, strict=True):
        image, boxes = parts[part]
        quarter_wh = (right - left, bottom - top)
        spare = rng.uniform(0, 1, 2)
        if not all(quarter_wh):
            continue  # on a canvas of a pixel or two
        shown, seen = show_window(image, boxes, _window(image.size, quarter_wh, spare), quarter_wh)
        canvas.paste(shown, (left, top))
        corners.append(seen.xyxy_px + np.array([left, top, left, top]))
        labels += seen.labels
    return canvas, Boxes(xyxy_px=np.concatenate(corners), labels=tuple(labels))


def _window(image_wh: tuple[int, int], shape_wh: tuple[int, int], spare: np.ndarray) -> Window:
    """The largest window of an image with the aspect of `shape_wh`; `spare` (0..1) says how far right and down."""
    sides = np.array(shape_wh) * min(w / s for w, s in zip(image_wh, shape_wh, strict=True))
    sides = np.minimum(sides, image_wh)
    left, top = (spare * (np.array(image_wh) - sides)).tolist()
    right, bottom = np.minimum(np.array([left, top]) + sides, image_wh).tolist()
    return (left, top, right, bottom)
