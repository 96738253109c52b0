"""Predictions and truth -> the numbers of `scores.json`.

A number is None where there is nothing to measure it on (no truth, no prediction), never 0, -1 or nan.
Truth means `Sample.targets`: crowd and ignored boxes are neither missed nor do predictions on them count as false.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from boxtune.boxes import clip_xyxy, repeated
from boxtune.data.sample import Sample
from boxtune.measure.average_precision import average_precision
from boxtune.measure.calibration import calibration
from boxtune.measure.match import FOUND_AT, count_split, match_ious, share
from boxtune.measure.predictions import Prediction, has_scores, require_pairs
from boxtune.measure.reward import iou_reward
from boxtune.measure.threshold import scores_at

PARSE_FAILURES = frozenset({"empty_answer", "malformed", "out_of_range", "inverted", "no_area"})
"""Kinds of `Problem` that make an answer a parse failure; `truncated` and `unknown_label` are not among them."""

REPEATED_AT = 0.9
"""IoU from which a box repeats an earlier one of its label."""

OFF_IMAGE_PX = 1.0
"""How far a box may reach beyond its image: rounding of coordinates is no fault."""


def score_predictions(
    samples: Sequence[Sample],
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    *,
    threshold: float | None = None,
) -> dict[str, Any]:
    """The scores of one model on one split; the keys are those of `S` in `scores.json`.

    - `map`, `ar_100` and their kin, `per_class`: see `average_precision`.
    - `mean_iou`, `median_iou`, `iou_above_50`, `iou_above_70`: over all truth boxes, each with the IoU of its partner
      (one to one within the class, the largest sum), 0 where it has none; "above" includes the threshold.
    - `precision`, `recall`, `f1`: all boxes of all classes pooled, at IoU 0.5 with as many one-to-one pairs as there
      can be. Recall can therefore exceed `iou_above_50` by the pairs that the largest sum gives up.
    - `detection_rate`: share of images with truth that got at least one box, right or wrong.
    - `empty_correct_rate`: share of images without any box, crowd and ignored ones included, that got none, in an
      answer without a problem.
    - `parse_failure_rate`: share of the answers that nothing guided, `num_freely` of them where the model was asked so;
      a guided one cannot fail, and where nothing was guided (another system's answers) it is the share of all.
    - `unknown_name_rate`: share of the same answers that name something not among the classes.
    - `truncated_rate`: share of answers. `duplicate_rate`: share of predicted boxes that overlap
      an earlier box of the same label in the same image with an IoU of 0.9 or more. `off_image_rate`: share of
      predicted boxes that reach more than 1 px beyond their image.
    - `calibration`: see `calibration`. `at_threshold`: see `scores_at`. None where boxes have no scores, the latter
      also where no `threshold` is given.

    Raises ValueError where the predictions do not cover exactly the samples, or a label is not in `classes`.
    """
    pairs = require_pairs(samples, predictions)
    scores = average_precision(samples, {prediction.image_id: prediction.ranked for _, prediction in pairs}, classes)
    ious = np.concatenate([np.zeros(0), *(match_ious(sample.targets, said.boxes) for sample, said in pairs)])
    counts = count_split([(sample, said.boxes) for sample, said in pairs], threshold=FOUND_AT)
    num_predictions = sum(len(said.boxes) for _, said in pairs)
    num_repeated = sum(int(repeated(said.boxes, threshold=REPEATED_AT).sum()) for _, said in pairs)
    num_off = sum(int(_off_image(sample, said).sum()) for sample, said in pairs)
    answered = [len(said.boxes) > 0 for sample, said in pairs if len(sample.targets)]
    left_empty = [len(said.boxes) == 0 and not said.problems for sample, said in pairs if not len(sample.boxes)]
    freely = [said.freely for _, said in pairs if said.freely is not None]
    asked = [said.problems for _, said in pairs] if not freely else [answer.problems for answer in freely]
    kinds = [{problem.kind for problem in problems} for problems in asked]
    return {
        **scores,
        "mean_iou": float(ious.mean()) if len(ious) else None,
        "median_iou": float(np.median(ious)) if len(ious) else None,
        "detection_rate": share(sum(answered), len(answered)),
        "iou_above_50": share(int((ious >= 0.5).sum()), len(ious)),
        "iou_above_70": share(int((ious >= 0.7).sum()), len(ious)),
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "parse_failure_rate": share(sum(bool(found & PARSE_FAILURES) for found in kinds), len(kinds)),
        "unknown_name_rate": share(sum("unknown_label" in found for found in kinds), len(kinds)),
        "num_freely": len(freely),
        "duplicate_rate": share(num_repeated, num_predictions),
        "off_image_rate": share(num_off, num_predictions),
        "truncated_rate": share(sum(said.truncated for _, said in pairs), len(pairs)),
        "empty_correct_rate": share(sum(left_empty), len(left_empty)),
        "num_images": len(pairs),
        "num_truth": len(ious),
        "num_predictions": num_predictions,
        "calibration": calibration(samples, predictions),
        "at_threshold": None
        if threshold is None or not has_scores(predictions)
        else scores_at(samples, predictions, threshold),
    }


def rank_images(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> list[tuple[int, float]]:
    """Image ids with their quality in 0..1, best first; equal ones in the order of their ids.

    Quality is `iou_reward` of the boxes that were said. Raises ValueError as `score_predictions` does.
    """
    rows = [
        (sample.image_id, iou_reward(sample, said.boxes, sound=not said.problems))
        for sample, said in require_pairs(samples, predictions)
    ]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def _off_image(sample: Sample, said: Prediction) -> Bool[np.ndarray, " n"]:
    """Which of the boxes that were said reach more than a pixel beyond the image."""
    beyond = np.abs(said.boxes.xyxy_px - clip_xyxy(said.boxes.xyxy_px, sample.size_wh))
    return np.asarray((beyond > OFF_IMAGE_PX).any(axis=1))
