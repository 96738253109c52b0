"""Whether boxes depend on the image at all: each answer is held against other images' truth.

The prompt is the same for every image, so that to move an answer to another image is to show another image. A model
that has learned where boxes usually lie, and does not look, is as right elsewhere as at home.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure.bootstrap import bootstrap_mean
from boxtune.measure.match import match_ious

MOST_DERANGEMENTS, MOST_SWAPS = 10, 20_000
"""How many other images each answer meets, and how many meetings there are in all: fewer of many tell as much."""


def compare_swapped(
    samples: Sequence[Sample],
    boxes: Sequence[Boxes],
    own: Float[np.ndarray, " n"],
    *,
    seed: int,
    num_resamples: int,
) -> dict[str, Any]:
    """The mean IoU of an image with answers to other images, and how much higher it is with its `own`.

    `samples` are images with truth, `boxes` their answers. `mean_iou` is over all swaps; `mean_difference`, `low` and
    `high` are own minus swapped, bootstrapped over images; None where there is no other image. Boxes are scaled by the
    ratio of the sizes of the images.
    """
    found = [_moved_ious(samples, boxes, partner) for partner in _derangements(len(samples), seed)]
    swapped = np.mean(found, axis=0) if found else np.zeros(0)
    return {
        "mean_iou": float(swapped.mean()) if found else None,
        **bootstrap_mean(own - swapped if found else swapped, seed, num_resamples),
        "num_derangements": len(found),
    }


def _derangements(num: int, seed: int) -> Iterator[Int[np.ndarray, " n"]]:
    """Orders in which nobody stands in his own place, and never twice in the same one."""
    order = np.random.default_rng(seed).permutation(num)
    for shift in range(1, min(num - 1, MOST_DERANGEMENTS, max(1, MOST_SWAPS // max(1, num))) + 1):
        partner = np.empty(num, dtype=np.int64)
        partner[order] = np.roll(order, shift)
        yield partner


def _moved_ious(
    samples: Sequence[Sample], boxes: Sequence[Boxes], partner: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """For each image its mean IoU with the answer to its partner."""
    found = []
    for sample, other in zip(samples, partner.tolist(), strict=True):
        scale = np.array(sample.size_wh) / np.array(samples[other].size_wh)
        moved = Boxes(xyxy_px=boxes[other].xyxy_px * np.tile(scale, 2), labels=boxes[other].labels)
        found.append(match_ious(sample.targets, moved).mean())
    return np.array(found)
