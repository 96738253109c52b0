"""GLM-4.1V, 4.5V and 4.6V: a JSON list between box tokens, thousandths of the sides.

Range, rounding and box tokens: the GLM-V repository (README on grounding and its grounding skill, which names the JSON
list of label and bbox_2d for detection). An empty list for nothing is ours. The turn begins with an empty thought, as
the chat templates of 4.5V and 4.6V write it with thinking off; 4.1V has another template and is used to thinking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About
from boxtune.families.grammar import Grammar
from boxtune.families.json_boxes import JsonBoxes
from boxtune.families.linears import under
from boxtune.families.qwen2_vl import QWEN2_VL
from boxtune.families.views import Smart

IMAGE = "<|image|>"
FACTOR = 28
BOX = ("<|begin_of_box|>", "<|end_of_box|>")


def _ask(named: Sequence[str]) -> str:
    return (
        f"Detect every object of these categories in the image: {', '.join(named)}. Answer in JSON: "
        '[{"label": category, "bbox_2d": [x1, y1, x2, y2]}, ...].'
    )


GLM4V = Assembled(
    name="glm4v",
    about=About(
        title="GLM-4.1V, GLM-4.5V, GLM-4.6V",
        grammar=f'{BOX[0]}[{{"label": "cat", "bbox_2d": [x1, y1, x2, y2]}}]{BOX[1]}',
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even",
        resize="multiples of 28, aspect kept, within the budget",
        source="zai-org/GLM-V, README and grounding skill; unsure: GLM-4.1V with an empty thought",
    ),
    model_types=("glm4v", "glm4v_moe", "glm46v"),
    special_tokens=(
        *("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        *(IMAGE, "<|begin_of_image|>", "<|end_of_image|>"),
        *BOX,
    ),
    image_token=IMAGE,
    visual_token=IMAGE,
    # An answer ends where the next turn of the user begins.
    end_of_turn="<|user|>",
    packing="grid",
    towers={
        "projector": r"(^|\.)visual\.merger\.",
        "vision": r"(^|\.)visual\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": {
            "attention": under("visual", r"blocks\.\d+\.attn\.(?:qkv|proj)"),
            "mlp": under("visual", r"blocks\.\d+\.mlp\.(?:gate|up|down)_proj"),
        },
        "projector": {"mlp": under("visual", r"merger\.(?:proj|(?:gate|up|down)_proj)")},
        "language": {
            "attention": under("language_model", r"layers\.\d+\.self_attn\.[qkvo]_proj"),
            # 4.1V has gate and up in one; of 4.5V's experts the shared ones alone have linear layers.
            "mlp": under("language_model", r"layers\.\d+\.mlp\.(?:shared_experts\.)?(?:gate|up|down|gate_up)_proj"),
        },
    },
    defaults=replace(
        QWEN2_VL.defaults, source="none published; taken from Qwen2-VL's, whose resize rule and patches are the same"
    ),
    grammar=Grammar(
        scale=Steps(per_side=1000),
        script=JsonBoxes(key="bbox_2d", fence=BOX, label_first=True, indent="", line=""),
        forbidden=r"<\|[a-z_]+\|>|\[gMASK\]|<[se]op>|</?(?:think|answer)>|/nothink",
    ),
    # The processor counts an image twice, as two frames of a video.
    view=Smart(factor=FACTOR, token=IMAGE, frames=2, grows_first=True),
    before="[gMASK]<sop><|user|>\n<|begin_of_image|>",
    behind="<|end_of_image|>",
    ask=_ask,
    after="/nothink<|assistant|>\n<think></think>\n",
)
