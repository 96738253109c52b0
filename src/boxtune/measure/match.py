"""Who belongs to whom: one-to-one matching of predicted boxes to truth in one image, within each class.

Matching is exact, not greedy. A greedy pass that takes the best pair first can spoil two good pairs for one very good
one, and its result then depends on the order of the boxes; the exact one depends on nothing but the boxes.
Scores play no part here: average precision, which needs them, is in `average_precision.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from boxtune.boxes import Boxes, box_areas, iou_matrix
from boxtune.data.sample import Sample

FOUND_AT = 0.5
"""IoU from which a truth box counts as found."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a threshold makes of one image or of many: boxes found, boxes missed, predictions that are false.

    `set_aside` counts predictions on crowd or ignored boxes: neither right nor wrong.
    """

    found: int
    missed: int
    false: int
    set_aside: int

    @property
    def precision(self) -> float | None:
        """The share of the predictions that are right; None where all are set aside or there are none."""
        return share(self.found, self.found + self.false)

    @property
    def recall(self) -> float | None:
        """The share of the targets that are found; None without any."""
        return share(self.found, self.found + self.missed)

    @property
    def f1(self) -> float | None:
        """The harmonic mean of both; None where there is neither a target nor a prediction."""
        return share(2 * self.found, 2 * self.found + self.false + self.missed)


def share(part: int, whole: int) -> float | None:
    """`part / whole`; None of nothing."""
    return part / whole if whole else None


def assign(gain: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " n"]:
    """For every row the column it is paired with, -1 for none, so that the summed gain is the largest possible.

    Pairs without gain are left unpaired. Gains must be finite and not negative; raises ValueError otherwise.
    Source: the Hungarian method as shortest augmenting paths (Kuhn 1955; Jonker and Volgenant 1987), O(s * s * l) for
    a short side s and a long side l.
    """
    if not np.isfinite(gain).all() or (gain < 0).any():
        raise ValueError("gains must be finite and not negative")
    some = gain > 0
    if not some.any():
        return np.full(gain.shape[0], -1)
    if some.sum(axis=0).max() == 1 and some.sum(axis=1).max() == 1:
        return np.where(some.any(axis=1), some.argmax(axis=1), -1)  # nobody has a choice, as in most images
    if gain.shape[0] > gain.shape[1]:
        columns = assign(gain.T)
        rows = np.full(gain.shape[0], -1)
        rows[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        return rows
    num_rows, num_columns = gain.shape
    # Column 0 is a sentinel that holds the row being placed; real rows and columns count from 1.
    row_price, column_price = np.zeros(num_rows + 1), np.zeros(num_columns + 1)
    row_of = np.zeros(num_columns + 1, dtype=int)
    for row in range(1, num_rows + 1):
        row_of[0], column = row, 0
        shortest = np.full(num_columns + 1, np.inf)
        came_from = np.zeros(num_columns + 1, dtype=int)
        visited = np.zeros(num_columns + 1, dtype=bool)
        while row_of[column] != 0:
            visited[column] = True
            at = row_of[column]
            reduced = -gain[at - 1] - row_price[at] - column_price[1:]
            shorter = ~visited[1:] & (reduced < shortest[1:])
            shortest[1:][shorter] = reduced[shorter]
            came_from[1:][shorter] = column
            nearest = int(np.argmin(np.where(visited[1:], np.inf, shortest[1:]))) + 1
            step = shortest[nearest]
            row_price[row_of[visited]] += step
            column_price[visited] -= step
            shortest[~visited] -= step
            column = nearest
        while column != 0:
            row_of[column] = row_of[came_from[column]]
            column = int(came_from[column])
    columns = np.flatnonzero(row_of[1:])
    paired = np.full(num_rows, -1)
    paired[row_of[1:][columns] - 1] = columns
    # The method places every row, if need be at no gain at all.
    return np.where(gain[np.arange(num_rows), paired] > 0, paired, -1)


def match_ious(truth: Boxes, predicted: Boxes) -> Float[np.ndarray, " n"]:
    """For every truth box the IoU with its partner, 0 where it has none, in the order of the truth.

    Partners are of the same class, one to one, and chosen so that the sum is the largest possible.
    """
    best = np.zeros(len(truth))
    for of_truth, of_predicted in _by_class(truth, predicted):
        iou = iou_matrix(truth.xyxy_px[of_truth], predicted.xyxy_px[of_predicted])
        partner = assign(iou)
        best[of_truth] = np.where(partner >= 0, iou[np.arange(len(iou)), partner], 0.0)
    return best


def count_matches(sample: Sample, predicted: Boxes, *, threshold: float) -> Counts:
    """How many targets of the image are found at this IoU or above, with as many one-to-one pairs as there can be.

    A prediction left without a target is set aside where at least `threshold` of its own area lies in one crowd or
    ignored box of its class (the rule that COCO has for crowds); otherwise it is false.
    """
    targets, regions = sample.targets, sample.boxes.take(sample.crowd | sample.ignore)
    paired = np.zeros(len(predicted), dtype=bool)
    for of_truth, of_predicted in _by_class(targets, predicted):
        iou = iou_matrix(targets.xyxy_px[of_truth], predicted.xyxy_px[of_predicted])
        partner = assign((iou >= threshold).astype(np.float64))
        paired[of_predicted[partner[partner >= 0]]] = True
    on_region = np.zeros(len(predicted), dtype=bool)
    for of_region, of_predicted in _by_class(regions, predicted):
        inside = _share_inside(predicted.xyxy_px[of_predicted], regions.xyxy_px[of_region])
        on_region[of_predicted] = (inside >= threshold).any(axis=1)
    found, set_aside = int(paired.sum()), int((on_region & ~paired).sum())
    return Counts(
        found=found, missed=len(targets) - found, false=len(predicted) - found - set_aside, set_aside=set_aside
    )


def count_split(pairs: Sequence[tuple[Sample, Boxes]], *, threshold: float) -> Counts:
    """The sum of `count_matches` over all images."""
    counts = [count_matches(sample, boxes, threshold=threshold) for sample, boxes in pairs]
    return Counts(
        found=sum(count.found for count in counts),
        missed=sum(count.missed for count in counts),
        false=sum(count.false for count in counts),
        set_aside=sum(count.set_aside for count in counts),
    )


def _by_class(left: Boxes, right: Boxes) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]]:
    """For each label that both sides have, the places of its boxes on either side."""
    places: list[dict[str, list[int]]] = [{}, {}]
    for side, boxes in zip(places, (left, right), strict=True):
        for place, label in enumerate(boxes.labels):
            side.setdefault(label, []).append(place)
    for label in sorted(places[0].keys() & places[1].keys()):
        yield np.array(places[0][label]), np.array(places[1][label])


def _share_inside(boxes: Float[np.ndarray, "n 4"], regions: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Of each box the share of its own area inside each region; 0 for a box without area."""
    top_left = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    inter = np.clip(bottom_right - top_left, 0.0, None).prod(axis=2)
    area = np.broadcast_to(box_areas(boxes)[:, None], inter.shape)
    return np.asarray(np.divide(inter, area, out=np.zeros_like(inter), where=area > 0))
