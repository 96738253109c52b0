"""Boxes are judged as COCO judges them, and images that are weighed count as often as they weigh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure.average_precision import average_precision
from boxtune.measure.judge import IOU_THRESHOLDS, judge_image, judge_split, mean_ap

from .coco_sets import CLASSES, boxes, random_split, sample

HALF = np.array([0.5])


def judged(one: Sample, found: Boxes) -> tuple[list[bool], list[bool]]:
    right, aside = judge_image(one, found, HALF)
    return right[0].tolist(), aside[0].tolist()


def in_order(samples: list[Sample], predicted: dict[int, Boxes]) -> tuple[list[Sample], list[Boxes]]:
    ordered = sorted(samples, key=lambda one: one.image_id)
    return ordered, [predicted.get(one.image_id, Boxes.none()) for one in ordered]


def weighed(samples: list[Sample], predicted: dict[int, Boxes], weights: np.ndarray) -> tuple[float, float]:
    ordered, found = in_order(samples, predicted)
    ap = mean_ap(judge_split(ordered, found), weights.reshape(-1, 1).astype(float))
    return float(ap.mean()), float(ap[0, 0])


@pytest.mark.parametrize("seed", range(12))
def test_ap_of_a_whole_split_is_that_of_coco(seed: int) -> None:
    samples, predicted = random_split(seed)
    expected = average_precision(samples, predicted, CLASSES)
    found = weighed(samples, predicted, np.ones(len(samples)))
    assert found == pytest.approx((expected["map"], expected["map50"]), abs=1e-9)
    assert found[0] > 0.05


def copied(samples: list[Sample], predicted: dict[int, Boxes], weights: list[int]) -> dict[str, float]:
    """COCO's AP of a set in which each image stands as often as it weighs."""
    copies, found = [], {}
    for one, weight in zip(sorted(samples, key=lambda one: one.image_id), weights, strict=True):
        for _ in range(weight):
            image_id = len(copies)
            copies.append(replace(one, image_id=image_id))
            found[image_id] = predicted[one.image_id]
    return average_precision(copies, found, CLASSES)


@pytest.mark.parametrize("seed", range(15))
def test_an_image_of_weight_two_counts_as_two_copies(seed: int) -> None:
    samples, predicted = random_split(seed, num_images=20)
    weights = np.random.default_rng(seed).integers(0, 4, 20)
    assert {0, 1, 2, 3} == set(weights.tolist())
    expected = copied(samples, predicted, weights.tolist())
    found = weighed(samples, predicted, weights)
    assert found == pytest.approx((expected["map"], expected["map50"]), abs=1e-9)
    assert found != pytest.approx(weighed(samples, predicted, np.ones(20)), abs=1e-3)


def test_equal_scores_inside_an_image_are_ranked_copy_by_copy() -> None:
    """Three copies of a right box before two false ones are not three right boxes before six false ones."""
    truth = boxes(("cell", 0, 0, 20, 20))
    found = boxes(("cell", 0, 0, 20, 20), *[("cell", 100, 100, 120, 120)] * 2)
    samples, predicted = [sample(1, truth), sample(2, Boxes.none())], {1: found, 2: Boxes.none()}
    assert weighed(samples, predicted, np.array([1, 0]))[1] == 1.0
    ap50 = weighed(samples, predicted, np.array([3, 0]))[1]
    assert ap50 == pytest.approx(copied(samples, predicted, [3, 0])["map50"], abs=1e-9) and ap50 < 0.7


def test_many_weighings_at_once_are_each_of_them_alone() -> None:
    samples, predicted = random_split(4, num_images=15)
    ordered, found = in_order(samples, predicted)
    weights = np.random.default_rng(0).integers(0, 3, (15, 7)).astype(float)
    split = judge_split(ordered, found)
    together = mean_ap(split, weights)
    alone = np.concatenate([mean_ap(split, weights[:, [k]]) for k in range(7)], axis=1)
    assert together == pytest.approx(alone, abs=1e-12) and len(set(together[0].round(9).tolist())) >= 5


