"""Cells of CSV files that hold whole boxes, or all boxes of an image -> numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from boxtune.data.formats.csv_words import coordinate_of
from boxtune.data.formats.json_files import as_number
from boxtune.data.formats.outline import box_around

Numbers = list[float]

EMPTY_WORDS = frozenset({"", "nan", "none", "null", "na", "n/a", "no_box", "[]", "{}", "()"})
"""What tools write, in small letters, where an image has no box."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_MARK = re.compile(rf"{_NUMBER.pattern}|[\[\](){{}}]")
_ONLY_NUMBERS = re.compile(r"[\s\d.,;eE+\-\[\](){}]+")
_KEYS = (("x1", "y1", "x2", "y2"), ("x1", "y1", "w", "h"), ("x", "y", "w", "h"), ("cx", "cy", "w", "h"))
_ORDERS = (("xyxy",), ("xywh",), ("xywh",), ("cxcywh",))
ANY_ORDER = ("xywh", "xyxy", "cxcywh")
"""The orders that four numbers without names may have."""
OUTLINE = ("xyxy",)
"""What the hull of an outline is."""


def parse_boxes(cell: str) -> list[Numbers]:
    """The boxes in a cell, four numbers each: "[1, 2, 3, 4]", "1 2 3 4;5 6 7 8", {"x": 1, ...}, or a list of those.

    Two points of two numbers are one box as they stand; more points are an outline, boxed by its hull. Raises
    ValueError if it holds anything else.
    """
    if cell.lower() in EMPTY_WORDS:
        return []
    if ":" in cell:
        return [_numbers_of(box) for box in _objects(cell)]
    if not _ONLY_NUMBERS.fullmatch(cell):
        raise ValueError(f"{_short(cell)} is no box of four numbers")
    return _boxes_of(_nested(cell), cell)


def orders_in(cell: str) -> tuple[str, ...] | None:
    """The orders that the numbers of a cell may have; None if it holds no box."""
    try:
        if not parse_boxes(cell):
            return None
        if ":" not in cell:
            return OUTLINE if holds_outline(cell) else ANY_ORDER
        return _ORDERS[_KEYS.index(_keys_of(_objects(cell)[0]))]
    except ValueError:
        return None


def holds_outline(cell: str) -> bool:
    """Whether a cell without names holds points, more than the two corners of a box."""
    try:
        return ":" not in cell and bool(_ONLY_NUMBERS.fullmatch(cell)) and _has_points(_nested(cell))
    except ValueError:  # brackets that do not close, which parse_boxes tells
        return False


def _has_points(group: list[Any]) -> bool:
    lists = [one for one in group if isinstance(one, list)]
    return (len(lists) > 2 and _are_points(group)) or any(map(_has_points, lists))


def _are_points(group: Sequence[Any]) -> bool:
    return bool(group) and all(
        isinstance(one, list) and len(one) == 2 and not any(isinstance(side, list) for side in one) for one in group
    )


def _nested(cell: str) -> list[Any]:
    """The numbers of a cell, in a list for every pair of brackets; ValueError if the brackets do not close."""
    groups: list[list[Any]] = [[]]
    for mark in _MARK.findall(cell):
        if mark in "[({":
            inner: list[Any] = []
            groups[-1].append(inner)
            groups.append(inner)
        elif mark not in "])}":
            groups[-1].append(float(mark))
        elif len(groups) > 1:
            groups.pop()
        else:
            raise ValueError(f"{_short(cell)} closes more brackets than it opens")
    if len(groups) > 1:
        raise ValueError(f"{_short(cell)} does not close its brackets")
    return groups[0]


def _boxes_of(group: list[Any], cell: str, *, inner: bool = False) -> list[Numbers]:
    """The boxes of a list: of numbers (in an `inner` one exactly four), of points, or of lists."""
    if len(group) > 1 and _are_points(group):
        if len(group) == 2:
            return [[*group[0], *group[1]]]
        return [list(box_around(group))]
    lists = [one for one in group if isinstance(one, list)]
    if lists and len(lists) == len(group):
        return [box for one in lists for box in _boxes_of(one, cell, inner=inner or len(lists) > 1)]
    if lists:
        raise ValueError(f"{_short(cell)} mixes numbers with lists of numbers")
    if not group or len(group) % 4 or (inner and len(group) != 4):
        raise ValueError(f"{_short(cell)} holds {len(group)} numbers{' in a list' * inner}, not four for each box")
    return [group[at : at + 4] for at in range(0, len(group), 4)]


