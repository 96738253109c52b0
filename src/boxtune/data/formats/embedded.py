"""Pictures that lie inside a data file (Parquet, Arrow, TFRecord, base64 text) -> files of their own in the cache.

Everything behind the readers opens image files by their path, so such pictures are copied out once, byte by byte.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from boxtune.artifacts import cache_folder, slugify, write_json
from boxtune.errors import DataError, Finding, name_some

_INDEX = "index.json"
_SUFFIX_OF_HEAD = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"RIFF": ".webp",
}
_SUFFIXES = {*_SUFFIX_OF_HEAD.values(), ".jpeg", ".tiff", ".jp2", ".avif", ".ppm", ".pgm"}
_DATA_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


class PictureStore:
    """The pictures of one data file as files in `folder`, which is named for the file's place, size and time.

    A changed data file thus gets a folder of its own. Every picture is written beside its place and then renamed, so a
    file that is there is whole, whoever wrote it: readers that run at once, or were cut off, do not harm each other.
    `kept` maps the row of each picture to its file. Raises ConfigError where the cache cannot be written.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        place, stat = source.resolve(), source.stat()
        says = f"{place}\0{stat.st_size}\0{stat.st_mtime_ns}"
        self.folder = cache_folder() / "images" / hashlib.sha256(says.encode()).hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kept: dict[int, Path] = {}
        self._taken: dict[str, str] = {}  # names are told apart as file systems do that ignore their case
        self._written: set[Path] = set()

    def load(self) -> bool:
        """Whether an earlier reading copied every picture out; `kept` then holds them and the bytes need no reading."""
        try:
            rows = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
            kept = {int(row): (self.folder / name, size) for row, (name, size) in rows.items()}
            whole = all(path.stat().st_size == size for path, size in kept.values())
        except (FileNotFoundError, ValueError, TypeError, AttributeError):  # none yet, or files that somebody removed
            return False
        if whole:
            self.kept = {row: path for row, (path, _) in kept.items()}
        return whole

    def keep(self, row: int, name: str, picture: bytes) -> Path:
        """The file of this picture, its bytes unchanged.

        `name` is what the data file calls it; the file is called alike as far as that is safe, and otherwise than the
        other pictures. The same name with the very same bytes is the same file. Raises DataError if it cannot
        be written.
        """
        stem, suffix = _safe(name or str(row), picture)
        number = 1
        while True:
            called = f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}"
            path = self.folder / self._taken.setdefault(called.casefold(), called)
            if path not in self._written or path.read_bytes() == picture:
                break
            number += 1
        if path not in self._written:
            self._write(path, picture)
            self._written.add(path)
        self.kept[row] = path
        return path

    def finish(self) -> None:
        """Note that all pictures of the data file were kept."""
        rows = {row: (path.name, path.stat().st_size) for row, path in self.kept.items()}
        write_json(self.folder / _INDEX, rows)

    def _write(self, path: Path, picture: bytes) -> None:
        part = self.folder / f".{uuid.uuid4().hex}.part"
        try:
            if path.exists() and path.stat().st_size == len(picture):
                return
            part.write_bytes(picture)
            os.replace(part, path)
        except OSError as problem:
            part.unlink(missing_ok=True)
            raise DataError(
                f"the picture {path.name} cannot be copied into the cache: {problem.strerror}",
                where=str(self.folder),
                fix="free some space, or set BOXTUNE_CACHE to a folder with more of it",
            ) from problem


def say_embedded(stores: Iterable[PictureStore], where: Path) -> list[Finding]:
    """The finding that says how many pictures were copied out of data files, and where they are; none of none."""
    used = [store for store in stores if store.kept]
    if not used:
        return []
    files = {path for store in used for path in store.kept.values()}
    folders = f"{used[0].folder}" + (f" and {len(used) - 1} folders beside it" if len(used) > 1 else "")
    sources = name_some(store.source.name for store in used)
    seen = f"pictures that lie inside of {sources}, copied out unchanged: {len(files):,} (in {folders})"
    return [Finding(check="image.embedded", level="ok", seen=seen, where=str(where))]


def decode_data_uri(text: str, where: str) -> bytes | None:
    """The picture in a `data:image/...;base64,` text, or None if it is no such text; DataError if it is broken."""
    head = _DATA_URI.match(text)
    if head is None:
        return None
    try:
        return base64.b64decode(re.sub(r"\s+", "", text[head.end() :]), validate=True)
    except binascii.Error as problem:
        raise DataError(f"a picture in base64 is broken: {problem}", where=where, fix="write it again") from problem


def _safe(name: str, picture: bytes) -> tuple[str, str]:
    """A stem that is safe as a file, folders joined by dashes, and the suffix: the name's own, else by the content."""
    path = PurePosixPath(name.replace("\\", "/"))
    suffix = path.suffix if path.suffix.lower() in _SUFFIXES else ""
    stem = str(path)[: len(str(path)) - len(suffix)]
    if not suffix:
        suffix = next((one for head, one in _SUFFIX_OF_HEAD.items() if picture.startswith(head)), "")
    return slugify(stem), suffix
