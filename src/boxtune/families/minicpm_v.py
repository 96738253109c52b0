"""MiniCPM-V 4.6 (and 4.7): names in <ref>, four numbers in <box>, thousandths of the sides.

Range and rounding down: OpenBMB's fine-tuning guide for 4.6, which writes points so (<point>236 469</point>). Boxes in
<ref> and <box> are the form of its earlier models; that 4.6 knows it is not published. Slices, their text and turns as
in transformers' MiniCPMV4_6 processor, with sixteen patches a token; the empty thought as the guide advises. The answer
for nothing is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.forms import CORNERS, in_order
from boxtune.families.grammar import Grammar
from boxtune.families.linears import ENCODER_ATTENTION, ENCODER_MLP, under
from boxtune.families.qwen2_vl import ANSWER, ASK, CHAT_FORBIDDEN
from boxtune.families.qwen3_5 import EMPTY_THOUGHT, LANGUAGE
from boxtune.families.tagged import Tagged
from boxtune.families.views import Size, require_tile

IMAGE = "<|image_pad|>"
SLICE, PATCH, MERGE = 448, 14, 4
TOKENS_OF_SLICE = {SLICE: 64}


@dataclass(frozen=True, kw_only=True)
class Slices:
    """A view of the whole image, and slices of a larger one where the image is larger than a slice.

    At most as many slices as fit into the budget's area.
    """

    def grid(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size | None:
        """Columns and rows of slices, of all grids of about the right number the one whose aspect is nearest."""
        side = require_tile(min_pixels, TOKENS_OF_SLICE)
        most = max_pixels // side**2
        width, height = original_wh
        wanted = min(math.ceil(width * height / side**2), most)
        if wanted <= 1:
            return None
        best, nearest = (1, 1), float("inf")
        for number in (wanted - 1, wanted, wanted + 1):
            if number == 1 or number > most:
                continue
            for rows in (rows for rows in range(1, number + 1) if number % rows == 0):
                columns = number // rows
                off = abs(math.log(width / height) - math.log(columns / rows))
                if off < nearest or (off == nearest and rows > best[1]):
                    best, nearest = (columns, rows), off
        return best

    def sizes(self, original_wh: Size, min_pixels: int, max_pixels: int) -> tuple[Size, Size | None]:
        """Width and height of the view of the whole image and of one slice, None without slices."""
        grid = self.grid(original_wh, min_pixels, max_pixels)
        whole = _resize(original_wh, enlarge=grid is None)
        if grid is None:
            return whole, None
        width, height = (_multiple(length, count) / count for length, count in zip(original_wh, grid, strict=True))
        return whole, _resize((width, height), enlarge=True)

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The canvas of all slices, or the view of the whole image."""
        whole, one = self.sizes(original_wh, min_pixels, max_pixels)
        grid = self.grid(original_wh, min_pixels, max_pixels)
        return whole if one is None or grid is None else (one[0] * grid[0], one[1] * grid[1])

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """The view of the whole image, then the slices row by row."""
        whole, one = self.sizes(original_wh, min_pixels, max_pixels)
        text = f"<image>{_tokens(whole)}</image>"
        grid = self.grid(original_wh, min_pixels, max_pixels)
        if one is None or grid is None:
            return text
        return text + "\n".join([f"<slice>{_tokens(one)}</slice>" * grid[0]] * grid[1])

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """Side and number of slices."""
        side = require_tile(min_pixels, TOKENS_OF_SLICE)
        return {"scale_resolution": side, "max_slice_nums": max_pixels // side**2, "downsample_mode": "16x"}


def _multiple(length: int | float, of: int) -> int:
    return max(round(length / of) * of, of)


def _resize(size_wh: tuple[int | float, int | float], *, enlarge: bool) -> Size:
    """About the area of a slice in whole tokens, aspect kept; a smaller image stays as it is unless to `enlarge`."""
    width, height = size_wh
    if width * height > SLICE**2 or enlarge:
        aspect = width / height
        height = int(SLICE / math.sqrt(aspect))
        width = int(height * aspect)
    return _multiple(width, PATCH * MERGE), _multiple(height, PATCH * MERGE)


def _tokens(size_wh: Size) -> str:
    return IMAGE * ((size_wh[0] // PATCH) * (size_wh[1] // PATCH) // MERGE**2)


def _ask(named: Sequence[str]) -> str:
    return f"Please detect every {', '.join(named)} and give the bounding boxes."


MINICPM_V = Assembled(
    name="minicpm_v",
    about=About(
        title="MiniCPM-V 4.6",
        grammar="<ref>cat</ref><box>x1 y1 x2 y2</box>",
        coordinates="0..1000 of each side, x first",
        rounding="down; read as (q + 0.5) / 1000",
        resize="a view of 448 x 448 pixels and slices of that area within the budget",
        source="OpenBMB's fine-tuning guide (points); unsure: the tags of boxes are those of its earlier models",
    ),
    model_types=("minicpmv4_6",),
    special_tokens=(
        *("<|im_start|>", "<|im_end|>", IMAGE, "<think>", "</think>"),
        *("<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"),
    ),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="<|im_end|>",
    towers={
        "projector": r"(^|\.)merger\.",
        "vision": r"(^|\.)vision_tower\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": {
            "attention": under("vision_tower", rf"(?:encoder\.layers\.\d+|vit_merger)\.{ENCODER_ATTENTION}"),
            "mlp": under("vision_tower", rf"(?:encoder\.layers\.\d+\.{ENCODER_MLP}|vit_merger\.linear_[12])"),
        },
        "projector": {"mlp": under("merger", r"mlp\.\d+\.linear_[12]")},
        "language": LANGUAGE,
    },
    defaults=Defaults(
        source="r 64, alpha 64, dropout 0.05 from OpenBMB's finetune_lora; its rate is for full tuning, so 1e-4 from "
        "LLaMA-Factory's LoRA examples; 4 epochs, batch 16 and 9 slices from the guide and the processor",
        r=64,
        alpha=64,
        dropout=0.05,
        recipe="language",
        learning_rate=1e-4,
        epochs=4.0,
        effective_batch=16,
        min_pixels=SLICE**2,
        max_pixels=9 * SLICE**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=1000, rounds=False),
        script=Tagged(
            name_tags=("<ref>", "</ref>"),
            box_tags=("<box>", "</box>"),
            box=in_order(CORNERS, between=" "),
            pattern=r"\s*(-?\d{1,9})\s+(-?\d{1,9})\s+(-?\d{1,9})\s+(-?\d{1,9})\s*",
            together=False,
        ),
        forbidden=rf"{CHAT_FORBIDDEN}|</?(?:think|ref|box|quad|point|image|slice|image_id|unit)>",
        form="NFC",
    ),
    view=Slices(),
    # The number of the image, which the processor writes before the image's own text.
    before=f"{ASK}<image_id>0</image_id>",
    behind="\n",
    ask=_ask,
    after=ANSWER + EMPTY_THOUGHT,
)
