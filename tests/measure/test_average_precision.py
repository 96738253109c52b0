"""AP agrees with pycocotools, and says None where it has nothing to measure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boxtune.measure
from boxtune.boxes import Boxes, join_boxes
from boxtune.data.sample import Sample
from boxtune.measure.average_precision import average_precision

from .coco_sets import CLASSES, OVERALL, PRECISIONS, RECALLS, boxes, by_pycocotools, random_split, sample

CELL, PLATE = ("cell", 0.0, 0.0, 20.0, 20.0), ("plate", 50.0, 50.0, 150.0, 150.0)
OVER_CELL, FAR = ("cell", 0.0, 0.0, 20.0, 19.0), ("cell", 200.0, 100.0, 260.0, 140.0)
CRAFTED: dict[str, tuple[list[Sample], dict[int, Boxes]]] = {
    "two classes, one of them missed": ([sample(1, boxes(CELL, PLATE))], {1: boxes(CELL, scores=[0.5])}),
    "boxes on a crowd": (
        [sample(1, boxes(CELL, PLATE, ("plate", 200, 0, 400, 300)), crowd=[False, False, True])],
        {1: boxes(("plate", 210, 10, 260, 60), CELL, PLATE, scores=[0.9, 0.8, 0.7])},
    ),
    "the same box said three times": (
        [sample(1, boxes(CELL, FAR))],
        {1: boxes(CELL, OVER_CELL, CELL, FAR, scores=[0.9, 0.8, 0.7, 0.6])},
    ),
    "images without truth, without answers, without both": (
        [sample(1, boxes(CELL)), sample(2, Boxes.none()), sample(3, boxes(CELL)), sample(4, Boxes.none())],
        {1: boxes(CELL, scores=[0.5]), 2: boxes(FAR, scores=[0.4]), 4: Boxes.none()},
    ),
    "all wrong": ([sample(1, boxes(CELL, PLATE))], {1: boxes(FAR, ("plate", 0, 0, 20, 20), scores=[0.9, 0.8])}),
    "all right": ([sample(1, boxes(CELL, PLATE))], {1: boxes(PLATE, CELL, scores=[0.9, 0.8])}),
    "an IoU of exactly a half": ([sample(1, boxes(CELL))], {1: boxes(("cell", 0, 0, 20, 10), scores=[0.9])}),
}
EXPECTED = {
    "two classes, one of them missed": (0.5, 0.5),
    "boxes on a crowd": (1.0, 1.0),
    # Both of two boxes found, at ranks 1 and 4: precision 1 up to recall 0.5, then 2 of 4.
    "the same box said three times": ((51 + 50 * 0.5) / 101, 1.0),
    "images without truth, without answers, without both": (51 / 101, 0.5),
    "all wrong": (0.0, 0.0),
    "all right": (1.0, 1.0),
    "an IoU of exactly a half": (1.0, 0.1),
}


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_pycocotools(seed: int) -> None:
    samples, predicted = random_split(seed)
    assert any(s.crowd.any() for s in samples)
    assert compare_with_pycocotools(samples, predicted)["map"] > 0.05


def compare_with_pycocotools(samples: list[Sample], predicted: dict[int, Boxes]) -> dict[str, Any]:
    """Our scores, every number of which is that of pycocotools."""
    ours, theirs = average_precision(samples, predicted, CLASSES), by_pycocotools(samples, predicted)
    for name in OVERALL:
        expected = None if theirs[name] == -1 else pytest.approx(theirs[name], abs=1e-9)
        assert ours[name] == expected, name
    assert list(ours["per_class"]) == CLASSES
    for name, (precision, recall) in theirs["per_class"].items():
        row = ours["per_class"][name]
        assert row["num_truth"] == sum(s.targets.labels.count(name) for s in samples)
        if row["num_truth"]:
            assert row["ap"] == pytest.approx(precision.mean(), abs=1e-9)
            assert row["ap50"] == pytest.approx(precision[0].mean(), abs=1e-9)
            assert row["ar"] == pytest.approx(recall.mean(), abs=1e-9)
        else:
            assert row["ap"] is None and row["ap50"] is None and row["ar"] is None
    return ours


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_cases_are_equal_to_pycocotools(case: str) -> None:
    samples, predicted = CRAFTED[case]
    ours = compare_with_pycocotools(samples, predicted)
    assert (ours["map50"], ours["ar_100"]) == pytest.approx(EXPECTED[case], abs=1e-9)


def test_recall_is_of_so_many_boxes_an_image_and_class() -> None:
    truth = boxes(*(("cell", 30 * k, 0, 30 * k + 20, 20) for k in range(12)))
    right = Boxes(xyxy_px=truth.xyxy_px, labels=truth.labels, scores=np.linspace(0.9, 0.1, 12))
    ours = compare_with_pycocotools([sample(1, truth)], {1: right})
    assert (ours["ar_1"], ours["ar_10"], ours["ar_100"]) == pytest.approx((1 / 12, 10 / 12, 1.0))
    assert (ours["ar_small"], ours["ar_medium"]) == (1.0, None)
    # A false box in front costs recall of the first alone, and precision.
    led = compare_with_pycocotools([sample(1, truth)], {1: join_boxes([false_box(score=0.95), right])})
    assert (led["ar_1"], led["ar_100"]) == pytest.approx((0.0, 1.0)) and led["map"] < ours["map"]


def false_box(score: float) -> Boxes:
    return boxes(("cell", 300, 200, 320, 220), scores=[score])


def test_all_right_is_one_and_all_wrong_is_zero() -> None:
    truth = boxes(("cell", 0, 0, 20, 20), ("dot", 50, 50, 100, 100))
    samples = [sample(7, truth)]
    right = average_precision(samples, {7: truth}, CLASSES)
    assert [right[name] for name in PRECISIONS] == [1.0, 1.0, 1.0, 1.0, 1.0, None]
    assert [right[name] for name in RECALLS] == [1.0, 1.0, 1.0, 1.0, 1.0, None]
    assert right["per_class"]["cell"] == {"ap": 1.0, "ap50": 1.0, "ar": 1.0, "num_truth": 1}
    assert right["per_class"]["never"] == {"ap": None, "ap50": None, "ar": None, "num_truth": 0}
    swapped = boxes(("dot", 0, 0, 20, 20), ("cell", 50, 50, 100, 100))
    wrong = average_precision(samples, {7: swapped}, CLASSES)
    assert [wrong[name] for name in OVERALL] == [0.0, 0.0, 0.0, 0.0, 0.0, None] * 2


def test_a_false_box_above_the_right_one_halves_ap() -> None:
    predicted = boxes(("cell", 50, 50, 70, 70), ("cell", 0, 0, 20, 20), scores=[0.9, 0.8])
    ours = average_precision([sample(1, boxes(("cell", 0, 0, 20, 20)))], {1: predicted}, CLASSES)
    assert ours["map"] == pytest.approx(0.5)


def test_iou_of_0_8_counts_for_seven_of_ten_thresholds() -> None:
    ours = average_precision([sample(1, boxes(("cell", 0, 0, 10, 10)))], {1: boxes(("cell", 0, 0, 10, 8.1))}, CLASSES)
    assert (ours["map"], ours["map50"], ours["map75"]) == (pytest.approx(0.7), 1.0, 1.0)


def test_no_predictions_at_all_is_zero() -> None:
    samples, _ = random_split(1)
    for predicted in ({}, {s.image_id: Boxes.none() for s in samples}):
        ours = average_precision(samples, predicted, CLASSES)
        assert ours["map"] == ours["map50"] == ours["per_class"]["cell"]["ap"] == 0.0
        assert ours["per_class"]["never"]["ap"] is None


def test_no_truth_is_none() -> None:
    crowd_only = sample(2, boxes(("cell", 0, 0, 9, 9)), crowd=[True])
    invented = {1: boxes(("cell", 0, 0, 9, 9))}
    num_seen = 0
    for samples in ([], [sample(1, Boxes.none())], [sample(1, Boxes.none()), crowd_only]):
        ours = average_precision(samples, invented if samples else {}, CLASSES)
        assert [ours[name] for name in OVERALL] == [None] * 12
        assert all(row == {"ap": None, "ap50": None, "ar": None, "num_truth": 0} for row in ours["per_class"].values())
        num_seen += 1
    assert num_seen == 3
    assert average_precision([sample(1, Boxes.none())], {}, [])["per_class"] == {}


@pytest.mark.parametrize("flag", ["crowd", "ignore"])
def test_boxes_on_a_crowd_are_not_false(flag: str) -> None:
    truth = boxes(("cell", 0, 0, 20, 20), ("cell", 100, 100, 200, 200))
    on_both = boxes(("cell", 110, 110, 130, 130), ("cell", 0, 0, 20, 20), scores=[0.9, 0.8])
    marked = average_precision([sample(1, truth, **{flag: [False, True]})], {1: on_both}, CLASSES)
    assert marked["map"] == 1.0 and marked["per_class"]["cell"]["num_truth"] == 1
    assert average_precision([sample(1, truth)], {1: on_both}, CLASSES)["map"] < 0.5


def test_handing_over_in_another_order_changes_nothing_but_other_ids_do() -> None:
    good, bad = boxes(("cell", 0, 0, 20, 20)), boxes(("cell", 60, 60, 80, 80))
    truth = boxes(("cell", 0, 0, 20, 20))
    samples = [sample(1, truth), sample(2, truth)]
    forth = average_precision(samples, {1: good, 2: bad}, CLASSES)
    back = average_precision(samples[::-1], {2: bad, 1: good}, CLASSES)
    assert forth == back
    swapped = average_precision(samples, {1: bad, 2: good}, CLASSES)
    assert forth["map"] == pytest.approx(51 / 101) and swapped["map"] == pytest.approx(51 / 101 / 2)


def test_any_image_id_will_do() -> None:
    truth = boxes(("cell", 0, 0, 20, 20))
    for image_id in (0, -5, 2**60):
        assert average_precision([sample(image_id, truth)], {image_id: truth}, CLASSES)["map"] == 1.0


def test_nothing_is_printed_or_logged_and_no_input_is_changed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    samples, predicted = random_split(2)
    before = {image_id: b.xyxy_px.copy() for image_id, b in predicted.items()}
    with caplog.at_level("INFO"):
        average_precision(samples, predicted, CLASSES)
        average_precision(samples, {}, CLASSES)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.records) == ("", "", [])
    assert all((before[image_id] == b.xyxy_px).all() for image_id, b in predicted.items())


def test_what_would_be_counted_wrongly_is_refused() -> None:
    truth = boxes(("cell", 0, 0, 20, 20))
    with pytest.raises(ValueError, match="two samples have the same image id: 1"):
        average_precision([sample(1, truth), sample(1, truth)], {}, CLASSES)
    with pytest.raises(ValueError, match="no sample has: 9"):
        average_precision([sample(1, truth)], {9: truth}, CLASSES)
    with pytest.raises(ValueError, match=r"predictions with labels .*: cow"):
        average_precision([sample(1, truth)], {1: boxes(("cow", 0, 0, 9, 9))}, CLASSES)
    with pytest.raises(ValueError, match=r"truth with labels .*: cow"):
        average_precision([sample(1, boxes(("cow", 0, 0, 9, 9)))], {}, CLASSES)
    with pytest.raises(ValueError, match=r"stands twice.*: cell"):
        average_precision([sample(1, truth)], {}, [*CLASSES, "cell"])
    with pytest.raises(ValueError, match="image 1 have a score that is not finite"):
        average_precision([sample(1, truth)], {1: boxes(("cell", 0, 0, 9, 9), scores=[np.nan])}, CLASSES)


def test_measuring_loads_no_torch() -> None:
    source = Path(boxtune.measure.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import boxtune.measure; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
