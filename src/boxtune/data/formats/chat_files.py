"""Files of conversations: their entries, a first look for sniffers, and LLaMA-Factory's dataset_info.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from boxtune.data.formats.chat_records import Entry, Keys
from boxtune.data.formats.listing import read_head
from boxtune.errors import DataError

INFO = "dataset_info.json"
SUFFIXES = (".json", ".jsonl")
_HEAD, _WHOLE = 1 << 16, 1 << 20  # bytes a sniffer looks at; files up to the second size are looked at as a whole
_PEEKED = 2000  # entries


def iter_entries(file: Path) -> Iterator[tuple[str, Entry]]:
    """Where each entry stands, and the entry, of a JSON list or of a file with one JSON object a line.

    Raises DataError with line or entry if it is neither.
    """
    try:
        data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as problem:
        raise DataError(f"{file.name} cannot be read: {problem.strerror}", where=str(file), fix=_FIX) from problem
    if data[:4096].lstrip()[:1] == b"[":
        for number, raw in enumerate(_decode(data, list[msgspec.Raw], str(file))):
            where = f"{file}, entry {number}"
            entry = _object(_decode(raw, Any, where), where)
            yield (f"{where} (id {entry['id']})" if isinstance(entry.get("id"), str | int) else where), entry
        return
    if data.count(b"\n") and file.suffix.lower() == ".json" and (whole := _whole_object(data)) is not None:
        yield f"{file}", whole
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            where = f"{file}, line {number}"
            yield where, _object(_decode(line, Any, where), where)


_FIX = "write a JSON list of entries, or one entry a line"


def _decode(data: Any, kind: Any, where: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise DataError(f"it is no JSON: {problem}", where=where, fix=_FIX) from problem


def _object(value: Any, where: str) -> Entry:
    if not isinstance(value, dict):
        raise DataError(f"an entry is a {type(value).__name__}, no object", where=where, fix=_FIX)
    return value


def _whole_object(data: bytes) -> Entry | None:
    """The one object that a file of several lines is; None if it is none, as with an object a line."""
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    return value if isinstance(value, dict) else None


def peek_entries(file: Path) -> list[Entry]:
    """The entries at the begin of a file, as far as they can be read; nothing is raised."""
    small = file.stat().st_size <= _WHOLE
    text = read_head(file, _WHOLE if small else _HEAD).decode("utf-8", "replace").lstrip()
    if text[:1] not in ("[", "{"):
        return []
    decoder, at = json.JSONDecoder(), 1 if text.startswith("[") else 0
    entries: list[Entry] = []
    while len(entries) < _PEEKED:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at >= len(text) or text[at] != "{":
            break
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            break
        entries.append(value)
    return entries


def read_info(file: Path) -> dict[str, dict[Path, Keys]]:
    """What LLaMA-Factory's dataset_info.json says of the local files it names: name of the data set -> file -> keys.

    Files that are not there are passed over, since its own list names hundreds. Empty if it is no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    found: dict[str, dict[Path, Keys]] = {}
    for name, said in content.items():
        if not isinstance(said, Mapping) or not isinstance(said.get("file_name"), str):
            continue
        path = file.parent / said["file_name"]
        paths = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        keys = _keys(said)
        if there := {one: keys for one in paths if one.is_file()}:
            found[name] = there
    return found


def _keys(said: Mapping[str, Any]) -> Keys:
    """The keys of the entries of one data set, with LLaMA-Factory's own names where it says none."""
    columns, tags = said.get("columns") or {}, said.get("tags") or {}
    images = columns.get("images") or "images"
    if said.get("formatting", "alpaca") == "alpaca":
        return Keys(
            messages="",
            images=images,
            prompt=columns.get("prompt", "instruction"),
            query=columns.get("query", "input"),
            response=columns.get("response", "output"),
            history=columns.get("history") or "",
        )
    return Keys(
        messages=columns.get("messages", "conversations"),
        images=images,
        role=tags.get("role_tag", "from"),
        content=tags.get("content_tag", "value"),
        asks=(tags.get("user_tag", "human"),),
        answers=(tags.get("assistant_tag", "gpt"),),
    )
