"""What tests of every family share: all of them as parameters, awkward names, boxes, how far a corner may move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import strategies as st

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES, Family, Frame

QUICK = ("qwen2_vl", "qwen2_5_vl", "paligemma", "internvl")
"""Families that `make test-fast` tries, a kind of grammar each."""
every_family = pytest.mark.parametrize(
    "family",
    [pytest.param(each, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, each in FAMILIES.items()],
)

# These every family carries.
NAMES = [
    "cat",
    "stop-sign",
    "cell (red)",
    'quote"d',
    "it's",
    "12",
    "a, b, and c",
    "50% off; new",
    "back\\slash",
    "{curly} [square]",
    "a/b:c|d",
    "e.g. this.",
    "naïve café",
    "猫 と 犬",
    "кот",
    "🐈",
    "x" * 400,
]
# These a family may refuse, but must not lose.
AWKWARD = [
    *("<angle>", "a < b > c", "<|", "<|not_closed|", "<loc_", "<loc", "</phrase", "]]</box", '"}]', "```", "```json"),
    *(
        "<loc_1>",
        "<loc0001>",
        "</phrase>",
        "<|im_end|>",
        "<|box_start|>",
        "</ref>",
        "<ref>",
        "<image>",
        "</s>",
        "[gMASK]",
    ),
    *("<patch_index_0001>", "<|begin_of_box|>", "a ; b", "a;", ";", "; b", "two\nlines", "tab\tbed", "two  spaces"),
    *("\u00e9", "e\u0301", "\u2460", "\ufb01sh", "zero\u200bwidth", "\u2028", "\x00", "\ud800", "{}", "[1, 2, 3, 4]"),
    *(
        '{"bbox_2d": [1, 2, 3, 4], "label": "cat"}',
        "(1,2),(3,4)",
        "There are none.",
        "[]",
        ": ",
        "a: b",
        "\\u0041",
        "\\",
    ),
]

name = st.one_of(st.sampled_from(NAMES), st.sampled_from(AWKWARD), st.text(min_size=1, max_size=20))
unit = st.one_of(st.floats(min_value=0, max_value=1), st.sampled_from([0.0, 1.0, 0.5, 0.9995, 1 / 3]))
objects = st.lists(st.tuples(unit, unit, unit, unit, name), min_size=1, max_size=6)
sides = st.integers(min_value=20, max_value=10_000)


def frame_of(family: Family, original_wh: tuple[int, int]) -> Frame:
    """The frame of an image under the family's own budget."""
    defaults = family.defaults
    seen_wh = family.seen_wh(original_wh, defaults.min_pixels, defaults.max_pixels)
    return Frame(original_wh=original_wh, seen_wh=seen_wh)


def build_boxes(size_wh: tuple[int, int], rows: Sequence[tuple[float, float, float, float, str]]) -> Boxes:
    """Boxes from corners in 0..1 in any order, each with a label of its own: the name and a number."""
    corners = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4) * np.array([*size_wh, *size_wh])
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    labels = tuple(f"{row[4]} {place}" for place, row in enumerate(rows))
    return Boxes(xyxy_px=np.concatenate([low, high], axis=1), labels=labels)


def most_off(family: Family, frame: Frame, box: np.ndarray) -> np.ndarray:
    """How far each corner of a box (pixels) may lie from where it was: half a step of the grammar.

    More where a grammar cannot help it: a side thinner than a step is made a step wide (any family); the last pixel of
    a side cannot be named (Qwen2.5-VL); a box inside one row or column of cells is read as those cells (Kosmos-2).
    """
    step = np.array(family.bin_px(frame) * 2)
    side = np.tile(box[2:] - box[:2], 2)
    # Of a side that ends in the last pixel, up to one more step is lost.
    last = (box > np.array(frame.original_wh * 2) - step) & (family.name == "qwen2_5_vl")
    thin = side <= step * (1 + np.tile(last[2:], 2))
    steps = np.where(thin, 1.5, 0.5) + 0.5 * last
    if family.name == "kosmos2":
        steps = np.full(4, 1.0 if thin.any() else 0.5)
    return steps * step * (1 + 1e-9) + 1e-6


def as_rows(boxes: Boxes) -> list[tuple[str, tuple[float, ...]]]:
    """Label and corners of each box, to compare boxes with."""
    return [(label, tuple(box)) for label, box in zip(boxes.labels, boxes.xyxy_px.round(6).tolist(), strict=True)]
