"""How large processors make an image, and what they put for it into a prompt: plain arithmetic, equal to theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

Size = tuple[int, int]
"""Width and height in pixels."""

MAX_ASPECT = 200


class View(Protocol):
    """One family's rule. Each method raises ValueError for a size or a budget that the processor cannot have."""

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The size the image itself is resized to, padding apart."""
        ...

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """What the processor puts for the image."""
        ...

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """Settings of the image processor that keep the budget."""
        ...


@dataclass(frozen=True, kw_only=True)
class Smart:
    """The nearest multiples of `factor` within the budget, aspect kept: the rule that Qwen's and GLM's families share.

    One token for each square of `factor`. `frames` is how often the processor counts one image towards its budget.
    `grows_first`: an image narrower than `factor` is enlarged before anything else.
    """

    factor: int
    token: str
    frames: int = 1
    grows_first: bool = False

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """Halves are rounded to even, as the processor does; ValueError over an aspect ratio of 200."""
        width, height = original_wh
        factor = self.factor
        if self.grows_first and min(width, height) < factor:
            scale = max(factor / height, factor / width)
            width, height = int(width * scale), int(height * scale)
        if max(width, height) / min(width, height) > MAX_ASPECT:
            raise ValueError(
                f"an image of {original_wh[0]}x{original_wh[1]} is more than {MAX_ASPECT} times as long as wide"
            )
        seen_w, seen_h = round(width / factor) * factor, round(height / factor) * factor
        if seen_w * seen_h > max_pixels:
            shrink = math.sqrt(width * height / max_pixels)
            seen_w = max(factor, math.floor(width / shrink / factor) * factor)
            seen_h = max(factor, math.floor(height / shrink / factor) * factor)
        elif seen_w * seen_h < min_pixels:
            grow = math.sqrt(min_pixels / (width * height))
            seen_w = math.ceil(width * grow / factor) * factor
            seen_h = math.ceil(height * grow / factor) * factor
        return seen_w, seen_h

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """The visual tokens alone."""
        seen_w, seen_h = self.seen_wh(original_wh, min_pixels, max_pixels)
        return self.token * ((seen_w // self.factor) * (seen_h // self.factor))

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """`size`, whose edges count pixels of the resized image, once for each frame."""
        return {"size": {"shortest_edge": min_pixels * self.frames, "longest_edge": max_pixels * self.frames}}


@dataclass(frozen=True, kw_only=True)
class Square:
    """Every image squeezed into a square whose side the checkpoint decides, with a fixed number of visual tokens.

    `tokens` maps the sides of the published checkpoints to that number; `before` and `after` stand around them.
    """

    tokens: dict[int, int]
    token: str
    before: str = ""
    after: str = ""
    settings: dict[str, Any] | None = None

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The square; ValueError where the budget is not exactly its area."""
        side = require_side(min_pixels, max_pixels, self.tokens)
        return side, side

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """As many visual tokens for every image."""
        return self.before + self.token * self.tokens[require_side(min_pixels, max_pixels, self.tokens)] + self.after

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """`size` as a square."""
        side = require_side(min_pixels, max_pixels, self.tokens)
        return {"size": {"height": side, "width": side}, **(self.settings or {})}


def require_side(min_pixels: int, max_pixels: int, sides: dict[int, int]) -> int:
    """The side of the square that both bounds of the budget are the area of; ValueError for any other budget."""
    for side in sides:
        if min_pixels == max_pixels == side**2:
            return side
    areas = ", ".join(f"{side**2} ({side} x {side})" for side in sides)
    raise ValueError(
        f"this family sees every image at one size, so image.min_pixels and image.max_pixels must both be {areas}, "
        f"as its checkpoint has it; they are {min_pixels} and {max_pixels}"
    )


def require_tile(min_pixels: int, tiles: dict[int, int]) -> int:
    """The side of a tile, whose area is the lower bound of the budget; ValueError where no published one has it."""
    for side in tiles:
        if min_pixels == side**2:
            return side
    areas = ", ".join(f"{side**2} ({side} x {side})" for side in tiles)
    raise ValueError(
        f"this family cuts images into tiles, so image.min_pixels must be the area of one: {areas}, as its checkpoint "
        f"has it; it is {min_pixels}"
    )
