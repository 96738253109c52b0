"""PaliGemma and PaliGemma 2: four location tokens, y before x, and the name behind them.

Prompt, order and tokens: the PaliGemma report (arXiv 2407.07726). Rounding and reading: big_vision's own, which writes
round(1023 v) and reads q / 1023 (pp and evaluator of refcoco_seg); decoders that divide by 1024 are off by up to a
step. An answer for nothing is published nowhere; ours is the empty one, the end at once.

The text is for the tokenizer: the processor would put `<bos>` and the newline once more. In training the prompt is
seen in both directions, so the answer must be marked as the suffix that it is (token types).
"""

from __future__ import annotations

from collections.abc import Sequence

from boxtune.families.assembled import Assembled, square_of_checkpoint
from boxtune.families.bins import Steps
from boxtune.families.family import About, Defaults
from boxtune.families.grammar import Grammar
from boxtune.families.linears import encoder_layers, llama_layers, under
from boxtune.families.place_tokens import PlaceTokens
from boxtune.families.views import Square

IMAGE = "<image>"
SEPARATOR = " ; "
TOKENS_OF_SIDE = {224: 256, 448: 1024, 896: 4096}


def _ask(named: Sequence[str]) -> str:
    return f"detect {SEPARATOR.join(named)}"


PALIGEMMA = Assembled(
    name="paligemma",
    about=About(
        title="PaliGemma, PaliGemma 2",
        grammar="<loc0102><loc0204><loc0511><loc0819> cat ; ...",
        coordinates="<loc0000>..<loc1023> of each side, y first",
        rounding="nearest of v * 1023, halves to even",
        resize="squeezed into the checkpoint's square: 224, 448, 896",
        source="arXiv 2407.07726; big_vision's refcoco_seg; unsure: the empty answer for nothing is ours",
    ),
    model_types=("paligemma",),
    special_tokens=(IMAGE, "<bos>", "<eos>", *(f"<loc{place:04d}>" for place in range(1024))),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="<eos>",
    towers={
        "vision": r"(^|\.)vision_tower\.",
        "projector": r"(^|\.)multi_modal_projector\.",
        "language": r"(^|\.)(language_model\.|lm_head\.)",
    },
    adapted={
        "vision": encoder_layers("vision_tower"),
        "projector": {"mlp": under("multi_modal_projector", "linear")},
        "language": llama_layers("language_model"),
    },
    defaults=Defaults(
        source="Hugging Face's PaliGemma fine-tuning notebook (QLoRA, r 8, learning rate 2e-5); alpha and dropout are "
        "peft's own, epochs and batch Qwen2-VL's; the image's side is the checkpoint's",
        r=8,
        alpha=8,
        dropout=0.0,
        recipe="language",
        learning_rate=2e-5,
        epochs=3.0,
        effective_batch=16,
        min_pixels=448**2,
        max_pixels=448**2,
    ),
    grammar=Grammar(
        scale=Steps(per_side=1023),
        script=PlaceTokens(
            token="<loc{:04d}>", digits=r"\d{4}", name_first=False, y_first=True, nothing="", separator=SEPARATOR
        ),
        forbidden=r"<(?:loc|seg)\d+>|</?(?:image|bos|eos|pad|unk)>|\n| ; ",
    ),
    view=Square(tokens=TOKENS_OF_SIDE, token=IMAGE),
    before="",
    behind="<bos>",
    ask=_ask,
    after="\n",
    adjust=square_of_checkpoint,
)
