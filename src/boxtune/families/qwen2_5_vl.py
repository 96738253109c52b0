"""Qwen2.5-VL: a JSON list, corners in whole pixels of the resized image.

Grammar, question and clamping as in QwenLM's cookbooks and its `process_bbox` notebook: pixels of the image as the
model sees it, rounded, at most one less than the side. The answer for nothing is an empty list, which is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boxtune.families.bins import Steps
from boxtune.families.family import About
from boxtune.families.grammar import Grammar
from boxtune.families.json_boxes import JsonBoxes
from boxtune.families.linears import LLAMA_MLP, under
from boxtune.families.qwen2_vl import CHAT_FORBIDDEN, CHAT_TOKENS, QWEN2_VL


def _ask(named: Sequence[str]) -> str:
    return f"Outline the position of each {', '.join(named)} and output all the coordinates in JSON format."


QWEN2_5_VL = replace(
    QWEN2_VL,
    name="qwen2_5_vl",
    about=About(
        title="Qwen2.5-VL",
        grammar='```json [{"bbox_2d": [x1, y1, x2, y2], "label": "cat"}] ```',
        coordinates="pixels of the resized image, x first",
        rounding="nearest, halves to even, at most the side less one",
        resize="multiples of 28, aspect kept, within the budget",
        source="QwenLM's cookbooks and process_bbox notebook, issues 721 and 1161 of its repository",
    ),
    model_types=("qwen2_5_vl",),
    special_tokens=CHAT_TOKENS,
    adapted={
        **QWEN2_VL.adapted,
        "vision": {**QWEN2_VL.adapted["vision"], "mlp": under("visual", rf"blocks\.\d+\.{LLAMA_MLP}")},
    },
    defaults=replace(
        QWEN2_VL.defaults,
        source="r 64, alpha 128, dropout 0.05 from QwenLM's qwen-vl-finetune; learning rate 1e-4 from LLaMA-Factory's "
        "Qwen2.5-VL LoRA example; 256 to 1280 patches of 28 x 28 from the model card; the rest from Qwen2-VL's",
    ),
    grammar=Grammar(
        scale=Steps(per_side=None, short_by=1),
        script=JsonBoxes(key="bbox_2d"),
        forbidden=CHAT_FORBIDDEN,
        form="NFC",
    ),
    ask=_ask,
)
