"""Predictions of an unchanged model on unchanged data, kept so that the base is evaluated once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxtune.artifacts import write_json
from boxtune.data.sample import Sample
from boxtune.measure.predictions import Prediction

ANSWERS = "guided, with further boxes; scores pooled over held-out boxes"
"""How answers are made and kept: another word here lets those that an older version kept be asked again."""


def cache_key(samples: Sequence[Sample], **bound: Any) -> str:
    """A digest of all that decides a prediction: `bound` (weights, prompt, budget, ...) and the images.

    An image counts by name, size in bytes and time of change; its truth does not, since predictions do not see it.
    """
    digest = hashlib.sha256(json.dumps({**bound, "answers": ANSWERS}, sort_keys=True, default=str).encode())
    for sample in samples:
        stat = sample.image.stat()
        digest.update(f"{sample.image_id} {sample.image} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def kept_predictions(folder: Path, key: str) -> list[Prediction] | None:
    """The predictions kept under `key`, None where there are none."""
    path = folder / f"{key}.json"
    if not path.is_file():
        return None
    return [Prediction.from_json(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def keep_predictions(folder: Path, key: str, predictions: Sequence[Prediction]) -> None:
    """Keep predictions under `key`."""
    write_json(folder / f"{key}.json", [prediction.as_json() for prediction in predictions])
