"""Models of no known family, on the user's word alone (family=json1000): a JSON list in thousandths of the sides.

The grammar is one that such a model has probably never been trained on, and must learn. Nothing here says what its
processor does or how its turns begin: `fit_to_chat` puts the grammar into the model's own chat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from boxtune.families.assembled import Assembled
from boxtune.families.bins import Steps
from boxtune.families.family import About
from boxtune.families.grammar import Grammar
from boxtune.families.json_boxes import JsonBoxes
from boxtune.families.qwen2_vl import QWEN2_VL
from boxtune.families.views import Size

SPOT = "(the question stands here)"
"""The text of the user's turn that `fit_to_chat` looks for."""

JSON1000_GRAMMAR = Grammar(
    scale=Steps(per_side=1000), script=JsonBoxes(key="bbox_2d"), forbidden=r"<\|?/?[a-zA-Z_]+\|?>"
)
"""Also for known families that have no grammar of their own, with their own tokens forbidden."""


def ask_json1000(named: Sequence[str]) -> str:
    """The question that goes with the grammar; it says the form, since the model has none."""
    return (
        f'Detect every object of these classes: {", ".join(named)}. Answer with a JSON list: "bbox_2d" is '
        '[x1, y1, x2, y2] from 0 to 1000 of the image\'s width and height, "label" the class.'
    )


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """A processor that nothing is known of: the seen size is the original one, the text is for it to make."""

    def seen_wh(self, original_wh: Size, min_pixels: int, max_pixels: int) -> Size:
        """The original size; thousandths of the sides are the same in both."""
        return original_wh

    def image_text(self, original_wh: Size, min_pixels: int, max_pixels: int) -> str:
        """Nothing."""
        return ""

    def image_settings(self, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """None: the processor stays as the checkpoint has it. ValueError for a budget that is asked for: it would be
        passed over in silence."""
        if (min_pixels, max_pixels) != (QWEN2_VL.defaults.min_pixels, QWEN2_VL.defaults.max_pixels):
            raise ValueError("the processor of a model of no known family decides by itself how large images are")
        return {}


# The word must not stand in a name where it is not a layer of the language model.
_NOT_VISION = r"(?!.*(?:vis|vit|image|img|audio|proj(?:ector|ection)|connector|merger|aligner))"

JSON1000 = Assembled(
    name="json1000",
    about=About(
        title="any other (family=json1000)",
        grammar='```json [{"bbox_2d": [x1, y1, x2, y2], "label": "cat"}] ```',
        coordinates="0..1000 of each side, x first",
        rounding="nearest, halves to even",
        resize="whatever the model's processor does",
        source="ours; the model must learn it from nothing",
    ),
    model_types=(),
    special_tokens=(),
    image_token="<image>",
    visual_token="<image>",
    end_of_turn="</s>",
    knows_processor=False,
    towers={
        "projector": r"(^|\.)([a-z_]*(projector|projection)|connector|merger|aligner|resampler)\.",
        "vision": r"(^|\.)(vis|vit|image_|img_)[a-z_]*\.",
        "language": r".",
    },
    adapted={
        "language": {
            "attention": rf"{_NOT_VISION}.*(?:self_attn|attention)\.(?:(?:[qkvo]|out|qkv)_proj|dense|query_key_value)",
            "mlp": rf"{_NOT_VISION}.*mlp\.(?:(?:gate|up|down|gate_up)_proj|fc[12])",
        }
    },
    defaults=replace(QWEN2_VL.defaults, source="none published for a model of no known family; taken from Qwen2-VL's"),
    grammar=JSON1000_GRAMMAR,
    view=Unknown(),
    before="",
    behind="\n",
    ask=ask_json1000,
    after="\n",
)


def fit_to_chat(rendered: str, *, image_token: str, visual_token: str, end_of_turn: str) -> Assembled:
    """json1000 inside a model's own turns.

    `rendered` is what the model's chat template makes of one turn of the user, an image and the text SPOT, up to where
    the answer begins. Raises ValueError where image or text cannot be found in it, in this order.
    """
    before, image, rest = rendered.partition(image_token)
    behind, spot, after = rest.partition(SPOT)
    if not image or not spot:
        raise ValueError(f"the chat template wrote no {image_token!r} with the question behind it: {rendered!r}")
    return replace(
        JSON1000,
        image_token=image_token,
        visual_token=visual_token,
        end_of_turn=end_of_turn,
        before=before,
        behind=behind,
        after=after,
    )
