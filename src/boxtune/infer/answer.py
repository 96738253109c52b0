"""What a model said of one image."""

from __future__ import annotations

from dataclasses import dataclass, field

from boxtune.boxes import Boxes, join_boxes
from boxtune.families import Problem, Said
from boxtune.infer.confidence import Signals


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said of one image.

    `boxes` are in pixels of the upright original; `text` is the answer as generated, special tokens included, without
    the end of turn; `truncated` if the end of turn did not come, `looped` if it was closed because nothing new came.
    `further` are boxes that the model would not have written but holds for possible (`decode.REACH`), none of which
    repeats another one: for average precision and for thresholds below the model's own.

    `signals` belong to the boxes and then to the further ones, and `num_swayed` tokens are others than the model would
    have written without a guide; both are unknown (None) of an answer that was written freely, which has no scores.
    `freely` is what the same image was answered without a guide, where it was asked so too.
    """

    text: str
    boxes: Boxes
    problems: tuple[Problem, ...]
    truncated: bool
    further: Boxes = field(default_factory=Boxes.none)
    looped: bool = False
    signals: tuple[Signals, ...] | None = None
    num_swayed: int | None = None
    freely: Said | None = None

    @property
    def everything(self) -> Boxes:
        """The boxes and then the further ones."""
        return join_boxes([self.boxes, self.further])
