"""XML files -> elements, safely: a file that could grow or fetch others while it is read is refused."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

from boxtune.errors import DataError


class _Doctype(Exception):
    pass


class _Builder(ET.TreeBuilder):
    def doctype(self, *_: object) -> None:
        raise _Doctype


def read_xml(path: Path, expected: str) -> ET.Element:
    """The root element; `expected` says in messages what the file should be.

    Raises DataError, with line and column, if it is no XML, and if it has a DOCTYPE: entities declared there can make
    a small file fill the memory, or read others, and no annotation tool writes one.
    """
    try:
        return ET.fromstring(path.read_bytes(), parser=ET.XMLParser(target=_Builder()))
    except OSError as problem:
        what = f"{path.name} cannot be read: {problem.strerror}"
        raise DataError(what, where=str(path), fix="give a readable file") from problem
    except _Doctype as problem:
        what = f"{path.name} has a DOCTYPE, which may hide entities that fill the memory"
        raise DataError(what, where=str(path), fix="remove the <!DOCTYPE ...> line if you trust the file") from problem
    except ET.ParseError as problem:
        line, column = problem.position
        why = str(problem).partition(":")[0] if path.stat().st_size else "it is empty"
        what = f"{path.name} is not XML: {why}"
        raise DataError(
            what, where=f"{path}, line {line}, column {column + 1}", fix=f"expected is {expected}"
        ) from problem
    except (ValueError, LookupError) as problem:  # the encoding that the file declares
        what = f"{path.name} cannot be decoded: {problem}"
        raise DataError(what, where=str(path), fix="save the file as UTF-8") from problem


def text_of(element: ET.Element, tag: str) -> str:
    """The text of the first child with that tag, without white space around it; "" if there is none."""
    return (element.findtext(tag) or "").strip()


def read_number(text: str | None) -> float | None:
    """The finite number in a text, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_size_wh(width: str | None, height: str | None) -> tuple[int, int] | None:
    """Width and height in whole pixels, or None where they are missing, zero or no numbers."""
    sides = [read_number(width), read_number(height)]
    if any(side is None or side < 1 or side != int(side) for side in sides):
        return None
    return int(sides[0] or 0), int(sides[1] or 0)
