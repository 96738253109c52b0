"""How an answer is put together: fixed text, names and numbers in order. What writes answers and what guides a model
that writes them (`spelling.py`) both go by this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from boxtune.families.bins import Numbers


@dataclass(frozen=True, kw_only=True)
class Row:
    """One box of an answer: its label, its numbers, and the text they stand in (empty when it is to be written)."""

    label: str
    numbers: Numbers
    written: str = ""


@dataclass(frozen=True, kw_only=True)
class Name:
    """Where the label stands, as `show` writes it."""

    show: Callable[[str], str] = str


@dataclass(frozen=True, kw_only=True)
class Number:
    """Where a corner stands: `places` among x1, y1, x2, y2 that `show` writes together, one whole number each."""

    places: tuple[int, ...]
    show: Callable[..., str] = str


Piece = str | Name | Number
NAME = Name()
CORNERS = tuple(Number(places=(place,)) for place in range(4))
"""x1, y1, x2, y2 as plain numbers."""


def in_order(pieces: Sequence[Piece], *, between: str = ", ") -> tuple[Piece, ...]:
    """The pieces with `between` each two."""
    return tuple(part for piece in pieces for part in (between, piece))[1:]


@dataclass(frozen=True, kw_only=True)
class Form:
    """`opening`, groups with `separator` between them, `closing`; a group is `before`, boxes, `after`.

    `between` the boxes of a group, which all have its name; None: each box is a group of its own.
    """

    box: tuple[Piece, ...]
    before: tuple[Piece, ...] = ()
    after: tuple[Piece, ...] = ()
    between: str | None = None
    opening: str = ""
    separator: str = ""
    closing: str = ""

    def write(self, rows: Sequence[Row]) -> str:
        """The answer for at least one box; those of a name that follow each other make a group where groups hold
        several.
        """
        groups = [[row] for row in rows]
        if self.between is not None:
            groups = [list(same) for _, same in groupby(rows, key=lambda row: row.label)]
        return f"{self.opening}{self.separator.join(map(self._group, groups))}{self.closing}"

    def _group(self, rows: Sequence[Row]) -> str:
        boxes = (self.between or "").join(_say(self.box, row) for row in rows)
        return f"{_say(self.before, rows[0])}{boxes}{_say(self.after, rows[0])}"


def _say(pieces: Sequence[Piece], row: Row) -> str:
    said = []
    for piece in pieces:
        if isinstance(piece, Number):
            said.append(piece.show(*(int(row.numbers[place]) for place in piece.places)))
        else:
            said.append(piece.show(row.label) if isinstance(piece, Name) else piece)
    return "".join(said)
