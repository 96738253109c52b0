"""Gemma 3: Gemini's JSON list, y before x, thousandths of the sides.

The family publishes no boxes (a question on its model page stayed open); this is the form of its larger sibling, which
what is said of Gemma's boxes uses too. Image text and chat turns as in transformers' processor and chat template; an
empty list for nothing is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.grammar import Grammar
from boxtune.families.json_boxes import JsonBoxes
from boxtune.families.linears import encoder_layers, llama_layers
from boxtune.families.views import Square

START, SOFT, END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
SIDE = 896


def _ask(named: Sequence[str]) -> str:
    return (
        f'Detect {", ".join(named)}. Answer with a JSON list: "box_2d" is [y1, x1, y2, x2] from 0 to 1000, "label" the '
        "name."
    )


GEMMA3 = Assembled(
    name="gemma3",
    about=About(
        title="Gemma 3",
        grammar='```json [{"box_2d": [y1, x1, y2, x2], "label": "cat"}] ```',
        coordinates="0..1000 of each side, y first",
        rounding="nearest, halves to even",
        resize="squeezed into 896 x 896 (pan and scan off)",
        source="unsure: Gemma 3 publishes no boxes, this is Gemini's form; image text: transformers' Gemma3Processor",
    ),
    model_types=("gemma3",),
    special_tokens=("<bos>", "<start_of_turn>", "<end_of_turn>", START, SOFT, END),
    image_token=START,
    visual_token=SOFT,
    end_of_turn="<end_of_turn>",
    towers={
        "vision": r"(^|\.)vision_tower\.",
        "projector": r"(^|\.)multi_modal_projector\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    # The projector is one bare matrix, so it has no linear layer to adapt.
    adapted={"vision": encoder_layers("vision_tower"), "language": llama_layers("language_model")},
    defaults=Defaults(
        source="Google's guide to fine-tuning Gemma for vision tasks (QLoRA r 16, alpha 16, dropout 0.05, learning "
        "rate 2e-4, 1 epoch, batch 1 x 4)",
        r=16,
        alpha=16,
        dropout=0.05,
        recipe="language",
        learning_rate=2e-4,
        epochs=1.0,
        effective_batch=4,
        min_pixels=SIDE**2,
        max_pixels=SIDE**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=1000),
        script=JsonBoxes(key="box_2d", y_first=True),
        forbidden=r"<(?:start|end)_of_(?:turn|image)>|<image_soft_token>|<(?:bos|eos|pad|unk)>",
    ),
    view=Square(
        tokens={SIDE: 256},
        token=SOFT,
        before=f"\n\n{START}",
        after=f"{END}\n\n",
        settings={"do_pan_and_scan": False},
    ),
    before="<bos><start_of_turn>user\n",
    ask=_ask,
    after="<end_of_turn>\n<start_of_turn>model\n",
)
