"""Matching is exact, one to one, and within the class."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxtune.boxes import Boxes, repeated
from boxtune.data.sample import Sample
from boxtune.measure.match import Counts, assign, count_matches, match_ious


def boxes(*rows: tuple[str, float, float, float, float]) -> Boxes:
    return Boxes(
        xyxy_px=np.array([row[1:] for row in rows], dtype=float).reshape(-1, 4), labels=tuple(r[0] for r in rows)
    )


def sample(truth: Boxes, crowd: tuple[int, ...] = (), ignore: tuple[int, ...] = ()) -> Sample:
    places = np.arange(len(truth))
    return Sample(
        image=Path("a.jpg"),
        image_id=1,
        size_wh=(100, 100),
        boxes=truth,
        crowd=np.isin(places, crowd),
        ignore=np.isin(places, ignore),
    )


def total(gain: np.ndarray, partner: np.ndarray) -> float:
    return float(sum(gain[row, column] for row, column in enumerate(partner) if column >= 0))


def best_total(gain: np.ndarray) -> float:
    gain = gain if gain.shape[0] <= gain.shape[1] else gain.T
    rows = range(gain.shape[0])
    return max(
        sum(gain[row, columns[row]] for row in rows) for columns in permutations(range(gain.shape[1]), len(rows))
    )


def test_assign_is_as_good_as_every_pairing_tried() -> None:
    random = np.random.default_rng(0)
    num_tried = 0
    for case in range(400):
        n, m = (int(v) for v in random.integers(0, 6, 2))
        gain = random.random((n, m)) * (random.random((n, m)) < 0.6)
        gain = np.round(gain * 3) / 3 if case % 3 == 0 else gain  # ties
        partner = assign(gain)
        used = partner[partner >= 0]
        assert partner.shape == (n,) and len(set(used.tolist())) == len(used)
        assert all(gain[row, column] > 0 for row, column in enumerate(partner) if column >= 0)
        assert total(gain, partner) == pytest.approx(best_total(gain), abs=1e-12)
        num_tried += 1
    assert num_tried == 400


def test_assign_gives_up_the_best_pair_for_two_good_ones() -> None:
    assert assign(np.array([[0.9, 0.8], [0.7, 0.0]])).tolist() == [1, 0]  # greedy: 0.9 and nothing


@pytest.mark.parametrize("poison", [np.nan, np.inf, -0.1])
def test_assign_refuses_gains_without_meaning(poison: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        assign(np.array([[0.5, poison]]))


def test_assign_takes_many_boxes() -> None:
    gain = np.random.default_rng(1).random((120, 150))
    assert len(set(assign(gain).tolist())) == 120


def test_ious_are_of_partners_of_the_same_class() -> None:
    truth = boxes(("cat", 0, 0, 10, 10), ("dog", 0, 0, 10, 10), ("cat", 50, 50, 60, 60))
    predicted = boxes(("dog", 0, 0, 10, 5), ("cat", 0, 0, 10, 8), ("cow", 50, 50, 60, 60))
    assert match_ious(truth, predicted).tolist() == [0.8, 0.5, 0.0]


def test_a_prediction_serves_one_truth_box_only() -> None:
    twice = boxes(("cat", 0, 0, 10, 10), ("cat", 0, 0, 10, 10))
    assert sorted(match_ious(twice, boxes(("cat", 0, 0, 10, 10)))) == [0.0, 1.0]
    assert match_ious(boxes(("cat", 0, 0, 10, 10)), twice).tolist() == [1.0]


def test_no_boxes_on_either_side() -> None:
    one = boxes(("cat", 0, 0, 10, 10))
    assert match_ious(Boxes.none(), one).shape == (0,)
    assert match_ious(one, Boxes.none()).tolist() == [0.0]
    assert count_matches(sample(Boxes.none()), one, threshold=0.5) == Counts(found=0, missed=0, false=1, set_aside=0)
    assert count_matches(sample(one), Boxes.none(), threshold=0.5) == Counts(found=0, missed=1, false=0, set_aside=0)


def test_counts_take_the_pair_above_the_threshold_over_the_larger_sum() -> None:
    # IoU: A-p 0.625, A-q 0.45, B-p 0.343, B-q 0: the largest sum (0.793) has no pair at 0.5, yet p does find A.
    truth = boxes(("cat", 0, 0, 100, 10), ("cat", 0, 10, 100, 17.5))
    p, q = ("cat", 0.0, 0.0, 100.0, 16.0), ("cat", 0.0, 0.0, 45.0, 10.0)
    assert match_ious(truth, boxes(p, q)) == pytest.approx([0.45, 600 / 1750])
    assert count_matches(sample(truth), boxes(p, q), threshold=0.5).found == 1


def test_predictions_on_crowd_and_ignored_boxes_are_set_aside() -> None:
    truth = boxes(("cat", 0, 0, 10, 10), ("cat", 40, 40, 100, 100), ("cat", 0, 60, 20, 80))
    on_crowd = [("cat", 50.0, 50.0, 60.0, 60.0), ("cat", 70.0, 70.0, 80.0, 80.0)]
    on_ignored, half_off = ("cat", 0.0, 60.0, 20.0, 80.0), ("cat", 30.0, 40.0, 50.0, 50.0)
    other_class, mostly_off = ("dog", 50.0, 50.0, 60.0, 60.0), ("cat", 20.0, 40.0, 45.0, 50.0)
    predicted = boxes(("cat", 0, 0, 10, 10), *on_crowd, on_ignored, half_off, other_class, mostly_off)
    marked = sample(truth, crowd=(1,), ignore=(2,))
    assert count_matches(marked, predicted, threshold=0.5) == Counts(found=1, missed=0, false=2, set_aside=4)
    plain = count_matches(sample(truth), predicted, threshold=0.5)
    assert plain == Counts(found=2, missed=1, false=5, set_aside=0)


def test_a_prediction_without_area_is_false() -> None:
    marked = sample(boxes(("cat", 0, 0, 10, 10)), crowd=(0,))
    assert count_matches(marked, boxes(("cat", 5, 5, 5, 8)), threshold=0.5).false == 1


def test_repeated_marks_the_later_box_of_the_same_label() -> None:
    first, again, other = ("cat", 0.0, 0.0, 10.0, 10.0), ("cat", 0.0, 0.0, 10.0, 9.0), ("dog", 0.0, 0.0, 10.0, 10.0)
    less = ("cat", 0.0, 0.0, 10.0, 8.9)
    assert repeated(boxes(first, other, again), threshold=0.9).tolist() == [False, False, True]
    assert repeated(boxes(first, first, first), threshold=0.9).tolist() == [False, True, True]
    assert repeated(boxes(first, less), threshold=0.9).tolist() == [False, False]
    assert repeated(Boxes.none(), threshold=0.9).shape == (0,)


corner, side = st.integers(0, 30), st.integers(1, 30)
rows = st.lists(st.tuples(st.sampled_from("ab"), corner, corner, side, side), max_size=7)


@settings(max_examples=100)
@given(truth=rows, predicted=rows, seed=st.integers(0, 99))
def test_the_order_of_boxes_changes_no_count_and_no_sum(truth: list, predicted: list, seed: int) -> None:
    def made(cells: list) -> Boxes:
        return boxes(*((label, x, y, x + w, y + h) for label, x, y, w, h in cells))

    said, target = made(predicted), made(truth)
    shuffled = said.take(np.random.default_rng(seed).permutation(len(said)).tolist())
    one, other = (count_matches(sample(target), found, threshold=0.5) for found in (said, shuffled))
    assert one == other
    assert one.found <= min(len(target), len(said)) and one.found + one.missed == len(target)
    assert match_ious(target, said).sum() == pytest.approx(match_ious(target, shuffled).sum(), abs=1e-9)


def test_an_iou_of_exactly_the_threshold_is_found() -> None:
    truth = sample(boxes(("cat", 0, 0, 10, 10)))
    assert count_matches(truth, boxes(("cat", 0, 0, 10, 5)), threshold=0.5).found == 1
    assert count_matches(truth, boxes(("cat", 0, 0, 10, 4.99)), threshold=0.5).found == 0


def test_a_prediction_that_finds_its_target_inside_a_crowd_counts_once() -> None:
    inside = sample(boxes(("cat", 10, 10, 20, 20), ("cat", 0, 0, 50, 50)), crowd=(1,))
    counts = count_matches(inside, boxes(("cat", 10, 10, 20, 20)), threshold=0.5)
    assert counts == Counts(found=1, missed=0, false=0, set_aside=0)
