"""Boxes of images that were held out of training, right or wrong -> the weights that make probabilities of signals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from boxtune.infer.confidence import POOLED, Calibration, Signals

SPREAD = np.array([1.0, 1.0, 1.0, 2.0])
"""How far the weights of one model are thought to lie from the pooled ones, as standard deviations of a normal prior:
label, presence, expected IoU, bias. With weights pooled without blood cells the calibration error on these is 0.116;
20 held-out images of them bring it to 0.043 on average (20 drawings)."""


def fit_calibration(
    signals: Sequence[Signals], right: Bool[np.ndarray, " n"], prior: Calibration = POOLED
) -> Calibration:
    """The weights under which boxes with these signals are right as often as they were: the likeliest ones, where
    those of `prior` are expected (logistic regression with a normal prior, by Newton's method)."""
    if len(signals) != len(right):
        raise ValueError(f"{len(signals)} signals but {len(right)} boxes that are right or wrong")
    weights = start = prior.weights
    if not len(right):
        return prior
    x: Float[np.ndarray, "n 4"] = np.array([one.logs for one in signals])
    sound = np.isfinite(x).all(axis=1)
    x, y = x[sound], right[sound].astype(float)
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (p - y) + (weights - start) / SPREAD**2
        curvature = (x * (p * (1 - p))[:, None]).T @ x + np.diag(1 / SPREAD**2)
        step = np.linalg.solve(curvature, gradient)
        # Newton's step overshoots far from the end; a step of 1 in any weight is far.
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    label, presence, expected_iou, bias = weights.tolist()
    return Calibration(label=label, presence=presence, expected_iou=expected_iou, bias=bias)
