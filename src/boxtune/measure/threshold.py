"""The score from which boxes are worth showing, and what is right and missed from there on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure.calibration import judge_boxes
from boxtune.measure.match import FOUND_AT, count_split
from boxtune.measure.predictions import Prediction, has_scores, require_pairs


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A score, and what all boxes of at least that score are worth at IoU 0.5, one to one."""

    value: float
    f1: float
    precision: float
    recall: float


def best_threshold(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> Threshold | None:
    """The threshold of the best F1 over all ranked boxes, said and further; the highest one of equals.

    Every score is tried, in one pass: a box of lower score never changes what became of one of higher score. The value
    lies midway to the next lower score (0 below the last), so that a score that is rounded otherwise stays on its
    side. F1, precision and recall are those at the value, with as many pairs as there can be. None where boxes have no
    scores, or none of them is right. Chosen on the split that it is then scored on, it flatters. Raises ValueError
    where the predictions do not cover exactly the samples.
    """
    require_pairs(samples, predictions)
    if not has_scores(predictions):
        return None
    scores, right = judge_boxes(samples, predictions)
    num_truth = sum(len(sample.targets) for sample in samples)
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, num_right = scores[order], np.cumsum(right[order])
    # Boxes of one score are kept or left together: only behind the last of them there is a choice.
    last = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
    f1 = 2 * num_right[last] / (last + 1 + num_truth)
    best = int(f1.argmax())
    kept = float(scores[last[best]])
    below = float(scores[last[best + 1]]) if best + 1 < len(last) else min(0.0, kept)
    value = (kept + below) / 2
    value = value if value > below else kept  # no number lies between them
    row = scores_at(samples, predictions, value)
    return Threshold(value=value, f1=row["f1"], precision=row["precision"], recall=row["recall"])


def at_threshold(prediction: Prediction, value: float) -> Boxes:
    """The ranked boxes that have at least this score; all of them where they have no scores."""
    ranked = prediction.ranked
    return ranked if ranked.scores is None else ranked.take(ranked.scores >= value)


def scores_at(samples: Sequence[Sample], predictions: Sequence[Prediction], value: float) -> dict[str, Any]:
    """The `at_threshold` part of the scores: `threshold`, `precision`, `recall`, `f1`, `num_predictions`.

    Counted as `precision` and its kin are for the boxes that were said. Raises ValueError where the predictions do not
    cover exactly the samples.
    """
    kept = [(sample, at_threshold(said, value)) for sample, said in require_pairs(samples, predictions)]
    counts = count_split(kept, threshold=FOUND_AT)
    return {
        "threshold": value,
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "num_predictions": sum(len(boxes) for _, boxes in kept),
    }
