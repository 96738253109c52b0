"""Where a data set keeps things: the words for splits, the image folders, and what lies there unread."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boxtune.errors import DataError, name_some

SPLITS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation"),
    "test": ("test", "testing"),
}
"""Each split under the name that boxtune gives it, with every word that folders and files use for it."""

_SPLIT_OF_WORD = {word: split for split, words in SPLITS.items() for word in words}
_IMAGE_FOLDERS = ("images", "data")
_ANNOTATION_FOLDERS = ("annotations", "annotation", "labels")
_ANNOTATION_SUFFIXES = (".xml", ".csv", ".json", ".jsonl", ".yaml", ".yml", ".parquet", ".tfrecord")


def splits_in_name(name: str) -> tuple[str, ...]:
    """The splits that a file or folder name speaks of: "instances_val2017" -> ("valid",), "trainval" -> two of them.

    Words are runs of letters; "latest" or "minitrain" name no split.
    """
    words = re.split(r"[^a-z]+", name.lower())
    if "trainval" in words:
        words += ["train", "val"]
    found = {_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD}
    return tuple(split for split in SPLITS if split in found)


def split_of_folder(folder: Path) -> str | None:
    """The split that a folder is named for; its whole name must be one of the words, so "test_images_2" is none."""
    return _SPLIT_OF_WORD.get(folder.name.lower())


def split_folders(path: Path) -> dict[str, Path]:
    """The folders right under `path` that are named for one split, by split.

    Raises DataError if two are named for the same one, such as `val/` and `valid/`.
    """
    found: dict[str, Path] = {}
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        split = split_of_folder(folder)
        if split is None:
            continue
        if split in found:
            raise DataError(
                f"{found[split].name}/ and {folder.name}/ are both a `{split}` split",
                where=str(path),
                fix="move one of them away or merge them",
            )
        found[split] = folder
    return found


def image_folders(annotation: Path, split: str, images: Path | None) -> list[Path]:
    """The folders, most specific first, that may hold the images of an annotation file; only those that exist.

    With `images` given only that folder and its sub-folder for the split are looked at. Raises DataError if it is
    no folder.
    """
    if images is not None and not images.is_dir():
        raise DataError(f"the image folder {images} is not there", where=str(images), fix="give an existing folder")
    home = annotation.parent
    roots = [home.parent, home] if home.name.lower() in _ANNOTATION_FOLDERS else [home]
    bases = [images] if images is not None else [root / name for root in roots for name in _IMAGE_FOLDERS] + roots
    stem = annotation.stem
    words = [stem, stem.removeprefix("instances_"), *re.findall(r"[A-Za-z]+\d+", stem), *SPLITS[split]]
    candidates = [base / word for base in bases for word in words] + bases
    return [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]


@dataclass(frozen=True, kw_only=True)
class Found:
    """An image file, and the folder of the finder that led to it.

    `by_bare_name` says that the folders in its name in the annotations are not there and were left aside.
    """

    path: str
    folder: str
    by_bare_name: bool = False


class ImageFinder:
    """Finds the files that an annotation file names, in several folders, each of which is listed only once.

    Names match exactly or after Unicode composition (a zip made on a Mac decomposes its umlauts); sub-folders,
    `..` and absolute paths are followed; a back-slash parts folders where no file has one in its name. Paths are
    plain text here: a million Path objects take longer to make than everything else.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._roots = [str(folder) for folder in folders]
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, file_name: str) -> Found | None:
        """The file, or None if it is in none of the folders."""
        for name in (file_name,) if "\\" not in file_name else (file_name, file_name.replace("\\", "/")):
            if name.startswith("/") and os.path.isfile(name):
                return Found(path=name, folder=os.path.dirname(name))
            found = self._anywhere([part for part in name.split("/") if part not in ("", ".")])
            if found is not None:
                return found
        bare = file_name.replace("\\", "/").rpartition("/")[2]
        found = self._anywhere([bare]) if bare else None
        return None if found is None else replace(found, by_bare_name=True)

    def _anywhere(self, parts: Sequence[str]) -> Found | None:
        for root in self._roots:
            path: str | None = root
            for part in parts:
                path = self._step(path, part) if path is not None else None
            if path is not None and path != root:
                return Found(path=path, folder=root)
        return None

    def _step(self, folder: str, part: str) -> str | None:
        if part == "..":
            return os.path.dirname(folder)
        listing = self._listings.get(folder) or self._list(folder)
        actual = listing.get(part) or listing.get(_composed(part))
        return os.path.join(folder, actual) if actual else None

    def _list(self, folder: str) -> dict[str, str]:
        names = os.listdir(folder) if os.path.isdir(folder) else []
        # Exact names go in last, so that they win where both spellings of a name are on the disk.
        listing = {_composed(name): name for name in names} | {name: name for name in names}
        self._listings[folder] = listing
        return listing


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def name_unread(path: Path, read: Iterable[Path]) -> str:
    """What else lies in the folder `path`, up to two levels down, that looks like annotations; "" if nothing does.

    Lone files go by their name, several in one folder as "voc/train/ (142 .xml)".
    """
    if not path.is_dir():
        return ""
    taken = {str(file) for file in read}
    files = [Path(file) for file in _annotations_in(str(path), 2) if file not in taken]
    counts = Counter((file.parent, file.suffix.lower()) for file in files)
    rows: dict[str, None] = {}
    for file in files:
        count = counts[file.parent, file.suffix.lower()]
        several = f"{count} {file.suffix.lower()}"
        folder = file.parent.relative_to(path).as_posix()
        named = file.relative_to(path).as_posix() if count == 1 else several
        rows[f"{folder}/ ({several})" if count > 1 and folder != "." else named] = None
    return name_some(rows, limit=5)


def _annotations_in(folder: str, levels: int) -> Iterator[str]:
    """Files that look like annotations, those of the folder itself before those of its folders."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    in_labels = any(part.lower() == "labels" for part in folder.split(os.sep)[-2:])
    suffixes = (*_ANNOTATION_SUFFIXES, ".txt") if in_labels else _ANNOTATION_SUFFIXES
    for entry in found:
        if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".") and entry.is_file():
            yield entry.path
    for entry in found:
        if levels and "." not in entry.name[:1] and entry.is_dir():
            yield from _annotations_in(entry.path, levels - 1)


def name_contents(path: Path) -> str:
    """The first entries of a folder for a message: "train/, valid/, notes.txt and 3 more"; "nothing" if empty."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    return name_some(names, limit=6) or "nothing"
