"""Rewards of single images: 1 for what is right, less for what is missed, invented or off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxtune.boxes import Boxes
from boxtune.measure import ap_reward, average_precision, iou_reward, rank_images, reward

from .coco_sets import CLASSES, random_split
from .rows import CAT, CAT_IOU_60, CAT_IOU_95, DOG, FAR_CAT, boxes, said, sample

TWO = sample(1, CAT, DOG)
EMPTY = sample(1)


@pytest.mark.parametrize("rewarded", [iou_reward, ap_reward, reward])
def test_all_right_is_one_and_nothing_or_all_wrong_is_zero(rewarded) -> None:  # type: ignore[no-untyped-def]
    assert rewarded(TWO, boxes(DOG, CAT)) == 1.0
    assert rewarded(TWO, Boxes.none()) == 0.0
    assert rewarded(TWO, boxes(FAR_CAT, ("dog", 0, 0, 10, 10))) == 0.0
    assert 0.0 < rewarded(TWO, boxes(DOG)) < 1.0


@pytest.mark.parametrize("rewarded", [iou_reward, ap_reward, reward])
def test_an_image_without_truth_wants_nothing_in_sound_words(rewarded) -> None:  # type: ignore[no-untyped-def]
    assert rewarded(EMPTY, Boxes.none()) == 1.0
    assert rewarded(EMPTY, Boxes.none(), sound=False) == 0.0
    assert rewarded(EMPTY, boxes(CAT)) == 0.0


def test_closer_boxes_are_worth_more() -> None:
    one = sample(1, CAT)
    assert [iou_reward(one, boxes(row)) for row in (CAT_IOU_60, CAT_IOU_95, CAT)] == pytest.approx([0.6, 0.95, 1.0])
    # 0.6 is found at three of the ten thresholds, 0.95 at all of them.
    assert [ap_reward(one, boxes(row)) for row in (CAT_IOU_60, CAT)] == pytest.approx([0.3, 1.0])
    assert reward(one, boxes(CAT_IOU_60)) == pytest.approx(0.45)
    assert reward(one, boxes(CAT_IOU_60), iou_share=1.0) == pytest.approx(0.6)
    assert reward(one, boxes(CAT_IOU_60), iou_share=0.0) == pytest.approx(0.3)


def test_the_iou_reward_is_what_images_are_ranked_by() -> None:
    found = [said(1, CAT_IOU_60, FAR_CAT), said(2, kinds=("malformed",)), said(3)]
    samples = [sample(1, CAT), sample(2), sample(3)]
    assert dict(rank_images(samples, found)) == {
        1: iou_reward(samples[0], found[0].boxes),
        2: iou_reward(samples[1], found[1].boxes, sound=False),
        3: 1.0,
    }


def test_boxes_beyond_the_truth_cost_also_where_ap_does_not_see_them() -> None:
    behind = boxes(CAT, DOG, FAR_CAT, FAR_CAT)
    strange = boxes(CAT, DOG, ("cow", 0, 0, 9, 9), ("cow", 0, 0, 9, 9))
    for found in (behind, strange):
        assert ap_reward(TWO, found, length_cost=0.0) == 1.0
        assert ap_reward(TWO, found) == pytest.approx(0.75)
        assert ap_reward(TWO, found, length_cost=1.0) == pytest.approx(0.5)
        assert iou_reward(TWO, found) == pytest.approx(0.5)
    # In front of the right ones they cost precision too; fewer boxes than truth cost recall alone.
    assert ap_reward(TWO, boxes(FAR_CAT, FAR_CAT, CAT, DOG)) < 0.6
    assert ap_reward(TWO, boxes(CAT)) == pytest.approx(0.5)


def test_scores_rank_the_boxes_of_the_ap_reward() -> None:
    one = sample(1, CAT)
    assert ap_reward(one, boxes(FAR_CAT, CAT, scores=[0.1, 0.9]), length_cost=0.0) == 1.0
    assert ap_reward(one, boxes(FAR_CAT, CAT, scores=[0.9, 0.1]), length_cost=0.0) == pytest.approx(0.5)
    assert ap_reward(one, boxes(FAR_CAT, CAT), length_cost=0.0) == pytest.approx(0.5)


def test_boxes_on_a_crowd_cost_nothing() -> None:
    crowded = sample(1, CAT, ("cat", 50, 0, 100, 50), crowd=(1,))
    assert reward(crowded, boxes(CAT, ("cat", 60, 10, 70, 20))) == 1.0
    assert reward(sample(1, CAT), boxes(CAT, ("cat", 60, 10, 70, 20))) < 1.0
    nothing_else = sample(1, ("cat", 50, 0, 100, 50), crowd=(0,))
    assert reward(nothing_else, boxes(("cat", 60, 10, 70, 20))) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_the_ap_reward_without_its_length_is_the_ap_of_the_image_alone(seed: int) -> None:
    samples, predicted = random_split(seed)
    num_seen = 0
    for one in samples:
        found = predicted[one.image_id]
        expected = average_precision([one], {one.image_id: found}, CLASSES)["map"]
        if expected is not None:
            assert ap_reward(one, found, length_cost=0.0) == pytest.approx(expected, abs=1e-9)
            num_seen += 1
    assert num_seen >= 5


@pytest.mark.parametrize("wrong", [{"iou_share": 1.5}, {"length_cost": -0.1}])
def test_shares_outside_of_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        reward(TWO, boxes(CAT), **wrong)


corner, side = st.integers(0, 30), st.integers(0, 30)
cells = st.lists(st.tuples(st.sampled_from(["cat", "dog"]), corner, corner, side, side), max_size=6)


@given(truth=cells, found=cells)
def test_rewards_lie_in_0_to_1(truth: list, found: list) -> None:
    one, said = ([(label, x, y, x + w, y + h) for label, x, y, w, h in rows] for rows in (truth, found))
    for rewarded in (iou_reward, ap_reward, reward):
        assert 0.0 <= rewarded(sample(1, *one, crowd=(2,)), boxes(*said)) <= 1.0
