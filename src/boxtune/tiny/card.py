"""The card of the shipped weights: what they were made of and by, what they score, and the digest that binds it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boxtune.artifacts import read_json, write_json

CARD, WEIGHTS = "card.json", "model.safetensors"


def checksum(folder: Path) -> str:
    """SHA-256 of the weights' file, in hex."""
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def write_card(folder: Path, made: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """`card.json` beside the weights: how they were `made`, their `scores`, and their digest."""
    write_json(folder / CARD, {**made, "scores": dict(scores), "sha256": checksum(folder)})


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a folder of weights. Raises DataError if it is missing or no JSON."""
    card: dict[str, Any] = read_json(folder / CARD)
    return card
