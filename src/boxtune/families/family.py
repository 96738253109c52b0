"""What a model family has to say: its words for boxes, its prompt, its resize rule, its towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from boxtune.boxes import Boxes
from boxtune.families.frame import Frame as Frame
from boxtune.families.spelling import Letters, Spelling


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
class Said:
    """An answer as it stands, without its boxes; `truncated` if the end of turn did not come."""

    text: str
    problems: tuple[Problem, ...]
    truncated: bool


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
    min_pixels: int
    max_pixels: int

    def as_settings(self) -> dict[str, str | int | float]:
        """Each value under its path in the settings tree."""
        groups = {
            "adapter": ("recipe", "r", "alpha", "dropout"),
            "train": ("learning_rate", "epochs", "effective_batch"),
            "image": ("min_pixels", "max_pixels"),
        }
        return {f"{group}.{leaf}": getattr(self, leaf) for group, leaves in groups.items() for leaf in leaves}


@dataclass(frozen=True, kw_only=True)
class About:
    """What people are told of a family by `boxtune families`, one line each.

    `grammar` is the answer for one box, `coordinates` its range and frame, `rounding` how a corner becomes a number,
    `resize` what the processor makes of an image, `source` where all of it is published.
    """

    title: str
    grammar: str
    coordinates: str
    rounding: str
    resize: str
    source: str


def describe(classes: Sequence[str], descriptions: Mapping[str, str], marks: tuple[str, str] = ("", "")) -> list[str]:
    """Each class as a prompt names it: the name, and what is said of it in brackets behind, "cat (a small animal)".

    The name stands first and unchanged, since the answer must repeat it letter by letter; brackets, since people put
    an explanation so in every language that these models read. `marks` stand around the name alone.
    """
    marked = {name: name.join(marks) for name in classes}
    return [f"{marked[name]} ({descriptions[name]})" if descriptions.get(name) else marked[name] for name in classes]


class Family(Protocol):
    """One model family. Text, patterns and plain arithmetic only: no torch, no processor objects."""

    @property
    def name(self) -> str:
        """Key in the registry, such as `qwen2_vl`."""
        ...

    @property
    def about(self) -> About:
        """What people are told of it."""
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
        """The text that a prompt holds where the image goes: once for a processor that expands it, else repeated."""
        ...

    @property
    def visual_token(self) -> str:
        """The token that is repeated inside `image_text`, once for each vector of the image."""
        ...

    @property
    def end_of_turn(self) -> str:
        """The token that ends an answer; it is supervised."""
        ...

    @property
    def loss(self) -> Literal["language", "model"]:
        """`language`: shifted cross entropy on a decoder's logits, as TRL computes it; `model`: the model's own."""
        ...

    @property
    def encoder_decoder(self) -> bool:
        """Whether the prompt goes into an encoder and the answer alone into the decoder."""
        ...

    @property
    def knows_processor(self) -> bool:
        """Whether `seen_wh`, `num_image_tokens` and `image_text` tell what the processor does.

        False for a model of no known family: there the seen size is the original one, and the text is not known before
        the processor made it.
        """
        ...

    @property
    def packing(self) -> Literal["line", "grid"] | None:
        """How tokens count where samples lie one behind the other in one row, each seeing itself alone.

        `line`: each token by one; `grid`: tokens of images by frame, row and column. None where it cannot be done.
        """
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

    def defaults_for(self, config: Mapping[str, Any]) -> Defaults:
        """Settings for the model of that `config.json`: `defaults`, but for what its size decides."""
        ...

    def seen_wh(self, original_wh: tuple[int, int], min_pixels: int, max_pixels: int) -> tuple[int, int]:
        """The size the processor resizes an image of `original_wh` to. Raises ValueError if it refuses it.

        Padding does not count, a second, smaller view of the image neither: boxes are told in the image itself.
        """
        ...

    def num_image_tokens(self, original_wh: tuple[int, int], min_pixels: int, max_pixels: int) -> int:
        """How often `visual_token` stands in the prompt for an image of `original_wh` under that budget."""
        ...

    def image_text(self, original_wh: tuple[int, int], min_pixels: int, max_pixels: int) -> str:
        """What the family's processor puts into the prompt in place of `image_token` for such an image."""
        ...

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """Settings of the family's image processor under which it keeps to the budget as `seen_wh` does."""
        ...

    def prompt(self, classes: Sequence[str], image: str, descriptions: Mapping[str, str] = ...) -> str:
        """Everything before the answer, special tokens included, ready for processor or tokenizer.

        `image` stands for the image: `image_text`, or `image_token` for a processor that expands it, "" for lengths.
        A tokenizer must add nothing of its own to the text.
        `descriptions` explain some of the classes in words.
        """
        ...

    def bin_px(self, frame: Frame) -> tuple[float, float]:
        """Width and height of one step of the grammar's numbers, in pixels of the upright original.

        A corner moves by half of it at most between `encode` and `decode`; a side that is thinner is made one step.
        """
        ...

    def encode(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> str:
        """The answer for these boxes, without the end of turn; boxes are put into the family's fixed order."""
        ...

    def decode(self, text: str, frame: Frame, classes: Sequence[str], *, ended: bool = True) -> Decoded:
        """The boxes an answer holds. Never raises on any text; `ended` is False if the end of turn is missing."""
        ...

    def spell(self, frame: Frame, classes: Sequence[str], letters: Letters) -> Spelling:
        """All sound answers for an image and classes, letter by letter: nothing else can be written by going by them.

        `letters` say which tokens of the tokenizer are letters of their own.
        """
        ...

    def check_classes(self, classes: Sequence[str], descriptions: Mapping[str, str] = ...) -> list[str]:
        """For each class name or description that the grammar cannot carry, a sentence that says why."""
        ...
