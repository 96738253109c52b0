"""How sure a difference between two models on the same images is: paired percentile bootstrap over images.

Images are drawn with replacement, both models are measured on the same draw, and the middle 95 % of the differences
is the interval (Efron and Tibshirani 1993). The same seed gives the same interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure.judge import Judged, judge_split, mean_ap

Interval = dict[str, float | None]
"""`mean_difference` (measured, not resampled), `low` and `high`; None where there is nothing to measure."""

MOST_AT_ONCE = 1_000_000
"""Boxes of a class times resamples that are weighed together: a few arrays of 8 MB."""

MOST_WEIGHED, LEAST_RESAMPLES = 50_000_000, 200
"""Boxes times resamples in all, some ten seconds for each model; larger sets have fewer resamples, down to 200."""


def bootstrap_mean(differences: Float[np.ndarray, " n"], seed: int, num_resamples: int) -> Interval:
    """The mean and the bounds of its 95 % interval; None of no differences."""
    if not len(differences):
        return {"mean_difference": None, "low": None, "high": None}
    random = np.random.default_rng(seed)
    # One resample at a time: all at once would be resamples times images in memory.
    means = [differences[random.integers(0, len(differences), len(differences))].mean() for _ in range(num_resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean_difference": float(differences.mean()), "low": float(low), "high": float(high)}


def bootstrap_ap(
    samples: Sequence[Sample],
    before: Sequence[Boxes],
    after: Sequence[Boxes],
    *,
    seed: int,
    num_resamples: int,
) -> dict[str, Interval]:
    """`ap` (0.50:0.95) and `ap50`: after minus before, over all images; see `average_precision` for what AP is.

    Matching belongs to an image alone, so that it is done once; a resample only weighs the images. It equals COCO's
    AP on a set with that many copies of each image, whose ids follow each other. A resample without any truth is left
    out. Both say their own `num_resamples`, fewer than asked for where there are many boxes (MOST_WEIGHED).
    """
    in_order = sorted(range(len(samples)), key=lambda place: samples[place].image_id)
    ordered = [samples[place] for place in in_order]
    sides = [judge_split(ordered, [boxes[place] for place in in_order]) for boxes in (before, after)]
    measured = _differences(sides, np.ones((len(samples), 1)))[:, 0]
    if np.isnan(measured).any():
        return {
            name: {"mean_difference": None, "low": None, "high": None, "num_resamples": None} for name in ("ap", "ap50")
        }
    num_boxes = max(1, *(sum(map(_num_rows, side)) for side in sides))
    num = min(num_resamples, max(LEAST_RESAMPLES, MOST_WEIGHED // num_boxes))
    differences = np.concatenate([_differences(sides, weights) for weights in _draws(sides, seed, num)], axis=1)
    bounds = np.percentile(differences[:, ~np.isnan(differences[0])], [2.5, 97.5], axis=1)
    return {
        name: {
            "mean_difference": float(measured[k]),
            "low": float(bounds[0, k]),
            "high": float(bounds[1, k]),
            "num_resamples": num,
        }
        for k, name in enumerate(("ap", "ap50"))
    }


def _draws(sides: Sequence[Sequence[Judged]], seed: int, num_resamples: int) -> Iterator[Float[np.ndarray, "images k"]]:
    """How often each image is drawn in each resample, so many resamples together as fit into the memory."""
    random = np.random.default_rng(seed)
    num_images = len(sides[0][0].num_truth)
    at_once = max(1, MOST_AT_ONCE // max(num_images, *(_num_rows(judged) for side in sides for judged in side)))
    for start in range(0, num_resamples, at_once):
        drawn = [random.integers(0, num_images, num_images) for _ in range(min(at_once, num_resamples - start))]
        yield np.stack([np.bincount(one, minlength=num_images) for one in drawn], axis=1).astype(np.float64)


def _num_rows(judged: Judged) -> int:
    """How many boxes are weighed: those that stand for each copy of their image apart are some seven times as many."""
    return len(judged.places) + 6 * int(judged.mixed.sum())


def _differences(sides: Sequence[Sequence[Judged]], weights: Float[np.ndarray, "images k"]) -> Float[np.ndarray, "2 k"]:
    """After minus before in AP and AP50, for each weighing of the images."""
    before, after = (mean_ap(side, weights) for side in sides)
    return np.stack([(after - before).mean(axis=0), after[0] - before[0]])
