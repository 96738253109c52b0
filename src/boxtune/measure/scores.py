"""Predictions and truth -> the numbers of `scores.json`.

A number is None where there is nothing to measure it on (no truth, no prediction), never 0, -1 or nan.
Truth means `Sample.targets`: crowd and ignored boxes are neither missed nor do predictions on them count as false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from boxtune.boxes import repeated
from boxtune.data.sample import Sample
from boxtune.measure.average_precision import average_precision
from boxtune.measure.match import count_matches, match_ious
from boxtune.measure.predictions import Prediction, require_pairs

PARSE_FAILURES = frozenset({"empty_answer", "malformed", "out_of_range", "inverted", "no_area"})
"""Kinds of `Problem` that make an answer a parse failure; `truncated` and `unknown_label` are not among them."""

FOUND_AT, REPEATED_AT = 0.5, 0.9
"""IoU from which a truth box counts as found, and from which a box repeats an earlier one of its label."""

MIN_IMAGES_TO_COMPARE = 5


def score_predictions(
    samples: Sequence[Sample], predictions: Sequence[Prediction], classes: Sequence[str]
) -> dict[str, Any]:
    """The scores of one model on one split; the keys are those of `S` in `scores.json`.

    - `map` and its kin, `per_class`: see `average_precision`.
    - `mean_iou`, `median_iou`, `iou_above_50`, `iou_above_70`: over all truth boxes, each with the IoU of its partner
      (one to one within the class, the largest sum), 0 where it has none; "above" includes the threshold.
    - `precision`, `recall`, `f1`: all boxes of all classes pooled, at IoU 0.5 with as many one-to-one pairs as there
      can be. Recall can therefore exceed `iou_above_50` by the pairs that the largest sum gives up.
    - `detection_rate`: share of images with truth that got at least one box, right or wrong.
    - `empty_correct_rate`: share of images without any box, crowd and ignored ones included, that got none, in an
      answer without a problem.
    - `parse_failure_rate`: share of the answers that nothing guided, `num_freely` of them where the model was asked so;
      a guided one cannot fail, and where nothing was guided (another system's answers) it is the share of all.
    - `truncated_rate`: share of answers. `duplicate_rate`: share of predicted boxes that overlap
      an earlier box of the same label in the same image with an IoU of 0.9 or more.

    Raises ValueError where the predictions do not cover exactly the samples, or a label is not in `classes`.
    """
    pairs = require_pairs(samples, predictions)
    scores = average_precision(samples, {prediction.image_id: prediction.ranked for _, prediction in pairs}, classes)
    ious = np.concatenate([np.zeros(0), *(match_ious(sample.targets, said.boxes) for sample, said in pairs)])
    counts = [count_matches(sample, said.boxes, threshold=FOUND_AT) for sample, said in pairs]
    found, false = sum(count.found for count in counts), sum(count.false for count in counts)
    num_predictions = sum(len(said.boxes) for _, said in pairs)
    num_repeated = sum(int(repeated(said.boxes, threshold=REPEATED_AT).sum()) for _, said in pairs)
    answered = [len(said.boxes) > 0 for sample, said in pairs if len(sample.targets)]
    left_empty = [len(said.boxes) == 0 and not said.problems for sample, said in pairs if not len(sample.boxes)]
    freely = [said.freely for _, said in pairs if said.freely is not None]
    asked = [said.problems for _, said in pairs] if not freely else [answer.problems for answer in freely]
    failed = [any(problem.kind in PARSE_FAILURES for problem in problems) for problems in asked]
    return {
        **scores,
        "mean_iou": float(ious.mean()) if len(ious) else None,
        "median_iou": float(np.median(ious)) if len(ious) else None,
        "detection_rate": _share(sum(answered), len(answered)),
        "iou_above_50": _share(int((ious >= 0.5).sum()), len(ious)),
        "iou_above_70": _share(int((ious >= 0.7).sum()), len(ious)),
        "precision": _share(found, found + false),
        "recall": _share(found, len(ious)),
        "f1": _share(2 * found, found + false + len(ious)),
        "parse_failure_rate": _share(sum(failed), len(failed)),
        "num_freely": len(freely),
        "duplicate_rate": _share(num_repeated, num_predictions),
        "truncated_rate": _share(sum(said.truncated for _, said in pairs), len(pairs)),
        "empty_correct_rate": _share(sum(left_empty), len(left_empty)),
        "num_images": len(pairs),
        "num_truth": len(ious),
        "num_predictions": num_predictions,
    }


def compare(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    samples: Sequence[Sample],
    *,
    seed: int,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Whether `tuned` is better than `base` on the same images: the `paired` part of `scores.json`.

    The measure is the mean IoU of an image over its truth boxes, so that images without truth are left out;
    `mean_difference` is tuned minus base, `low` and `high` bound its 95 % interval (paired percentile bootstrap over
    images, Efron and Tibshirani 1993; the same seed gives the same interval).
    `verdict` is "better", "worse" or "cannot tell": the last where the interval holds 0, where fewer than 5 images
    have truth, and where the boxes fit better but `quality` (see `rank_images`; over all images) is lower beyond
    chance, because then the gain is paid for with invented boxes. `sentence` says it in words.
    Raises ValueError where either side does not cover exactly the samples.
    """
    sides = [require_pairs(samples, predictions) for predictions in (base, tuned)]
    before, after = (
        np.array([match_ious(sample.targets, said.boxes).mean() for sample, said in pairs if len(sample.targets)])
        for pairs in sides
    )
    quality_before, quality_after = (np.array([_quality(*pair) for pair in pairs]) for pairs in sides)
    iou = _bootstrap(after - before, seed, num_resamples)
    quality = _bootstrap(quality_after - quality_before, seed, num_resamples)
    verdict, sentence = _judge(iou, quality, len(before))
    return {
        "measure": "mean IoU of an image",
        "num_images": len(before),
        "num_better": int((after > before).sum()),
        "num_worse": int((after < before).sum()),
        **iou,
        "quality": quality,
        "confidence": 0.95,
        "num_resamples": num_resamples,
        "seed": seed,
        "verdict": verdict,
        "sentence": sentence,
    }


def rank_images(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> list[tuple[int, float]]:
    """Image ids with their quality in 0..1, best first; equal ones in the order of their ids.

    Quality is the summed IoU of the one-to-one partners over the larger of the numbers of truth and of predicted
    boxes (those on crowd or ignored boxes left out), so that a missed box and an invented one cost the same. An image
    without truth that is answered with no box has 1, and 0 if that answer has a problem. Raises ValueError as
    `score_predictions` does.
    """
    rows = [(sample.image_id, _quality(sample, said)) for sample, said in require_pairs(samples, predictions)]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def _share(part: int, whole: int) -> float | None:
    """`part / whole`; None of nothing."""
    return part / whole if whole else None


def _quality(sample: Sample, said: Prediction) -> float:
    """How well one image was answered; see `rank_images`."""
    set_aside = count_matches(sample, said.boxes, threshold=FOUND_AT).set_aside
    num_boxes = max(len(sample.targets), len(said.boxes) - set_aside)
    if not num_boxes:
        # Saying in sound words that there is nothing is right; saying nothing that can be read is not.
        return 0.0 if said.problems else 1.0
    return float(match_ious(sample.targets, said.boxes).sum() / num_boxes)


def _bootstrap(differences: Float[np.ndarray, " n"], seed: int, num_resamples: int) -> dict[str, float | None]:
    """The mean and the bounds of its 95 % interval; None of no differences."""
    if not len(differences):
        return {"mean_difference": None, "low": None, "high": None}
    random = np.random.default_rng(seed)
    # One resample at a time: all at once would be resamples times images in memory.
    means = [differences[random.integers(0, len(differences), len(differences))].mean() for _ in range(num_resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean_difference": float(differences.mean()), "low": float(low), "high": float(high)}


def _judge(iou: Mapping[str, float | None], quality: Mapping[str, float | None], num_images: int) -> tuple[str, str]:
    """The verdict of `compare` and a sentence that says why."""
    mean, low, high = iou["mean_difference"], iou["low"], iou["high"]
    if mean is None or low is None or high is None or num_images < MIN_IMAGES_TO_COMPARE:
        return "cannot tell", f"Cannot tell: {num_images} images with truth, {MIN_IMAGES_TO_COMPARE} are needed."
    change = f"the mean IoU of an image changes by {mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
    if low <= 0 <= high:
        return "cannot tell", f"Cannot tell: {change} over {num_images} images, and the interval holds 0."
    if high < 0:
        return "worse", f"Worse: {change} over {num_images} images."
    if quality["high"] is not None and quality["high"] < 0:
        return "cannot tell", f"Cannot tell: {change}, but at the price of more invented boxes."
    return "better", f"Better: {change} over {num_images} images."
