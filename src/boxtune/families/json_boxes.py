"""Boxes as a list of JSON objects, and a reader of broken ones: what is whole is kept, nothing is filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from boxtune.families.bins import Numbers
from boxtune.families.forms import CORNERS, Form, Name, Piece, Row, in_order

FENCE = ("```json\n", "\n```")


def _refuse_doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of a box")


# A list of objects, o, or one alone; \0 is a part of the fence.
_WHOLE = re.compile(r"\0?(?:\[(?:o(?:,o)*)?\]|o)\0?")
_DECODER = json.JSONDecoder(object_pairs_hook=_refuse_doubled, parse_constant=_refuse_constant)


@dataclass(frozen=True, kw_only=True)
class JsonBoxes:
    """`[{"<key>": [x1, y1, x2, y2], "label": "<name>"}, ...]` between `fence`, each object on a line of its own.

    `y_first`: y1, x1, y2, x2. `label_first`: the label stands before the box. `indent` is what stands before an
    object, `line` between lines. Names are escaped as JSON wants it and no further.
    """

    key: str
    fence: tuple[str, str] = FENCE
    y_first: bool = False
    label_first: bool = False
    indent: str = "\t"
    line: str = "\n"

    @property
    def nothing(self) -> str:
        """An empty list."""
        return f"{self.fence[0]}[]{self.fence[1]}"

    @property
    def form(self) -> Form:
        """A list of objects, each with a box and a label."""
        order = (1, 0, 3, 2) if self.y_first else (0, 1, 2, 3)
        box: tuple[Piece, ...] = (f'"{self.key}": [', *in_order([CORNERS[place] for place in order]), "]")
        label: tuple[Piece, ...] = ('"label": ', Name(show=partial(json.dumps, ensure_ascii=False)))
        first, second = (label, box) if self.label_first else (box, label)
        return Form(
            box=(self.indent + "{", *first, ", ", *second, "}"),
            opening=f"{self.fence[0]}[{self.line}",
            separator=f",{self.line or ' '}",
            closing=f"{self.line}]{self.fence[1]}",
        )

    def read(self, text: str, *, ended: bool = True) -> Iterator[Row | str]:
        """The boxes of an answer and, in their places, the stretches that are none.

        Every whole object with a label and four numbers counts, wherever it stands; other keys beside them do not
        matter. What stands between objects must be fence, brackets and commas, in the order of a list.
        """
        opening, outside, skeleton = text.find("{"), 0, ""
        while opening >= 0:
            box, end = self._object(text, opening)
            if box is not None:
                gap = text[outside:opening]
                skeleton += self._marks(gap) + "o"
                yield from self._strays(gap)
                yield Row(label=box[0], numbers=box[1], written=text[opening:end])
                outside = end
            opening = text.find("{", end)
        gap = text[outside:]
        skeleton += self._marks(gap)
        strays = list(self._strays(gap))
        # Where fence, brackets or commas are missing or too many, the end of the answer is said not to fit.
        yield from strays or ([] if _WHOLE.fullmatch(skeleton) else [gap])

    @cached_property
    def _frame(self) -> re.Pattern[str]:
        words = {"```json", "```", *(part.strip() for part in self.fence)} - {""}
        return re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))

    def _marks(self, gap: str) -> str:
        return "".join(mark for mark in self._frame.sub("\0", gap) if mark in "\0[],")

    def _strays(self, gap: str) -> Iterator[str]:
        """The text between two objects if there is more in it than fence, brackets and commas."""
        if re.sub(r"[\[\],\s]", "", self._frame.sub("", gap)):
            yield gap

    def _object(self, text: str, at: int) -> tuple[tuple[str, Numbers] | None, int]:
        """The box of the JSON object that begins at `at`, and where to look on; None if there is none.

        An object that is no box may hold some, so the search goes on inside of it.
        """
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None, at + 1
        box = self._box(value)
        return box, at + 1 if box is None else end

    def _box(self, value: dict[str, Any]) -> tuple[str, Numbers] | None:
        label, numbers = value.get("label"), value.get(self.key)
        if not isinstance(label, str) or not isinstance(numbers, list) or len(numbers) != 4:
            return None
        if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            return None
        # Whatever is this large is out of range, and floats end there.
        a, b, c, d = (float(max(-1e9, min(1e9, number))) for number in numbers)
        return label, self._turn((a, b, c, d))

    def _turn(self, numbers: Numbers) -> Numbers:
        a, b, c, d = numbers
        return (b, a, d, c) if self.y_first else numbers
