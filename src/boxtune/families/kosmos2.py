"""Kosmos-2: two tokens for each box, naming the cells of a grid of 32 x 32 that its corners lie in.

Tags, cells and their reading as in transformers' Kosmos2Processor: the upper-left cell is rounded down, the lower-right
one is the last that is touched; a box in one row or column of cells is read as all of them, any other from middle to
middle. The tag <grounding> and the turn of question and answer are the processor's documentation's; the words of the
question and the answer for nothing are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from boxtune.boxes import Boxes
from boxtune.families.assembled import Assembled
from boxtune.families.bins import Numbers, Places
from boxtune.families.family import About, Defaults, Frame
from boxtune.families.forms import Number
from boxtune.families.grammar import Grammar
from boxtune.families.linears import ENCODER_ATTENTION, encoder_layers, under
from boxtune.families.tagged import Tagged
from boxtune.families.views import Square

IMAGE = "<image>"
SIDE, CELLS = 224, 32
PHRASE, OBJECT = ("<phrase>", "</phrase>"), ("<object>", "</object>")
DELIMITER = "</delimiter_of_multi_objects/>"


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Corners as columns and rows of cells: the first and the last cell that a box touches."""

    def bin_px(self, frame: Frame) -> tuple[float, float]:
        """Width and height of a cell, in pixels of the upright original."""
        return frame.original_wh[0] / CELLS, frame.original_wh[1] / CELLS

    def to_bins(self, boxes: Boxes, frame: Frame) -> Int[np.ndarray, "n 4"]:
        """First column and row, last column and row of each box."""
        exact = boxes.xyxy_px / np.array(frame.original_wh * 2, dtype=np.float64) * CELLS
        # A division may leave 0.9999999999 of a cell, or 1.0000000001.
        first = np.clip(np.floor(exact[:, :2] + 1e-9), 0, CELLS - 1)
        last = np.clip(np.ceil(exact[:, 2:] - 1 - 1e-9), 0, CELLS - 1)
        return np.concatenate([first, np.maximum(first, last)], axis=1).astype(int)

    def find_fault(self, numbers: Numbers, frame: Frame) -> str:
        """out_of_range, inverted, or ""; a box of a single cell has an area."""
        x1, y1, x2, y2 = numbers
        if min(numbers) < 0 or max(numbers) >= CELLS:
            return "out_of_range"
        return "inverted" if x2 < x1 or y2 < y1 else ""

    def allowed(self, place: int, corners: Places, frame: Frame) -> range:
        """A first cell up to the last one, a last cell from the first one on."""
        other = corners[(place + 2) % 4]
        if place < 2:
            return range(CELLS if other is None else other + 1)
        return range(other or 0, CELLS)

    def to_px(self, rows: Sequence[Numbers], frame: Frame) -> Float[np.ndarray, "n 4"]:
        """Corners in pixels of the upright original."""
        cells = np.array(rows, dtype=np.float64).reshape(-1, 4)
        one_line = ((cells[:, 0] == cells[:, 2]) | (cells[:, 1] == cells[:, 3]))[:, None]
        corners = np.where(one_line, cells + np.array([0, 0, 1, 1]), cells + 0.5)
        return corners / CELLS * np.array(frame.original_wh * 2, dtype=np.float64)


def _show(column: int, row: int) -> str:
    return f"<patch_index_{row * CELLS + column:04d}>"


def _parse(found: re.Match[str]) -> Numbers:
    first, last = (float(number) for number in found.groups())
    return first % CELLS, first // CELLS, last % CELLS, last // CELLS


def _ask(named: Sequence[str]) -> str:
    return f"Question: Where are the {', '.join(named)}? Answer:"


KOSMOS2 = Assembled(
    name="kosmos2",
    about=About(
        title="Kosmos-2",
        grammar="<phrase>cat</phrase><object><patch_index_0044><patch_index_0863></object>",
        coordinates="cells 0000..1023 of a 32 x 32 grid",
        rounding="first cell down, last cell up; read middle to middle",
        resize="squeezed into 224 x 224",
        source="transformers' Kosmos2Processor; unsure: asking for several classes at once is ours",
    ),
    model_types=("kosmos-2",),
    special_tokens=(
        *("<s>", "</s>", IMAGE, "</image>", "<grounding>"),
        *(*PHRASE, *OBJECT, DELIMITER),
        *(f"<patch_index_{place:04d}>" for place in range(CELLS**2)),
    ),
    image_token=IMAGE,
    visual_token=IMAGE,
    end_of_turn="</s>",
    loss="model",
    towers={
        "projector": r"(^|\.)image_to_text_projection\.",
        "vision": r"(^|\.)vision_model\.",
        "language": r"(^|\.)text_model\.",
    },
    adapted={
        "vision": encoder_layers(r"vision_model\.model"),
        "projector": {
            "attention": under("image_to_text_projection", r"x_attn\.(?:[qkv]|out)_proj"),
            "mlp": under("image_to_text_projection", "dense"),
        },
        "language": {
            "attention": under("text_model", rf"model\.layers\.\d+\.{ENCODER_ATTENTION}"),
            "mlp": under("text_model", r"model\.layers\.\d+\.ffn\.fc[12]"),
        },
    },
    defaults=Defaults(
        source="none published for LoRA; rank and rate as in Hugging Face's notebooks for models of this size (r 8, "
        "1e-4), epochs and batch taken from Qwen2-VL's",
        r=8,
        alpha=16,
        dropout=0.05,
        recipe="language",
        learning_rate=1e-4,
        epochs=3.0,
        effective_batch=16,
        min_pixels=SIDE**2,
        max_pixels=SIDE**2,
    ),
    grammar=Grammar(
        scale=Cells(),
        script=Tagged(
            name_tags=PHRASE,
            box_tags=OBJECT,
            box=(Number(places=(0, 1), show=_show), Number(places=(2, 3), show=_show)),
            pattern=r"<patch_index_(\d{4})>\s*<patch_index_(\d{4})>",
            together=True,
            between=DELIMITER,
            parse=_parse,
        ),
        # The tokenizer makes one space of every white space.
        forbidden=r"</?(?:phrase|object|image|grounding|doc|chunk|line|s|pad|unk|mask)>|</?delimiter_of_multi_objects/?>"
        r"|<patch_index_\d+>|\s{2,}|[^\S ]",
        form="NFKC",
    ),
    # One token opens the image and is the same as the 64 that stand for it.
    view=Square(tokens={SIDE: 65}, token=IMAGE, after="</image>"),
    before="<s>",
    behind="<grounding>",
    ask=_ask,
    after="",
)
