"""The scores of one model, the ranking of images, and predictions on disk that are broken."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxtune.artifacts import write_json
from boxtune.errors import DataError
from boxtune.families.family import Problem, Said
from boxtune.measure import coco_results, compare, rank_images, read_predictions, score_predictions
from boxtune.measure.scores import PARSE_FAILURES

from .rows import CAT, CAT_IOU_60, CAT_IOU_95, DOG, FAR_CAT, Row, said, sample

CLASSES = ["cat", "dog", "cow"]


def test_a_split_counted_by_hand() -> None:
    samples = [
        sample(1, CAT, DOG),
        sample(2, CAT, ("cat", 50, 0, 100, 50), crowd=(1,)),
        sample(3, DOG, FAR_CAT),
        sample(4),
        sample(5),
        sample(6, ("dog", 0, 0, 50, 50), ignore=(0,)),
    ]
    predictions = [
        said(1, CAT_IOU_60, ("cat", 20, 20, 40, 40), kinds=("unknown_label",)),  # the second has the wrong class
        said(2, CAT, CAT_IOU_95, ("cat", 60, 10, 70, 20), truncated=True, kinds=("truncated",)),  # one on the crowd
        said(3, kinds=("malformed", "malformed")),
        said(4),
        said(5, FAR_CAT, kinds=("inverted",)),
        said(6, ("dog", 0, 0, 50, 50)),
    ]
    scores = score_predictions(samples, predictions, CLASSES)
    # IoU of the five truth boxes: 0.6, 0 (dog), 1, 0, 0. Found 2; false 3: wrong class, repeat, invented; aside 2.
    expected = {
        "mean_iou": 1.6 / 5,
        "median_iou": 0.0,
        "detection_rate": 2 / 3,
        "iou_above_50": 2 / 5,
        "iou_above_70": 1 / 5,
        "precision": 2 / 5,
        "recall": 2 / 5,
        "f1": 4 / 10,
        "parse_failure_rate": 2 / 6,
        "duplicate_rate": 1 / 7,
        "truncated_rate": 1 / 6,
        "empty_correct_rate": 1 / 2,
        "num_images": 6,
        "num_truth": 5,
        "num_predictions": 7,
        "num_freely": 0,
        "unknown_name_rate": 1 / 6,
        "off_image_rate": 0.0,
        "calibration": None,
        "at_threshold": None,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    ap_names = {"map", "map50", "map75", "map_small", "map_medium", "map_large", "per_class"}
    ar_names = {"ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"}
    assert set(scores) == set(expected) | ap_names | ar_names
    assert {name: row["num_truth"] for name, row in scores["per_class"].items()} == {"cat": 3, "dog": 2, "cow": 0}
    assert scores["per_class"]["dog"]["ap50"] == 0.0 and scores["per_class"]["cow"]["ap50"] is None
    json.dumps(scores, allow_nan=False)


def test_all_right() -> None:
    samples = [sample(1, CAT, DOG), sample(2), sample(3, FAR_CAT)]
    predictions = [said(3, FAR_CAT), said(1, DOG, CAT), said(2)]
    scores = score_predictions(samples, predictions, CLASSES)
    ones = ["map", "map50", "mean_iou", "median_iou", "detection_rate", "iou_above_50", "iou_above_70", "precision"]
    assert [scores[name] for name in [*ones, "recall", "f1", "empty_correct_rate"]] == [1.0] * 11
    zeros = ["parse_failure_rate", "duplicate_rate", "truncated_rate"]
    assert [scores[name] for name in zeros] == [0.0] * 3


def test_all_wrong() -> None:
    scores = score_predictions([sample(1, CAT), sample(2)], [said(1, DOG), said(2, CAT)], CLASSES)
    zeros = ["map", "mean_iou", "iou_above_50", "precision", "recall", "f1", "empty_correct_rate"]
    assert [scores[name] for name in zeros] == [0.0] * 7
    assert scores["detection_rate"] == 1.0  # it did answer, if wrongly


def test_nothing_said_has_no_precision() -> None:
    scores = score_predictions([sample(1, CAT)], [said(1, kinds=("empty_answer",))], CLASSES)
    assert (scores["precision"], scores["duplicate_rate"], scores["empty_correct_rate"]) == (None, None, None)
    names = ["map", "mean_iou", "recall", "f1", "detection_rate", "parse_failure_rate"]
    assert [scores[name] for name in names] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("images", [(), (1,)])
def test_no_truth_leaves_no_number(images: tuple[int, ...]) -> None:
    scores = score_predictions([sample(i) for i in images], [said(i) for i in images], CLASSES)
    empty = ["map", "mean_iou", "median_iou", "detection_rate", "iou_above_50", "precision", "recall", "f1"]
    assert [scores[name] for name in empty] == [None] * 8
    assert scores["parse_failure_rate"] == (0.0 if images else None)
    assert scores["empty_correct_rate"] == (1.0 if images else None)


def test_an_image_with_nothing_but_a_crowd_is_neither_empty_nor_with_truth() -> None:
    scores = score_predictions([sample(1, CAT, crowd=(0,))], [said(1, CAT)], CLASSES)
    names = ["detection_rate", "empty_correct_rate", "precision", "f1"]
    assert [scores[name] for name in names] == [None] * 4


def test_which_problems_are_parse_failures() -> None:
    kinds = ["empty_answer", "malformed", "out_of_range", "inverted", "no_area", "truncated", "unknown_label"]
    rates = {
        kind: score_predictions([sample(1, CAT)], [said(1, CAT, kinds=(kind,))], CLASSES)["parse_failure_rate"]
        for kind in kinds
    }
    assert rates == {kind: float(kind in PARSE_FAILURES) for kind in kinds}
    assert sum(rates.values()) == 5


def test_names_that_nobody_asked_for_are_counted_by_answer() -> None:
    samples = [sample(i, CAT) for i in range(4)]
    names = ["unknown_label", "unknown_label"]
    predictions = [said(0, CAT, kinds=tuple(names)), said(1, CAT, kinds=("malformed",)), said(2, CAT), said(3, CAT)]
    assert score_predictions(samples, predictions, CLASSES)["unknown_name_rate"] == 0.25
    # Where some were asked freely, those tell it: a guided answer cannot name anything else.
    freely = [Said(text="", problems=(Problem(kind=kind, text=""),), truncated=False) for kind in (names[0], "no_area")]
    asked = [said(i, CAT) for i in range(4)]
    asked[:2] = [replace(one, freely=answer) for one, answer in zip(asked[:2], freely, strict=True)]
    assert score_predictions(samples, asked, CLASSES)["unknown_name_rate"] == 0.5
    assert score_predictions([], [], CLASSES)["unknown_name_rate"] is None


@pytest.mark.parametrize(
    ("row", "off"),
    [
        (("cat", 0, 0, 200, 100), False),
        (("cat", -1, -1, 201, 101), False),  # a pixel beyond is rounding
        (("cat", 0, 0, 201.1, 100), True),
        (("cat", 0, 0, 200, 101.1), True),
        (("cat", -1.1, 0, 50, 50), True),
        (("cat", 0, -1.1, 50, 50), True),
        (("cat", 300, 200, 400, 300), True),
    ],
)
def test_boxes_off_the_image_are_counted(row: Row, off: bool) -> None:
    scores = score_predictions([sample(1, CAT)], [said(1, CAT, row)], CLASSES)  # the image is 200 by 100
    assert scores["off_image_rate"] == (0.5 if off else 0.0)
    assert score_predictions([sample(1, CAT)], [said(1)], CLASSES)["off_image_rate"] is None


def test_saying_a_box_many_times_does_not_raise_recall() -> None:
    samples = [sample(1, CAT, FAR_CAT)]
    scores = score_predictions(samples, [said(1, *[CAT] * 10)], CLASSES)
    assert (scores["recall"], scores["precision"], scores["duplicate_rate"]) == (0.5, 0.1, 0.9)


corner, side = st.integers(0, 30), st.integers(1, 30)
cells = st.lists(st.tuples(st.sampled_from(["cat", "dog"]), corner, corner, side, side), max_size=6)


def rows_of(drawn: list[tuple[str, int, int, int, int]]) -> list[Row]:
    return [(label, x, y, x + w, y + h) for label, x, y, w, h in drawn]


@pytest.mark.slow
@settings(max_examples=60)
@given(truth=cells, other=cells, predicted=cells, seed=st.integers(0, 999))
def test_order_within_an_answer_changes_nothing(truth: list, other: list, predicted: list, seed: int) -> None:
    samples = [sample(1, *rows_of(truth), crowd=(2,)), sample(2, *rows_of(other))]
    rows = rows_of(predicted)
    mixed = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    one, two = (score_predictions(samples, [said(1, *r), said(2, *r)], CLASSES) for r in (rows, mixed))
    for name in ("precision", "recall", "f1", "mean_iou", "iou_above_50", "detection_rate"):
        assert one[name] == (None if two[name] is None else pytest.approx(two[name], abs=1e-9)), name
    for name, value in one.items():
        assert name in ("per_class", "num_images", "num_truth", "num_predictions") or value is None or 0 <= value <= 1


def test_predictions_must_cover_exactly_the_samples() -> None:
    samples = [sample(i, CAT) for i in range(5)]
    predictions = [said(3), said(3), said(4), said(77), said(78)]
    with pytest.raises(ValueError) as raised:
        score_predictions(samples, predictions, CLASSES)
    parts = str(raised.value).split("; ")
    assert parts == [
        "more than one prediction for image id: 3",
        "no prediction for image id: 0, 1, 2",
        "predictions for image ids that no sample has: 77, 78",
    ]
    for refused in (
        lambda: rank_images(samples, predictions),
        lambda: coco_results(predictions, samples, CLASSES),
        lambda: compare([said(i) for i in range(5)], predictions, samples, seed=0),
        lambda: compare(predictions, [said(i) for i in range(5)], samples, seed=0),
    ):
        with pytest.raises(ValueError, match="no prediction for image id: 0, 1, 2"):
            refused()
    with pytest.raises(ValueError, match="two samples have the same image id: 1"):
        score_predictions([sample(1), sample(1)], [said(1)], CLASSES)


def test_poison_is_refused() -> None:
    for poison in (math.nan, math.inf):
        with pytest.raises(ValueError, match="image 1: a box has a score that is not finite"):
            said(1, CAT, scores=[poison])
        with pytest.raises(ValueError, match="not finite"):
            said(1, ("cat", 0, 0, poison, 10))
    with pytest.raises(ValueError, match="labels that are not among the classes: horse"):
        score_predictions([sample(1, CAT)], [said(1, ("horse", 0, 0, 9, 9))], CLASSES)


def test_images_are_ranked_from_best_to_worst() -> None:
    samples = [
        sample(1, CAT, DOG),
        sample(2, CAT),
        sample(3),
        sample(4),
        sample(5, CAT),
        sample(6, CAT, ("cat", 50, 0, 100, 50), crowd=(1,)),
        sample(7, CAT),
    ]
    predictions = [
        said(1, CAT),  # one of two
        said(2, CAT, DOG, FAR_CAT),  # right, with two invented
        said(3),
        said(4, CAT),
        said(5, CAT_IOU_60),
        said(6, CAT, ("cat", 60, 10, 70, 20)),  # the second lies on the crowd
        said(7),
    ]
    ranked = rank_images(samples[::-1], predictions)
    assert [image_id for image_id, _ in ranked] == [3, 6, 5, 1, 2, 4, 7]
    assert [quality for _, quality in ranked] == pytest.approx([1, 1, 0.6, 0.5, 1 / 3, 0, 0])


BREAKS = {
    "no answers": (lambda r: r.pop("answers"), "'answers'"),
    "box of an unknown image": (lambda r: r["results"][0].update(image_id=8), "key or id 8"),
    "box of an unknown class": (lambda r: r["results"][0].update(category_id=99), "key or id 99"),
    "no score": (lambda r: r["results"][0].pop("score"), "'score'"),
    "inverted box": (lambda r: r["results"][0].update(xyxy_px=[5, 5, 1, 9]), "x2 < x1"),
    "nan": (lambda r: r["results"][0].update(score=math.nan), "not finite"),
    "a list instead of an object": (lambda r: r.update(answers=[[1]]), "hold together"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_file_is_one_clear_error(case: str, tmp_path: Path) -> None:
    spoil, message = BREAKS[case]
    record = coco_results([said(1, CAT, scores=[0.5])], [sample(1, CAT)], CLASSES)
    path = tmp_path / "tuned.json"
    write_json(path, record)
    assert len(read_predictions(path)) == 1
    spoil(record)
    write_json(path, record)
    with pytest.raises(DataError, match=message) as raised:
        read_predictions(path)
    assert raised.value.where == str(path) and "boxtune eval" in raised.value.fix


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    with pytest.raises(DataError):
        read_predictions(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError):
        read_predictions(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="hold together"):
        read_predictions(path)
