"""Learning is told from not learning on proof, and from neither otherwise."""

from __future__ import annotations

import pytest
import torch

from boxtune.guard import judge, share_moved, snapshot


@pytest.mark.parametrize(
    ("losses", "moved", "word"),
    [
        ([3.0, 2.0, 1.0], 1.0, "learning"),
        ([3.0, 2.0, 3.5], 1.0, "learning"),
        ([3.289622, 3.289622, 3.2896224], 0.4, "not learning"),
        ([3.0, 2.0], 0.0, "not learning"),
        ([3.0, 3.1, 3.2], 1.0, "cannot tell"),
        ([3.0], 1.0, "cannot tell"),
        ([], 1.0, "cannot tell"),
        ([3.0, float("nan")], 1.0, "not learning"),
        ([2.0, 1.9, float("nan"), float("inf")], 1.0, "not learning"),
    ],
)
def test_verdicts(losses: list[float], moved: float, word: str) -> None:
    verdict = judge(losses, moved, 1e-4)
    assert verdict.word == word
    assert verdict.evidence and verdict.as_json()["word"] == word


def test_a_run_that_ended_in_its_warm_up_is_not_condemned() -> None:
    assert judge([3.0, 3.0], 0.0, 0.0).word == "cannot tell"
    assert judge([3.0, 3.0], 0.0, 1e-9).word == "not learning"


def test_share_moved_counts_elements() -> None:
    model = torch.nn.Linear(4, 2, bias=False)
    before = snapshot(model)
    assert share_moved(before, model) == 0.0
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert share_moved(before, model) == 1 / 8
