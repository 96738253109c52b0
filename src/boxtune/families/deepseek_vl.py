"""DeepSeek-VL in transformers' layout, with the grammar of DeepSeek-VL2: tagged names, lists of four in 0..999.

Grammar: the DeepSeek-VL2 repository and what reads its answers (divided by 999). DeepSeek-VL itself publishes no boxes,
and VL2 is not in transformers, so the tags are new to these checkpoints and need not be tokens of their own. Turns and
image tokens as in DeepSeek-VL's conversation and transformers' processor, which pads the image to a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.grammar import Grammar
from boxtune.families.linears import encoder_layers, llama_layers, under
from boxtune.families.tagged import LIST, SHOWN_LIST, Tagged
from boxtune.families.views import Size, require_side

IMAGE = "<image_placeholder>"
BOS, EOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"
SIDE, LEAST = 384, 14
TOKENS_OF_SIDE = {SIDE: 576}


@dataclass(frozen=True, kw_only=True)
class Padded:
    """The longer side made 384, the shorter one in proportion, the rest of the square padded."""

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The size inside the padding; no side less than 14."""
        side = require_side(min_pixels, max_pixels, TOKENS_OF_SIDE)
        scale = side / max(original_wh)
        width, height = (max(round(length * scale), LEAST) for length in original_wh)
        return width, height

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """576 visual tokens for every image."""
        return IMAGE * TOKENS_OF_SIDE[require_side(min_pixels, max_pixels, TOKENS_OF_SIDE)]

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """`size` as a square."""
        side = require_side(min_pixels, max_pixels, TOKENS_OF_SIDE)
        return {"size": {"height": side, "width": side}, "min_size": LEAST}


def _ask(named: Sequence[str]) -> str:
    return f"Find all the {', '.join(named)}."


_SIGLIP = encoder_layers("vision_model")
_SAM = r"vision_encoder\.layers\.\d+\."

DEEPSEEK_VL = Assembled(
    name="deepseek_vl",
    about=About(
        title="DeepSeek-VL",
        grammar="<|ref|>cat<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>",
        coordinates="0..999 of each side, x first",
        rounding="nearest of v * 999, halves to even (unsure: published nowhere)",
        resize="longer side 384, padded to a square (hybrid: 1024 besides)",
        source="DeepSeek-VL2's repository; unsure: DeepSeek-VL itself publishes no boxes",
    ),
    model_types=("deepseek_vl", "deepseek_vl_hybrid"),
    special_tokens=(BOS, EOS, IMAGE),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn=EOS,
    packing="line",
    towers={
        "projector": r"(^|\.)aligner\.",
        "vision": r"(^|\.)(vision_model\.|high_res_vision_)",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": {
            "attention": f"{_SIGLIP['attention']}|{under('high_res_vision_model', _SAM)}attn\\.(?:qkv|proj)",
            "mlp": f"{_SIGLIP['mlp']}|{under('high_res_vision_model', _SAM)}mlp\\.lin[12]",
        },
        "projector": {"mlp": under("aligner", r"(?:linear[12]|(?:high_res_)?vision_proj|proj)")},
        "language": llama_layers("language_model"),
    },
    defaults=Defaults(
        source="none published for LoRA; rank, rate and batch taken from Qwen2-VL's",
        r=64,
        alpha=128,
        dropout=0.05,
        recipe="language",
        learning_rate=1e-4,
        epochs=3.0,
        effective_batch=16,
        min_pixels=SIDE**2,
        max_pixels=SIDE**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=999),
        script=Tagged(
            name_tags=("<|ref|>", "<|/ref|>"),
            box_tags=("<|det|>[", "]<|/det|>"),
            box=SHOWN_LIST,
            pattern=LIST,
            together=True,
        ),
        forbidden=r"<\|/?[a-z]+\|>|<\uff5c[^>]*>|<image_placeholder>",
    ),
    view=Padded(),
    before=f"{BOS}You are a helpful language and vision assistant. You are able to understand the visual content that "
    "the user provides, and assist the user with a variety of tasks using natural language.\n\nUser: ",
    ask=_ask,
    name_marks=("<|ref|>", "<|/ref|>"),
    after="\n\nAssistant:",
)