def _objects(cell: str) -> list[Mapping[str, Any]]:
    try:
        content = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as problem:
        raise ValueError(f"{_short(cell)} is neither JSON nor a Python literal") from problem
    boxes = content if isinstance(content, list | tuple) else [content]
    if not all(isinstance(box, Mapping) for box in boxes):
        raise ValueError(f"{_short(cell)} is no object with the sides of a box")
    return list(boxes)


def _roles(box: Mapping[str, Any]) -> dict[str, Any]:
    return {role: value for key, value in box.items() if (role := coordinate_of(str(key))) is not None}


def _keys_of(box: Mapping[str, Any]) -> tuple[str, str, str, str]:
    roles = _roles(box)
    found = next((keys for keys in _KEYS if all(key in roles for key in keys)), None)
    if found is None:
        raise ValueError(f"{_short(str(dict(box)))} lacks a side of a box")
    return found


def _numbers_of(box: Mapping[str, Any]) -> Numbers:
    roles = _roles(box)
    numbers = [as_number(roles[key]) for key in _keys_of(box)]
    if None in numbers:
        raise ValueError(f"{_short(str(dict(box)))} lacks a number")
    return [number for number in numbers if number is not None]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def parse_labels(cell: str, count: int) -> list[str]:
    """The label of each of `count` boxes of one cell: one for all, or a list of as many.

    Raises ValueError if the list is shorter or longer.
    """
    if count == 1 or not cell.startswith(("[", "(")):
        return [cell] * count
    try:
        content = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        content = [word.strip(" '\"") for word in cell.strip("[]()").split(",")]
    names = [str(name) for name in content] if isinstance(content, list | tuple) else [cell]
    if len(names) != count:
        raise ValueError(f"{_short(cell)} holds {len(names)} labels for {count} boxes")
    return names


PREDICTION_SHAPES = {
    "label score box": 6,
    "label box": 5,
    "score box": 5,
}
"""What a prediction string repeats, and in how many words."""
_MOST = 0.9


def find_prediction_shape(cells: Sequence[str]) -> tuple[str, ...]:
    """Every shape that prediction strings may have, judged by nine in ten of them.

    The words of a group that are no label must be numbers, and a score must lie within 0..1.
    """
    rows = [words for cell in cells if (words := cell.split()) and cell.lower() not in EMPTY_WORDS]
    fits = {shape: sum(_fits(words, shape) for words in rows) for shape in PREDICTION_SHAPES}
    return tuple(shape for shape, count in fits.items() if rows and count >= _MOST * len(rows))


def _fits(words: Sequence[str], shape: str) -> bool:
    size = PREDICTION_SHAPES[shape]
    if len(words) % size:
        return False
    for at in range(0, len(words), size):
        group = list(words[at : at + size])
        label = group.pop(0) if shape.startswith("label") else None
        score = as_number(group.pop(0)) if "score" in shape else 0.0
        if score is None or not 0 <= score <= 1 or any(as_number(word) is None for word in group):
            return False
        if shape == "label box" and label is not None and _is_fraction(label):
            return False  # a score: a class is no fraction
    return True


def _is_fraction(word: str) -> bool:
    number = as_number(word)
    return number is not None and number != int(number)


def parse_predictions(cell: str, shape: str) -> list[tuple[str | None, Numbers]]:
    """Label (None where there is none) and numbers of each box of a prediction string.

    Raises ValueError if it has another shape.
    """
    words = [] if cell.lower() in EMPTY_WORDS else cell.split()
    if not _fits(words, shape):
        raise ValueError(f"{_short(cell)} is not `{shape}` over and over")
    size = PREDICTION_SHAPES[shape]
    groups = [words[at : at + size] for at in range(0, len(words), size)]
    return [(group[0] if shape.startswith("label") else None, [float(word) for word in group[-4:]]) for group in groups]
