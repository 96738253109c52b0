"""Qwen3.5 and 3.6: Qwen3-VL's grammar behind an empty thought.

These models think before they answer unless the turn begins with an empty thought, as their chat template writes it
with `enable_thinking=False`. Three of four layers are linear attention with projections of their own.
"""

from __future__ import annotations

from dataclasses import replace

from boxtune.families.linears import under
from boxtune.families.qwen3_vl import QWEN3_VL

EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
LANGUAGE = {
    "attention": under(
        "language_model",
        r"layers\.\d+\.(?:self_attn\.[qkvo]_proj|linear_attn\.(?:in_proj_(?:qkv|z|b|a)|out_proj))",
    ),
    # Of the MoE models the shared expert alone has linear layers.
    "mlp": under("language_model", r"layers\.\d+\.mlp\.(?:shared_expert\.)?(?:gate|up|down)_proj"),
}

QWEN3_5 = replace(
    QWEN3_VL,
    name="qwen3_5",
    about=replace(
        QWEN3_VL.about,
        title="Qwen3.5, Qwen3.6",
        source="as Qwen3-VL; unsure: boxes are published for Qwen3-VL, and said to be the same here",
    ),
    model_types=("qwen3_5", "qwen3_5_moe"),
    packing=None,  # linear attention carries its state from one sample into the next
    special_tokens=(*QWEN3_VL.special_tokens, "<think>", "</think>"),
    towers={**QWEN3_VL.towers, "projector": r"(^|\.)visual\.merger\."},
    adapted={
        **QWEN3_VL.adapted,
        "projector": {"mlp": under("visual", r"merger\.linear_fc[12]")},
        "language": LANGUAGE,
    },
    defaults=replace(QWEN3_VL.defaults, source="none published for these sizes; taken from Qwen3-VL's"),
    after=QWEN3_VL.after + EMPTY_THOUGHT,
)
