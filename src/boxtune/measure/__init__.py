"""Predictions and truth -> numbers: `score_predictions` for one model, `compare` for two, `rank_images` for a page."""

from __future__ import annotations

from boxtune.measure.average_precision import average_precision
from boxtune.measure.cache import cache_key, keep_predictions, kept_predictions
from boxtune.measure.predictions import SCORED, Prediction, coco_results, read_predictions
from boxtune.measure.run_scores import score_run
from boxtune.measure.scores import compare, rank_images, score_predictions

__all__ = [
    "SCORED",
    "Prediction",
    "average_precision",
    "cache_key",
    "coco_results",
    "compare",
    "keep_predictions",
    "kept_predictions",
    "rank_images",
    "read_predictions",
    "score_predictions",
    "score_run",
]
