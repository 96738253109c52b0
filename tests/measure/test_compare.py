"""Better, worse or cannot tell: what decides it, and what stops a model from being called better."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from boxtune import measure
from boxtune.data.sample import Sample
from boxtune.measure import Prediction, average_precision, score_run
from boxtune.measure.swapped import _derangements

from .rows import CAT, Row, said, sample


def compare(base: list[Prediction], tuned: list[Prediction], samples: list[Sample], **how: Any) -> dict[str, Any]:
    return measure.compare(base, tuned, samples, **{"seed": 0, **how})


def corner_of(i: int) -> tuple[float, float]:
    """Where the cat of an image is: never twice at the same place."""
    return 12.0 * (i % 16), 12.0 * (i // 16)


def split(num: int) -> list[Sample]:
    return [sample(i, ("cat", x, y, x + 10, y + 10)) for i in range(num) for x, y in [corner_of(i)]]


def with_iou(num: int, *ious: float) -> list[Prediction]:
    rows = [("cat", x, y, x + 10, y + 10 * ious[i % len(ious)]) for i in range(num) for x, y in [corner_of(i)]]
    return [said(i, row) for i, row in enumerate(rows)]


def test_better_worse_and_cannot_tell() -> None:
    low, high, mixed = with_iou(20, 0.2, 0.4), with_iou(20, 0.6, 0.9), with_iou(20, 0.2, 0.9, 0.1)
    better = compare(low, high, split(20))
    assert better["verdict"] == "better" and better["sentence"].startswith("Better: ")
    assert better["mean_difference"] == pytest.approx(0.45) and 0.4 <= better["low"] < 0.45 < better["high"] <= 0.5
    assert (better["num_images"], better["num_better"], better["num_worse"]) == (20, 20, 0)
    worse = compare(high, low, split(20))
    assert worse["verdict"] == "worse" and worse["sentence"].startswith("Worse: ")
    assert worse["mean_difference"] == pytest.approx(-better["mean_difference"])
    undecided = compare(with_iou(20, 0.4, 0.5), mixed, split(20))
    assert undecided["low"] < 0 < undecided["high"]
    assert undecided["verdict"] == "cannot tell" and "holds 0" in undecided["sentence"]
    same = compare(low, low, split(20))
    assert (same["verdict"], same["low"], same["high"]) == ("cannot tell", 0.0, 0.0)
    json.dumps(better, allow_nan=False)


def test_few_images_with_truth_cannot_tell() -> None:
    four = compare(with_iou(4, 0.1), with_iou(4, 0.9), split(4))
    assert four["verdict"] == "cannot tell" and four["low"] == pytest.approx(0.8)
    assert four["sentence"] == "Cannot tell: 4 images with truth, 5 are needed."
    padded = compare([*with_iou(4, 0.1), said(9)], [*with_iou(4, 0.9), said(9)], [*split(4), sample(9)])
    assert (padded["verdict"], padded["num_images"]) == ("cannot tell", 4)
    assert compare(with_iou(5, 0.1), with_iou(5, 0.9), split(5))["verdict"] == "better"
    nothing = compare([], [], [])
    assert (nothing["verdict"], nothing["mean_difference"], nothing["low"]) == ("cannot tell", None, None)


def test_better_boxes_bought_with_invented_ones_are_not_called_better() -> None:
    base = with_iou(10, 0.6)
    spam: list[Row] = [("cat", 20.0 * k, 50.0, 20.0 * k + 9, 60.0) for k in range(9)]
    exact = [("cat", x, y, x + 10, y + 10) for i in range(10) for x, y in [corner_of(i)]]
    scores = [0.9] + [0.1] * 9  # AP hardly sees what comes last
    spammed = compare(base, [said(i, row, *spam, scores=scores) for i, row in enumerate(exact)], split(10))
    assert spammed["ap50"]["low"] == 0.0
    assert spammed["low"] > 0 and spammed["quality"]["high"] < 0
    assert spammed["verdict"] == "cannot tell" and "invented" in spammed["sentence"]


def test_the_interval_is_repeatable_and_covers() -> None:
    random = np.random.default_rng(0)
    base = with_iou(40, *random.uniform(0.1, 0.9, 40))
    tuned = with_iou(40, *random.uniform(0.1, 0.9, 40))
    one = compare(base, tuned, split(40))
    assert one == compare(base[::-1], tuned, split(40)) and one["num_resamples"] == 1000
    other = compare(base, tuned, split(40), seed=1)
    assert (other["low"], other["high"]) != (one["low"], one["high"])
    # Against the textbook interval of a mean.
    ious = [np.array([(p.boxes.xyxy_px[0, 3] - p.boxes.xyxy_px[0, 1]) / 10 for p in side]) for side in (base, tuned)]
    error = 1.96 * float(np.std(ious[1] - ious[0])) / math.sqrt(40)
    assert one["high"] - one["low"] == pytest.approx(2 * error, rel=0.15)


def test_ap_is_told_beside_with_an_interval_of_its_own() -> None:
    low, high = with_iou(20, 0.4, 0.7), with_iou(20, 0.9)
    found = compare(low, high, split(20))
    scores = [average_precision(split(20), {one.image_id: one.boxes for one in side}, ["cat"]) for side in (low, high)]
    for name, key in (("ap", "map"), ("ap50", "map50")):
        assert found[name]["mean_difference"] == pytest.approx(scores[1][key] - scores[0][key])
        assert 0 < found[name]["low"] <= found[name]["mean_difference"] <= found[name]["high"]
        assert found[name]["num_resamples"] == 1000
    assert f"AP50 by {found['ap50']['mean_difference']:+.3f} (95 % interval" in found["sentence"]


def test_further_boxes_count_for_ap_alone() -> None:
    base = with_iou(20, 0.6)
    more = [replace(one, boxes=replace(one.boxes, scores=np.ones(1))) for one in base]
    more = [replace(one, further=replace(other.boxes)) for one, other in zip(more, more[1:] + more[:1], strict=True)]
    found = compare(base, more, split(20))
    assert (found["mean_difference"], found["quality"]["mean_difference"]) == (0.0, 0.0)
    assert found["ap50"]["mean_difference"] < -0.1


def test_where_iou_and_ap50_contradict_each_other_it_cannot_be_told() -> None:
    even, uneven = with_iou(20, 0.55), with_iou(20, 0.45, 1.0)
    for base, tuned, sign in ((even, uneven, 1), (uneven, even, -1)):
        found = compare(base, tuned, split(20))
        assert sign * found["low"] > 0 and sign * found["high"] > 0
        assert sign * found["ap50"]["low"] < 0 and sign * found["ap50"]["high"] < 0
        assert found["verdict"] == "cannot tell" and "contradict" in found["sentence"]


def test_a_box_that_fits_every_image_is_not_called_better() -> None:
    """The truth lies where it always lies, and the model says that without looking."""
    samples = [sample(i, CAT) for i in range(20)]
    nothing, mean_box = [said(i) for i in range(20)], [said(i, CAT) for i in range(20)]
    found = compare(nothing, mean_box, samples)
    assert found["low"] == 1.0 and found["ap50"]["low"] == 1.0
    assert (found["swapped"]["mean_iou"], found["swapped"]["mean_difference"]) == (1.0, 0.0)
    assert found["verdict"] == "cannot tell" and "fit other images as well" in found["sentence"]


def test_one_box_for_images_of_every_size_is_noticed() -> None:
    sizes = [(100 + 10 * i, 300 - 10 * i) for i in range(20)]
    rows: list[Row] = [("cat", 0.2 * w, 0.2 * h, 0.8 * w, 0.8 * h) for w, h in sizes]
    samples = [replace(sample(i, row), size_wh=size) for i, (row, size) in enumerate(zip(rows, sizes, strict=True))]
    found = compare([said(i) for i in range(20)], [said(i, row) for i, row in enumerate(rows)], samples)
    assert found["swapped"]["mean_iou"] == pytest.approx(1.0) and found["verdict"] == "cannot tell"


def test_a_box_near_where_truth_mostly_lies_is_noticed_and_one_that_follows_it_is_not() -> None:
    random = np.random.default_rng(0)
    places = random.normal(50, 4, (40, 2))
    samples = [sample(i, ("cat", x, y, x + 30, y + 30)) for i, (x, y) in enumerate(places.tolist())]
    nothing = [said(i) for i in range(40)]

    def answer(share: float) -> list[Prediction]:
        """The mean place, moved towards the true one by a share, with noise."""
        moved = 50 + share * (places - 50) + random.normal(0, 1, places.shape)
        return [said(i, ("cat", x, y, x + 30, y + 30)) for i, (x, y) in enumerate(moved.tolist())]

    blind, looking = compare(nothing, answer(0.0), samples), compare(nothing, answer(1.0), samples)
    assert blind["mean_difference"] > 0.5 and blind["verdict"] == "cannot tell"
    assert blind["swapped"]["low"] <= 0 <= blind["swapped"]["high"]
    assert looking["verdict"] == "better" and looking["swapped"]["low"] > 0


def test_a_class_that_is_always_said_is_noticed() -> None:
    cats_and_dogs = [sample(i, CAT if i % 2 else ("dog", 0, 0, 10, 10)) for i in range(20)]
    nothing = [said(i) for i in range(20)]
    both = compare(nothing, [said(i, CAT, ("dog", 0, 0, 10, 10)) for i in range(20)], cats_and_dogs)
    assert both["verdict"] == "cannot tell" and "fit other images" in both["sentence"]
    told_apart = [said(i, CAT if i % 2 else ("dog", 0, 0, 10, 10)) for i in range(20)]
    assert compare(nothing, told_apart, cats_and_dogs)["verdict"] == "better"


@pytest.mark.parametrize("num", [0, 1, 2, 5, 11, 12, 30])
def test_nobody_stays_at_home_and_nobody_is_met_twice(num: int) -> None:
    orders = [order.tolist() for order in _derangements(num, seed=3)]
    assert len(orders) == max(0, min(10, num - 1))
    for order in orders:
        assert sorted(order) == list(range(num)) and not any(place == other for place, other in enumerate(order))
    for met in zip(*orders, strict=True):
        assert len(set(met)) == len(orders)


def test_of_many_images_fewer_are_swapped() -> None:
    assert [sum(1 for _ in _derangements(num, seed=0)) for num in (2_000, 5_000, 30_000)] == [10, 4, 1]


def test_swapping_is_repeatable_and_needs_two_images() -> None:
    base, tuned = with_iou(20, 0.3, 0.5), with_iou(20, 0.7, 0.9, 0.8)
    one = compare(base, tuned, split(20))["swapped"]
    assert one == compare(base, tuned, split(20))["swapped"] and one["num_derangements"] == 10
    alone = compare(with_iou(1, 0.3), with_iou(1, 0.9), split(1))
    nothing = {"mean_iou": None, "mean_difference": None, "low": None, "high": None, "num_derangements": 0}
    assert alone["swapped"] == nothing and alone["verdict"] == "cannot tell"


LEAKAGE = "Beware of what was learned by heart: 3 of 20."


def test_leakage_stands_beside_better_and_in_no_other_sentence() -> None:
    low, high = with_iou(20, 0.2, 0.4), with_iou(20, 0.6, 0.9)
    better, worse = (compare(*pair, split(20), leakage=LEAKAGE) for pair in ((low, high), (high, low)))
    assert better["verdict"] == "better" and better["sentence"].endswith(f". {LEAKAGE}")
    assert worse["verdict"] == "worse" and LEAKAGE not in worse["sentence"]
    assert better["leakage"] == worse["leakage"] == LEAKAGE
    assert compare(low, high, split(20))["leakage"] == ""


def test_the_scores_of_a_run_hold_both_models_the_threshold_and_leakage() -> None:
    low, high = (
        [replace(one, boxes=replace(one.boxes, scores=np.full(1, 0.8))) for one in with_iou(20, iou)]
        for iou in (0.3, 0.9)
    )
    how: dict[str, Any] = {"split": "valid", "seed": 0}
    scores = score_run(split(20), low, high, ["cat"], **how, threshold=0.5, leakage=LEAKAGE)
    assert scores["tuned"]["at_threshold"]["f1"] == 1.0 and scores["base"]["at_threshold"] is None
    assert scores["paired"]["leakage"] == LEAKAGE and scores["paired"]["verdict"] == "better"
    json.dumps(scores, allow_nan=False)
    alone = score_run(split(20), None, high, ["cat"], **how)
    assert "paired" not in alone and "base" not in alone and alone["tuned"]["at_threshold"] is None
