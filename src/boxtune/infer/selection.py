"""Which boxes of an answer are kept: suppression of those that overlap, and a bound on their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from boxtune.boxes import iou_matrix
from boxtune.infer.answer import Answer

Nms = Literal["off", "class", "all"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The rule. `nms` leaves out a box that overlaps one of a higher score by more than `iou` (greedy non-maximum
    suppression): one of its own class, or any. `most` is the largest number of boxes of an image, the likeliest first.
    What the model said stands before what it did not, whatever the scores.
    """

    nms: Nms = "off"
    iou: float = 0.7
    most: int | None = None

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Selection:
        """The rule of a run card; cards of older versions know none."""
        return cls(**card.get("selection", {}))

    def of(self, answer: Answer) -> Answer:
        """The answer with the boxes that are kept, further ones and signals too; boxes stay in their order.

        Equal scores, or none, count in the order of the answer.
        """
        said, found = len(answer.boxes), answer.everything
        if not len(found) or (self.nms == "off" and self.most is None):
            return answer
        scores = np.zeros(len(found)) if found.scores is None else found.scores
        places = np.arange(len(found))
        order = np.lexsort((places, -scores, places >= said))
        overlaps = iou_matrix(found.xyxy_px, found.xyxy_px) > self.iou
        if self.nms != "all":
            names = np.array(found.labels, dtype=object)
            overlaps &= names[:, None] == names[None, :]
        kept: list[int] = []
        for place in order.tolist():
            if self.nms == "off" or not overlaps[place, kept].any():
                kept.append(place)
        own, further = ([p for p in kept if (p < said) is side] for side in (True, False))
        own = own[: self.most]
        further = further if self.most is None else further[: self.most - len(own)]
        left = [*sorted(own), *sorted(further)]
        return replace(
            answer,
            boxes=found.take(sorted(own)),
            further=found.take(sorted(further)),
            signals=None if answer.signals is None else tuple(answer.signals[place] for place in left),
        )


EVERYTHING = Selection()
