"""The scores of a run: the model before and after on the same images, and whether the difference is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boxtune.data.sample import Sample
from boxtune.measure.compare import compare
from boxtune.measure.predictions import Prediction
from boxtune.measure.scores import score_predictions


def score_run(
    scored: Sequence[Sample],
    untuned: Sequence[Prediction] | None,
    tuned: Sequence[Prediction],
    classes: Sequence[str],
    *,
    split: str,
    seed: int,
    threshold: float | None = None,
    leakage: str = "",
) -> dict[str, Any]:
    """DESIGN's `scores.json`: `base` and `paired` only where there are predictions of the untuned model.

    `threshold` is the tuned model's own (`best_threshold`), so that only its scores tell what comes of it; `leakage`
    stands in `paired` and behind its sentence (`leakage_of`).
    """
    scores: dict[str, Any] = {
        "split": split,
        "num_images": len(scored),
        "num_truth": sum(len(sample.targets) for sample in scored),
    }
    if untuned is not None:
        scores["base"] = score_predictions(scored, untuned, classes)
    scores["tuned"] = score_predictions(scored, tuned, classes, threshold=threshold)
    if untuned is not None:
        scores["paired"] = compare(untuned, tuned, scored, seed=seed, leakage=leakage)
    return scores
