"""The names of numbered classes in a hub data set: from the table, the card (README.md), or a file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boxtune.data.formats.hub_objects import class_names, number_names
from boxtune.data.formats.hub_tables import Table
from boxtune.errors import DataError, name_some

_FILES = ("classes.json", "id2label.json", "classes.txt", "labels.txt")


class ClassNames:
    """The names of the numbers under any key; files are opened once, and only if a table does not say by itself.

    `read` are the files that gave names, `source` what gave them, for people.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.read: list[Path] = []
        self.source = ""
        self.used: list[Mapping[int, str]] = []
        self._by_key: dict[tuple[Path, str], dict[int, str]] = {}

    def of(self, table: Table, key: str) -> Mapping[int, str]:
        """Number -> name for the numbers under `key` in that table; empty if nobody names them."""
        known = self._by_key.get((table.file, key))
        if known is None:
            known = self._by_key[table.file, key] = dict(self._find(table, key))
            self.used.append(known)
        return known

    def in_order(self) -> list[str]:
        """Every name that was given, once, in the order of the numbers."""
        return list(dict.fromkeys(names[number] for names in self.used for number in sorted(names)))

    def _find(self, table: Table, key: str) -> Mapping[int, str]:
        folders = list(dict.fromkeys((table.file.parent, table.file.parent.parent, self.root)))
        if names := _names_in(table.features, key, table.file):
            self.source = f"{table.file.name} itself"
            return names
        for folder in folders:
            for name in _FILES:
                if (file := folder / name).is_file():
                    return self._said(file, _read_names(file))
        for folder in folders:
            for name, read in (("dataset_info.json", _read_json), ("README.md", _read_card)):
                if (file := folder / name).is_file() and (names := _names_in(read(file), key, file)):
                    return self._said(file, names)
        return {}

    def _said(self, file: Path, names: Mapping[int, str]) -> Mapping[int, str]:
        self.source = file.name
        self.read.append(file)
        return names


def _read_names(file: Path) -> Mapping[int, str]:
    """Names alone: one a line, a JSON list, or a JSON object that maps numbers to names or names to numbers."""
    if file.suffix == ".txt":
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as problem:
            raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save it as UTF-8") from problem
        return dict(enumerate(line.strip() for line in lines if line.strip()))
    content = _read_json(file)
    if isinstance(content, list) and all(isinstance(one, str) for one in content):
        return dict(enumerate(content))
    if isinstance(content, list) and all(isinstance(one, dict) and {"id", "name"} <= one.keys() for one in content):
        content = {str(one["id"]): str(one["name"]) for one in content}
    if isinstance(content, dict):
        try:
            return number_names(content)
        except ValueError as problem:
            raise _nameless(file) from problem
    raise _nameless(file)


def _names_in(features: Any, key: str, file: Path) -> Mapping[int, str] | None:
    try:
        return class_names(features, key)
    except ValueError as problem:
        fix = "write names: {0: cat, 1: dog}"
        raise DataError(f"{key} in {file.name}: {problem}", where=str(file), fix=fix) from problem


def _nameless(file: Path) -> DataError:
    fix = 'write a list of names, or an object such as {"0": "cat"}'
    return DataError(f"{file.name} does not say the names of the classes", where=str(file), fix=fix)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as problem:
        raise DataError(f"{file.name} is not JSON: {problem}", where=str(file), fix="mend or remove it") from problem


def _read_card(file: Path) -> Any:
    """The features in the YAML at the top of a dataset card; several configurations must agree."""
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    if not text.startswith("---"):
        return None
    try:
        head = yaml.safe_load(text.split("\n---", 1)[0])
    except yaml.YAMLError as problem:
        what = f"the head of {file.name} is no YAML: {name_some(str(problem).splitlines(), limit=1)}"
        raise DataError(what, where=str(file), fix="mend it, or put the names into classes.json") from problem
    return head.get("dataset_info") if isinstance(head, dict) else None
