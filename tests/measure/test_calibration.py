"""The calibration error of scores by hand, and what has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boxtune.measure import calibration_curve, expected_calibration_error, judge_boxes, score_predictions
from boxtune.measure.calibration import calibration

from .rows import CAT, CAT_IOU_60, DOG, FAR_CAT, boxes, said, sample

CLASSES = ["cat", "dog"]


def test_boxes_are_right_one_to_one_by_falling_score() -> None:
    samples = [sample(2, CAT, FAR_CAT), sample(1, DOG, ("cat", 50, 0, 100, 50), crowd=(1,))]
    first = said(2, CAT, CAT_IOU_60, DOG, scores=[0.6, 0.9, 0.3])
    second = replace(said(1, DOG, scores=[0.7]), further=boxes(("cat", 60, 10, 70, 20), CAT, scores=[0.2, 0.1]))
    scores, right = judge_boxes(samples, [second, first])
    # The worse box of the higher score has taken the cat; the box on the crowd is left out.
    assert scores.tolist() == [0.6, 0.9, 0.3, 0.7, 0.1]
    assert right.tolist() == [False, True, False, True, False]


def test_the_error_by_hand() -> None:
    scores = np.array([0.05, 0.15, 0.15, 0.95, 0.95, 0.95, 1.0])
    right = np.array([False, False, True, True, True, False, True])
    rows = calibration_curve(scores, right)
    assert [(row["from"], row["to"], row["num"]) for row in rows] == [(0.0, 0.1, 1), (0.1, 0.2, 2), (0.9, 1.0, 4)]
    assert [row["mean_score"] for row in rows] == pytest.approx([0.05, 0.15, 3.85 / 4])
    assert [row["share_right"] for row in rows] == [0.0, 0.5, 0.75]
    by_hand = (1 * 0.05 + 2 * 0.35 + 4 * (3.85 / 4 - 0.75)) / 7
    assert expected_calibration_error(scores, right) == pytest.approx(by_hand)


def test_honest_scores_have_a_small_error_and_boasting_ones_a_large() -> None:
    random = np.random.default_rng(0)
    scores = random.random(20_000)
    honest = expected_calibration_error(scores, random.random(20_000) < scores)
    boasting = expected_calibration_error(np.sqrt(scores), random.random(20_000) < scores)
    assert honest is not None and honest < 0.02
    assert boasting is not None and boasting == pytest.approx(1 / 6, abs=0.02)


def test_a_score_on_a_bound_belongs_to_the_bin_above() -> None:
    rows = calibration_curve(np.array([0.0, 0.3, 0.7, 1.0]), np.zeros(4, dtype=bool))
    assert [row["from"] for row in rows] == [0.0, 0.3, 0.7, 0.9]


def test_no_boxes_have_no_error() -> None:
    assert expected_calibration_error(np.zeros(0), np.zeros(0, dtype=bool)) is None
    assert calibration_curve(np.zeros(0), np.zeros(0, dtype=bool)) == []


@pytest.mark.parametrize("score", [-0.1, 1.1])
def test_scores_that_are_no_probabilities_have_no_error(score: float) -> None:
    with pytest.raises(ValueError, match="no probabilities"):
        expected_calibration_error(np.array([score]), np.array([True]))
    samples, predictions = [sample(1, CAT)], [said(1, CAT, scores=[score])]
    assert calibration(samples, predictions) is None
    assert calibration(samples, [said(1, CAT, scores=[0.9])]) is not None


def test_said_boxes_and_all_ranked_ones_are_told_apart() -> None:
    samples = [sample(1, CAT), sample(2, DOG)]
    predictions = [
        # The further box takes the cat when it is ranked, and is not there when it is not.
        replace(said(1, CAT, scores=[0.75]), further=boxes(CAT_IOU_60, scores=[0.85])),
        said(2, DOG, scores=[0.75]),
    ]
    found = score_predictions(samples, predictions, CLASSES)["calibration"]
    assert (found["num"], found["num_ranked"]) == (2, 3)
    assert found["ece"] == pytest.approx(0.25)
    assert found["bins"] == [{"from": 0.7, "to": 0.8, "num": 2, "mean_score": 0.75, "share_right": 1.0}]
    assert found["ece_ranked"] == pytest.approx((2 * 0.25 + 0.15) / 3)


def test_predictions_without_scores_have_no_calibration() -> None:
    samples = [sample(1, CAT), sample(2, CAT)]
    for predictions in (
        [said(1, CAT), said(2, CAT)],
        [said(1, CAT, scores=[0.5]), said(2, CAT)],
        [said(1), said(2)],
    ):
        assert score_predictions(samples, predictions, CLASSES)["calibration"] is None
    # An image that is answered with no box takes nothing away.
    assert score_predictions(samples, [said(1, CAT, scores=[0.5]), said(2)], CLASSES)["calibration"]["num"] == 1
    with pytest.raises(ValueError, match="no scores"):
        judge_boxes(samples, [said(1, CAT), said(2)])


def test_where_all_boxes_are_set_aside_there_is_no_error() -> None:
    found = calibration([sample(1, CAT, crowd=(0,))], [said(1, CAT, scores=[0.5])])
    assert found == {"ece": None, "num": 0, "bins": [], "ece_ranked": None, "num_ranked": 0}
