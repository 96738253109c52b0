"""Idefics3: no grammar of its own, so the JSON list of json1000.

Turns as in its chat template; tiles and their text as in transformers' Idefics3Processor. The side of a tile is the
checkpoint's: 364 (Idefics3), 384 (SmolVLM 2.2B) or 512 (SmolVLM 256M and 500M).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.grammar import Grammar
from boxtune.families.json1000 import JSON1000_GRAMMAR, ask_json1000
from boxtune.families.linears import encoder_layers, llama_layers, under
from boxtune.families.views import Size, require_tile

IMAGE, AROUND, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
TOKENS_OF_TILE = {364: 169, 384: 81, 512: 64}
LARGEST = 4096
"""No image is made longer than this, whatever was asked for."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The longer side made as long as the budget allows, both stretched to whole tiles, and a small view of all.

    The budget's upper bound is the area of a square with that longer side, in whole tiles.
    """

    def edge(self, min_pixels: int, max_pixels: int) -> int:
        """The longer side in pixels, a multiple of the tile's."""
        tile = require_tile(min_pixels, TOKENS_OF_TILE)
        tiles = min(math.isqrt(max_pixels), LARGEST) // tile
        if tiles < 1:
            raise ValueError(f"image.max_pixels={max_pixels} is less than one tile of {tile} x {tile}")
        return tiles * tile

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The canvas of all tiles."""
        edge, tile = self.edge(min_pixels, max_pixels), math.isqrt(min_pixels)
        width, height = original_wh
        # The processor's own two steps, each with its roundings: to the edge, made even; then to whole tiles.
        if width >= height:
            wide, high = edge, _even(int(edge / (width / height)))
            return edge, _whole(int(edge / (wide / high)), tile)
        wide, high = _even(int(edge * (width / height))), edge
        return _whole(int(edge * (wide / high)), tile), edge

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """Tiles row by row, each with its place, then the small view; an image of one tile is the view alone."""
        tile = math.isqrt(min_pixels)
        columns, rows = (length // tile for length in self.seen_wh(original_wh, min_pixels, max_pixels))
        tokens = IMAGE * TOKENS_OF_TILE[tile]
        small = f"{AROUND}{GLOBAL}{tokens}{AROUND}"
        if columns == rows == 1:
            return small
        lines = ("".join(f"{AROUND}<row_{y}_col_{x}>{tokens}" for x in _count(columns)) + "\n" for y in _count(rows))
        return "".join(lines) + "\n" + small

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """The longer side of the image, and that of a tile."""
        edge = self.edge(min_pixels, max_pixels)
        return {"size": {"longest_edge": edge}, "max_image_size": {"longest_edge": math.isqrt(min_pixels)}}


def _even(length: int) -> int:
    return max(1, length + length % 2)


def _whole(length: int, tile: int) -> int:
    return math.ceil(length / tile) * tile


def _count(number: int) -> range:
    return range(1, number + 1)


def _tile_of_checkpoint(config: Mapping[str, Any], defaults: Defaults) -> Defaults:
    """Four tiles along the longer side, of the side that the vision tower was built for."""
    tile = config.get("vision_config", {}).get("image_size")
    return defaults if tile is None else replace(defaults, min_pixels=tile**2, max_pixels=(4 * tile) ** 2)


IDEFICS3 = Assembled(
    name="idefics3",
    about=About(
        title="Idefics3",
        grammar='```json [{"bbox_2d": [x1, y1, x2, y2], "label": "cat"}] ```',
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even",
        resize="longer side to whole tiles of 364, both stretched",
        source="grammar ours, none published; image text: transformers' Idefics3Processor",
    ),
    model_types=("idefics3",),
    special_tokens=("<|begin_of_text|>", IMAGE, AROUND, GLOBAL, "<end_of_utterance>"),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="<end_of_utterance>",
    packing="line",
    towers={
        "vision": r"(^|\.)vision_model\.",
        "projector": r"(^|\.)connector\.",
        "language": r"(^|\.)(text_model\.|lm_head\.)",
    },
    adapted={
        "vision": encoder_layers("vision_model"),
        "projector": {"mlp": under("connector", r"modality_projection\.proj")},
        "language": llama_layers("text_model"),
    },
    defaults=Defaults(
        source="Hugging Face's Idefics3 and SmolVLM fine-tuning notebooks (QLoRA r 8, alpha 8, dropout 0.1, learning "
        "rate 1e-4, batch 4 x 4, 1 epoch); the tile is the checkpoint's, four along the longer side as published",
        r=8,
        alpha=8,
        dropout=0.1,
        recipe="language",
        learning_rate=1e-4,
        epochs=1.0,
        effective_batch=16,
        min_pixels=364**2,
        max_pixels=(4 * 364) ** 2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=1000),
        script=JSON1000_GRAMMAR.script,
        forbidden=r"<(?:image|fake_token_around_image|global-img|end_of_utterance|row_\d+_col_\d+)>|<\|[a-z_]+\|>",
    ),
    view=Tiles(),
    before="<|begin_of_text|>User:",
    ask=ask_json1000,
    after="<end_of_utterance>\nAssistant:",
    adjust=_tile_of_checkpoint,
)
