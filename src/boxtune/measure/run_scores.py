"""The scores of a run: the model before and after on the same images, and whether the difference is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boxtune.data.sample import Sample
from boxtune.measure.predictions import Prediction
from boxtune.measure.scores import compare, score_predictions


def score_run(
    scored: Sequence[Sample],
    untuned: Sequence[Prediction] | None,
    tuned: Sequence[Prediction],
    classes: Sequence[str],
    *,
    split: str,
    seed: int,
) -> dict[str, Any]:
    """DESIGN's `scores.json`: `base` and `paired` only where there are predictions of the untuned model."""
    scores: dict[str, Any] = {
        "split": split,
        "num_images": len(scored),
        "num_truth": sum(len(sample.targets) for sample in scored),
    }
    if untuned is not None:
        scores["base"] = score_predictions(scored, untuned, classes)
    scores["tuned"] = score_predictions(scored, tuned, classes)
    if untuned is not None:
        scores["paired"] = compare(untuned, tuned, scored, seed=seed)
    return scores
