"""The same few validation images at every evaluation, drawn with truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from boxtune.artifacts import slugify
from boxtune.data import Sample
from boxtune.data.ask import has_targets
from boxtune.data.tiles import open_sample
from boxtune.measure import Prediction, rank_images
from boxtune.pictures import contact_sheet, draw_boxes
from boxtune.report.gallery import CELL_PX

SIDE_PX = 720
"""Long side of a picture: each of them is kept for every evaluation, here and by every tracker."""


def choose_samples(samples: Sequence[Sample], num: int = 8) -> list[Sample]:
    """At most `num` of the samples, in their order, and the same at every call: nothing is drawn by lot.

    They are the middles of equal parts of those that have boxes to find. One has none, if the set has such: what is
    invented shows there. More without boxes are taken only where too few have some. Raises ValueError for `num` below
    1.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, not {num}")
    full = has_targets(samples)
    with_truth, without = np.flatnonzero(full), np.flatnonzero(~full)
    num = min(num, len(samples))
    num_without = max(num - len(with_truth), min(1, len(without)) if num > 1 else 0)
    places = [*_middles(with_truth, num - num_without), *_middles(without, num_without)]
    return [samples[place] for place in sorted(places)]


def _middles(places: Int[np.ndarray, " n"], num: int) -> list[int]:
    """The middles of `num` equal parts."""
    return [int(places[(2 * part + 1) * len(places) // (2 * num)]) for part in range(num)]


def write_samples(folder: Path, step: int, samples: Sequence[Sample], predictions: Sequence[Prediction]) -> list[Path]:
    """The pictures as JPEGs, `folder/step_000123/00_name.jpg`, in the order of the samples.

    The names within the step's folder are the same at every step. Beside it, `sheet_path`, lies a sheet of them all;
    it is not among those returned. The caption holds the quality of `measure.rank_images`. What an earlier evaluation
    of the same step has written is replaced. Raises ValueError for no samples, or unless there is one prediction for
    each of them, and DataError for an image that cannot be opened.
    """
    if not samples:
        raise ValueError("there are no samples to draw")
    quality = dict(rank_images(samples, predictions))
    said = {prediction.image_id: prediction.boxes for prediction in predictions}
    to = sheet_path(folder, step).with_suffix("")
    to.mkdir(parents=True, exist_ok=True)
    written, cells = [], []
    for place, sample in enumerate(samples):
        image, boxes, number = open_sample(sample), said[sample.image_id], f"{quality[sample.image_id]:.2f}"
        written.append(to / f"{place:02d}_{slugify(sample.image.stem)}.jpg")
        caption = f"{sample.image.name}  quality {number}"
        draw_boxes(image, sample.targets, boxes, caption=caption, max_side=SIDE_PX).save(written[-1], quality=90)
        # Drawn anew: letters of a picture that is made smaller cannot be read.
        cells.append(draw_boxes(image, sample.targets, boxes, caption=number, max_side=CELL_PX))
    title = f"step {step}: quality {sum(quality.values()) / len(quality):.2f} on these {len(cells)} images"
    sheet = contact_sheet(cells, columns=min(4, len(cells)), cell_px=CELL_PX, title=title)
    sheet.save(sheet_path(folder, step), quality=90)
    return written


def sheet_path(folder: Path, step: int) -> Path:
    """Where `write_samples` puts the sheet of a step, `folder/step_000123.jpg`."""
    return folder / f"step_{step:06d}.jpg"
