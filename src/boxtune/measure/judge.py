"""Right, false or set aside: every predicted box as COCO judges it, image by image, so that images can be weighed.

COCO's rule: boxes of one class and image are taken by falling score, equal ones in their order; each takes the free
target that it overlaps most, if by at least the threshold, the last one of equals. A box that gets none is set aside
where at least that share of its own area lies in one crowd or ignored box of its class, and false otherwise. A box of
lower score never changes what became of one of higher score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's: 0.50 to 0.95 in steps of 0.05."""

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads the precision."""

MOST_OF_A_CLASS = 100
"""Boxes an image and class that count for average precision, those of the highest score."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Predicted boxes by falling score, and what became of each at each threshold.

    `places` says for each box which image it is of; `num_truth` counts the targets of each image. What is neither
    `right` nor `aside` is false. Boxes of one image with one score share a `run`; it is `mixed` where some of it are
    right and others not, so that copies of the image do not come to the same as weight.
    """

    places: Int[np.ndarray, " n"]
    run: Int[np.ndarray, " n"]
    mixed: Bool[np.ndarray, " n"]
    right: Bool[np.ndarray, "t n"]
    aside: Bool[np.ndarray, "t n"]
    num_truth: Int[np.ndarray, " images"]


def scores_of(boxes: Boxes) -> Float[np.ndarray, " n"]:
    """The scores; 1 for each box where nothing gave any."""
    return np.ones(len(boxes)) if boxes.scores is None else boxes.scores


def judge_image(
    sample: Sample, boxes: Boxes, thresholds: Float[np.ndarray, " t"] = IOU_THRESHOLDS
) -> tuple[Bool[np.ndarray, "t n"], Bool[np.ndarray, "t n"]]:
    """Which boxes are right and which are set aside at each threshold, in the order of the boxes."""
    overlap = _overlaps(boxes, sample)
    region = sample.crowd | sample.ignore
    near, needed = overlap[:, ~region], thresholds[:, None]
    right = np.zeros((len(thresholds), len(boxes)), dtype=bool)
    free = np.ones((len(thresholds), near.shape[1]), dtype=bool)
    may_fit = near.max(axis=1, initial=0.0) >= thresholds.min()
    for place in np.argsort(-scores_of(boxes), kind="stable"):
        if not may_fit[place]:
            continue
        fits = free & (near[place] >= needed)
        found = np.flatnonzero(fits.any(axis=1))
        best = near.shape[1] - 1 - np.where(fits, near[place], -1.0)[:, ::-1].argmax(axis=1)
        right[found, place] = True
        free[found, best[found]] = False
    aside = (overlap[:, region].max(axis=1, initial=0.0) >= needed) & ~right
    return right, aside


def judge_split(samples: Sequence[Sample], boxes: Sequence[Boxes]) -> list[Judged]:
    """For each class that has truth, in the order of the names, its boxes of the whole split at COCO's thresholds.

    `boxes` are those of each sample; equal scores keep the order in which the samples are given. At most 100 boxes an
    image and class are taken, those of the highest score.
    """
    truth = [sample.targets.labels for sample in samples]
    codes = {label: code for code, label in enumerate(sorted({label for labels in truth for label in labels}))}
    num_truth = np.zeros((len(codes), len(samples)), dtype=np.int64)
    for place, labels in enumerate(truth):
        for label in labels:
            num_truth[codes[label], place] += 1
    counted = [found.take(_first_of_each(found)) for found in boxes]
    named = np.array([codes.get(label, -1) for found in counted for label in found.labels], dtype=np.int64)
    places = np.repeat(np.arange(len(samples)), np.array([len(found) for found in counted], dtype=np.int64))
    scores = np.concatenate([np.zeros(0), *map(scores_of, counted)])
    judged = [judge_image(sample, found) for sample, found in zip(samples, counted, strict=True)]
    nothing = np.zeros((len(IOU_THRESHOLDS), 0), dtype=bool)
    right, aside = (np.concatenate([nothing, *(one[side] for one in judged)], axis=1) for side in (0, 1))
    split = []
    for code in range(len(codes)):
        at = np.flatnonzero(named == code)
        at = at[np.argsort(-scores[at], kind="stable")]
        run, mixed = _find_runs(places[at], scores[at], right[:, at])
        split.append(
            Judged(
                places=places[at],
                run=run,
                mixed=mixed,
                right=right[:, at],
                aside=aside[:, at],
                num_truth=num_truth[code],
            )
        )
    return split


def weighted_ap(judged: Judged, weights: Float[np.ndarray, "images k"]) -> Float[np.ndarray, "t k"]:
    """COCO's average precision of one class at each threshold, with images that count as often as `weights` say.

    Every column of `weights` is a weighing of its own; it gives nan where no image with truth has weight. Images of
    weight 2 count as COCO counts two copies of them, one behind the other. Only the boxes that are right are looked
    at: between two of them precision falls and recall stands still.
    """
    rows, weight = _weigh(judged, weights)
    num_truth = judged.num_truth @ weights
    there = num_truth > 0
    total = np.where(there, num_truth, 1.0)
    found = np.zeros((len(judged.right), weights.shape[1]))
    everything = np.cumsum(weight, axis=0)
    for threshold, (right, aside) in enumerate(zip(judged.right[:, rows], judged.aside[:, rows], strict=True)):
        at = np.flatnonzero(right)
        counted = np.cumsum(weight * ~aside[:, None], axis=0)[at] if aside.any() else everything[at]
        num_right = np.cumsum(weight[at], axis=0)
        precision = num_right / np.maximum(counted, 1.0)
        precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        recall = num_right / total
        # How many of RECALLS are reached: all below the nearest one, and that if it is. A search takes longer.
        nearest = np.rint(recall * (len(RECALLS) - 1)).astype(np.int64)
        reached = nearest + (RECALLS[nearest] <= recall)
        found[threshold] = (precision * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(RECALLS)
    return np.where(there, found, np.nan)


def mean_ap(split: Sequence[Judged], weights: Float[np.ndarray, "images k"]) -> Float[np.ndarray, "t k"]:
    """The mean over the classes that have truth at that weighing, at each threshold; nan where none has."""
    summed, num = np.zeros((len(IOU_THRESHOLDS), weights.shape[1])), np.zeros(weights.shape[1])
    for judged in split:
        found = weighted_ap(judged, weights)
        summed += np.nan_to_num(found)
        num += ~np.isnan(found[0])
    return np.divide(summed, num, out=np.full_like(summed, np.nan), where=num > 0)


def _find_runs(
    places: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, "t n"]
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """`run` and `mixed` of `Judged`."""
    if not len(places):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    begins = np.concatenate([[True], (np.diff(scores) != 0) | (np.diff(places) != 0)])
    run = np.cumsum(begins) - 1
    num_right, num = np.add.reduceat(right, np.flatnonzero(begins), axis=1, dtype=np.int64), np.bincount(run)
    return run, np.asarray(((num_right > 0) & (num_right < num)).any(axis=0))[run]


def _weigh(
    judged: Judged, weights: Float[np.ndarray, "images k"]
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m k"]]:
    """The boxes in the order in which they count, and how often each does.

    That is once for all copies of its image, but for mixed runs: there the whole run counts for each copy in turn.
    """
    if not judged.mixed.any():
        return np.arange(len(judged.places)), weights[judged.places]
    times = np.where(judged.mixed, int(weights.max()), 1)
    rows = np.repeat(np.arange(len(times)), times)
    copy = np.arange(len(rows)) - np.repeat(np.cumsum(times) - times, times)
    order = np.lexsort((rows, copy, judged.run[rows]))
    rows, copy = rows[order], copy[order]
    weight = weights[judged.places[rows]]
    return rows, np.where(judged.mixed[rows][:, None], weight > copy[:, None], weight).astype(np.float64)


def _first_of_each(boxes: Boxes) -> list[int]:
    """The places of the boxes that count for average precision, in their order."""
    if len(boxes) <= MOST_OF_A_CLASS:
        return list(range(len(boxes)))
    seen: dict[str, int] = {}
    kept = []
    for place in np.argsort(-scores_of(boxes), kind="stable").tolist():
        label = boxes.labels[place]
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= MOST_OF_A_CLASS:
            kept.append(place)
    return sorted(kept)


def _overlaps(boxes: Boxes, sample: Sample) -> Float[np.ndarray, "n m"]:
    """IoU with each target, share inside each crowd or ignored box, 0 between classes.

    Computed from width and height as COCO does, so that a box on the very edge of a threshold falls to the same side.
    """
    codes = {label: code for code, label in enumerate(dict.fromkeys((*boxes.labels, *sample.boxes.labels)))}
    said, true = (np.array([codes[label] for label in one.labels], dtype=int) for one in (boxes, sample.boxes))
    (at, size), (true_at, true_size) = (
        (one.xyxy_px[:, :2], one.xyxy_px[:, 2:] - one.xyxy_px[:, :2]) for one in (boxes, sample.boxes)
    )
    ends = np.minimum((at + size)[:, None], true_at + true_size)
    shared = np.clip(ends - np.maximum(at[:, None], true_at), 0.0, None).prod(axis=2)
    area = size.prod(axis=1)[:, None]
    whole = np.where(sample.crowd | sample.ignore, area, area + true_size.prod(axis=1) - shared)
    counts = (said[:, None] == true) & (whole > 0)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=counts)
