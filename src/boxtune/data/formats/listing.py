"""The files of a folder by their suffix, and files by the paths that lists hold."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .webp .bmp .tif .tiff .gif .jp2 .avif .mpo .ppm .pgm".split())
"""Suffixes, in small letters, of files that are taken for images where a format lists none."""

_MOST_FOLDERS, _MOST_ENTRIES = 300, 3000  # what a sniffer looks at, whatever the size of the data set


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Every file under `folder`, sub-folders too, with one of the suffixes (small letters), sorted by path.

    Hidden files and folders, and the `__MACOSX` of a zip made on a Mac, are left out; linked folders are followed.
    """
    found, entered = [], set()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in entered else [name for name in folders if not _is_hidden(name)]
        names = [] if real in entered else names
        entered.add(real)
        found += [Path(here, name) for name in names if _has_suffix(name, suffixes)]
    return sorted(found, key=lambda file: file.parts)


def peek_files(folder: Path, suffixes: Collection[str]) -> Iterator[list[Path]]:
    """For a sniffer: the first files with a suffix of each folder under `folder`, from the top down, four levels deep.

    At most 3,000 entries a folder and 300 folders are looked at, so that a million images cost nothing.
    """
    level, seen = [folder], 0
    for _ in range(5):
        deeper: list[Path] = []
        for here in level[: _MOST_FOLDERS - seen]:
            seen += 1
            with os.scandir(here) as entries:
                some = sorted(islice(entries, _MOST_ENTRIES), key=lambda entry: entry.name)
            files = [Path(here, entry.name) for entry in some if _has_suffix(entry.name, suffixes) and entry.is_file()]
            if files:
                yield files
            deeper += [Path(here, entry.name) for entry in some if not _is_hidden(entry.name) and entry.is_dir()]
        level = deeper


def is_image(file: Path) -> bool:
    """Whether a file has the suffix of an image."""
    return _has_suffix(file.name, IMAGE_SUFFIXES)


def read_head(file: Path, size: int = 65536) -> bytes:
    """The first bytes of a file, for a sniffer; a byte-order mark of UTF-8 is left out. Empty if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(size).removeprefix(b"\xef\xbb\xbf")
    except OSError:  # a sniffer only says no; whoever reads the file says why
        return b""


class PathFinder:
    """Finds files by the paths that lists hold, which were often written for another machine or working folder.

    A path is looked for as it is and in each of the `roots`, then again with its leading folders left out one by one:
    `data/obj_train_data/a.jpg` is `obj_train_data/a.jpg` of a root where there is no `data/`.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(dict.fromkeys(roots))
        self._last: tuple[Path, int] | None = None

    def find(self, name: str) -> tuple[Path, int] | None:
        """The file or folder, and how many leading folders were left out; None if it is nowhere."""
        for parts in _spellings(name):
            ways = [(root, dropped) for dropped in range(len(parts) or 1) for root in self.roots]
            for root, dropped in ([self._last] if self._last in ways else []) + ways:
                path = Path(os.path.normpath(root.joinpath(*parts[dropped:])))
                if path.exists():
                    self._last = root, dropped
                    return path, dropped
        return None


def _spellings(name: str) -> Iterator[tuple[str, ...]]:
    yield PurePosixPath(name).parts
    if "\\" in name:
        yield PurePosixPath(name.replace("\\", "/")).parts


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
