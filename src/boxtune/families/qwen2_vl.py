"""Qwen2-VL: boxes between special tokens, corners as whole thousandths of the image's sides.

Grammar and resize rule: the Qwen2-VL report (arXiv 2409.12191) and its processor in transformers; rounding and the
range 0..1000 as in QwenLM's own `process_bbox` notebook. The answer for an image with nothing in it is ours, since
the family has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from boxtune.boxes import Boxes
from boxtune.families.family import Decoded, Defaults, Family, Frame, Problem

REF_START, REF_END = "<|object_ref_start|>", "<|object_ref_end|>"
BOX_START, BOX_END = "<|box_start|>", "<|box_end|>"
IMAGE = "<|image_pad|>"
END_OF_TURN = "<|im_end|>"
NOTHING = "There are none."
BINS = 1000
PATCH, MERGE = 14, 2
FACTOR = PATCH * MERGE
MAX_ASPECT = 200

SPECIAL_TOKENS = (
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE,
    REF_START,
    REF_END,
    BOX_START,
    BOX_END,
)

_NUMBER = r"\s*(-?\d{1,9})\s*"
_BOX = re.compile(
    re.escape(BOX_START) + rf"\s*\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)\s*" + re.escape(BOX_END)
)
# A label may hold anything but the grammar's own tokens, so that one broken object cannot swallow the next.
_LABEL = re.compile(
    re.escape(REF_START) + r"((?:(?!<\|(?:object_ref|box)_(?:start|end)\|>).)*)" + re.escape(REF_END), re.DOTALL
)
_GRAMMAR_TOKEN = re.compile(r"<\|[a-z_]+\|>")


PUBLISHED = Defaults(
    source="nutrition-table project on Qwen2-VL-7B (r 64, alpha 128, 2 x 8, 3 epochs, 256 to 1280 patches of "
    "28 x 28); learning rate 1e-4 from LLaMA-Factory's Qwen2-VL LoRA example",
    r=64,
    alpha=128,
    dropout=0.05,
    recipe="language",
    learning_rate=1e-4,
    epochs=3.0,
    effective_batch=16,
    micro_batch=2,
    min_pixels=256 * FACTOR**2,
    max_pixels=1280 * FACTOR**2,
)


@dataclass(frozen=True, kw_only=True)
class Qwen2VL:
    """The family object; see `boxtune.families.family.Family` for what each member means."""

    name: str = "qwen2_vl"
    model_types: tuple[str, ...] = ("qwen2_vl",)
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    image_token: str = IMAGE
    end_of_turn: str = END_OF_TURN
    # The merger lies inside `visual`, so it comes first: a parameter belongs to the first tower that it matches.
    towers: Mapping[str, str] = field(
        default_factory=lambda: {
            "projector": r"(^|\.)visual\.merger\.",
            "vision": r"(^|\.)visual\.",
            "language": r"(^|\.)(language_model\.|lm_head\.)",
        }
    )
    adapted: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            "vision": {
                "attention": r"(?:.*\.)?visual\.blocks\.\d+\.attn\.(?:qkv|proj)",
                "mlp": r"(?:.*\.)?visual\.blocks\.\d+\.mlp\.(?:fc1|fc2)",
            },
            "projector": {"mlp": r"(?:.*\.)?visual\.merger\.mlp\.(?:0|2)"},
            "language": {
                "attention": r"(?:.*\.)?language_model\.layers\.\d+\.self_attn\.[qkvo]_proj",
                "mlp": r"(?:.*\.)?language_model\.layers\.\d+\.mlp\.(?:gate|up|down)_proj",
            },
        }
    )
    defaults: Defaults = PUBLISHED

    def seen_wh(self, original_wh: tuple[int, int], min_pixels: int, max_pixels: int) -> tuple[int, int]:
        """The nearest multiples of 28 within the budget, aspect kept; ValueError over an aspect ratio of 200.

        Rounds halves to even, as the processor's own rule does.
        """
        width, height = original_wh
        if max(width, height) / min(width, height) > MAX_ASPECT:
            raise ValueError(f"an image of {width}x{height} is more than {MAX_ASPECT} times as long as wide")
        seen_w, seen_h = round(width / FACTOR) * FACTOR, round(height / FACTOR) * FACTOR
        if seen_w * seen_h > max_pixels:
            shrink = math.sqrt(width * height / max_pixels)
            seen_w = max(FACTOR, math.floor(width / shrink / FACTOR) * FACTOR)
            seen_h = max(FACTOR, math.floor(height / shrink / FACTOR) * FACTOR)
        elif seen_w * seen_h < min_pixels:
            grow = math.sqrt(min_pixels / (width * height))
            seen_w = math.ceil(width * grow / FACTOR) * FACTOR
            seen_h = math.ceil(height * grow / FACTOR) * FACTOR
        return seen_w, seen_h

    def num_image_tokens(self, seen_wh: tuple[int, int]) -> int:
        """One token for each 2 x 2 patches of 14 pixels."""
        return (seen_wh[0] // FACTOR) * (seen_wh[1] // FACTOR)

    def prompt(self, classes: Sequence[str], num_image_tokens: int) -> str:
        """Qwen2-VL's chat turns with the image first, then the classes asked for; ends where the answer begins."""
        return (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n<|vision_start|>{IMAGE * num_image_tokens}<|vision_end|>"
            f"{self.question(classes)}<|im_end|>\n<|im_start|>assistant\n"
        )

    def question(self, classes: Sequence[str]) -> str:
        """The words of the user's turn."""
        return f"Detect the bounding box of each: {', '.join(classes)}."

    def encode(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> str:
        """`ref label ref box (x1,y1),(x2,y2) box` for each box, by class as asked, then top to bottom, left to right.

        Corners are rounded to the nearest thousandth of the seen side and clamped to 0..1000; a box thinner than that
        is written one thousandth wide. Raises ValueError on a label that was not asked for.
        """
        if not len(boxes):
            return NOTHING
        unknown = sorted(set(boxes.labels) - set(classes))
        if unknown:
            raise ValueError(f"labels {unknown} are not among the classes asked for")
        rank = {name: place for place, name in enumerate(classes)}
        bins = self._bins(boxes, frame)
        order = sorted(range(len(boxes)), key=lambda i: (rank[boxes.labels[i]], bins[i][1], bins[i][0], bins[i]))
        return "".join(
            f"{REF_START}{boxes.labels[i]}{REF_END}{BOX_START}"
            f"({bins[i][0]},{bins[i][1]}),({bins[i][2]},{bins[i][3]}){BOX_END}"
            for i in order
        )

    @staticmethod
    def _bins(boxes: Boxes, frame: Frame) -> list[tuple[int, int, int, int]]:
        to_seen = np.array([s / o for s, o in zip(frame.seen_wh, frame.original_wh, strict=True)] * 2)
        side = np.array(frame.seen_wh * 2, dtype=np.float64)
        bins = np.clip(np.rint(boxes.xyxy_px * to_seen / side * BINS), 0, BINS).astype(int)
        for low, high in ((0, 2), (1, 3)):
            thin = bins[:, low] == bins[:, high]
            bins[:, low] -= thin & (bins[:, high] == BINS)
            bins[:, high] = np.maximum(bins[:, high], bins[:, low] + thin)
        return [(int(a), int(b), int(c), int(d)) for a, b, c, d in bins]

    def decode(self, text: str, frame: Frame, classes: Sequence[str], *, ended: bool = True) -> Decoded:
        """The sound boxes of an answer, and a problem for everything else in it.

        A label may be followed by several boxes. Labels must equal a class asked for, letter by letter; a box with
        inverted corners, no area or a corner beyond 1000 is a problem, never mended.
        """
        if text.strip() == NOTHING and ended:
            return Decoded(boxes=Boxes.none(), problems=())
        if not text.strip():
            return Decoded(boxes=Boxes.none(), problems=(Problem(kind="empty_answer", text=text),))
        found: list[tuple[str, tuple[int, int, int, int]]] = []
        problems: list[Problem] = []
        for part in _parts(text):
            if isinstance(part, str):
                at_end = not ended and text.endswith(part)
                problems.append(Problem(kind="truncated" if at_end else "malformed", text=part))
                continue
            label, corners, written = part
            kind = _fault(label, corners, classes)
            if kind:
                problems.append(Problem(kind=kind, text=written))
            else:
                found.append((label, corners))
        if not ended and not any(problem.kind == "truncated" for problem in problems):
            problems.append(Problem(kind="truncated", text=""))
        scale = np.array([s / BINS * (o / s) for s, o in zip(frame.seen_wh, frame.original_wh, strict=True)] * 2)
        xyxy = np.array([corners for _, corners in found], dtype=np.float64).reshape(-1, 4) * scale
        limit = np.array(frame.original_wh * 2, dtype=np.float64)
        boxes = Boxes(xyxy_px=np.minimum(xyxy, limit), labels=tuple(label for label, _ in found))
        return Decoded(boxes=boxes, problems=tuple(problems))

    def check_classes(self, classes: Sequence[str]) -> list[str]:
        """Names the grammar cannot carry: empty ones, doubled ones, and those that hold one of its tokens."""
        faults = []
        for name in classes:
            if not name.strip() or name != name.strip():
                faults.append(f"class name {name!r} is empty or begins or ends with white space")
            elif _GRAMMAR_TOKEN.search(name):
                faults.append(f"class name {name!r} holds {_GRAMMAR_TOKEN.search(name)[0]!r}, a token of the grammar")  # type: ignore[index]
        doubled = sorted({name for name in classes if list(classes).count(name) > 1})
        return faults + [f"class name {name!r} occurs twice" for name in doubled]


def _parts(text: str) -> Iterator[str | tuple[str, tuple[int, int, int, int], str]]:
    """The answer cut into boxes (label, corners, as written) and stretches that are no box (text)."""
    at = 0
    while at < len(text):
        label = _LABEL.match(text, at)
        box = _BOX.match(text, label.end()) if label else None
        if label is None or box is None:
            # The next place where an object could begin; everything before it is no box.
            after = text.find(REF_START, at + 1)
            stop = len(text) if after < 0 else after
            if text[at:stop].strip():
                yield text[at:stop]
            at = stop
            continue
        while box is not None:
            x1, y1, x2, y2 = (int(number) for number in box.groups())
            yield label[1], (x1, y1, x2, y2), f"{label[0]}{box[0]}"
            at = box.end()
            box = _BOX.match(text, at)


def _fault(label: str, corners: tuple[int, int, int, int], classes: Sequence[str]) -> str:
    x1, y1, x2, y2 = corners
    if label not in classes:
        return "unknown_label"
    if min(corners) < 0 or max(corners) > BINS:
        return "out_of_range"
    if x2 < x1 or y2 < y1:
        return "inverted"
    if x2 == x1 or y2 == y1:
        return "no_area"
    return ""


QWEN2_VL: Family = Qwen2VL()
