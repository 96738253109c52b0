"""Boxes that are left out: those that overlap a likelier one, and those beyond the most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.infer import Answer, Selection
from boxtune.infer.confidence import Signals


def boxes(*rows: tuple[float, str, float | None]) -> Boxes:
    """Squares of ten pixels at x, named, with scores."""
    corners = np.array([[x, 0.0, x + 10, 10.0] for x, _, _ in rows]).reshape(-1, 4)
    scores = [score for _, _, score in rows]
    known = None if None in scores else np.array(scores, dtype=np.float64)
    return Boxes(xyxy_px=corners, labels=tuple(label for _, label, _ in rows), scores=known)


def said(own: Boxes, further: Boxes | None = None) -> Answer:
    other = boxes() if further is None else further
    signals = tuple(
        Signals(presence=x / 100, label=1.0, corners=(1.0,) * 4, expected_iou=1.0, soft_px=(0.0,) * 4)  # type: ignore[arg-type]
        for x in [*own.xyxy_px[:, 0], *other.xyxy_px[:, 0]]
    )
    return Answer(text="", boxes=own, further=other, problems=(), truncated=False, signals=signals)


def at(answer: Answer) -> tuple[list[float], list[float], list[float]]:
    """Where boxes, further boxes and signals are."""
    assert answer.signals is not None
    return (
        answer.boxes.xyxy_px[:, 0].tolist(),
        answer.further.xyxy_px[:, 0].tolist(),
        [round(one.presence * 100) for one in answer.signals],
    )


ROWS: Any = [(0, "cat", 0.3), (1, "cat", 0.9), (2, "dog", 0.5), (50, "cat", 0.1)]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({}, [0, 1, 2, 50]),
        ({"nms": "class"}, [1, 2, 50]),
        ({"nms": "all"}, [1, 50]),
        ({"nms": "all", "iou": 0.95}, [0, 1, 2, 50]),
        ({"most": 2}, [1, 2]),
        ({"nms": "all", "most": 1}, [1]),
        ({"most": 9}, [0, 1, 2, 50]),
    ],
)
def test_the_likelier_box_stays(rule: dict[str, Any], kept: list[int]) -> None:
    own, _, signals = at(Selection(**rule).of(said(boxes(*ROWS))))
    assert own == kept and signals == kept


def test_further_boxes_are_left_out_too_and_fill_up_to_the_most() -> None:
    answer = said(boxes((0, "cat", 0.5)), boxes((1, "cat", 0.2), (60, "cat", 0.3), (90, "cat", 0.1)))
    assert at(Selection(nms="class").of(answer)) == ([0], [60, 90], [0, 60, 90])
    assert at(Selection(most=2).of(answer)) == ([0], [60], [0, 60])
    assert at(Selection(nms="class", most=2).of(answer)) == ([0], [60], [0, 60])


@pytest.mark.parametrize("nms", ["class", "all"])
def test_a_box_that_was_not_said_takes_no_said_one_away(nms: Any) -> None:
    answer = said(boxes((0, "cat", 0.3)), boxes((1, "cat", 0.5), (1, "dog", 0.6)))
    own, further, _ = at(Selection(nms=nms).of(answer))
    assert own == [0] and further == ([1] if nms == "class" else [])


def test_without_scores_the_first_stays() -> None:
    answer = said(boxes((0, "cat", None), (1, "cat", None), (30, "cat", None)))
    assert at(Selection(nms="class").of(answer))[0] == [0, 30] and at(Selection(most=1).of(answer))[0] == [0]
    empty = said(boxes())
    assert Selection(nms="all", most=1).of(empty) == empty


def test_a_card_gives_its_rule_back() -> None:
    assert Selection.from_card({}) == Selection()
    assert Selection.from_card({"selection": {"nms": "all", "iou": 0.5, "most": 3}}) == Selection(
        nms="all", iou=0.5, most=3
    )
