"""Training images changed anew each time they are seen, with their boxes: moved, scaled, in other light, four in one.

Done with Pillow alone, for no library fits (checked in November 2026): torchvision 0.29 (BSD) and kornia 0.9
(Apache-2.0) are maintained but need torch, which this part never imports; albumentations 2.0.8 (MIT) is archived since
2025, and its successor albumentationsx 2.5 is under the AGPL-3.0 or paid for; imgaug 0.4.0 (MIT, 2020) and augly 1.0.0
(MIT, 2022, Pillow below 9) have had no release for years. Flips and turns by Pillow are exact to the pixel, a crop
moves corners by whole pixels, and a resize maps corners as it maps pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.augment_geometry import CROP_SHARE, SCALE_SHARE, crop_image, flip_image, scale_image, turn_image
from boxtune.data.augment_light import BLUR_SHARE, JPEG_SHARE, blur_image, change_light, compress_image
from boxtune.data.mosaic import mosaic
from boxtune.data.sample import Sample
from boxtune.data.tiles import open_sample
from boxtune.errors import DataError

CHANGES = ("flip", "turn", "scale", "crop", "colour", "blur", "jpeg", "mosaic")
"""Every change that can be asked for, in the order in which they are made; `mosaic` comes before all of them."""


def training_picture(
    group: Sequence[Sample],
    changes: Collection[str],
    rng: np.random.Generator,
    *,
    on_broken: Callable[[Sample, DataError], None],
    fits: Callable[[Image.Image, Boxes], bool] = lambda image, boxes: True,
) -> tuple[Image.Image, Boxes]:
    """What training sees of a sample, and the boxes to find: opened, put into a mosaic, changed.

    `group` is the sample alone or with the three others of its mosaic, as `draw_group` drew it. A mosaic is of the
    size of the first picture. Where one of the other three cannot be opened, `on_broken` is told of
    it, and the first stands alone; so it does where `fits` says that the mosaic is too much for one answer: it may
    hold four times the boxes that were measured. Raises DataError if the first cannot be opened.
    """
    image, boxes = open_sample(group[0]), group[0].targets
    parts = [(image, boxes)]
    for other in group[1:]:
        try:
            parts.append((open_sample(other), other.targets))
        except DataError as error:
            on_broken(other, error)
            break
    else:
        if len(group) > 1:
            made = mosaic(parts, image.size, rng)
            image, boxes = made if fits(*made) else (image, boxes)
    return augment_image(image, boxes, changes, rng)


def augment_image(
    image: Image.Image, boxes: Boxes, changes: Collection[str], rng: np.random.Generator
) -> tuple[Image.Image, Boxes]:
    """The image and its boxes after the `changes` asked for, drawn from `rng`, in this order:

    - `flip`: left to right, every second time.
    - `turn`: by 0, 90, 180 or 270 degrees, each as often.
    - `scale`: three times in four, by 0.5 to 2 on a canvas of the same size: smaller on grey, or a window enlarged.
    - `crop`: three times in four, to a window of 0.5 to 1 of the sides.
    - `colour`: brightness, contrast, saturation, and the balance of the channels.
    - `blur`: every second time, by up to 2 pixels for every 1,000 of the mean side.
    - `jpeg`: every second time, compressed with a quality of 30 to 90.

    `mosaic` is made of several samples, before this (`training_picture`), and passed over here. Boxes are in pixels
    of the image given, and come back in pixels of the image returned: clipped to it, and dropped where less than 0.4
    of their area is left. An image with boxes keeps at least one. The order in which an answer lists boxes is set
    afterwards, from where they are now. Raises ValueError for a change of another name.
    """
    if unknown := set(changes) - set(CHANGES):
        raise ValueError(f"unknown changes: {sorted(unknown)}; known are {', '.join(CHANGES)}")
    if "flip" in changes and rng.random() < 0.5:
        image, boxes = flip_image(image, boxes)
    if "turn" in changes:
        for _ in range(int(rng.integers(4))):
            image, boxes = turn_image(image, boxes)
    if "scale" in changes and rng.random() < SCALE_SHARE:
        image, boxes = scale_image(image, boxes, rng)
    if "crop" in changes and rng.random() < CROP_SHARE:
        image, boxes = crop_image(image, boxes, rng)
    if "colour" in changes:
        image = change_light(image, rng)
    if "blur" in changes and rng.random() < BLUR_SHARE:
        image = blur_image(image, rng)
    if "jpeg" in changes and rng.random() < JPEG_SHARE:
        image = compress_image(image, rng)
    return image, boxes
