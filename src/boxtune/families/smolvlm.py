"""SmolVLM and SmolVLM2: Idefics3 but for how a text begins and the sides of the tiles."""

from __future__ import annotations

from dataclasses import replace

from boxtune.families.idefics3 import IDEFICS3

SMOLVLM = replace(
    IDEFICS3,
    name="smolvlm",
    about=replace(
        IDEFICS3.about,
        title="SmolVLM, SmolVLM2",
        resize="longer side to whole tiles of 384 or 512, both stretched",
        source="grammar ours, none published; image text and turns: transformers' SmolVLM processor",
    ),
    model_types=("smolvlm",),
    special_tokens=("<|im_start|>", *IDEFICS3.special_tokens[1:]),
    defaults=replace(IDEFICS3.defaults, min_pixels=512**2, max_pixels=(4 * 512) ** 2),
    before="<|im_start|>User:",
)
