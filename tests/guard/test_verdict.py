"""Learning is told from not learning on proof, and from neither otherwise."""

from __future__ import annotations

import pytest
import torch

from boxtune.guard import judge, share_moved, snapshot
from boxtune.guard.verdict import chance_of


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


def test_single_samples_decide_between_learning_and_noise() -> None:
    fell = [(3.0 + place, 2.9 + place) for place in range(7)]
    assert judge([], 1.0, 1e-4, fell).word == "learning"
    assert judge([3.0, 2.99], 1.0, 1e-4, fell[:6]).word == "cannot tell"
    mixed = [(3.0, 3.0 + (-1) ** place * 0.1) for place in range(16)]
    assert judge([3.0, 2.99], 1.0, 1e-4, mixed).word == "cannot tell"
    rose = judge([3.0, 2.9], 1.0, 1e-4, [(after, before) for before, after in fell])
    assert rose.word == "cannot tell" and "rose" in rose.evidence[0]


def test_a_sample_that_is_not_finite_at_the_end_is_no_learning() -> None:
    spoiled = judge([], 1.0, 1e-4, [(3.0, 2.0)] * 15 + [(3.0, float("nan"))])
    assert spoiled.word == "not learning" and "1 of 16" in spoiled.evidence[0]
    assert judge([], 1.0, 1e-4, [(3.0, float("inf"))] * 8).word == "not learning"
    assert judge([3e-7, 2e-7], 1.0, 1e-4).word == "learning"
    assert judge([3.0, 2.0], None, 1e-4).word == "learning"


def test_the_chance_is_that_of_equally_likely_signs() -> None:
    assert chance_of([-1.0] * 7) == pytest.approx(1 / 128)
    assert chance_of([1.0] * 7) == 1.0
    assert chance_of([]) == chance_of([0.0, 0.0]) == 1.0
    assert chance_of([-3.0, 1.0]) == pytest.approx(2 / 4)
    # Of samples that change by chance alone one in a hundred is said to fall.
    changes = torch.randn(300, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert sum(chance_of(row.tolist()) < 0.01 for row in changes) <= 9
    many = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert 0.001 < chance_of((many - many.mean()).tolist()) < 0.999
