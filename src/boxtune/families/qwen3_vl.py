"""Qwen3-VL: a JSON list as in Qwen2.5-VL, but corners as whole thousandths of the image's sides.

Question and range as in QwenLM's ODinW evaluation and 2d_grounding cookbook. The prompt is that of the Instruct
checkpoints, without a system turn. The answer for nothing is an empty list, which is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boxtune.families.bins import Steps
from boxtune.families.family import About
from boxtune.families.linears import under
from boxtune.families.qwen2_5_vl import QWEN2_5_VL
from boxtune.families.qwen2_vl import ASK, IMAGE
from boxtune.families.views import Smart

FACTOR = 32
"""A visual token is 2 x 2 patches of 16 pixels."""


def _ask(named: Sequence[str]) -> str:
    return (
        f'Locate every instance that belongs to the following categories: "{", ".join(named)}". Report bbox '
        "coordinates in JSON format."
    )


QWEN3_VL = replace(
    QWEN2_5_VL,
    name="qwen3_vl",
    about=About(
        title="Qwen3-VL",
        grammar='```json [{"bbox_2d": [x1, y1, x2, y2], "label": "cat"}] ```',
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even",
        resize="multiples of 32, aspect kept, within the budget",
        source="QwenLM's evaluation/ODinW-13 and cookbooks/2d_grounding; issue 2052 of its repository",
    ),
    model_types=("qwen3_vl", "qwen3_vl_moe"),
    towers={**QWEN2_5_VL.towers, "projector": r"(^|\.)visual\.(merger|deepstack_merger_list)\."},
    adapted={
        "vision": {
            "attention": QWEN2_5_VL.adapted["vision"]["attention"],
            "mlp": under("visual", r"blocks\.\d+\.mlp\.linear_fc[12]"),
        },
        "projector": {"mlp": under("visual", r"(?:merger|deepstack_merger_list\.\d+)\.linear_fc[12]")},
        # The experts of the MoE models are no linear layers: there the mlp pattern finds none.
        "language": QWEN2_5_VL.adapted["language"],
    },
    defaults=replace(
        QWEN2_5_VL.defaults,
        source="256 to 1280 patches of 32 x 32 from the model card; the rest from Qwen2.5-VL's",
        min_pixels=256 * FACTOR**2,
        max_pixels=1280 * FACTOR**2,
    ),
    grammar=replace(QWEN2_5_VL.grammar, scale=Steps(per_side=1000)),
    view=Smart(factor=FACTOR, token=IMAGE),
    before=f"{ASK}<|vision_start|>",
    ask=_ask,
)
