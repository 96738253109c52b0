"""What a model family has to say: its words for boxes, its prompt, its resize rule, its towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from boxtune.boxes import Boxes


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image, as it is and as the model sees it.

    `original_wh` is the upright original in pixels, `seen_wh` what the processor really made of it (for Qwen2-VL
    `image_grid_thw` times the patch size). Box text is written and read in the seen frame.
    """

    original_wh: tuple[int, int]
    seen_wh: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing in an answer that is not a sound box.

    `kind` is one of: empty_answer, malformed, truncated, out_of_range, inverted, no_area, unknown_label.
    `text` is the part of the answer that it is about.
    """

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What an answer says: boxes in pixels of the upright original image, and every problem met on the way."""

    boxes: Boxes
    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings that depend on the model; `source` says where they come from.

    `min_pixels` and `max_pixels` bound the area of the resized image in pixels.
    """

    source: str
    r: int
    alpha: int
    dropout: float
    recipe: str
    learning_rate: float
    epochs: float
    effective_batch: int
    micro_batch: int
    min_pixels: int
    max_pixels: int

    def as_settings(self) -> dict[str, str | int | float]:
        """Each value under its path in the settings tree."""
        groups = {
            "adapter": ("recipe", "r", "alpha", "dropout"),
            "train": ("learning_rate", "epochs", "effective_batch", "micro_batch"),
            "image": ("min_pixels", "max_pixels"),
        }
        return {f"{group}.{leaf}": getattr(self, leaf) for group, leaves in groups.items() for leaf in leaves}


class Family(Protocol):
    """One model family. Text, patterns and plain arithmetic only: no torch, no processor objects."""

    @property
    def name(self) -> str:
        """Key in the registry, such as `qwen2_vl`."""
        ...

    @property
    def model_types(self) -> tuple[str, ...]:
        """The `model_type` values of transformers' configs that belong to the family."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens the grammar and the prompt need; each must be one token of the tokenizer."""
        ...

    @property
    def image_token(self) -> str:
        """The token that stands once for every visual token."""
        ...

    @property
    def end_of_turn(self) -> str:
        """The token that ends an answer; it is supervised."""
        ...

    @property
    def towers(self) -> Mapping[str, str]:
        """Tower name (vision, projector, language) -> regular expression found in its parameters' names.

        A parameter belongs to the first tower that it matches.
        """
        ...

    @property
    def adapted(self) -> Mapping[str, Mapping[str, str]]:
        """Tower -> kind (attention, mlp) -> regular expression that the whole names of its linear layers match."""
        ...

    @property
    def defaults(self) -> Defaults:
        """Settings for models of this family, from published recipes."""
        ...

    def seen_wh(self, original_wh: tuple[int, int], min_pixels: int, max_pixels: int) -> tuple[int, int]:
        """The size the processor resizes an image of `original_wh` to. Raises ValueError if it refuses it."""
        ...

    def num_image_tokens(self, seen_wh: tuple[int, int]) -> int:
        """Visual tokens of an image of that seen size."""
        ...

    def prompt(self, classes: Sequence[str], num_image_tokens: int) -> str:
        """Everything before the answer, special tokens included, ready for the tokenizer."""
        ...

    def encode(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> str:
        """The answer for these boxes, without the end of turn; boxes are put into the family's fixed order."""
        ...

    def decode(self, text: str, frame: Frame, classes: Sequence[str], *, ended: bool = True) -> Decoded:
        """The boxes an answer holds. Never raises on any text; `ended` is False if the end of turn is missing."""
        ...

    def check_classes(self, classes: Sequence[str]) -> list[str]:
        """For each class name that the grammar cannot carry, a sentence that says why."""
        ...
