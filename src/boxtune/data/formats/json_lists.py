"""A large JSON object, read list by list in pieces of some megabytes, whatever its size.

Only the places of brackets, commas and quotes are looked at here (with numpy, some hundred megabytes a second); the
pieces are then parsed by whoever asked. What stands outside of the lists is parsed as a whole, so a file that is no
JSON is still refused.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from boxtune.errors import DataError

BLOCK = 1 << 23
"""Bytes that are looked at in one go."""

_QUOTE, _BACKSLASH, _COMMA, _OPEN_LIST, _CLOSE_LIST = b'"\\,[]'
_STEP: Int[np.ndarray, " 256"] = np.zeros(256, dtype=np.int64)
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1
_MARKS: Int[np.ndarray, " 256"] = np.zeros(256, dtype=bool)
_MARKS[list(b'"[]{},')] = True
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*$', re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some whole elements of the list `key`, as the text of a JSON list, and the place of that text in the file."""

    path: Path
    key: str
    offset: int
    text: bytes

    def parse(self) -> list[Any]:
        """The elements; DataError with line and column where they are no JSON."""
        try:
            return list(json.loads(self.text))
        except UnicodeDecodeError as problem:
            raise no_text(self.path, self._place(problem.start)) from problem
        except json.JSONDecodeError as problem:
            before = len(self.text.decode()[: problem.pos].encode())
            raise no_json(self.path, problem.msg, self._place(before)) from problem

    def _place(self, at: int) -> str:
        return name_place(self.path.read_bytes(), self.offset - 1 + at)


