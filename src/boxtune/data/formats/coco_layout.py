"""Which COCO files a folder holds, and which split each of them is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxtune.data.formats.json_files import HEAD, peek_json
from boxtune.data.formats.listing import read_head
from boxtune.data.places import SPLITS, name_contents, split_folders, split_of_folder, splits_in_name
from boxtune.errors import DataError, name_some

_BESIDE_IMAGES = "_annotations.coco.json"
_KEYS = (b'"annotations"', b'"categories"', b'"licenses"', b'"file_name"')
_MOST_JSON_FILES = 50  # a folder with more of them holds one file an image (labelme), which COCO never does

EXPECTED = "a COCO file: a JSON object with the lists `images`, `annotations` and `categories`"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The COCO files of a data set by split, in the order train, valid, test, and how they were recognised."""

    files: Mapping[str, Path]
    why: str


def sniff_coco(path: Path) -> str | None:
    """Why `path` looks like COCO, judged by names and the first bytes of files; None if it does not."""
    if path.is_file():
        return "a .json file" if _is_json(path) and _begins_like_coco(path) else None
    if not path.is_dir():
        return None
    beside = [f"{folder.name}/" for folder in _split_entries(path) if (folder / _BESIDE_IMAGES).is_file()]
    if beside:
        return f"{_BESIDE_IMAGES} in {name_some(beside)}"
    if (path / _BESIDE_IMAGES).is_file():
        return f"{_BESIDE_IMAGES} beside the images"
    for folder in _annotation_places(path):
        files = _coco_files(folder)
        if files:
            return name_some(file.relative_to(path).as_posix() for file in files)
    return None


def require_layout(path: Path) -> Layout:
    """The COCO files that `path`, a folder or a .json, stands for.

    A lone file whose name speaks of no split is `train`; one called _annotations.coco.json takes the split of its
    folder's name. Where files called instances_* are among others (captions, keypoints) they alone are taken.
    Raises DataError if there is none, or if the split of one cannot be told.
    """
    if path.is_file():
        return Layout(files={_lone_split(path): path}, why=f"{path.name} given")
    if not path.is_dir():
        raise DataError(f"{path} does not exist", where=str(path), fix="give a folder or a .json file")
    why = sniff_coco(path)
    if why is None:
        raise DataError(
            f"no COCO file was found, only {name_contents(path)}",
            where=str(path),
            fix=f"it may hold SPLIT/{_BESIDE_IMAGES}, annotations/*.json or one .json beside the images",
        )
    beside = {split: folder / _BESIDE_IMAGES for split, folder in split_folders(path).items()}
    beside = {split: beside[split] for split in SPLITS if split in beside and beside[split].is_file()}
    if beside:
        return Layout(files=beside, why=why)
    if (path / _BESIDE_IMAGES).is_file():
        return Layout(files={_lone_split(path / _BESIDE_IMAGES): path / _BESIDE_IMAGES}, why=why)
    found = next(files for folder in _annotation_places(path) if (files := _coco_files(folder)))
    return Layout(files=_by_name(found, path), why=why)


def _by_name(files: Sequence[Path], path: Path) -> dict[str, Path]:
    named_instances = [file for file in files if file.stem.lower().startswith("instances")]
    files = named_instances or files
    if len(files) == 1:
        return {_lone_split(files[0]): files[0]}
    found: dict[str, Path] = {}
    for file in files:
        splits = splits_in_name(file.stem)
        if len(splits) != 1:
            raise _unclear(file, splits, f"{len(files)} files: {name_some([f.name for f in files])}")
        if splits[0] in found:
            raise DataError(
                f"{found[splits[0]].name} and {file.name} are both a `{splits[0]}` split",
                where=str(file.parent),
                fix="give one .json file instead of the folder, or move the others away",
            )
        found[splits[0]] = file
    return {split: found[split] for split in SPLITS if split in found}


def _lone_split(file: Path) -> str:
    splits = splits_in_name(file.stem)
    if not splits and file.name == _BESIDE_IMAGES:
        folder_split = split_of_folder(file.parent)
        splits = (folder_split,) if folder_split else ()
    if len(splits) > 1:
        raise _unclear(file, splits, "its name speaks of several")
    return splits[0] if splits else "train"


def _unclear(file: Path, splits: Sequence[str], seen: str) -> DataError:
    speaks = f"speaks of {' and '.join(splits)}" if splits else "speaks of none"
    return DataError(
        f"the split of {file.name} cannot be told: its name {speaks} ({seen})",
        where=str(file),
        fix="rename it to train.json, valid.json or test.json, or give the one .json file that you mean",
    )


def _split_entries(path: Path) -> list[Path]:
    folders = [(split_of_folder(entry), entry) for entry in sorted(path.iterdir()) if entry.is_dir()]
    return [entry for split in SPLITS for found, entry in folders if found == split]


def _annotation_places(path: Path) -> list[Path]:
    named = sorted(entry for entry in path.iterdir() if entry.name.lower() in ("annotations", "annotation"))
    return [*(entry for entry in named if entry.is_dir()), path]


def _coco_files(folder: Path) -> list[Path]:
    files = sorted(entry for entry in folder.iterdir() if _is_json(entry) and entry.is_file())
    return [file for file in files if _begins_like_coco(file)] if len(files) <= _MOST_JSON_FILES else []


def _is_json(file: Path) -> bool:
    # dataset_info.json, of LLaMA-Factory or the datasets library, is about other files.
    return file.suffix.lower() == ".json" and not file.name.startswith(".") and file.name != "dataset_info.json"


def _begins_like_coco(file: Path) -> bool:
    """Of a file that is all in its head the keys are asked for; of a longer or a broken one, for a trace of them."""
    head = read_head(file, HEAD)
    if not head.lstrip().startswith(b"{"):
        return False
    if file.stat().st_size <= HEAD:
        try:
            return {"images", "annotations"} <= json.loads(head).keys()
        except (ValueError, RecursionError):  # broken: its reader says where
            pass
    elif isinstance(content := peek_json(file), dict) and (
        "items" in content or isinstance(content.get("categories"), dict)
    ):
        return False  # Datumaro's
    return any(key in head for key in _KEYS)
