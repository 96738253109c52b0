"""The answer in a conversation -> its boxes, read by the decoder of the family whose grammar it speaks.

A family's decoder is strict: it wants a name before every box and the family's own punctuation. People's data leaves
the name to the question, writes JSON with other keys, or bare brackets; so an answer is first put into the family's
form, without touching a number. Boxes come out in the grammar's own unit: decoded in a frame of as many pixels as the
grammar has steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from boxtune.data.formats.chat_labels import label_before, label_in_question
from boxtune.families import FAMILIES, Frame

Four = tuple[float, float, float, float]

_UNNAMED = "\N{REPLACEMENT CHARACTER}"  # stands for a name where there is none, since decoders want one
_NUMBER = r"\s*-?\d{1,9}(?:\.\d*)?(?:e-?\d+)?\s*"
BRACKETS = re.compile(rf"\[({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})\]")
_BOX_KEYS = ("bbox_2d", "box_2d", "bbox", "bounding_box", "box")
_NAME_KEYS = ("label", "category", "category_name", "class", "class_name", "name", "object")
_OBJECTS = json.JSONDecoder()
_SHOWN = 60  # letters of a broken box that are shown


class _AnyName(Sequence[str]):
    """Classes that hold every name: whatever an answer calls a box is a class."""

    def __contains__(self, name: object) -> bool:
        return True

    def __len__(self) -> int:
        return 0

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...
    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        raise IndexError(at)


@dataclass(frozen=True, kw_only=True)
class Box:
    """One box of an answer: its name, None if neither answer nor question says one, and x1, y1, x2, y2.

    `unit` is `px`, `unit` (0..1), `bin1000`, or `open` where the numbers alone must tell.
    """

    label: str | None
    numbers: Four
    unit: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What an answer says: the dialect that it speaks (None: no box is in it), its boxes, what is no sound box in it,
    and how many points."""

    dialect: str | None
    boxes: tuple[Box, ...] = ()
    faults: tuple[str, ...] = ()
    num_points: int = 0


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """`marks` shows that an answer speaks it; `prepare` puts it, with the question's name, into the family's form."""

    title: str
    marks: re.Pattern[str]
    family: str
    prepare: Callable[[str, str], str]
    unit: str = "bin1000"


def _tagged(names: tuple[str, str], box: str) -> Callable[[str, str], str]:
    """Put the name before the first box, where no name stands there."""

    def prepare(text: str, label: str) -> str:
        first, named = text.find(box), text.find(names[0])
        if 0 <= named < first:
            return text
        return f"{text[:first]}{names[0]}{label}{names[1]}{text[first:]}"

    return prepare


def _qwen_vl(text: str, label: str) -> str:
    """Qwen-VL's tags as Qwen2-VL's."""
    tags = {"<ref>": "object_ref_start", "</ref>": "object_ref_end", "<box>": "box_start", "</box>": "box_end"}
    for old, new in tags.items():
        text = text.replace(old, f"<|{new}|>")
    return _tagged(("<|object_ref_start|>", "<|object_ref_end|>"), "<|box_start|>")(text, label)


def _paligemma(text: str, label: str) -> str:
    """Masks left out, and the separator as PaliGemma writes it."""
    text = re.sub(r"<seg\d{3}>", "", text)
    text = re.sub(r"\s*;\s*(?=<loc\d{4}>)", " ; ", text).strip().removesuffix(";").rstrip()
    return f"{text} {label}" if re.search(r"<loc\d{4}>$", text) else text


def _florence2(text: str, label: str) -> str:
    return f"{label}{text}" if text.lstrip().startswith("<loc_") else text


def _json(text: str, label: str) -> str:
    """Every object with a box as {"bbox_2d": [...], "label": ...}, and the text between them that has keys of boxes."""
    text = re.sub(r"<\|(?:begin|end)_of_box\|>", "", text)
    objects, at, rest = [], 0, 0
    while (opening := text.find("{", at)) >= 0:
        try:
            value, end = _OBJECTS.raw_decode(text, opening)
        except (ValueError, RecursionError):
            at = opening + 1
            continue
        key = next((key for key in _BOX_KEYS if key in value), None)
        at = opening + 1 if key is None else end
        if key is not None:
            objects += _broken(text[rest:opening]) + list(_objects(value, key, label))
            rest = end
    return _listed(objects + _broken(text[rest:]))


def _objects(value: Mapping[str, Any], key: str, label: str) -> list[str]:
    name = next((value[one] for one in _NAME_KEYS if value.get(one) not in (None, "")), label)
    boxes = value[key]
    several = isinstance(boxes, list) and bool(boxes) and all(isinstance(one, list) for one in boxes)
    form = "box_2d" if key == "box_2d" else "bbox_2d"
    return [json.dumps({form: box, "label": str(name)}, ensure_ascii=False) for box in (boxes if several else [boxes])]


def _brackets(text: str, label: str) -> str:
    """[x1, y1, x2, y2] as JSON, each with the question's name, else with the word before it."""
    objects, at = [], 0
    for found in BRACKETS.finditer(text):
        name = label if label != _UNNAMED else label_before(text[at : found.start()]) or label
        numbers = [float(number) for number in found.groups()]
        objects.append(json.dumps({"bbox_2d": numbers, "label": name}, ensure_ascii=False))
        at = found.end()
    return _listed(objects)


def _glm(text: str, label: str) -> str:
    return _json(text, label) if "{" in text else _brackets(text, label)


