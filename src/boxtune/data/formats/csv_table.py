"""CSV files of any dialect -> rows of cells, each with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from boxtune.data.formats.json_lists import name_place, no_text
from boxtune.data.formats.listing import read_head
from boxtune.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
_PEEKED = 50  # rows that a sniffer looks at
_LONGEST_CELL = 1 << 24  # a polygon or a whole image's boxes may stand in one cell

Row = tuple[int, list[str]]
"""The line on which a row ends, counted from 1, and its cells without white space around them."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file parts its cells, and whether its numbers have a comma for a point."""

    delimiter: str
    decimal_comma: bool = False


def peek_rows(path: Path) -> list[Row]:
    """The first rows of a CSV file for a sniffer, without one that may be cut off; empty if it is no text."""
    head = read_head(path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        return []
    text = head.decode("utf-8", "ignore")
    whole = path.stat().st_size <= len(head) + 3
    try:
        rows = list(islice(_rows(io.StringIO(text, newline=""), find_dialect(text), path), _PEEKED))
    except DataError:  # a sniffer only says no; whoever reads the file says why
        return []
    return rows if whole or len(rows) == _PEEKED else rows[:-1]


def find_dialect(text: str) -> Dialect:
    """The delimiter that parts the first line that is not empty into the most cells; a comma if none does."""
    lines = [line for line in text.splitlines()[:20] if line.strip() and not _is_preamble(line)]
    if not lines:
        return Dialect(delimiter=",")
    counts = {sign: len(next(csv.reader([lines[0]], delimiter=sign), [])) for sign in DELIMITERS}
    best = max(DELIMITERS, key=lambda sign: counts[sign])
    cells = [cell for line in lines for cell in next(csv.reader([line], delimiter=best), [])]
    commas = best == ";" and any(_has_decimal_comma(cell) for cell in cells)
    return Dialect(delimiter=best, decimal_comma=commas)


def _has_decimal_comma(cell: str) -> bool:
    first, comma, rest = cell.strip().partition(",")
    return bool(comma) and first.lstrip("+-").isdigit() and rest.isdigit()


def _is_preamble(line: str) -> bool:
    """A line that some program put before the table: `sep=;` of Excel, or remarks of VIA 3."""
    return line.lower().startswith("sep=") or line.startswith("# ")


def iter_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file that are not empty, with the delimiter told from its first line.

    Raises DataError if it cannot be read, is no UTF-8 text, or has a cell that never ends.
    """
    try:
        head = read_head(path)
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{path.name} is UTF-16 text", where=str(path), fix="save the file as UTF-8")
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _rows(file, find_dialect(head.decode("utf-8", "ignore")), path)
    except UnicodeDecodeError as problem:
        data = path.read_bytes()
        raise no_text(path, name_place(data, _first_no_text(data))) from problem
    except OSError as problem:
        what = f"{path.name} cannot be read: {problem.strerror}"
        raise DataError(what, where=str(path), fix="give a readable file") from problem


def _first_no_text(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as problem:
        return problem.start
    return len(data)


def _rows(file: io.TextIOBase, dialect: Dialect, path: Path) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader(file, delimiter=dialect.delimiter, skipinitialspace=True)
    begun = False
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells) or (not begun and _is_preamble(dialect.delimiter.join(cells))):
                continue
            begun = True
            if dialect.decimal_comma:
                cells = [cell.replace(",", ".") if _has_decimal_comma(cell) else cell for cell in cells]
            yield reader.line_num, cells
    except csv.Error as problem:
        what = f"{path.name} is no CSV: {problem}"
        fix = "look for a quote that is not closed"
        raise DataError(what, where=f"{path}, line {reader.line_num}", fix=fix) from problem


def column_places(header: Sequence[str], wanted: Sequence[str]) -> dict[str, int] | None:
    """The place of each wanted column by its exact name; None if one is missing."""
    places = {name: place for place, name in reversed(list(enumerate(header)))}
    return {name: places[name] for name in wanted} if all(name in places for name in wanted) else None
