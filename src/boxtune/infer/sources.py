"""What is to be predicted -> the files of its images, as plain text by the million, and opened ahead of their use."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Int
from PIL.Image import Image

from boxtune.data import as_table, read_dataset
from boxtune.data.formats.listing import IMAGE_SUFFIXES
from boxtune.errors import DataError, name_some

LISTS = frozenset({".txt", ".json", ".jsonl"})
"""Suffixes of files that list images."""
_TRIED = 100  # entries of a list that are looked for, to find the folder that they are relative to
_SAY_SPLIT = "for the images of a data set say which: split=train, split=valid or split=test"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images to predict, each of them once.

    `files` are their paths in the order of the answers, `folder` the one that was asked for, if it was one. `split` and
    `image_ids` are those of the data set that they belong to, None for mere files. `num_repeated` counts files that
    were listed again.
    """

    files: Sequence[str]
    folder: Path | None = None
    split: str | None = None
    image_ids: Int[np.ndarray, " n"] | None = None
    num_repeated: int = 0

    def name(self, place: int) -> str:
        """The path of the image at a place, below the folder that holds them all."""
        return os.path.relpath(os.path.abspath(self.files[place]), self._root)

    @cached_property
    def _root(self) -> str:
        if self.folder is not None:
            return os.path.abspath(self.folder)
        return os.path.commonpath({os.path.dirname(os.path.abspath(file)) for file in self.files})


def find_images(source: str | Path) -> list[Path]:
    """The images of a file, a folder (sub-folders too), a pattern such as `photos/*.jpg`, or a list of them."""
    return [Path(file) for file in list_images(source).files]


