"""Class names of YOLO data sets: in a data.yaml, or one a line in classes.txt, obj.names and their like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boxtune.data.formats.listing import read_head
from boxtune.data.places import SPLITS
from boxtune.errors import DataError, Finding, name_some

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "classes.names", "predefined_classes.txt")
_SPLIT_KEYS = "|".join(word for words in SPLITS.values() for word in words)
_HAS_NAMES = re.compile(rb"(?:^|[{,])\s*[\"']?(names|nc)[\"']?\s*:", re.MULTILINE)
_HAS_SPLIT = re.compile(rb"(?:^|[{,])\s*[\"']?(" + _SPLIT_KEYS.encode() + rb")[\"']?\s*:", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Names:
    """Class names by id, None where nothing tells them; the file they are from, and what there is to remark."""

    by_id: dict[int, str] | None
    file: Path | None
    findings: tuple[Finding, ...] = ()


def data_yamls(folder: Path) -> list[Path]:
    """The files right in a folder that look like a data.yaml by their keys, one called so first."""
    found = sorted(file for file in folder.iterdir() if is_data_yaml(file))
    return sorted(found, key=lambda file: file.stem.lower() not in ("data", "dataset"))


def is_data_yaml(file: Path) -> bool:
    """Whether a .yaml has keys for class names and for a split; judged by its head."""
    if file.suffix.lower() not in (".yaml", ".yml") or file.name.startswith(".") or not file.is_file():
        return False
    head = read_head(file)
    return bool(_HAS_NAMES.search(head)) and bool(_HAS_SPLIT.search(head))


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys of a data.yaml, every value as it is written: `names: [no, 007]` are the names "no" and "007".

    Raises DataError with line and column if it is no YAML, or no mapping.
    """
    try:
        content = yaml.load(file.read_bytes().decode("utf-8-sig"), Loader=yaml.BaseLoader)
    except UnicodeDecodeError as problem:
        raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save the file as UTF-8") from problem
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        place = f"{file}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(file)
        why = getattr(problem, "problem", None) or str(problem)
        raise DataError(f"{file.name} is not YAML: {why}", where=place, fix="mend the file there") from problem
    if not isinstance(content, dict):
        fix = "expected are keys such as names, train and val"
        raise DataError(f"{file.name} holds no keys", where=str(file), fix=fix)
    return content


def names_of_yaml(file: Path, content: dict[str, Any]) -> Names:
    """The names in a data.yaml: a list, or a mapping of ids; DataError if they are neither."""
    names, count = content.get("names"), _whole(content.get("nc"))
    if is_empty(names):
        return Names(by_id=None, file=file)
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        by_id = dict(enumerate(names))
    elif isinstance(names, dict) and all(
        _whole(key) is not None and isinstance(name, str) for key, name in names.items()
    ):
        by_id = {int(key): name for key, name in sorted(names.items(), key=lambda item: int(item[0]))}
    else:
        fix = "write names: [cat, dog], or one line `0: cat` for each class"
        raise DataError(f"names in {file.name} are no list and no mapping of ids", where=str(file), fix=fix)
    return Names(by_id=by_id, file=file, findings=tuple(_check_names(file, by_id, count)))


def read_names(file: Path, count: int | None = None) -> Names:
    """The names in a file with one a line; the line is the id, so empty ones count too. `count` is what is declared."""
    try:
        lines = [line.strip() for line in file.read_bytes().decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as problem:
        raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save the file as UTF-8") from problem
    while lines and not lines[-1]:
        lines.pop()
    by_id = dict(enumerate(lines))
    return Names(by_id=by_id, file=file, findings=tuple(_check_names(file, by_id, count)))


def find_names(folders: Sequence[Path]) -> Names:
    """The names in the first folder that has a data.yaml or a file of names; none where there is no such file.

    Raises DataError if several name files there, or in the folders after it, give the ids different names.
    """
    found: list[Names] = []
    for folder in dict.fromkeys(folders):
        for file in name_files(folder):
            if file.suffix.lower() in (".yaml", ".yml"):
                found.append(names_of_yaml(file, read_yaml(file)))
            else:
                found.append(read_names(file))
    found = [names for names in found if names.by_id]
    for other in found[1:]:
        if other.by_id != found[0].by_id:
            raise DataError(
                f"{found[0].file} and {other.file} give the classes different names",
                where=str(found[0].file),
                fix="keep the right one of them",
            )
    return found[0] if found else Names(by_id=None, file=None)


def name_files(folder: Path) -> list[Path]:
    """The files of a folder that may hold class names."""
    if not folder.is_dir():
        return []
    plain = [folder / name for name in NAME_FILES if (folder / name).is_file()]
    named = [file for file in sorted(folder.glob("*.names")) if file not in plain and not file.name.startswith(".")]
    return [*data_yamls(folder), *plain, *named]


def no_names(where: Path) -> Finding:
    """The finding for a data set whose classes have ids only."""
    return Finding(
        check="yolo.no_names",
        level="warn",
        seen="no file gives the classes their names, so their numbers are taken",
        where=str(where),
        fix="put a classes.txt with one name a line beside the labels: a model is asked for names",
    )


def is_empty(value: object) -> bool:
    """Whether a key of a data.yaml is missing or left empty."""
    return value is None or value == [] or value == {} or (isinstance(value, str) and value in ("", "~", "null"))


def _check_names(file: Path, by_id: dict[int, str], count: int | None) -> list[Finding]:
    findings = []
    if count is not None and count != len(by_id):
        seen = f"{count} classes are declared but {len(by_id)} are named; the names are taken"
        fix = "make both the same"
        findings.append(Finding(check="yolo.count_differs", level="warn", seen=seen, where=str(file), fix=fix))
    named = [name for name in by_id.values() if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        seen = f"class names with several ids, merged: {len(twice)} ({name_some(twice)})"
        fix = "give each class one name"
        findings.append(Finding(check="yolo.name_twice", level="warn", seen=seen, where=str(file), fix=fix))
    return findings


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, str) and re.fullmatch(r"\d+", value.strip()) else None
