"""A family put together from parts: a grammar, a view of images, the turns of a chat, patterns, defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from boxtune.boxes import Boxes
from boxtune.families.family import About, Decoded, Defaults, Frame, describe
from boxtune.families.grammar import Grammar
from boxtune.families.spelling import Letters, Spelling
from boxtune.families.views import Size, View


def no_difference(config: Mapping[str, Any], defaults: Defaults) -> Defaults:
    """The defaults as they are: published recipes do not tell sizes apart."""
    return defaults


def square_of_checkpoint(config: Mapping[str, Any], defaults: Defaults) -> Defaults:
    """The defaults with both bounds of the budget at the area of the square that the vision tower was built for."""
    side = config.get("vision_config", {}).get("image_size")
    return defaults if side is None else replace(defaults, min_pixels=side**2, max_pixels=side**2)


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A family object; see `boxtune.families.family.Family` for what each member means.

    The prompt is `before`, the image, `behind`, the words that `ask` makes of the named classes, and `after`;
    `name_marks` stand around each name in it.
    `adjust` makes the defaults of one model from its config and the family's.
    """

    name: str
    about: About
    model_types: tuple[str, ...]
    special_tokens: tuple[str, ...]
    image_token: str
    visual_token: str
    end_of_turn: str
    loss: Literal["language", "model"] = "language"
    encoder_decoder: bool = False
    knows_processor: bool = True
    packing: Literal["line", "grid"] | None = None
    towers: Mapping[str, str]
    adapted: Mapping[str, Mapping[str, str]]
    defaults: Defaults
    grammar: Grammar
    view: View
    before: str
    behind: str = ""
    ask: Callable[[Sequence[str]], str]
    name_marks: tuple[str, str] = ("", "")
    after: str
    adjust: Callable[[Mapping[str, Any], Defaults], Defaults] = no_difference

    def defaults_for(self, config: Mapping[str, Any]) -> Defaults:
        """Settings for the model of that `config.json`: `defaults`, but for what its size decides."""
        return self.adjust(config, self.defaults)

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The size the processor resizes an image of `original_wh` to, padding apart. Raises ValueError."""
        return self.view.seen_wh(original_wh, min_pixels, max_pixels)

    def num_image_tokens(self, original_wh: Size, min_pixels: int, max_pixels: int) -> int:
        """How often `visual_token` stands in the prompt for such an image."""
        return self.image_text(original_wh, min_pixels, max_pixels).count(self.visual_token)

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """What the family's processor puts into the prompt in place of `image_token` for such an image."""
        return self.view.image_text(original_wh, min_pixels, max_pixels)

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """Settings of the family's image processor under which it keeps to the budget as `seen_wh` does."""
        return self.view.image_settings(min_pixels, max_pixels)

    def prompt(self, classes: Sequence[str], image: str, descriptions: Mapping[str, str] = {}) -> str:
        """Everything before the answer, special tokens included."""
        return f"{self.before}{image}{self.behind}{self.question(classes, descriptions)}{self.after}"

    def question(self, classes: Sequence[str], descriptions: Mapping[str, str] = {}) -> str:
        """The words that ask for the classes."""
        return self.ask(describe(classes, descriptions, self.name_marks))

    def bin_px(self, frame: Frame) -> tuple[float, float]:
        """Width and height of one step of the grammar's numbers, in pixels of the upright original."""
        return self.grammar.scale.bin_px(frame)

    def encode(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> str:
        """The answer for these boxes in the family's order; ValueError on a label that was not asked for."""
        return self.grammar.encode(boxes, frame, classes)

    def spell(self, frame: Frame, classes: Sequence[str], letters: Letters) -> Spelling:
        """All sound answers, letter by letter; see `families.spelling`."""
        return self.grammar.spell(frame, classes, letters)

    def decode(self, text: str, frame: Frame, classes: Sequence[str], *, ended: bool = True) -> Decoded:
        """The sound boxes of an answer, and a problem for everything else in it."""
        return self.grammar.decode(text, frame, classes, ended=ended)

    def check_classes(self, classes: Sequence[str], descriptions: Mapping[str, str] = {}) -> list[str]:
        """For each class name or description that the grammar cannot carry, a sentence that says why."""
        return self.grammar.check_classes(classes, descriptions)
