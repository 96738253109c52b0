"""JSON files of annotation tools: as a whole, or as far as their first bytes go."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from boxtune.data.formats.json_lists import name_place, no_json, no_text
from boxtune.data.formats.listing import read_head
from boxtune.errors import DataError

HEAD = 65536
"""Bytes that a sniffer looks at."""

MOST_SIDE = 2**31 - 1
"""Pixels: no picture has a longer side."""

_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_CLOSERS = {"[": "]", "{": "}"}


def load_json(path: Path, expected: str) -> Any:
    """What a JSON file holds; `expected` says in messages what the file should be.

    Raises DataError if it cannot be read, is empty, no UTF-8 or no JSON; the latter two with line and column.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        what = f"{path.name} cannot be read: {problem.strerror}"
        raise DataError(what, where=str(path), fix="give a readable .json file") from problem
    if not data.strip():
        raise DataError(f"{path.name} is empty", where=str(path), fix=f"expected is {expected}")
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text)
    except UnicodeDecodeError as problem:
        raise no_text(path, name_place(data, problem.start)) from problem
    except json.JSONDecodeError as problem:
        raise no_json(path, problem.msg, f"line {problem.lineno}, column {problem.colno}") from problem
    except ValueError as problem:  # an integer of thousands of digits
        raise DataError(f"{path.name} is not read: {problem}", where=str(path), fix="mend that number") from problem
    except RecursionError as problem:
        what = f"{path.name} is nested too deeply to be {expected}"
        raise DataError(what, where=str(path), fix="export it again") from problem


def peek_json(path: Path) -> Any:
    """What the first bytes of a JSON file hold: all complete entries, with the lists and objects around them closed.

    None if they are no JSON object or list. Never raises: a sniffer only says no.
    """
    try:
        state = path.stat()
    except OSError:
        return None
    return _peek(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=128)  # several sniffers look at the same file
def _peek(path: Path, changed: int, size: int) -> Any:
    text = read_head(path, HEAD).decode("utf-8", "ignore").lstrip()
    if not text.startswith(("[", "{")):
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        # Cut off by the head, or broken: the reader will say where, but what kind of file it is can still be told.
        return _begin(text if size > HEAD else text[: problem.pos])
    except RecursionError:
        return None


def _begin(text: str) -> Any:
    """The part before the last comma that parts two whole entries, closed."""
    stack: list[str] = []
    end, closers = 0, ""
    for mark in _MARK.finditer(text):
        sign = mark[0]
        if sign in _CLOSERS:
            stack.append(_CLOSERS[sign])
            if not end:
                end, closers = mark.end(), stack[-1]
        elif sign in ("]", "}"):
            if not stack or stack.pop() != sign:
                break
        elif sign == "," and stack:
            end, closers = mark.start(), "".join(reversed(stack))
    try:
        return json.loads(text[:end] + closers)
    except (json.JSONDecodeError, RecursionError):
        return None


def as_number(value: Any) -> float | None:
    """The finite number that a value of JSON is, also as text; None for anything else, true and false among it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_finite(value: Any) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number, not text, that a float can hold."""
    return isinstance(value, int | float) and as_number(value) is not None


def as_numbers(values: Any, count: int | None = None) -> list[float] | None:
    """The finite numbers of a list, of that many if `count` is given; None if one is none."""
    if not isinstance(values, list | tuple) or (count is not None and len(values) != count):
        return None
    numbers = [as_number(value) for value in values]
    return None if None in numbers else [number for number in numbers if number is not None]


def as_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height in whole pixels; None where they are missing, zero, beyond MOST_SIDE or no numbers."""
    sides = as_numbers([width, height])
    if sides is None or any(not 1 <= side <= MOST_SIDE or side != int(side) for side in sides):
        return None
    return int(sides[0]), int(sides[1])
