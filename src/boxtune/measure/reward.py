"""How well one image was answered, in 0..1: what pages rank images by, and what reinforcement learning can reward.

All of it is a function of one image's truth and boxes alone.
"""

from __future__ import annotations

import numpy as np

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure.judge import judge_split, mean_ap
from boxtune.measure.match import FOUND_AT, count_matches, match_ious


def iou_reward(sample: Sample, boxes: Boxes, *, sound: bool = True) -> float:
    """The summed IoU of the one-to-one partners over the larger of the numbers of truth and of predicted boxes.

    Boxes on crowd or ignored ones are left out. A missed box and an invented one cost the same, and scores play no
    part. An image without truth that is answered with no box has 1, and 0 unless that answer is `sound`: saying in
    sound words that there is nothing is right, saying nothing that can be read is not.
    """
    num_boxes = max(len(sample.targets), _num_counted(sample, boxes))
    if not num_boxes:
        return float(sound)
    return float(match_ious(sample.targets, boxes).sum() / num_boxes)


def ap_reward(sample: Sample, boxes: Boxes, *, sound: bool = True, length_cost: float = 0.5) -> float:
    """COCO's AP 0.50:0.95 of this image over its classes, times a term for the length of the answer.

    The term is 1 - `length_cost` * (share of the boxes that are more than there is truth), since invented boxes behind
    the right ones cost AP nothing, and those of classes that the image does not hold never do: with 0.5, an answer of
    twice as many boxes as there are keeps three quarters. Boxes on crowd or ignored ones are not counted. Boxes
    without scores rank in the order of the answer. An image without truth is rewarded as in `iou_reward`.
    """
    num_truth, num_counted = len(sample.targets), _num_counted(sample, boxes)
    if not num_truth:
        return float(sound and not num_counted)
    ap = float(mean_ap(judge_split([sample], [boxes]), np.ones((1, 1))).mean())
    too_many = max(0, num_counted - num_truth) / max(1, num_counted)
    return ap * (1.0 - length_cost * too_many)


def reward(
    sample: Sample, boxes: Boxes, *, sound: bool = True, iou_share: float = 0.5, length_cost: float = 0.5
) -> float:
    """`iou_reward` and `ap_reward` mixed: `iou_share` of the first, the rest of the second.

    The first rises with every pixel that a box comes closer, the second is what the run is scored by. `sound` says
    that the answer had no problem. Raises ValueError for a share or a cost outside of 0..1.
    """
    if not (0.0 <= iou_share <= 1.0 and 0.0 <= length_cost <= 1.0):
        raise ValueError(f"iou_share {iou_share} and length_cost {length_cost} must lie in 0..1")
    by_iou = iou_reward(sample, boxes, sound=sound)
    by_ap = ap_reward(sample, boxes, sound=sound, length_cost=length_cost)
    return iou_share * by_iou + (1.0 - iou_share) * by_ap


def _num_counted(sample: Sample, boxes: Boxes) -> int:
    """How many boxes are right or false, and not set aside."""
    return len(boxes) - count_matches(sample, boxes, threshold=FOUND_AT).set_aside
