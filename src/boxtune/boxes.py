"""Boxes: corners in pixels of the upright original image, labels, scores.

The frame is the same everywhere in boxtune: x to the right, y down, origin in the top-left corner of the image
after its EXIF turn, corners as continuous coordinates (a box over the whole image is 0, 0, width, height).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """`n` boxes of one image.

    `xyxy_px` holds x1, y1, x2, y2 in pixels of the upright original image; `labels` the class names;
    `scores` confidences in 0..1, or None where nothing gave any. Raises ValueError if the lengths disagree,
    a coordinate is not finite, or a corner pair is inverted.
    """

    xyxy_px: Float[np.ndarray, "n 4"]
    labels: tuple[str, ...]
    scores: Float[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        xyxy = np.asarray(self.xyxy_px, dtype=np.float64).reshape(-1, 4)
        object.__setattr__(self, "xyxy_px", xyxy)
        object.__setattr__(self, "labels", tuple(self.labels))
        if len(self.labels) != len(xyxy):
            raise ValueError(f"{len(xyxy)} boxes but {len(self.labels)} labels")
        if not np.isfinite(xyxy).all():
            raise ValueError("a box has a coordinate that is not finite")
        if (xyxy[:, 2:] < xyxy[:, :2]).any():
            raise ValueError("a box has x2 < x1 or y2 < y1")
        if self.scores is not None:
            scores = np.asarray(self.scores, dtype=np.float64)
            object.__setattr__(self, "scores", scores)
            if scores.shape != (len(xyxy),):
                raise ValueError(f"{len(xyxy)} boxes but scores of shape {scores.shape}")

    def __len__(self) -> int:
        return len(self.xyxy_px)

    @staticmethod
    def none() -> Boxes:
        """No boxes at all."""
        return Boxes(xyxy_px=np.zeros((0, 4)), labels=())

    def take(self, index: Sequence[int] | Bool[np.ndarray, " n"]) -> Boxes:
        """The boxes at these places, in this order; `index` may also be a mask of length `n`."""
        at = np.asarray(index)
        at = np.flatnonzero(at) if at.dtype == bool else at.astype(int).reshape(-1)
        return Boxes(
            xyxy_px=self.xyxy_px[at],
            labels=tuple(self.labels[int(i)] for i in at),
            scores=None if self.scores is None else self.scores[at],
        )

    def to_supervision(self) -> Any:
        """As `supervision.Detections` with `data["class_name"]`; needs the supervision package.

        `class_id` numbers the labels in sorted order, since boxes alone do not know their data set.
        """
        import supervision

        names = sorted(set(self.labels))
        return supervision.Detections(
            xyxy=self.xyxy_px.astype(np.float32),
            confidence=None if self.scores is None else self.scores.astype(np.float32),
            class_id=np.array([names.index(label) for label in self.labels], dtype=int),
            data={"class_name": np.array(self.labels, dtype=object)},
        )

    def to_coco(self, image_id: int = 0, category_ids: dict[str, int] | None = None) -> list[dict[str, Any]]:
        """As COCO result rows: bbox is x, y, width, height in pixels; score 1.0 where there is none.

        `category_ids` maps class names to ids; without it the sorted labels are numbered from 1.
        """
        ids = category_ids or {name: i + 1 for i, name in enumerate(sorted(set(self.labels)))}
        scores = np.ones(len(self)) if self.scores is None else self.scores
        return [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": float(score),
            }
            for box, label, score in zip(self.xyxy_px, self.labels, scores, strict=True)
        ]


def xywh_to_xyxy(xywh: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """x, y, width, height -> x1, y1, x2, y2, in the same unit; no +1 is added."""
    xywh = np.asarray(xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def clip_xyxy(xyxy: Float[np.ndarray, "n 4"], size_wh: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
    """The boxes cut to an image of `size_wh`; a box wholly outside collapses to zero area on the edge."""
    width, height = size_wh
    limit = np.array([width, height, width, height], dtype=np.float64)
    return np.clip(np.asarray(xyxy, dtype=np.float64).reshape(-1, 4), 0.0, limit)


def box_areas(xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Areas in squared units of the input."""
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def iou_matrix(left: Float[np.ndarray, "n 4"], right: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of every pair; 0 where the union has no area."""
    top_left = np.maximum(left[:, None, :2], right[None, :, :2])
    bottom_right = np.minimum(left[:, None, 2:], right[None, :, 2:])
    inter = np.clip(bottom_right - top_left, 0.0, None).prod(axis=2)
    union = box_areas(left)[:, None] + box_areas(right)[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def repeated(boxes: Boxes, *, threshold: float) -> Bool[np.ndarray, " n"]:
    """Which boxes overlap an earlier one of the same label with at least this IoU."""
    labels = np.array(boxes.labels, dtype=object)
    same = (labels[:, None] == labels[None, :]) & (iou_matrix(boxes.xyxy_px, boxes.xyxy_px) >= threshold)
    earlier = np.tril(np.ones_like(same), k=-1)
    return np.asarray((same & earlier).any(axis=1))


def join_boxes(parts: Sequence[Boxes]) -> Boxes:
    """The boxes of one image from several lists, one behind the other.

    Raises ValueError if some that hold boxes have scores and others not.
    """
    parts = [part for part in parts if len(part)] or list(parts[:1])
    if len({part.scores is None for part in parts}) > 1:
        raise ValueError("some boxes have scores and others not")
    scores = [part.scores for part in parts if part.scores is not None]
    return Boxes(
        xyxy_px=np.concatenate([np.zeros((0, 4)), *(part.xyxy_px for part in parts)]),
        labels=tuple(label for part in parts for label in part.labels),
        scores=np.concatenate(scores) if scores else None,
    )
