"""One training image as an epoch shows it and asks about it: opened, in a mosaic, changed, with the classes asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.ask import ask_classes, sample_rng
from boxtune.data.augment import training_picture
from boxtune.data.mosaic import draw_group
from boxtune.data.sample import Sample
from boxtune.errors import DataError

if TYPE_CHECKING:
    from boxtune.settings import DataSettings


def training_image(
    samples: Sequence[Sample],
    place: int,
    classes: Sequence[str],
    data: DataSettings,
    *,
    seed: int,
    epoch: int,
    on_broken: Callable[[Sample, DataError], None],
    fits: Callable[[Image.Image, Boxes], bool] = lambda image, boxes: True,
) -> tuple[Image.Image, Boxes, tuple[str, ...] | None]:
    """The picture, the boxes to answer in its pixels, and the classes that it is asked for (None: all of them).

    Everything is drawn from (seed, epoch, image id) alone. `on_broken` is told of other images of a mosaic that cannot
    be opened, `fits` whether a mosaic is too much for one answer. Raises DataError if the image itself cannot be
    opened.
    """
    rng = sample_rng(seed, epoch, samples[place].image_id)
    group = [samples[i] for i in draw_group(place, len(samples), data.augment, rng)]
    # All boxes, not only targets: a class of which there is a crowd is not absent.
    present = {label for one in group for label in one.boxes.labels}
    asked = ask_classes(classes, present, rng, subset=data.subset, absent=data.absent)
    image, boxes = training_picture(group, data.augment, rng, on_broken=on_broken, fits=fits)
    if asked is not None:
        boxes = boxes.take([i for i, label in enumerate(boxes.labels) if label in asked])
    return image, boxes, asked
