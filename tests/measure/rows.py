"""Boxes, samples and predictions in a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from boxtune.boxes import Boxes
from boxtune.data import Sample
from boxtune.families.family import Problem
from boxtune.measure import Prediction

Row = tuple[str, float, float, float, float]


def boxes(*rows: Row, scores: list[float] | None = None) -> Boxes:
    xyxy = np.array([row[1:] for row in rows], dtype=float).reshape(-1, 4)
    return Boxes(
        xyxy_px=xyxy,
        labels=tuple(row[0] for row in rows),
        scores=None if scores is None else np.array(scores, dtype=float),
    )


def sample(image_id: int, *rows: Row, crowd: tuple[int, ...] = (), ignore: tuple[int, ...] = ()) -> Sample:
    places = np.arange(len(rows))
    return Sample(
        image=Path(f"somewhere/{image_id}.jpg"),
        image_id=image_id,
        size_wh=(200, 100),
        boxes=boxes(*rows),
        crowd=np.isin(places, crowd),
        ignore=np.isin(places, ignore),
    )


def said(image_id: int, *rows: Row, kinds: tuple[str, ...] = (), truncated: bool = False, **kwargs: Any) -> Prediction:
    return Prediction(
        image_id=image_id,
        boxes=boxes(*rows, **kwargs),
        text=f"answer {image_id}",
        problems=tuple(Problem(kind=kind, text=f"about {kind}") for kind in kinds),
        truncated=truncated,
    )


CAT: Row = ("cat", 0, 0, 10, 10)
CAT_IOU_60: Row = ("cat", 0, 0, 10, 6)
CAT_IOU_95: Row = ("cat", 0, 0, 10, 9.5)
DOG: Row = ("dog", 20, 20, 40, 40)
FAR_CAT: Row = ("cat", 100, 50, 120, 70)