def _broken(text: str) -> list[str]:
    """The text as it is, if there is a key of a box in it that belongs to no whole object."""
    return [text.strip(" \n\t,[]")] if _KEY.search(text) else []


def _listed(objects: list[str]) -> str:
    return f"[{', '.join(objects)}]"


_KEY = re.compile(rf"[\"'](?:{'|'.join(_BOX_KEYS)})[\"']\s*:")
_POINT = re.compile(
    r"<\|box_start\|>\s*\(\s*\d+\s*,\s*\d+\s*\)\s*<\|box_end\|>|<box>\s*\(\s*\d+\s*,\s*\d+\s*\)\s*</box>"
)

DIALECTS: Mapping[str, Dialect] = {
    "qwen2_vl": Dialect(
        title="Qwen2-VL's box tokens",
        marks=re.compile(r"<\|box_start\|>"),
        family="qwen2_vl",
        prepare=_tagged(("<|object_ref_start|>", "<|object_ref_end|>"), "<|box_start|>"),
    ),
    "deepseek": Dialect(
        title="DeepSeek-VL's det tags",
        marks=re.compile(r"<\|det\|>"),
        family="deepseek_vl",
        prepare=_tagged(("<|ref|>", "<|/ref|>"), "<|det|>"),
    ),
    "kosmos2": Dialect(
        title="Kosmos-2's patches",
        marks=re.compile(r"<patch_index_\d"),
        family="kosmos2",
        prepare=_tagged(("<phrase>", "</phrase>"), "<object>"),
    ),
    "paligemma": Dialect(
        title="PaliGemma's places", marks=re.compile(r"<loc\d{4}>"), family="paligemma", prepare=_paligemma
    ),
    "florence2": Dialect(
        title="Florence-2's places", marks=re.compile(r"<loc_\d+>"), family="florence2", prepare=_florence2
    ),
    "minicpm": Dialect(
        title="MiniCPM-V's box tags",
        marks=re.compile(r"<box>\s*\d+\s+\d"),
        family="minicpm_v",
        prepare=_tagged(("<ref>", "</ref>"), "<box>"),
    ),
    "qwen_vl": Dialect(
        title="Qwen-VL's box tags", marks=re.compile(r"<box>\s*\("), family="qwen2_vl", prepare=_qwen_vl
    ),
    "internvl": Dialect(
        title="InternVL's box tags",
        marks=re.compile(r"<box>\s*\["),
        family="internvl",
        prepare=_tagged(("<ref>", "</ref>"), "<box>"),
    ),
    "glm": Dialect(
        title="GLM-V's box tokens",
        marks=re.compile(r"<\|begin_of_box\|>(?=.*\[\s*-?\d)", re.DOTALL),
        family="glm4v",
        prepare=_glm,
    ),
    "gemini": Dialect(
        title="JSON with box_2d", marks=re.compile(r"[\"']box_2d[\"']\s*:"), family="gemma3", prepare=_json
    ),
    "json": Dialect(title="JSON with boxes", marks=_KEY, family="qwen2_5_vl", prepare=_json, unit="open"),
    "brackets": Dialect(title="[x1, y1, x2, y2]", marks=BRACKETS, family="qwen2_5_vl", prepare=_brackets, unit="open"),
}
_FRAMES = {"bin1000": 1000, "open": 1_000_000}  # pixels a side, so that a step of the grammar, or a number, is one


def dialect_of(answer: str) -> str | None:
    """The name of the dialect in which an answer tells boxes; None if there is no trace of one in it."""
    return next((name for name, one in DIALECTS.items() if one.marks.search(answer)), None)


def parse_answer(question: str, answer: str) -> Answered:
    """The boxes of an answer in the unit of its dialect, and what in it looks like a box and is none.

    Words around the boxes do not matter. A box that the answer does not name has the name in the question.
    """
    num_points = len(_POINT.findall(answer))
    answer = _POINT.sub("", answer)
    name = None if re.match(r"\s*<(?:OCR|[A-Z_]*SEGMENTATION)", question) else dialect_of(answer)
    if name is None:
        return Answered(dialect=None, num_points=num_points)
    dialect = DIALECTS[name]
    side = _FRAMES[dialect.unit]
    text = dialect.prepare(answer, label_in_question(question) or _UNNAMED)
    decoded = FAMILIES[dialect.family].decode(text, Frame(original_wh=(side, side), seen_wh=(side, side)), _AnyName())
    boxes = []
    for label, corners in zip(decoded.boxes.labels, decoded.boxes.xyxy_px.tolist(), strict=True):
        x1, y1, x2, y2 = corners
        said = label.replace(_UNNAMED, "").strip()
        boxes.append(Box(label=said or None, numbers=(x1, y1, x2, y2), unit=dialect.unit))
    # An empty text is an answer that ends before its tags are closed. What holds no mark is words around the boxes.
    faults = [
        f"{problem.kind.replace('_', ' ')}: {_shorten(problem.text)}"
        for problem in decoded.problems
        if not problem.text or any(mark.search(problem.text) for mark in (dialect.marks, _KEY, BRACKETS))
    ]
    return Answered(dialect=name, boxes=tuple(boxes), faults=tuple(faults), num_points=num_points)


def _shorten(text: str) -> str:
    text = " ".join(text.replace(_UNNAMED, "").split()).strip(" ,[]") or "cut off"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
