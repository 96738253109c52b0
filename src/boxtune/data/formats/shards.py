"""Data files that hold many samples each (Parquet, TFRecord): which of them there are, and the split of each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from boxtune.data.places import SPLITS, split_of_folder, splits_in_name
from boxtune.errors import DataError, Finding, name_some

_SHARD = re.compile(r"^(?P<name>.*?)-(?P<number>\d{2,6})-of-(?P<count>\d{2,6})(?!\d)")
_DEPTH = 3  # folders below the data set that are looked into: config/split/file


def find_files(path: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """The files in the folder `path`, and up to three levels below it, of a wanted name; hidden ones are left out."""
    return sorted(_walk(str(path), wanted, _DEPTH), key=lambda file: file.parts)


def _walk(folder: str, wanted: Callable[[str], bool], depth: int) -> Iterator[Path]:
    folders = []
    with os.scandir(folder) as entries:  # there may be a million images, so no Path is made for each
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.path)
            elif wanted(entry.name):
                yield Path(entry.path)
    for inner in folders if depth else []:
        yield from _walk(inner, wanted, depth - 1)


def group_by_split(files: Sequence[Path], root: Path, *, one_home: bool = True) -> dict[str, list[Path]]:
    """The files of each split, in the order train, valid, test.

    The split is in the file's name ("train-00000-of-00002.parquet"), else in that of a folder between it and `root`;
    where no file says one, all are `train`. Raises DataError if only some say one, if a name speaks of several, or,
    with `one_home`, if the same split lies in several folders not named for splits, which are data sets of their own.
    """
    told = {file: split_of_file(file, root) for file in files}
    silent = [file for file, split in told.items() if split is None]
    if silent and len(silent) < len(files):
        raise DataError(
            f"the split of {len(silent)} of {len(files)} data files cannot be told: {name_some(_names(silent, root))}",
            where=str(root),
            fix="put train, valid or test into their names, or move them away",
        )
    groups: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file, split in told.items():
        groups[split or "train"].append(file)
    for split, members in groups.items():
        homes = sorted({_home(file, root) for file in members})
        if one_home and len(homes) > 1:
            raise DataError(
                f"{len(homes)} folders hold a {split} split, so they seem to be several data sets: "
                f"{name_some(f'{name}/' for name in _names(homes, root))}",
                where=str(root),
                fix=f"give one of them, such as {homes[0]}",
            )
    return {split: members for split, members in groups.items() if members}


def check_shards(files: Sequence[Path]) -> list[Finding]:
    """A finding if files count themselves ("-00000-of-00010") and some of that count are not there."""
    counts: dict[tuple[Path, str], tuple[int, set[int]]] = {}
    for file in files:
        if match := _SHARD.match(file.name):
            _, there = counts.setdefault((file.parent, match["name"]), (int(match["count"]), set()))
            there.add(int(match["number"]))
    lacking = [
        f"{name}-{number:05d}-of-{count:05d}"
        for (_, name), (count, there) in counts.items()
        for number in range(count)
        if number not in there
    ]
    if not lacking:
        return []
    seen = f"shards that their neighbours count but that are not read: {len(lacking)} ({name_some(lacking)})"
    return [
        Finding(
            check="data.shard_missing", level="warn", seen=seen, where=str(files[0].parent), fix="fetch them, or go on"
        )
    ]


def name_groups(groups: Mapping[str, Sequence[Path]], root: Path) -> str:
    """The files for people: "train 2 files, valid val.parquet"."""
    return ", ".join(
        f"{split} {_names(files, root)[0]}" if len(files) == 1 else f"{split} {len(files)} files"
        for split, files in groups.items()
    )


def _names(files: Sequence[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name for file in files]


def split_of_file(file: Path, root: Path) -> str | None:
    """The split in the name of a data file, else in that of a folder between it and `root`; None if there is none.

    Raises DataError if its name speaks of several.
    """
    splits = splits_in_name(file.name)
    if len(splits) > 1:
        raise DataError(
            f"the split of {file.name} cannot be told: its name speaks of {' and '.join(splits)}",
            where=str(file),
            fix="rename it for one split: train, valid or test",
        )
    if splits:
        return splits[0]
    folders = [folder for folder in file.parents if folder != root and folder.is_relative_to(root)] or [file.parent]
    return next((split for folder in folders if (split := split_of_folder(folder))), None)


def _home(file: Path, root: Path) -> Path:
    """The folder of the data set that a file belongs to: above those that are named for a split."""
    folder = file.parent
    while folder != root and split_of_folder(folder) is not None:
        folder = folder.parent
    return folder
