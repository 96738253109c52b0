"""How annotation tools write where an image is, and the file that is meant: links, encoded names, bare ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from boxtune.data.formats.listing import is_image
from boxtune.data.places import ImageFinder

_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: C:/ is a drive


def choose_name(spellings: Iterable[str], finder: ImageFinder) -> str:
    """The spelling under which the image is there, or else the first.

    One whose folders are there wins over one that is found by its bare name.
    """
    names = list(dict.fromkeys(spellings))
    found = [(name, one) for name in names if (one := finder.find(name)) is not None]
    exact = [name for name, one in found if not one.by_bare_name]
    return next(iter([*exact, *(name for name, _ in found), *names]))


def spell_link(text: str) -> Iterator[str]:
    """What a text may name: itself, and for a link or a path with `%20` in it the path that it leads to."""
    yield text
    if _LINK.match(text):
        parts = urlsplit(text)
        # A name may hold ? and #, which end the path of a link: what follows is tried as part of the name first.
        rest = text.split(":", 1)[1].lstrip("/")
        whole = rest.partition("/")[2] if parts.netloc else rest
        for path in dict.fromkeys((whole, parts.path.lstrip("/"))):
            yield from dict.fromkeys((path, unquote(path)))
        if parts.scheme == "file":
            yield unquote(parts.path)
    elif "%" in text:
        yield unquote(text)


def query_value(text: str, key: str) -> str | None:
    """The value of a key behind the `?` of a link, decoded."""
    _, mark, query = text.partition("?")
    values = parse_qs(query).get(key) if mark else None
    return values[0] if values else None


class StemFinder:
    """Finds image files by names without suffix, in several folders, each of which is listed only once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = tuple(folders)
        self._listings: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> Path | None:
        """The file in the first folder that has one; `name` may lead into a sub-folder."""
        where = PurePosixPath(name.replace("\\", "/"))
        if ".." in where.parts or where.is_absolute():
            return None
        for folder in self.folders:
            file = self.files(folder / where.parent).get(where.name)
            if file is not None:
                return file
        return None

    def files(self, folder: Path) -> dict[str, Path]:
        """The images right in a folder, by their names without suffix."""
        if folder not in self._listings:
            files = sorted(entry for entry in folder.iterdir() if is_image(entry)) if folder.is_dir() else []
            self._listings[folder] = {file.stem: file for file in reversed(files)}
        return self._listings[folder]
