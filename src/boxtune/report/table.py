"""Scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ROWS = (
    ("mean IoU over all truth boxes", ("mean_iou",)),
    ("images with truth that got a box", ("detection_rate",)),
    ("AP 0.5:0.95", ("map",)),
    ("AP50", ("map50",)),
    ("precision at IoU 0.5", ("precision",)),
    ("recall at IoU 0.5", ("recall",)),
    ("precision from a score of {threshold} on", ("at_threshold", "precision")),
    ("recall from a score of {threshold} on", ("at_threshold", "recall")),
    ("F1 from a score of {threshold} on", ("at_threshold", "f1")),
    ("calibration error of the scores (ECE)", ("calibration", "ece")),
    ("boxes said twice", ("duplicate_rate",)),
    ("boxes off the image", ("off_image_rate",)),
    ("empty images answered with nothing", ("empty_correct_rate",)),
    ("answers that do not parse, asked freely", ("parse_failure_rate",)),
    ("answers with names not asked for", ("unknown_name_rate",)),
    ("answers cut by the length limit", ("truncated_rate",)),
)


def score_table(scores: Mapping[str, Any]) -> str:
    """Base beside tuned, a row for each number that a person asks for first; a dash where nothing is to measure.

    What comes of a threshold has rows only where one was chosen.
    """
    sides = [name for name in ("base", "tuned") if name in scores]
    chosen = [value for side in sides if (value := _find(scores[side], ("at_threshold", "threshold"))) is not None]
    head = f"{scores['num_images']} images of {scores['split']}, {scores['num_truth']} boxes"
    lines = [f"{head:<42}" + "".join(f"{name:>9}" for name in sides)]
    for words, path in ROWS:
        if path[0] == "at_threshold" and not chosen:
            continue
        label = words.format(threshold=f"{chosen[0]:.3f}" if chosen else "")
        values = [_find(scores[side], path) for side in sides]
        lines.append(f"{label:<42}" + "".join(f"{'-' if v is None else format(v, '.3f'):>9}" for v in values))
    return "\n".join(lines)


def _find(scores: Any, path: Sequence[str]) -> float | None:
    """The number at a path of keys; None where the scores, which may be of an older version, do not hold it."""
    for key in path:
        if scores is None:
            return None
        scores = scores.get(key)
    return scores