def test_a_weighing_without_truth_has_no_ap() -> None:
    truth = boxes(("cell", 0, 0, 20, 20))
    samples, found = [sample(1, truth), sample(2, Boxes.none())], [truth, truth]
    ap = mean_ap(judge_split(samples, found), np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert np.isnan(ap[:, 0]).all() and (ap[:, 1] == 1.0).all()
    assert np.isnan(mean_ap(judge_split([], []), np.zeros((0, 1)))).all()


def test_recall_meets_coco_at_each_of_its_hundred_steps() -> None:
    """Where recall is a round number, rounding decides whether COCO counts the step (57 / 100 is below 0.01 * 57)."""
    rows = [("cell", 3.0 * k, 0.0, 3.0 * k + 2, 2.0) for k in range(100)]
    truth = boxes(*rows)
    num_seen = 0
    for num in range(1, 101):
        found = boxes(*rows[:num], scores=np.linspace(1, 0.5, num).tolist())
        expected = average_precision([sample(1, truth)], {1: found}, CLASSES)["map"]
        assert weighed([sample(1, truth)], {1: found}, np.ones(1))[0] == pytest.approx(expected, abs=1e-9), num
        num_seen += 1
    assert num_seen == 100


def test_no_more_than_a_hundred_boxes_of_a_class_count() -> None:
    truth = boxes(("cell", 0, 0, 20, 20), ("dot", 50, 50, 60, 60))
    false = [("cell", 100.0, 100.0, 120.0, 120.0)] * 100
    last = boxes(*false, ("cell", 0, 0, 20, 20), ("dot", 50, 50, 60, 60), scores=[0.9] * 100 + [0.5, 0.1])
    early = replace(last, scores=np.array([0.4] * 100 + [0.5, 0.1]))
    for found, ap in ((last, 0.5), (early, 1.0)):
        assert weighed([sample(1, truth)], {1: found}, np.ones(1))[0] == pytest.approx(ap)
        assert average_precision([sample(1, truth)], {1: found}, CLASSES)["map"] == pytest.approx(ap)


def test_the_higher_score_takes_the_target() -> None:
    one = sample(1, boxes(("cell", 0, 0, 10, 10)))
    worse, exact = ("cell", 0.0, 0.0, 10.0, 6.0), ("cell", 0.0, 0.0, 10.0, 10.0)
    assert judged(one, boxes(worse, exact, scores=[0.9, 0.8])) == ([True, False], [False, False])
    assert judged(one, boxes(worse, exact, scores=[0.8, 0.9])) == ([False, True], [False, False])
    assert judged(one, boxes(worse, exact)) == ([True, False], [False, False])
    # At 0.75 the first does not fit, and leaves the target to the second.
    assert judge_image(one, boxes(worse, exact), np.array([0.5, 0.75]))[0].tolist() == [[True, False], [False, True]]


def test_of_two_targets_that_fit_alike_the_last_is_taken() -> None:
    left, right = ("cell", 0.0, 0.0, 10.0, 10.0), ("cell", 2.0, 0.0, 12.0, 10.0)
    between, beside = ("cell", 1.0, 0.0, 11.0, 10.0), ("cell", 4.0, 0.0, 14.0, 10.0)  # the second fits `right` alone
    found = boxes(between, beside, scores=[0.9, 0.8])
    for targets, expected in (((left, right), [True, False]), ((right, left), [True, True])):
        one = sample(1, boxes(*targets))
        assert judged(one, found)[0] == expected
        ap50 = average_precision([one], {1: found}, CLASSES)["map50"]
        assert weighed([one], {1: found}, np.ones(1))[1] == pytest.approx(ap50, abs=1e-9)


def test_crowds_set_aside_what_has_no_target() -> None:
    truth = boxes(("cell", 0, 0, 10, 10), ("cell", 0, 0, 100, 100), ("cell", 200, 200, 300, 300))
    one = sample(1, truth, crowd=[False, True, False], ignore=[False, False, True])
    found = boxes(
        ("cell", 0, 0, 10, 10),
        ("cell", 50, 50, 60, 60),
        ("cell", 250, 250, 260, 260),
        ("dot", 50, 50, 60, 60),
        ("cell", 95, 95, 110, 110),
        ("cell", 5, 5, 5, 9),
    )
    assert judged(one, found) == ([True] + [False] * 5, [False, True, True, False, False, False])
    plain = sample(1, truth)
    assert judged(plain, found) == ([True] + [False] * 5, [False] * 6)


def test_lower_scores_change_nothing_of_higher_ones() -> None:
    num_seen = 0
    for seed in range(1, 30, 3):
        samples, predicted = random_split(seed, num_images=6)
        for one in samples:
            found = predicted[one.image_id]
            assert found.scores is not None
            kept = found.scores >= 0.5
            whole, cut = judge_image(one, found), judge_image(one, found.take(kept))
            assert (whole[0][:, kept] == cut[0]).all() and (whole[1][:, kept] == cut[1]).all()
            num_seen += int(kept.sum())
    assert num_seen > 50


def test_nothing_on_either_side() -> None:
    right, aside = judge_image(sample(1, Boxes.none()), Boxes.none())
    assert right.shape == aside.shape == (len(IOU_THRESHOLDS), 0)
    assert judged(sample(1, Boxes.none()), boxes(("cell", 0, 0, 9, 9))) == ([False], [False])
    assert judge_split([sample(1, Boxes.none())], [boxes(("cell", 0, 0, 9, 9))]) == []
