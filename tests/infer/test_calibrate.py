"""Weights fitted on held-out boxes: they find what is there, and stay with the pooled ones where little is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boxtune.infer.calibrate import fit_calibration
from boxtune.infer.confidence import POOLED, Calibration, Signals


def draw_signals(num: int, seed: int = 0) -> list[Signals]:
    random = np.random.default_rng(seed)
    return [
        Signals(
            presence=float(presence),
            label=float(label),
            corners=(0.5, 0.5, 0.5, 0.5),
            expected_iou=float(iou),
            soft_px=(0.0, 0.0, 1.0, 1.0),
        )
        for presence, label, iou in random.uniform(0.05, 1.0, (num, 3))
    ]


def draw_right(signals: list[Signals], truth: Calibration, seed: int = 1) -> np.ndarray:
    uniform = np.random.default_rng(seed).uniform(size=len(signals))
    return uniform < np.array([truth.score(one) for one in signals])


def error(calibration: Calibration, truth: Calibration) -> float:
    """Mean distance of the probabilities on fresh boxes."""
    fresh = draw_signals(2000, seed=9)
    return float(np.mean([abs(calibration.score(one) - truth.score(one)) for one in fresh]))


@pytest.mark.parametrize("truth", [replace(POOLED, bias=0.0), replace(POOLED, bias=5.0, label=1.0, expected_iou=4.0)])
def test_a_model_that_is_sure_otherwise_is_told(truth: Calibration) -> None:
    signals = draw_signals(400)
    fitted = fit_calibration(signals, draw_right(signals, truth))
    assert error(fitted, truth) < 0.05 < error(POOLED, truth)


def test_few_boxes_change_little_and_none_nothing() -> None:
    signals = draw_signals(4)
    assert fit_calibration([], np.zeros(0, dtype=bool)) == POOLED
    fitted = fit_calibration(signals, np.zeros(4, dtype=bool))
    assert 0 < np.abs(fitted.weights - POOLED.weights).max() < 3


def test_boxes_that_are_all_right_have_an_end_too() -> None:
    signals = draw_signals(300)
    fitted = fit_calibration(signals, np.ones(300, dtype=bool))
    assert (
        np.isfinite(fitted.weights).all() and min(fitted.score(one) for one in signals) > POOLED.score(signals[0]) / 2
    )
    assert fitted.bias > POOLED.bias


def test_a_signal_that_is_not_finite_counts_for_nothing() -> None:
    signals = draw_signals(50)
    right = draw_right(signals, POOLED)
    strange = replace(signals[0], label=float("nan"))
    assert fit_calibration([*signals, strange], np.append(right, True)) == fit_calibration(signals, right)


def test_each_signal_needs_its_box() -> None:
    with pytest.raises(ValueError, match="3 signals but 2 boxes"):
        fit_calibration(draw_signals(3), np.ones(2, dtype=bool))


def test_a_card_gives_its_calibration_back() -> None:
    own = Calibration(label=1.0, presence=0.5, expected_iou=3.0, bias=-1.0)
    card = {"label": 1.0, "presence": 0.5, "expected_iou": 3.0, "bias": -1.0, "num_images": 20, "num_boxes": 90}
    assert Calibration.from_card({"calibration": card}) == own and Calibration.from_card({}) == POOLED
