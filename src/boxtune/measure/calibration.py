"""Whether a score is what it says: of the boxes with a score of 0.8, are eight in ten right?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure.judge import judge_image, scores_of
from boxtune.measure.match import FOUND_AT
from boxtune.measure.predictions import Prediction, has_scores, require_pairs

NUM_BINS = 10


def judge_boxes(
    samples: Sequence[Sample], predictions: Sequence[Prediction]
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The scores of all ranked boxes, and which of them are right; in the order of the samples.

    Right is a box that overlaps a target of its class with an IoU of 0.5 or more, one to one, taken by falling score
    (`judge.py`). Boxes on crowd or ignored ones are left out. Raises ValueError where a box has no score, or the
    predictions do not cover exactly the samples.
    """
    pairs = require_pairs(samples, predictions)
    if any(len(said.ranked) and said.ranked.scores is None for said in predictions):
        raise ValueError("some boxes have no scores")
    at = np.array([FOUND_AT])
    scores: list[Float[np.ndarray, " m"]] = [np.zeros(0)]
    right: list[Bool[np.ndarray, " m"]] = [np.zeros(0, dtype=bool)]
    for sample, said in pairs:
        is_right, is_aside = judge_image(sample, said.ranked, at)
        scores.append(scores_of(said.ranked)[~is_aside[0]])
        right.append(is_right[0, ~is_aside[0]])
    return np.concatenate(scores), np.concatenate(right)


def calibration_curve(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> list[dict[str, Any]]:
    """Up to ten bins of equal width, those that hold boxes: `from`, `to`, `num`, `mean_score`, `share_right`.

    A bin holds scores from its lower bound to below its upper one, the last one 1 too. Raises ValueError for a score
    that is not in 0..1.
    """
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError("scores outside of 0..1 are no probabilities")
    bounds = np.arange(NUM_BINS + 1) / NUM_BINS
    bin_of = np.digitize(scores, bounds[1:-1])
    rows = []
    for number in np.unique(bin_of).tolist():
        inside = bin_of == number
        rows.append(
            {
                "from": float(bounds[number]),
                "to": float(bounds[number + 1]),
                "num": int(inside.sum()),
                "mean_score": float(scores[inside].mean()),
                "share_right": float(right[inside].mean()),
            }
        )
    return rows


def expected_calibration_error(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float | None:
    """The mean distance between score and share of right boxes over the bins, weighted by their boxes; None of none.

    This is the ECE of Guo et al. 2017 ("On Calibration of Modern Neural Networks") with ten bins of equal width. It
    is 0 at best; of few boxes it is too large by chance. Raises ValueError for a score that is not in 0..1.
    """
    rows = calibration_curve(scores, right)
    return sum(row["num"] * abs(row["mean_score"] - row["share_right"]) for row in rows) / len(scores) if rows else None


def calibration(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """The `calibration` part of the scores, None where boxes have no scores or one that is not in 0..1.

    `ece`, `num` and `bins` are over the boxes that were said, which is what a user gets who gives no threshold;
    `ece_ranked` and `num_ranked` also over the further ones, which a threshold below the model's own reaches.
    """
    if not has_scores(predictions):
        return None
    ranked = judge_boxes(samples, predictions)
    said = ranked
    if any(len(one.further) for one in predictions):
        said = judge_boxes(samples, [replace(one, further=Boxes.none()) for one in predictions])
    if any(((scores < 0) | (scores > 1)).any() for scores, _ in (said, ranked)):
        return None
    return {
        "ece": expected_calibration_error(*said),
        "num": len(said[0]),
        "bins": calibration_curve(*said),
        "ece_ranked": expected_calibration_error(*ranked),
        "num_ranked": len(ranked[0]),
    }
