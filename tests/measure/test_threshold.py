"""The best threshold is the one that trying all of them finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure import Prediction, at_threshold, best_threshold, judge_image, score_predictions
from boxtune.measure.match import count_split

from .coco_sets import random_split
from .rows import CAT, CAT_IOU_60, DOG, FAR_CAT, boxes, said, sample

CLASSES = ["cat", "dog"]


def scored(seed: int) -> tuple[list[Sample], list[Prediction]]:
    """Answers whose right boxes have higher scores in the main; by every other seed in steps, with many equals."""
    samples, predicted = random_split(seed)
    random = np.random.default_rng(seed)
    predictions = []
    for one in samples:
        found = predicted[one.image_id]
        scores = 0.7 * random.random(len(found)) + 0.3 * judge_image(one, found, np.array([0.5]))[0][0]
        scores = np.ceil(scores * 10) / 10 if seed % 2 else scores
        predictions.append(replace(said(one.image_id), boxes=replace(found, scores=scores)))
    return samples, predictions


def f1_at(samples: list[Sample], predictions: list[Prediction], value: float) -> float:
    pairs = [(one, at_threshold(said, value)) for one, said in zip(samples, predictions, strict=True)]
    return count_split(pairs, threshold=0.5).f1 or 0.0


@pytest.mark.parametrize("seed", range(6))
def test_no_other_threshold_is_better(seed: int) -> None:
    samples, predictions = scored(seed)
    found = best_threshold(samples, predictions)
    assert found is not None
    tried = sorted({float(score) for one in predictions for score in one.boxes.scores.tolist()})
    assert len(tried) >= 5
    assert found.f1 == f1_at(samples, predictions, found.value)
    # Counting pairs exactly can gain one over taking them by score, in both places alike.
    assert found.f1 == pytest.approx(max(f1_at(samples, predictions, value) for value in tried), abs=0.01)
    assert found.f1 > f1_at(samples, predictions, 0.0)


def test_the_value_lies_midway_to_the_next_lower_score() -> None:
    samples = [sample(1, CAT, FAR_CAT)]
    ranked = said(1, CAT, FAR_CAT, DOG, DOG, scores=[0.9, 0.8, 0.4, 0.4])
    found = best_threshold(samples, [ranked])
    assert found is not None and found.value == pytest.approx(0.6)
    assert (found.f1, found.precision, found.recall) == (1.0, 1.0, 1.0)
    assert len(at_threshold(ranked, found.value)) == 2
    every = best_threshold(samples, [said(1, CAT, FAR_CAT, scores=[0.9, 0.8])])
    assert every is not None and every.value == pytest.approx(0.4)


def test_boxes_of_one_score_are_kept_or_left_together() -> None:
    samples = [sample(1, CAT, FAR_CAT)]
    found = best_threshold(samples, [said(1, CAT, FAR_CAT, DOG, DOG, scores=[0.9, 0.5, 0.5, 0.5])])
    # The right one of the three alone would give 1.0; with the false ones it is 2 of 4, no better than 1 of 1.
    assert found is not None and found.value == pytest.approx(0.7)
    assert (found.precision, found.recall) == (1.0, 0.5)


def test_further_boxes_are_reached() -> None:
    prediction = replace(said(1, CAT, scores=[0.9]), further=boxes(DOG, FAR_CAT, scores=[0.3, 0.1]))
    found = best_threshold([sample(1, CAT, DOG)], [prediction])
    assert found is not None and found.value == pytest.approx(0.2) and found.recall == 1.0
    assert at_threshold(prediction, found.value).labels == ("cat", "dog")
    assert at_threshold(prediction, 0.3).labels == ("cat", "dog")  # a score of exactly the threshold is kept


def test_scores_next_to_each_other_are_told_apart() -> None:
    low = 0.5
    high = float(np.nextafter(low, 1))
    found = best_threshold([sample(1, CAT)], [said(1, CAT, DOG, scores=[high, low])])
    assert found is not None and found.value == high and found.precision == 1.0


def test_boxes_on_a_crowd_count_neither_way() -> None:
    one = sample(1, CAT, ("cat", 50, 0, 100, 50), crowd=(1,))
    found = best_threshold([one], [said(1, ("cat", 60, 10, 70, 20), CAT, scores=[0.9, 0.5])])
    assert found is not None and (found.f1, found.precision) == (1.0, 1.0)


def test_where_there_is_nothing_to_choose_there_is_none() -> None:
    samples = [sample(1, CAT)]
    assert best_threshold(samples, [said(1, CAT, scores=[0.5])]) is not None
    for prediction in (said(1, CAT), said(1), said(1, DOG, scores=[0.5])):
        assert best_threshold(samples, [prediction]) is None
    assert best_threshold([], []) is None
    with pytest.raises(ValueError, match="no prediction"):
        best_threshold(samples, [])


def test_boxes_without_scores_are_all_kept() -> None:
    assert len(at_threshold(said(1, CAT, DOG), 0.9)) == 2
    assert len(at_threshold(replace(said(1), boxes=Boxes.none()), 0.9)) == 0


def test_scores_hold_what_comes_of_a_threshold() -> None:
    samples = [sample(1, CAT, FAR_CAT), sample(2, DOG)]
    predictions = [
        replace(said(1, CAT, CAT_IOU_60, scores=[0.9, 0.6]), further=boxes(FAR_CAT, scores=[0.55])),
        said(2, CAT, scores=[0.2]),
    ]
    found = score_predictions(samples, predictions, CLASSES, threshold=0.5)["at_threshold"]
    expected = {"threshold": 0.5, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "num_predictions": 3}
    assert found == pytest.approx(expected)
    assert score_predictions(samples, predictions, CLASSES)["at_threshold"] is None
    without = [replace(one, boxes=replace(one.boxes, scores=None), further=Boxes.none()) for one in predictions]
    assert score_predictions(samples, without, CLASSES, threshold=0.5)["at_threshold"] is None
    nothing = score_predictions(samples, predictions, CLASSES, threshold=1.0)["at_threshold"]
    assert (nothing["precision"], nothing["recall"], nothing["num_predictions"]) == (None, 0.0, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_threshold_below_all_gives_the_scores_of_all(seed: int) -> None:
    samples, predictions = scored(seed)
    scores = score_predictions(samples, predictions, ["cell", "plate", "dot"], threshold=0.0)
    for name in ("precision", "recall", "f1", "num_predictions"):
        assert scores["at_threshold"][name] == scores[name]
