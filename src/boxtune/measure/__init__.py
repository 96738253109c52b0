"""Predictions and truth -> numbers: `score_predictions` for one model, `compare` for two, `rank_images` for a page."""

from __future__ import annotations

from boxtune.measure.average_precision import average_precision
from boxtune.measure.cache import cache_key, keep_predictions, kept_predictions
from boxtune.measure.calibration import calibration_curve, expected_calibration_error, judge_boxes
from boxtune.measure.compare import compare
from boxtune.measure.judge import judge_image
from boxtune.measure.leakage import leakage_of
from boxtune.measure.predictions import SCORED, Prediction, coco_results, read_predictions
from boxtune.measure.reward import ap_reward, iou_reward, reward
from boxtune.measure.run_scores import score_run
from boxtune.measure.scores import rank_images, score_predictions
from boxtune.measure.threshold import Threshold, at_threshold, best_threshold

__all__ = [
    "SCORED",
    "Prediction",
    "Threshold",
    "ap_reward",
    "at_threshold",
    "average_precision",
    "best_threshold",
    "cache_key",
    "calibration_curve",
    "coco_results",
    "compare",
    "expected_calibration_error",
    "iou_reward",
    "judge_boxes",
    "judge_image",
    "keep_predictions",
    "kept_predictions",
    "leakage_of",
    "rank_images",
    "read_predictions",
    "reward",
    "score_predictions",
    "score_run",
]
