"""What is kept of an answer, what of it counts for what, and that it comes back from the disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxtune.artifacts import write_json
from boxtune.families.family import Problem, Said
from boxtune.measure import Prediction, coco_results, read_predictions, score_predictions

from .rows import CAT, CAT_IOU_60, DOG, FAR_CAT, boxes, said, sample

CLASSES = ["cat", "dog", "cow"]


def test_further_boxes_count_for_average_precision_alone() -> None:
    samples = [sample(1, CAT, DOG)]
    without = replace(said(1, CAT), boxes=boxes(CAT, scores=[0.9]))
    more = replace(without, further=boxes(DOG, FAR_CAT, scores=[0.3, 0.1]))
    one, two = (score_predictions(samples, [said], CLASSES) for said in (without, more))
    assert (one["map50"], two["map50"]) == (0.5, 1.0)
    same = ["mean_iou", "precision", "recall", "f1", "num_predictions", "duplicate_rate", "detection_rate"]
    assert [one[name] for name in same] == [two[name] for name in same]
    # Beside boxes without scores they would rank first or last by accident.
    assert score_predictions(samples, [replace(more, boxes=boxes(CAT))], CLASSES)["map50"] == 0.5


def test_failures_are_those_of_answers_that_nothing_guided() -> None:
    def asked(*kinds: str) -> Said:
        return Said(text="", problems=tuple(Problem(kind=kind, text="") for kind in kinds), truncated=False)

    samples = [sample(i, CAT) for i in range(1, 5)]
    predictions = [said(i, CAT) for i in range(1, 5)]
    assert score_predictions(samples, predictions, CLASSES)["num_freely"] == 0
    predictions[1:3] = [
        replace(predictions[1], freely=asked("malformed", "no_area")), replace(predictions[2], freely=asked())
    ]  # fmt: skip
    scores = score_predictions(samples, predictions, CLASSES)
    assert (scores["parse_failure_rate"], scores["num_freely"]) == (0.5, 2)


def test_a_prediction_survives_json() -> None:
    prediction = said(5, ("cat", 0.1, 1 / 3, 2.7, 3.3), DOG, scores=[0.25, 1 / 7], kinds=("malformed",), truncated=True)
    freely = Said(text="or so", problems=(Problem(kind="malformed", text="so"),), truncated=True)
    more = replace(prediction, further=boxes(FAR_CAT, scores=[0.01]), freely=freely)
    for original in (prediction, said(6), said(7, CAT), more):
        back = Prediction.from_json(json.loads(json.dumps(original.as_json())))
        assert back.as_json() == original.as_json()
        assert isinstance(back.problems, tuple) and (back.boxes.scores is None) == (original.boxes.scores is None)


def test_predictions_survive_the_disk_exactly(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    samples = [sample(i, CAT, DOG) for i in (9, 4, 6)]
    corners = np.sort(random.uniform(0, 100, (3, 2, 2)), axis=1).reshape(3, 4)
    scored = said(9, *[("dog", *map(float, row)) for row in corners], scores=[0.5, 1 / 3, 0.1], kinds=("no_area",))
    scored = replace(scored, further=boxes(FAR_CAT, scores=[0.01]))
    predictions = [scored, said(6, CAT_IOU_60, truncated=True), said(4)]
    record = coco_results(predictions, samples, CLASSES)
    path = tmp_path / "base.json"
    write_json(path, record)
    back = read_predictions(path)
    assert [p.as_json() for p in back] == [p.as_json() for p in (scored, predictions[2], predictions[1])]
    assert score_predictions(samples, back, CLASSES) == score_predictions(samples, predictions, CLASSES)
    assert record["images"][0] == {"id": 9, "file_name": "9.jpg", "width": 200, "height": 100}
    assert record["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cow"}]
    assert [row["image_id"] for row in record["results"]] == [9, 9, 9, 9, 6]
    assert [row.get("further") for row in record["results"]] == [None, None, None, True, None]
    assert {"image_id", "category_id", "bbox", "score"} <= set(record["results"][0])
    last = record["results"][-1]
    assert (last["category_id"], last["bbox"], last["score"]) == (1, [0, 0, 10, 6], 1.0)
    problem = {"kind": "no_area", "text": "about no_area"}
    answer = {"image_id": 9, "text": "answer 9", "problems": [problem], "truncated": False, "scored": True}
    assert record["answers"][0] == {**answer, "freely": None}


def test_result_rows_are_what_a_coco_reader_takes() -> None:
    from faster_coco_eval import COCO

    record = coco_results([said(1, CAT, DOG)], [sample(1, CAT)], CLASSES)
    truth = {"images": record["images"], "categories": record["categories"], "annotations": []}
    assert len(COCO(truth).loadRes(record["results"]).anns) == 2
    with pytest.raises(ValueError, match="not among the classes: dog"):
        coco_results([said(1, CAT, DOG)], [sample(1, CAT)], ["cat"])
