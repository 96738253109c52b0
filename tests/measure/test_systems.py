"""Several systems in one table, and what is said where a score looks like a misreading."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.boxes import Boxes
from boxtune.measure import Prediction, score_predictions
from boxtune.measure.systems import check_system, found_from, score_systems
from boxtune.report.systems import systems_sentences, systems_table

from .foreign_sets import (
    fit,
    open_set,
    predictions_of,
    rows_of,
    write_coco,
)


@pytest.fixture()
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set")


def test_what_is_found_from_a_threshold_on(coco: Path) -> None:
    said = predictions_of(open_set(coco))[0]
    sure = found_from(said, 0.5)
    assert sorted(sure.ranked.scores.tolist()) == sorted(said.ranked.scores.tolist())  # type: ignore[union-attr]
    assert (sure.boxes.scores >= 0.5).all() and (sure.further.scores < 0.5).all()  # type: ignore[operator]
    assert found_from(said, 0.0).boxes.labels == said.ranked.labels
    bare = Prediction(image_id=1, boxes=said.boxes.take([0]), text="", problems=(), truncated=False)
    assert len(found_from(bare, 2.0).boxes) == 0
    assert found_from(Prediction(image_id=1, boxes=Boxes.none(), text="", problems=(), truncated=False), 0.5)


def test_several_systems_stand_beside_each_other(coco: Path) -> None:
    dataset = open_set(coco)
    samples, said = dataset.splits["valid"], predictions_of(dataset)
    theirs, _ = fit(coco, rows_of(coco))
    systems = {"ours": said, "theirs": theirs.predictions}
    table = score_systems(samples, systems, dataset.classes, split="valid", seed=0, wordless=["theirs"])
    assert list(table["systems"]) == ["ours", "theirs"] and list(table["paired"]) == ["theirs"]
    assert table["systems"]["theirs"]["parse_failure_rate"] is None
    assert table["systems"]["ours"]["parse_failure_rate"] == 0
    assert table["systems"]["ours"]["map"] == score_predictions(samples, said, dataset.classes)["map"]


def test_scores_that_look_like_a_misreading_are_said(coco: Path) -> None:
    dataset = open_set(coco)
    wrong, _ = fit(coco, rows_of(coco, category=lambda i: i % 3 + 1))
    found = score_predictions(dataset.splits["valid"], wrong.predictions, wrong.classes)
    assert [one.check for one in check_system("theirs", found, wrong.predictions)] == ["eval.hardly_any_right"]
    low, _ = fit(coco, [{**row, "score": row["score"] / 100} for row in rows_of(coco)])
    found = score_predictions(dataset.splits["valid"], low.predictions, low.classes)
    assert [one.check for one in check_system("theirs", found, low.predictions)] == ["eval.low_scores"]
    right, _ = fit(coco, rows_of(coco))
    found = score_predictions(dataset.splits["valid"], right.predictions, right.classes)
    assert check_system("theirs", found, right.predictions) == []


def test_a_table_has_a_column_for_each(coco: Path) -> None:
    dataset = open_set(coco)
    theirs, _ = fit(coco, rows_of(coco))
    systems = {"ours": predictions_of(dataset), "another detector": theirs.predictions}
    wordless = ["ours", "another detector"]
    scores = score_systems(dataset.splits["valid"], systems, dataset.classes, split="valid", seed=0, wordless=wordless)
    head, *rows = systems_table(scores).splitlines()
    assert head.split() == ["4", "images", "of", "valid,", "8", "boxes", "ours", "another", "detector"]
    by_label = {row[:42].strip(): row[42:].split() for row in rows}
    assert by_label["AP50"] == [f"{scores['systems'][name]['map50']:.3f}" for name in systems]
    assert not [label for label in by_label if "parse" in label]
    assert [len(row) for row in rows] == [len(head)] * len(rows)
    (sentence,) = systems_sentences(scores)
    assert sentence.startswith("another detector against ours: ")
