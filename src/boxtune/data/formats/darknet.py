"""Darknet data sets (obj.data with lists of images, Yolo_mark, CVAT's YOLO 1.1) -> drafts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from boxtune.data.draft import Options, Raw
from boxtune.data.formats.listing import PathFinder, is_image, read_head
from boxtune.data.formats.yolo_names import Names, find_names, read_names
from boxtune.data.formats.yolo_plan import Listed, Plan, read_image_list, read_plan
from boxtune.data.places import SPLITS, split_of_folder, splits_in_name
from boxtune.errors import DataError, Finding, Level, name_some

_FOLDERS = ("", "data", "cfg")  # where below the given folder an obj.data may be
_LOOKED_AT = 20  # lines of a list that must all be images


def sniff_darknet(path: Path) -> str | None:
    """Why `path` looks like darknet: an obj.data, a list of images, or such a list beside a file of names."""
    if path.is_file():
        if _is_data(path):
            return "a .data with names and lists of images"
        return "a .txt with the path of an image in each line" if _is_list(path) else None
    if not path.is_dir():
        return None
    if found := _data_files(path):
        return f"{found[0].relative_to(path).as_posix()} with names and lists of images"
    lists = _lists(path)
    if lists and any(path.glob("*.names")):
        return f"{name_some(file.name for file in lists)} with paths of images, and a file of names"
    return None


def read_darknet(path: Path, options: Options) -> Raw:
    """The splits that an obj.data names, or one list of images, with a label file beside each image.

    Paths are looked for beside the list, in the folder above it (from where Yolo_mark is started), and with leading
    folders left out; `images/` in a path may stand for `labels/`. An image without a label file is a negative. Rows
    and what is refused are as in `yolo`. Raises DataError if there is no list, or a list is not there.
    Source: https://github.com/AlexeyAB/darknet#how-to-train-to-detect-your-custom-objects
    """
    if path.is_file():
        return read_plan(
            _plan_of_data(path, options) if _is_data(path) else _plan_of_lists(path.parent, [path], options)
        )
    found = _data_files(path)
    if len(found) > 1:
        what = f"there are {len(found)} data sets: {name_some(file.name for file in found)}"
        raise DataError(what, where=str(path), fix="give the one .data that you mean")
    if found:
        return read_plan(_plan_of_data(found[0], options))
    lists = [file for file in _lists(path) if splits_in_name(file.stem)]
    if not lists:
        fix = "it may hold an obj.data, or train.txt with one image a line beside obj.names"
        raise DataError("no obj.data and no list of images was found", where=str(path), fix=fix)
    return read_plan(_plan_of_lists(path, lists, options))


def _plan_of_data(file: Path, options: Options) -> Plan:
    keys = dict(_keys(file))
    finder = PathFinder([file.parent, file.parent.parent])
    splits: dict[str, list[Listed]] = {}
    read, findings = [file], []
    for key, value in keys.items():
        split = split_of_folder(Path(key))
        if split is None or not value:
            continue
        found = finder.find(value)
        if found is None:
            seen = f"{key} = {value} in {file.name} is not there, left out"
            fix = "restore the list, or take the line out"
            level: Level = "fail" if split == "train" else "warn"
            findings.append(Finding(check="darknet.list_missing", level=level, seen=seen, where=str(file), fix=fix))
            continue
        read.append(found[0])
        splits.setdefault(split, []).extend(_listed(found[0], file, options))
    if not splits:
        what = f"{file.name} leads to no list of images"
        raise DataError(what, where=str(file), fix="expected are lines such as `train = data/train.txt`")
    names = finder.find(keys["names"]) if keys.get("names") else None
    count = int(keys["classes"]) if keys.get("classes", "").isdigit() else None
    return Plan(
        where=file,
        why=f"{file.name} with {', '.join(splits)}",
        splits={split: splits[split] for split in SPLITS if split in splits},
        names=find_names([file.parent]) if names is None else read_names(names[0], count),
        labels=_label_folders(file.parent, options),
        read=read,
        findings=findings,
    )


def _plan_of_lists(home: Path, lists: list[Path], options: Options) -> Plan:
    splits: dict[str, list[Listed]] = {}
    for file in lists:
        named = splits_in_name(file.stem)
        if len(named) > 1 or (named and named[0] in splits):
            what = f"the split of {file.name} cannot be told: its name speaks of {' and '.join(named)}"
            raise DataError(what, where=str(file), fix="give the one list that you mean")
        splits[named[0] if named else "train"] = _listed(file, file, options)
    return Plan(
        where=lists[0],
        why=f"{name_some(file.name for file in lists)} with one image a line",
        splits={split: splits[split] for split in SPLITS if split in splits},
        names=_names_around(home),
        labels=_label_folders(home, options),
        read=lists,
    )


def _listed(file: Path, data: Path, options: Options) -> list[Listed]:
    roots = [file.parent, file.parent.parent, data.parent, data.parent.parent]
    return read_image_list(file, roots if options.images is None else [options.images, options.images.parent])


def _label_folders(home: Path, options: Options) -> list[Path]:
    return [] if options.images is None else [home / "labels", home]


def _names_around(home: Path) -> Names:
    """The names in a list's own folder, or, where it has none, in the one above."""
    names = find_names([home])
    return names if names.by_id is not None else find_names([home.parent])


def _keys(file: Path) -> Iterator[tuple[str, str]]:
    """The `key = value` lines of an obj.data, as darknet's read_data_cfg takes them."""
    for number, line in enumerate(_lines(file), start=1):
        if line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            if not equals:
                fix = "write key = value"
                raise DataError(f"{file.name} has a line without =: {line!r}", where=f"{file}, line {number}", fix=fix)
            yield key.strip().lower(), value.strip()


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_bytes().decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as problem:
        raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save the file as UTF-8") from problem


def _data_files(path: Path) -> list[Path]:
    folders = [path / name for name in _FOLDERS if (path / name).is_dir()]
    return [file for folder in folders for file in sorted(folder.glob("*.data")) if _is_data(file)]


def _is_data(file: Path) -> bool:
    if file.suffix.lower() != ".data" or not file.is_file():
        return False
    head = read_head(file, 4096).decode("utf-8", "replace")
    keys = [line.partition("=")[0].strip().lower() for line in head.splitlines() if "=" in line]
    return any(split_of_folder(Path(key)) for key in keys)


def _lists(path: Path) -> list[Path]:
    return [file for file in sorted(path.glob("*.txt")) if _is_list(file)]


def _is_list(file: Path) -> bool:
    if file.suffix.lower() != ".txt" or file.name.startswith("."):
        return False
    lines = read_head(file, 8192).decode("utf-8", "replace").splitlines()
    whole = [line.strip() for line in lines[:_LOOKED_AT] if line.strip()]
    return bool(whole) and all(is_image(Path(line.replace("\\", "/"))) for line in whole)
