"""Qwen2-VL: boxes between special tokens, corners as whole thousandths of the image's sides.

Grammar and resize rule: the Qwen2-VL report (arXiv 2409.12191) and its processor in transformers; rounding and the
range 0..1000 as in QwenLM's own `process_bbox` notebook. The words of the question and the answer for an image with
nothing in it are ours, since the family has none.
"""

from __future__ import annotations

from collections.abc import Sequence

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.forms import CORNERS, in_order
from boxtune.families.grammar import NOTHING as NOTHING
from boxtune.families.grammar import Grammar
from boxtune.families.linears import llama_layers, under
from boxtune.families.tagged import NUMBER, Tagged
from boxtune.families.views import Smart

REF_START, REF_END = "<|object_ref_start|>", "<|object_ref_end|>"
BOX_START, BOX_END = "<|box_start|>", "<|box_end|>"
IMAGE = "<|image_pad|>"
END_OF_TURN = "<|im_end|>"
BINS = 1000
FACTOR = 28
"""A visual token is 2 x 2 patches of 14 pixels."""

CHAT_TOKENS = ("<|im_start|>", END_OF_TURN, "<|vision_start|>", "<|vision_end|>", IMAGE)
SPECIAL_TOKENS = (*CHAT_TOKENS, REF_START, REF_END, BOX_START, BOX_END)
CHAT_FORBIDDEN = r"<\|[a-z_]+\|>"
"""Found in names that Qwen's tokenizers would read as a special token."""

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
ASK, ANSWER = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"


def _ask(named: Sequence[str]) -> str:
    return f"Detect the bounding box of each: {', '.join(named)}."


QWEN2_VL = Assembled(
    name="qwen2_vl",
    about=About(
        title="Qwen2-VL",
        grammar=f"{REF_START}cat{REF_END}{BOX_START}(x1,y1),(x2,y2){BOX_END}",
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even",
        resize="multiples of 28, aspect kept, within the budget",
        source="arXiv 2409.12191; QwenLM's process_bbox notebook; question and answer for nothing are ours",
    ),
    model_types=("qwen2_vl",),
    special_tokens=SPECIAL_TOKENS,
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn=END_OF_TURN,
    packing="grid",
    # The merger lies inside `visual`, so it comes first: a parameter belongs to the first tower that it matches.
    towers={
        "projector": r"(^|\.)visual\.merger\.",
        "vision": r"(^|\.)visual\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": {
            "attention": under("visual", r"blocks\.\d+\.attn\.(?:qkv|proj)"),
            "mlp": under("visual", r"blocks\.\d+\.mlp\.fc[12]"),
        },
        "projector": {"mlp": under("visual", r"merger\.mlp\.[02]")},
        "language": llama_layers("language_model"),
    },
    defaults=Defaults(
        source="nutrition-table project on Qwen2-VL-7B (r 64, alpha 128, 2 x 8, 3 epochs, 256 to 1280 patches of "
        "28 x 28); learning rate 1e-4 from LLaMA-Factory's Qwen2-VL LoRA example",
        r=64,
        alpha=128,
        dropout=0.05,
        recipe="language",
        learning_rate=1e-4,
        epochs=3.0,
        effective_batch=16,
        min_pixels=256 * FACTOR**2,
        max_pixels=1280 * FACTOR**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=BINS),
        script=Tagged(
            name_tags=(REF_START, REF_END),
            box_tags=(BOX_START, BOX_END),
            box=("(", *in_order(CORNERS[:2], between=","), "),(", *in_order(CORNERS[2:], between=","), ")"),
            pattern=rf"\({NUMBER},{NUMBER}\)\s*,\s*\({NUMBER},{NUMBER}\)",
            together=False,
        ),
        forbidden=CHAT_FORBIDDEN,
        form="NFC",
    ),
    view=Smart(factor=FACTOR, token=IMAGE),
    before=f"{SYSTEM}{ASK}<|vision_start|>",
    behind="<|vision_end|>",
    ask=_ask,
    after=ANSWER,
)
