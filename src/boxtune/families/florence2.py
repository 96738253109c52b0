"""Florence-2: a name and four location tokens for each box, written by a decoder of its own.

Tokens, order, rounding (down, clamped to 999) and reading (the middle of the step) as in transformers' processor. The
prompt is its phrase grounding task, the only one that is asked for several names and answers with them; how a list of
classes is put into it, and the answer for nothing, are ours. transformers' own reader drops letters beyond ASCII from
names and ends them at "<"; ours does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.grammar import NOTHING, Grammar
from boxtune.families.linears import under
from boxtune.families.place_tokens import PlaceTokens
from boxtune.families.views import Square

IMAGE = "<image>"
SIDE = 768


def _ask(named: Sequence[str]) -> str:
    return f"Locate the phrases in the caption: {'. '.join(named)}."


FLORENCE2 = Assembled(
    name="florence2",
    about=About(
        title="Florence-2",
        grammar="cat<loc_100><loc_200><loc_500><loc_800>",
        coordinates="<loc_0>..<loc_999> of each side, x first",
        rounding="down, clamped to 999; read as (q + 0.5) / 1000",
        resize="squeezed into 768 x 768",
        source="transformers' Florence2Processor; unsure: a list of classes as the caption is ours, as is nothing",
    ),
    model_types=("florence2",),
    special_tokens=(IMAGE, "<s>", "</s>", *(f"<loc_{place}>" for place in range(1000))),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="</s>",
    loss="model",
    encoder_decoder=True,
    towers={
        "vision": r"(^|\.)vision_tower\.",
        "projector": r"(^|\.)multi_modal_projector\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": {
            "attention": under(
                "vision_tower",
                r"blocks\.\d+\.\d+\.(?:spatial_block\.window_attn|channel_block\.channel_attn)\.(?:qkv|proj)",
            ),
            "mlp": under("vision_tower", r"blocks\.\d+\.\d+\.(?:spatial|channel)_block\.ffn\.fc[12]"),
        },
        "projector": {"mlp": under("multi_modal_projector", "image_projection")},
        "language": {
            "attention": under(
                "language_model",
                r"(?:encoder|decoder)\.layers\.\d+\.(?:self_attn|encoder_attn)\.(?:[qkv]|out)_proj",
            ),
            "mlp": under("language_model", r"(?:encoder|decoder)\.layers\.\d+\.fc[12]"),
        },
    },
    defaults=Defaults(
        source="Roboflow's Florence-2 detection notebook (LoRA r 8, alpha 8, dropout 0.05, learning rate 5e-6, "
        "10 epochs, batch 6)",
        r=8,
        alpha=8,
        dropout=0.05,
        recipe="language",
        learning_rate=5e-6,
        epochs=10.0,
        effective_batch=6,
        min_pixels=SIDE**2,
        max_pixels=SIDE**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=1000, short_by=1, rounds=False),
        script=PlaceTokens(
            token="<loc_{}>",
            digits=r"\d{1,9}",
            name_first=True,
            y_first=False,
            nothing=NOTHING,
            ignored=r"</?s>|<pad>",
        ),
        forbidden=r"<loc_\d+>|</?s>|<(?:pad|unk|mask|image)>",
    ),
    view=Square(tokens={SIDE: 577}, token=IMAGE),
    before="",
    behind="<s>",
    ask=_ask,
    after="</s>",
)