def iter_lists(path: Path, keys: tuple[str, ...], expected: str) -> Iterator[Piece | dict[str, Any]]:
    """The elements of these lists of a JSON object in pieces, and at last the object with those lists left empty.

    `expected` says in messages what the file should be. Raises DataError if the file is empty, no UTF-8, no JSON (with
    line and column), or no object.
    """
    try:
        size = path.stat().st_size
        file = path.open("rb")
    except OSError as problem:
        what = f"{path} cannot be read: {problem.strerror}"
        raise DataError(what, where=str(path), fix="give a readable .json file") from problem
    with file:
        if not size:
            raise DataError(f"{path.name} is empty", where=str(path), fix=f"expected is {expected}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if not data[:1000].strip() and not data[:].strip():
                raise DataError(f"{path.name} is empty", where=str(path), fix=f"expected is {expected}")
            yield from _Scan(path, data, keys, expected).pieces()


class _Scan:
    """One pass over a file; `spans` are the parts of it that belong to the lists asked for."""

    def __init__(self, path: Path, data: mmap.mmap, keys: tuple[str, ...], expected: str) -> None:
        self.path, self.data, self.keys, self.expected = path, data, keys, expected
        self.spans: list[tuple[int, int]] = []

    def pieces(self) -> Iterator[Piece | dict[str, Any]]:
        depth, inside, escaped = 0, 0, False
        key: str | None = None
        start = 0  # of the text that is not given out yet
        for base in range(0, len(self.data), BLOCK):
            block = np.frombuffer(self.data, dtype=np.uint8, count=min(BLOCK, len(self.data) - base), offset=base)
            marks, inside, escaped = _marks(block, inside, escaped)
            chars = block[marks]
            del block  # a view would keep the file from being closed
            depths = depth + np.cumsum(_STEP[chars])
            depth = int(depths[-1]) if len(depths) else depth
            opens = (chars == _OPEN_LIST) & (depths == 2)
            closes = (chars == _CLOSE_LIST) & (depths == 1)
            commas = (chars == _COMMA) & (depths == 2)
            for at in np.flatnonzero(opens | closes).tolist():
                place = base + int(marks[at])
                if opens[at] and key is None:
                    key = self._key_before(place)
                    start = place + 1
                elif closes[at] and key is not None:
                    if self.data[start:place].strip():
                        yield self._piece(key, start, place)
                    self.spans.append((self._list_start, place))
                    key = None
            last = np.flatnonzero(commas)
            if key is not None and len(last) and base + int(marks[last[-1]]) >= start:
                place = base + int(marks[last[-1]])
                yield self._piece(key, start, place)
                start = place + 1
        yield self._rest()

    def _key_before(self, place: int) -> str | None:
        found = _KEY.search(self.data[max(0, place - 300) : place])
        key = None if found is None else found[1].decode("utf-8", "replace")
        self._list_start = place + 1
        return key if key in self.keys else None

    def _piece(self, key: str, start: int, end: int) -> Piece:
        return Piece(path=self.path, key=key, offset=start, text=b"[" + self.data[start:end] + b"]")

    def _rest(self) -> dict[str, Any]:
        """The object without the lists; DataError, with the place, if that is no JSON object."""
        parts, at = [], 0
        for start, end in self.spans:
            parts.append(self.data[at:start])
            at = end
        rest = b"".join([*parts, self.data[at:]])
        try:
            content = json.loads(rest.decode("utf-8-sig"))
        except UnicodeDecodeError as problem:
            raise no_text(self.path, self._place(problem.start)) from problem
        except json.JSONDecodeError as problem:
            # Its place counts characters, and a byte-order mark is none.
            before = len(rest.decode("utf-8-sig")[: problem.pos].encode()) + 3 * rest.startswith(b"\xef\xbb\xbf")
            raise no_json(self.path, problem.msg, self._place(before)) from problem
        if not isinstance(content, dict):
            what = f"{self.path.name} is JSON, but a {type(content).__name__}"
            raise DataError(what, where=str(self.path), fix=f"expected is {self.expected} (instances, not captions)")
        return content

    def _place(self, offset: int) -> str:
        """Line and column of a byte of the text without the lists."""
        at = offset
        for start, end in self.spans:
            if at > start or (at == start and self.data[start:end].strip()):
                at += end - start
        return name_place(self.data, at)


def name_place(data: mmap.mmap | bytes, offset: int) -> str:
    """Line and column, both from 1, of a byte of the file."""
    line, at = 1, data.find(b"\n", 0, offset)
    begin = 0
    while at >= 0:
        line, begin = line + 1, at + 1
        at = data.find(b"\n", begin, offset)
    return f"line {line}, column {len(data[begin:offset].decode('utf-8', 'replace')) + 1}"


def no_json(path: Path, why: str, place: str) -> DataError:
    """The error for a file that is no JSON."""
    fix = "mend the file there, or export it again (a cut-off download ends in the middle)"
    return DataError(f"{path.name} is not JSON: {why}", where=f"{path}, {place}", fix=fix)


def no_text(path: Path, place: str) -> DataError:
    """The error for a file that is no UTF-8."""
    return DataError(f"{path.name} is not UTF-8 text", where=f"{path}, {place}", fix="save the file as UTF-8")


def _marks(block: UInt8[np.ndarray, " n"], inside: int, escaped: bool) -> tuple[Int[np.ndarray, " k"], int, bool]:
    """Places of brackets and commas outside of strings; whether the block ends in a string, and after a backslash.

    `inside` and `escaped` say the same of its begin.
    """
    places = np.flatnonzero(_MARKS[block])
    quoted = block[places] == _QUOTE
    slashes = np.flatnonzero(block == _BACKSLASH)
    ends_escaped = False
    if len(slashes) or escaped:
        dead = _escaped_places(slashes, escaped)
        ends_escaped = bool(len(dead) and dead[-1] == len(block))
        quoted &= ~np.isin(places, dead)
    crossed = inside + np.cumsum(quoted)
    outside = (crossed % 2 == 0) & (block[places] != _QUOTE)
    inside = int(crossed[-1] % 2) if len(crossed) else inside
    return places[outside], inside, ends_escaped


def _escaped_places(slashes: Int[np.ndarray, " n"], escaped: bool) -> Int[np.ndarray, " k"]:
    """The places right after a backslash that is not itself escaped; `escaped` if place 0 is such a place."""
    if escaped:
        slashes = np.concatenate([[-1], slashes])
    first = np.concatenate([[True], np.diff(slashes) != 1])
    run_starts = np.maximum.accumulate(np.where(first, slashes, -2))
    return slashes[(slashes - run_starts) % 2 == 0] + 1
