"""The images of a data set that is written: links under names that every reader can tell apart, upright copies else."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import TracebackType

from boxtune.data.convert import upright_name, write_upright
from boxtune.data.formats.listing import IMAGE_SUFFIXES

_MOST_WAITING = 64  # pictures that wait to be written upright, so that a million turned ones need no memory


class Shelf:
    """A folder that images are put into; a context, at whose end all of them are there.

    An image keeps its name and the folders below the common folder of all. Changed are parts that readers take for
    something else: one that is hidden, or called images (where label files of YOLO are looked for beside it). Names are
    told apart without their suffix and the case of letters, as label files and some file systems do: the second of two
    gets a number. An image is a symbolic link to the original, relative so that both can be moved together, and a copy
    where the file system knows no links; one that EXIF turns, or without the suffix of an image, is written anew,
    upright, since readers differ in whether they turn it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_turned = self.num_copied = 0
        self._taken: set[str] = set()
        self._waiting: list[Future[None]] = []
        self._folder_of = lru_cache(maxsize=1024)(self._make_folder)

    def __enter__(self) -> Shelf:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pool = ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            self._settle(0)

    def put(self, file: str, name: str, *, turned: bool) -> str:
        """The name, below the folder and with forward slashes, under which the image is there."""
        anew = turned or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES
        name = self._free_name(upright_name(name) if anew else name)
        folder, last = self._folder_of(os.path.dirname(name)), os.path.basename(name)
        to = os.path.join(folder, last)
        if anew:
            self.num_turned += 1
            self._waiting.append(self._pool.submit(write_upright, Path(file), Path(to)))
            self._settle(_MOST_WAITING)
            return name
        try:
            home, last = os.path.split(os.path.abspath(file))
            os.symlink(os.path.join(_way(home, folder), last), to)
        except OSError:  # no links on this file system, or not for this user: counted, and said
            self.num_copied += 1
            shutil.copyfile(file, to)
        return name

    def lines(self) -> list[str]:
        """What there is to say of the images."""
        counted = {
            "images were written anew, upright, since EXIF turns them or they have no suffix": self.num_turned,
            "images were copied, as links cannot be made": self.num_copied,
        }
        return [f"{number:,} {what}" for what, number in counted.items() if number]

    def _settle(self, num_left: int) -> None:
        while len(self._waiting) > num_left:
            self._waiting.pop(0).result()

    def _make_folder(self, below: str) -> str:
        folder = os.path.abspath(self.folder / below)
        os.makedirs(folder, exist_ok=True)
        return folder

    def _free_name(self, name: str) -> str:
        *folders, last = name.encode(errors="surrogateescape").decode(errors="replace").split(os.sep)
        stem, suffix = os.path.splitext(_plain(last))
        home = "/".join(map(_plain, folders))
        start, number = f"{home}/{stem}" if home else stem, 1
        free = start
        while free.casefold() in self._taken:
            number += 1
            free = f"{start}-{number}"
        self._taken.add(free.casefold())
        return free + suffix


def _plain(part: str) -> str:
    """A part of a path that no reader takes for hidden, or for the folder of all images."""
    if part.startswith("."):
        return f"_{part[1:]}"
    return f"{part}_" if part.lower() in ("images", "jpegimages") else part


@lru_cache(maxsize=1024)
def _way(to: str, start: str) -> str:
    """The relative path to one folder from another, both given in full, through no link."""
    return os.path.relpath(os.path.realpath(to), os.path.realpath(start))
