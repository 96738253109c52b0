"""Formats of one file a split: which files there are, which split each is, and what to do with two of one split."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from boxtune.data.draft import Draft
from boxtune.data.formats.shards import split_of_file
from boxtune.data.places import SPLITS, split_folders
from boxtune.data.reading import FITS, Reading
from boxtune.errors import DataError, name_some

_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
_MOST_FILES = 50  # a folder with more of them holds one file an image


def find_documents(
    path: Path, suffix: str, wanted: Callable[[Path], bool], *, folders: Sequence[str] = ()
) -> list[Path]:
    """The wanted files with that suffix of a data set; of a file itself, that one.

    Files in folders named for splits come before those in `path`, and those before files in its folders for
    annotations and in the `folders` named; only the first of these places that holds any counts.
    """
    if path.is_file():
        return [path] if path.suffix.lower() == suffix and wanted(path) else []
    if not path.is_dir():
        return []
    for place in _places(path, folders):
        found = [file for folder in place for file in _files(folder, suffix) if wanted(file)]
        if found:
            return found
    return []


def _places(path: Path, folders: Sequence[str]) -> Iterator[list[Path]]:
    splits = split_folders(path)
    ordered = [splits[split] for split in SPLITS if split in splits]
    yield [place for folder in ordered for place in (folder, *_named(folder, _ANNOTATION_FOLDERS))]
    yield [path]
    yield _named(path, (*_ANNOTATION_FOLDERS, *folders))


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.name.lower() in names and entry.is_dir())


def _files(folder: Path, suffix: str) -> list[Path]:
    with os.scandir(folder) as entries:  # a million images beside the file cost no more than their names
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(suffix) and entry.name[0] != ".")
    files = [file for name in names if (file := folder / name).is_file()]
    return files if len(files) <= _MOST_FILES else []


def name_documents(path: Path, files: Sequence[Path]) -> str:
    """The files for people, as seen from the data set."""
    return name_some(file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The files of each split, in the order train, valid, test; `why` says what had to be taken for granted."""

    files: Mapping[str, Sequence[Path]]
    why: str = ""


def group_documents(path: Path, files: Sequence[Path]) -> Splits:
    """The split of each file, by its name, else its folder's.

    A file of which neither says one is `train`, unless another file is. Raises DataError if a name speaks of several
    splits, or if there is another train file.
    """
    root = path if path.is_dir() else path.parent
    told = {file: split_of_file(file, root) for file in files}
    silent = [file for file, split in told.items() if split is None]
    if silent and "train" in told.values():
        raise DataError(
            f"the split of {name_documents(root, silent)} cannot be told, as there is another train file",
            where=str(root),
            fix="put train, valid or test into the file's name, give the one file that you mean, or move others away",
        )
    groups: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for file, split in told.items():
        groups[split or "train"].append(file)
    why = f"{name_documents(root, silent)} taken as train" if silent and len(silent) < len(files) else ""
    return Splits(files={split: members for split, members in groups.items() if members}, why=why)


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """One draft a split, and the files that say the same as another one and were left aside."""

    drafts: Sequence[Draft]
    why: str = ""


def read_each(splits: Splits, read: Callable[[str, Path], Draft]) -> Drafts:
    """What `read` makes of the file of each split; several of one split must say the same (a project and its export).

    Raises DataError if they do not.
    """
    drafts, told = [], [splits.why] if splits.why else []
    for split, files in splits.files.items():
        first, *others = [read(split, file) for file in files]
        says = _says(first)
        for draft in others:
            if _says(draft) != says:
                raise DataError(
                    f"{first.annotation.name} and {draft.annotation.name} are both a `{split}` split",
                    where=str(first.annotation.parent),
                    fix="give the one file that you mean, name each for its split, or merge them",
                )
            told.append(f"{draft.annotation.name} says the same as {first.annotation.name}")
        drafts.append(first)
    return Drafts(drafts=drafts, why="; ".join(told))


def _says(draft: Draft) -> tuple[list[str], list[tuple[object, ...]]]:
    rows = zip(draft.owners, draft.labels, draft.xyxy.tolist(), strict=True)
    return sorted(draft.files), sorted((draft.files[owner], label, *corners) for owner, label, corners in rows)


def are_shares(numbers: Float[np.ndarray, "n 4"]) -> bool:
    """Whether four numbers each are shares of the sides: nearly all boxes lie within 0..1, with fractions."""
    within = (np.abs(numbers) <= 1).all(axis=1)
    return bool(len(numbers)) and float(within.mean()) >= FITS and bool((numbers[within] % 1 > 0).any())


def settle_corners(draft: Draft, reading: Reading) -> None:
    """Turn the four numbers that a draft was filled with into corners, by what they have been found to mean."""
    draft.corners = array("d", reading.to_xyxy(draft.xyxy).tobytes())
    draft.scale = reading.scale
