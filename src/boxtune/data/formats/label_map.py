"""Label maps of the TF Object Detection API (`*.pbtxt`) -> class names by id.

Protobuf's text format, as far as `item { id: 1 name: 'cat' display_name: 'Cat' }` needs it.
Source: object_detection/protos/string_int_label_map.proto of tensorflow/models
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from boxtune.errors import DataError

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*|[,;])+)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<sign>[{}<>:\[\]])"""
    r"""|(?P<word>[\w.+/-]+)""",
)


@dataclass(frozen=True, kw_only=True)
class Label:
    """A class: `name` as records write it, `shown` its name for people (display_name), or the same."""

    name: str
    shown: str


def read_label_map(path: Path) -> dict[int, Label]:
    """The classes by id in the order of the file; DataError with the line if it is no label map, or an id has two."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise DataError(f"{path.name} is not UTF-8 text", where=str(path), fix="save it as UTF-8") from problem
    labels: dict[int, Label] = {}
    for line, item in _items(path, text):
        try:
            number, name = int(item["id"]), item.get("name") or item["display_name"]
        except (KeyError, ValueError) as problem:
            raise _broken(path, line, "an item without id and name") from problem
        if number in labels:
            raise _broken(path, line, f"the id {number} stands there twice")
        labels[number] = Label(name=name, shown=item.get("display_name") or name)
    if not labels:
        raise _broken(path, 1, "no item is in there")
    return labels


def _items(path: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    """The line and the scalar fields of each item; fields of messages inside of it (keypoints) are passed over."""
    items: list[tuple[int, dict[str, str]]] = []
    depth, key, at = 0, "", 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        token = _TOKEN.match(text, at)
        if token is None:
            raise _broken(path, line, f"it cannot be read at {text[at : at + 20]!r}")
        at = token.end()
        value = token[0]
        if token["space"] or value in ":[]":
            continue
        if value in "{<":
            depth += 1
            if depth == 1:
                if key != "item":
                    raise _broken(path, line, f"{key or value} is no item")
                items.append((line, {}))
            key = ""
        elif value in "}>":
            depth, key = depth - 1, ""
            if depth < 0:
                raise _broken(path, line, "a bracket is closed that was not opened")
        elif not key:
            key = value
        else:
            if depth == 1:
                items[-1][1][key] = _unquoted(value) if token["text"] else value
            key = ""
    if depth:
        raise _broken(path, text.count("\n") + 1, "an item is not closed")
    return items


def _unquoted(text: str) -> str:
    """A quoted text without its quotes and escapes; other escapes than \\' \\" \\\\ \\n stand for bytes."""
    if "\\" not in text:
        return text[1:-1]
    raw = ast.literal_eval("b" + text.encode("ascii", "backslashreplace").decode()) if text.isascii() else None
    return raw.decode("utf-8", "replace") if raw is not None else re.sub(r"\\(.)", r"\1", text[1:-1])


def _broken(path: Path, line: int, what: str) -> DataError:
    return DataError(
        f"{path.name} is no label map: {what}", where=f"{path}, line {line}", fix="write item { id: 1 name: 'cat' } ..."
    )
