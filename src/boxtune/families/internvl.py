"""InternVL3 in transformers' own layout: names in <ref>, boxes as a list in <box>, thousandths of the sides.

Grammar and range: InternVL's documentation of grounding data and its refcoco evaluation. Rounding is not said there;
ours is to the nearest. Tiles as in transformers' GotOcr2 image processor, which InternVL's processor has. The question
follows the evaluation's; the answer for nothing is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.grammar import Grammar
from boxtune.families.linears import llama_layers, under
from boxtune.families.qwen2_vl import ANSWER, ASK, CHAT_FORBIDDEN
from boxtune.families.tagged import LIST, SHOWN_LIST, Tagged
from boxtune.families.views import Size, require_tile

IMAGE = "<IMG_CONTEXT>"
TILE = 448
TOKENS_OF_TILE = {TILE: 256}


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """The grid of tiles whose aspect is nearest to the image's, the image stretched over it, and a small view of all.

    At most as many tiles as fit into the budget's area; the small view does not count.
    """

    def grid(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """Columns and rows. Of grids equally near the larger one is taken while the image fills half of it."""
        tile = require_tile(min_pixels, TOKENS_OF_TILE)
        most = max_pixels // tile**2
        if most < 1:
            raise ValueError(f"image.max_pixels={max_pixels} is less than one tile of {tile} x {tile}")
        width, height = original_wh
        grids = [(x, y) for x in range(1, most + 1) for y in range(1, most + 1) if x * y <= most]
        best, nearest = (1, 1), float("inf")
        for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
            off = abs(width / height - columns / rows)
            if off < nearest:
                best, nearest = (columns, rows), off
            elif off == nearest and width * height > 0.5 * tile * tile * columns * rows:
                best = (columns, rows)
        return best

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The canvas of all tiles."""
        columns, rows = self.grid(original_wh, min_pixels, max_pixels)
        return columns * TILE, rows * TILE

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """256 visual tokens for each tile and, where there are several, for the small view."""
        columns, rows = self.grid(original_wh, min_pixels, max_pixels)
        views = columns * rows + (columns * rows > 1)
        return f"<img>{IMAGE * (views * TOKENS_OF_TILE[TILE])}</img>"

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """Size and number of tiles."""
        tile = require_tile(min_pixels, TOKENS_OF_TILE)
        return {
            "size": {"height": tile, "width": tile},
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": max_pixels // tile**2,
        }


def _ask(named: Sequence[str]) -> str:
    return f"Please provide the bounding box coordinates of each: {', '.join(named)}"


INTERNVL = Assembled(
    name="internvl",
    about=About(
        title="InternVL3",
        grammar="<ref>cat</ref><box>[[x1, y1, x2, y2], ...]</box>",
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even (unsure: published nowhere)",
        resize="stretched over a grid of 448 x 448 tiles within the budget",
        source="InternVL's docs on grounding data and eval/refcoco; tiles: transformers' GotOcr2ImageProcessor",
    ),
    model_types=("internvl",),
    special_tokens=("<|im_start|>", "<|im_end|>", IMAGE, "<img>", "</img>", "<ref>", "</ref>", "<box>", "</box>"),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="<|im_end|>",
    packing="line",
    towers={
        "vision": r"(^|\.)vision_tower\.",
        "projector": r"(^|\.)multi_modal_projector\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": {
            "attention": under("vision_tower", r"encoder\.layer\.\d+\.attention\.(?:[qkv]_proj|projection_layer)"),
            "mlp": under("vision_tower", r"encoder\.layer\.\d+\.mlp\.fc[12]"),
        },
        "projector": {"mlp": under("multi_modal_projector", r"linear_[12]")},
        "language": llama_layers("language_model"),
    },
    defaults=Defaults(
        source="InternVL's 2nd_finetune_lora scripts (r 16, alpha 32, dropout 0.05, learning rate 4e-5, batch 16, "
        "1 epoch, at most 6 tiles)",
        r=16,
        alpha=32,
        dropout=0.05,
        recipe="language",
        learning_rate=4e-5,
        epochs=1.0,
        effective_batch=16,
        min_pixels=TILE**2,
        max_pixels=6 * TILE**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=1000),
        script=Tagged(
            name_tags=("<ref>", "</ref>"), box_tags=("<box>[", "]</box>"), box=SHOWN_LIST, pattern=LIST, together=True
        ),
        forbidden=rf"{CHAT_FORBIDDEN}|</?(?:ref|box|img|quad)>|<(?:IMG_CONTEXT|video)>",
        form="NFC",
    ),
    view=Tiles(),
    before=ASK,
    behind="\n",
    ask=_ask,
    name_marks=("<ref>", "</ref>"),
    after=ANSWER,
)
