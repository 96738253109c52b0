"""The interval of a difference in AP is paired, repeatable, and what a set of copies would give."""

from __future__ import annotations

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.measure import average_precision, bootstrap
from boxtune.measure.bootstrap import bootstrap_ap, bootstrap_mean

from .coco_sets import CLASSES, boxes, random_split, sample

NOTHING = {"mean_difference": None, "low": None, "high": None, "num_resamples": None}


def sides(seed: int, num_images: int) -> tuple[list[Sample], list[Boxes], list[Boxes]]:
    """A split, answers of two models to it: the second leaves half of the first one's boxes away."""
    samples, predicted = random_split(seed, num_images=num_images)
    first = [predicted[one.image_id] for one in samples]
    random = np.random.default_rng(seed)
    return samples, first, [found.take(random.random(len(found)) < 0.5) for found in first]


def test_the_measured_difference_is_that_of_average_precision() -> None:
    samples, first, second = sides(4, 30)
    found = bootstrap_ap(samples, first, second, seed=0, num_resamples=50)
    ids = [one.image_id for one in samples]
    scores = [average_precision(samples, dict(zip(ids, side, strict=True)), CLASSES) for side in (first, second)]
    for name, key in (("ap", "map"), ("ap50", "map50")):
        assert found[name]["mean_difference"] == pytest.approx(scores[1][key] - scores[0][key], abs=1e-9)
        assert found[name]["low"] < found[name]["mean_difference"] < found[name]["high"] < 0
        assert found[name]["num_resamples"] == 50


@pytest.mark.slow
def test_the_interval_is_of_draws_of_images() -> None:
    """Against copies of images, drawn here and scored by COCO's own rules."""
    samples, first, second = sides(1, 12)
    found = bootstrap_ap(samples, first, second, seed=7, num_resamples=300)
    order = sorted(range(12), key=lambda place: samples[place].image_id)
    random = np.random.default_rng(3)
    differences = []
    for _ in range(300):
        drawn = [order[k] for k in random.integers(0, 12, 12)]
        copies = [Sample(**{**vars(samples[place]), "image_id": number}) for number, place in enumerate(drawn)]
        map50 = [
            average_precision(copies, {n: side[place] for n, place in enumerate(drawn)}, CLASSES)["map50"]
            for side in (first, second)
        ]
        differences.append(map50[1] - map50[0])
    low, high = np.percentile(differences, [2.5, 97.5])
    width = high - low
    assert found["ap50"]["low"] == pytest.approx(low, abs=0.2 * width)
    assert found["ap50"]["high"] == pytest.approx(high, abs=0.2 * width)


def test_the_same_seed_gives_the_same_interval_in_whatever_order_images_come() -> None:
    samples, first, second = sides(4, 25)
    one = bootstrap_ap(samples, first, second, seed=0, num_resamples=40)
    assert one == bootstrap_ap(samples[::-1], first[::-1], second[::-1], seed=0, num_resamples=40)
    other = bootstrap_ap(samples, first, second, seed=1, num_resamples=40)
    assert other["ap"]["low"] != one["ap"]["low"]
    swapped = bootstrap_ap(samples, second, first, seed=0, num_resamples=40)
    assert swapped["ap"]["high"] == pytest.approx(-one["ap"]["low"])


def test_both_models_are_measured_on_the_same_draw() -> None:
    samples, first, _ = sides(4, 25)
    same = bootstrap_ap(samples, first, first, seed=0, num_resamples=40)
    assert (same["ap"]["low"], same["ap50"]["high"]) == (0.0, 0.0)


def test_how_many_are_taken_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, first, second = sides(4, 25)
    together = bootstrap_ap(samples, first, second, seed=0, num_resamples=40)
    monkeypatch.setattr(bootstrap, "MOST_AT_ONCE", 100)
    apart = bootstrap_ap(samples, first, second, seed=0, num_resamples=40)
    assert apart["ap"] == pytest.approx(together["ap"]) and apart["ap50"] == pytest.approx(together["ap50"])


def test_large_sets_are_resampled_less_often_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, first, second = sides(4, 25)
    num_boxes = sum(map(len, first))
    monkeypatch.setattr(bootstrap, "MOST_WEIGHED", 250 * num_boxes)
    assert bootstrap_ap(samples, first, second, seed=0, num_resamples=1000)["ap"]["num_resamples"] in range(250, 400)
    monkeypatch.setattr(bootstrap, "MOST_WEIGHED", 1)
    assert bootstrap_ap(samples, first, second, seed=0, num_resamples=1000)["ap"]["num_resamples"] == 200
    assert bootstrap_ap(samples, first, second, seed=0, num_resamples=30)["ap"]["num_resamples"] == 30


def test_no_truth_leaves_no_number() -> None:
    nothing = {"ap": NOTHING, "ap50": NOTHING}
    assert bootstrap_ap([], [], [], seed=0, num_resamples=10) == nothing
    found = [boxes(("cell", 0, 0, 9, 9))]
    assert bootstrap_ap([sample(1, Boxes.none())], found, found, seed=0, num_resamples=10) == nothing
    assert bootstrap_mean(np.zeros(0), 0, 10) == {"mean_difference": None, "low": None, "high": None}


def test_draws_without_truth_are_left_out() -> None:
    truth = boxes(("cell", 0, 0, 20, 20))
    samples = [sample(1, truth), *(sample(k, Boxes.none()) for k in range(2, 6))]
    none, right = [Boxes.none()] * 5, [truth, *[Boxes.none()] * 4]
    found = bootstrap_ap(samples, none, right, seed=0, num_resamples=100)
    assert (found["ap"]["mean_difference"], found["ap"]["low"], found["ap"]["high"]) == (1.0, 1.0, 1.0)
