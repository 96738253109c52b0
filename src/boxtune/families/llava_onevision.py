"""LLaVA-OneVision: no grammar of its own, so the JSON list of json1000.

Turns as in the chat template of transformers' conversion; size and number of visual tokens as in its processor, with
the grids of the published checkpoints (up to 6 x 6 tiles of 384, features of at most 9 tiles kept).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from boxtune.families.assembled import Assembled
from boxtune.families.family import About, Defaults
from boxtune.families.json1000 import JSON1000_GRAMMAR, ask_json1000
from boxtune.families.linears import encoder_layers, llama_layers, under
from boxtune.families.qwen2_vl import ANSWER, ASK, CHAT_FORBIDDEN
from boxtune.families.views import Size

IMAGE = "<image>"
TILE, PATCHES, MOST_SIDE, MOST_TILES = 384, 27, 6, 9
LEAST_PIXELS, MOST_PIXELS = TILE**2, (MOST_SIDE * TILE) ** 2


@dataclass(frozen=True, kw_only=True)
class Pinpoints:
    """The grid of tiles that wastes least, the image inside it in its own aspect, and a small view of all.

    The model knows the grids from its own config, so the budget is fixed.
    """

    def grid(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """Columns and rows: the image as large as possible, then the fewest pixels beside it."""
        if (min_pixels, max_pixels) != (LEAST_PIXELS, MOST_PIXELS):
            raise ValueError(
                f"this family's grids stand in its config, so image.min_pixels must be {LEAST_PIXELS} and "
                f"image.max_pixels {MOST_PIXELS}; they are {min_pixels} and {max_pixels}"
            )
        width, height = original_wh
        best, most, least_wasted = (1, 1), 0, float("inf")
        for rows in range(1, MOST_SIDE + 1):
            for columns in range(1, MOST_SIDE + 1):
                scale = min(columns * TILE / width, rows * TILE / height)
                kept = min(int(width * scale) * int(height * scale), width * height)
                wasted = columns * rows * TILE**2 - kept
                if kept > most or (kept == most and wasted < least_wasted):
                    best, most, least_wasted = (columns, rows), kept, wasted
        return best

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The size inside the padding."""
        room_w, room_h = (tiles * TILE for tiles in self.grid(original_wh, min_pixels, max_pixels))
        width, height = original_wh
        across, down = room_w / width, room_h / height
        if across < down:
            return room_w, min(math.ceil(height * across), room_h)
        return min(math.ceil(width * down), room_w), room_h

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """The small view, the patches that are no padding, and one token at the end of each of their rows."""
        columns, rows = (tiles * PATCHES for tiles in self.grid(original_wh, min_pixels, max_pixels))
        width, height = original_wh
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        shrink = math.sqrt(rows * columns / (MOST_TILES * PATCHES**2))
        if shrink > 1.1:
            rows, columns = int(rows // shrink), int(columns // shrink)
        return IMAGE * (rows * columns + rows + PATCHES**2)

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """None: the checkpoint's own are the only ones."""
        self.grid((TILE, TILE), min_pixels, max_pixels)
        return {}


LLAVA_ONEVISION = Assembled(
    name="llava_onevision",
    about=About(
        title="LLaVA-OneVision",
        grammar='```json [{"bbox_2d": [x1, y1, x2, y2], "label": "cat"}] ```',
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even",
        resize="aspect kept, padded to up to 6 x 6 tiles of 384",
        source="grammar ours, none published; tokens and turns: transformers' LlavaOnevisionProcessor and conversion",
    ),
    model_types=("llava_onevision",),
    special_tokens=("<|im_start|>", "<|im_end|>", IMAGE),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="<|im_end|>",
    packing="line",
    towers={
        "vision": r"(^|\.)vision_tower\.",
        # The vector at the end of each row of patches is trained with the projector.
        "projector": r"(^|\.)(multi_modal_projector\.|image_newline$)",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": encoder_layers("vision_tower"),
        "projector": {"mlp": under("multi_modal_projector", r"linear_[12]")},
        "language": llama_layers("language_model"),
    },
    defaults=Defaults(
        source="none published for LoRA on this model; r 128, alpha 256, dropout 0.05, learning rate 2e-4, 1 epoch "
        "from LLaVA-1.5's finetune_lora script, batch Qwen2-VL's",
        r=128,
        alpha=256,
        dropout=0.05,
        recipe="language",
        learning_rate=2e-4,
        epochs=1.0,
        effective_batch=16,
        min_pixels=LEAST_PIXELS,
        max_pixels=MOST_PIXELS,
    ),
    grammar=replace(JSON1000_GRAMMAR, forbidden=rf"{CHAT_FORBIDDEN}|<(?:image|video)>", form="NFC"),
    view=Pinpoints(),
    before=ASK,
    behind="\n",
    ask=ask_json1000,
    after=ANSWER,
)