def list_images(source: str | Path, *, split: str | None = None, leave_out: Path | None = None) -> Listing:
    """The images of `source`: an image, a folder, a pattern, a list, or with `split` that split of a data set.

    Those of a folder (sub-folders and linked folders too, hidden ones not) and of a pattern are sorted by name; nothing
    below `leave_out` is among them. A list is a .txt with a path a line, or a .json list or .jsonl with texts or with
    objects that hold `file`, `file_name`, `image` or `path`; it keeps its order. Its paths are relative to its own
    folder, or to the working folder if none of the first hundred lies there. A folder is told from a pattern and a file
    by what is on the disk. Raises DataError where there is no image.
    """
    if split is not None:
        return _of_split(source, split)
    path = Path(source)
    without = None if leave_out is None else os.path.realpath(leave_out)
    if path.is_dir():
        found = list(_walk(str(path), without, set()))
    elif path.suffix.lower() in LISTS and path.is_file():
        found = _of_list(path)
    elif path.suffix.lower() in (".yaml", ".yml") and path.is_file():
        raise DataError(f"{path.name} is no image and no list of images", where=str(source), fix=_SAY_SPLIT)
    elif path.is_file():
        found = [str(path)]
    else:
        matching = (file for file in glob.glob(str(source), recursive=True) if os.path.isfile(file))
        found = sorted(file for file in matching if without is None or not _is_below(file, without))
    if not found:
        raise DataError(
            "there is no image to predict",
            where=str(source),
            fix="give an image, a folder, a pattern or a list of images; "
            f"known suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    files = list(dict.fromkeys(found))
    return Listing(files=files, folder=path if path.is_dir() else None, num_repeated=len(found) - len(files))


def _of_split(source: str | Path, split: str) -> Listing:
    dataset = read_dataset(source)
    if split not in dataset.splits:
        what = f"there is no split {split!r} in this data set"
        raise DataError(what, where=str(source), fix=f"say split= one of {', '.join(dataset.splits)}")
    table = as_table(dataset.splits[split])
    return Listing(files=table.files, split=split, image_ids=table.image_ids)


def _walk(folder: str, without: str | None, entered: set[str]) -> Iterator[str]:
    """The images below a folder, in the order of their paths' parts. Names alone are held: Path objects take more."""
    real = os.path.realpath(folder)
    if real in entered or real == without:
        return
    entered.add(real)
    names, folders = [], set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                if entry.is_dir():
                    folders.add(entry.name)
                elif os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:
                    continue
                names.append(entry.name)
    except OSError as error:
        raise DataError(f"the folder cannot be read: {error.strerror}", where=folder, fix="make it readable") from error
    for name in sorted(names):
        path = name if folder == os.curdir else os.path.join(folder, name)
        if name in folders:
            yield from _walk(path, without, entered)
        else:
            yield path


def _is_below(file: str, folder: str) -> bool:
    home = os.path.realpath(os.path.dirname(file))  # a link in there is not what it leads to
    return os.path.join(home, "").startswith(os.path.join(folder, ""))


class _Named(msgspec.Struct, gc=False):
    """The keys under which an entry of a list may hold its path."""

    file: str | None = None
    file_name: str | None = None
    image: str | None = None
    path: str | None = None

    def named(self) -> list[str]:
        return [name for name in (self.file, self.file_name, self.image, self.path) if name is not None]


_ENTRY = msgspec.json.Decoder(str | _Named)
_ENTRIES = msgspec.json.Decoder(list[str | _Named])


def _of_list(path: Path) -> list[str]:
    names = list(_read_list(path))
    tried = names[:_TRIED]
    places = [str(path.parent), ""]
    for place in places:
        if any(os.path.exists(os.path.join(place, name)) for name in tried):
            return [os.path.normpath(os.path.join(place, name)) for name in names]
    raise DataError(
        f"none of the images that {path.name} lists is there: {name_some(tried)}" if names else f"{path.name} is empty",
        where=str(path),
        fix="list paths that are absolute, or relative to the list's own folder or to the working folder",
    )


def _read_list(path: Path) -> Iterator[str]:
    kind, content = path.suffix.lower(), path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if kind == ".txt":
        try:
            yield from filter(None, map(str.strip, content.decode().splitlines()))
        except UnicodeDecodeError as error:
            fix = "save the file as UTF-8"
            raise DataError(f"{path.name} is not UTF-8 text", where=str(path), fix=fix) from error
    elif kind == ".jsonl":
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                yield _name_of(_decode(_ENTRY, line, f"{path}, line {number}"), f"{path}, line {number}")
    else:
        for number, entry in enumerate(_decode(_ENTRIES, content, str(path)), start=1):
            yield _name_of(entry, f"{path}, entry {number}")


def _decode(decoder: msgspec.json.Decoder[Any], content: bytes, where: str) -> Any:
    try:
        return decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise DataError(f"this is no list of images: {error}", where=where, fix=_SAY_SPLIT) from error


def _name_of(entry: str | _Named, where: str) -> str:
    if isinstance(entry, str):
        return entry
    named = entry.named()
    if len(named) != 1:
        what = f"an entry names {'no image' if not named else 'several images: ' + name_some(named)}"
        raise DataError(what, where=where, fix="give its path as one of file, file_name, image or path")
    return named[0]


class OpenAhead:
    """Opens images in the threads of a pool before they are asked for, so that they are decoded while the model works.

    At most `ahead` of them wait; those that are next in the order of `files` are taken to be asked for next. What is
    asked for in another order is opened when it is asked for. Every image is opened once.
    """

    def __init__(
        self, files: Sequence[str], open_one: Callable[[str], Image], *, pool: ThreadPoolExecutor, ahead: int
    ) -> None:
        self._files, self._open, self._pool, self._ahead = files, open_one, pool, ahead
        self._waiting: dict[int, Future[Image]] = {}
        self._next = 0
        self._lock = Lock()  # an engine may ask from several threads

    def take(self, place: int) -> Image:
        """The image at a place; DataError where it cannot be opened."""
        with self._lock:
            waiting = self._waiting.pop(place, None)
            if waiting is None:
                self._next = max(self._next, place + 1)
            while len(self._waiting) < self._ahead and self._next < len(self._files):
                self._waiting[self._next] = self._pool.submit(self._open, self._files[self._next])
                self._next += 1
        return self._open(self._files[place]) if waiting is None else waiting.result()
