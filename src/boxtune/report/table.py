"""Scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = (
    ("mean IoU over all truth boxes", "mean_iou"),
    ("images with truth that got a box", "detection_rate"),
    ("truth boxes with IoU above 0.5", "iou_above_50"),
    ("AP 0.5:0.95", "map"),
    ("AP50", "map50"),
    ("precision at IoU 0.5", "precision"),
    ("recall at IoU 0.5", "recall"),
    ("empty images answered with nothing", "empty_correct_rate"),
    ("answers that do not parse, asked freely", "parse_failure_rate"),
    ("answers cut by the length limit", "truncated_rate"),
)


def score_table(scores: Mapping[str, Any]) -> str:
    """Base beside tuned, a row for each number that a person asks for first; a dash where nothing is to measure."""
    sides = [name for name in ("base", "tuned") if name in scores]
    head = f"{scores['num_images']} images of {scores['split']}, {scores['num_truth']} boxes"
    lines = [f"{head:<42}" + "".join(f"{name:>9}" for name in sides)]
    for label, key in ROWS:
        values = [scores[side][key] for side in sides]
        lines.append(f"{label:<42}" + "".join(f"{'-' if v is None else format(v, '.3f'):>9}" for v in values))
    return "\n".join(lines)
