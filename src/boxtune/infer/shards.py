"""Answers on disk, a line an image and a file for each part: written at once, and found again after a kill.

    OUT/answers/part-2-of-8.jsonl     first what made it, then a line for each image as soon as it is answered

The part of an image is told by its path alone, so that any number of processes share the work without a word between
them, and keep their shares when images come or go. What is done is told by the lines of all files, however many parts
there were when they were written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec
import numpy as np
from jaxtyping import Bool, Int

from boxtune.errors import ConfigError, DataError, name_some

MOST_PARTS = 256
"""Each part's file is held open when answers are collected."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """A share of the images: number `number`, from 1, of `of`. Raises ConfigError where there is no such part."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of <= MOST_PARTS:
            what = f"there is no part {self.number}/{self.of}"
            raise ConfigError(what, where="part", fix=f"part=1/8 to part=8/8 are eight parts; at most {MOST_PARTS}")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return f"part-{self.number}-of-{self.of}.jsonl"


def share_out(files: Sequence[str], of: int) -> Int[np.ndarray, " n"]:
    """The number of the part, from 1, that each file belongs to: a hash of its path as it is listed, modulo `of`.

    Not a CRC: of names that count up, all may have the same remainder.
    """
    hashes = (hashlib.blake2b(os.fsencode(file), digest_size=8).digest() for file in files)
    return np.fromiter((int.from_bytes(one) % of + 1 for one in hashes), np.int16, len(files))


def stamp_of(file: str) -> int:
    """A number that changes when the file does, by its size and time of change; 0 where it is not there."""
    try:
        stat = os.stat(file)
    except OSError:  # whoever opens it says why
        return 0
    return (stat.st_mtime_ns ^ (stat.st_size << 20)) & (2**63 - 1)


class PartFile:
    """The file of a part, open for the lines of more images; a context that no other process can enter meanwhile.

    Half a line that a killed process left is cut off. Raises ConfigError if somebody else is writing this part, or
    other parts than as many as these.
    """

    def __init__(self, folder: Path, part: Part, made_by: Mapping[str, Any]) -> None:
        self.path, self.part, self.made_by = folder / part.file_name, part, made_by
        self._exit = ExitStack()

    def __enter__(self) -> PartFile:
        with ExitStack() as undo:
            self._file = undo.enter_context(self.path.open("a+b"))
            if not _lock(self._file):
                raise self._busy(self.path, f"part {self.part}")
            for path in _files(self.path.parent):
                if not path.name.endswith(f"-of-{self.part.of}.jsonl"):
                    with path.open("rb") as other:
                        if not _lock(other, shared=True):
                            raise self._busy(path, path.stem.replace("-", " "))
            whole = _whole_lines(self._file)
            if whole < self._file.seek(0, os.SEEK_END):  # else its time would change, and with it the order of files
                self._file.truncate(whole)
            if self._file.seek(0, os.SEEK_END) == 0:
                self._write({"made_by": self.made_by})
            self._exit = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the line of an image. It outlives this process from here on."""
        self._write(row)

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write(as_json(row) + b"\n")
        self._file.flush()

    def _busy(self, path: Path, what: str) -> ConfigError:
        return ConfigError(
            f"{what} is being answered by another process",
            where=str(path),
            fix="wait for it, give other parts to the others (part=1/8, part=2/8, ...), or another folder as out=",
        )


def as_json(value: object) -> bytes:
    """The value as JSON in UTF-8; escaped where it holds a file name that is no text."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # msgspec, many times as fast as json, holds to Unicode
        return json.dumps(value).encode()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in such a context of this folder."""
    with (folder / "lock").open("a+b") as file:
        _lock(file, wait=True)
        yield


def _lock(file: BinaryIO, *, shared: bool = False, wait: bool = False) -> bool:
    """Whether the lock was got; said where there are no locks. It is let go with the file, whatever happens."""
    try:
        import fcntl  # not there on Windows

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (OSError, ImportError) as error:
        print(f"{file.name}: files cannot be locked here ({error}); start no part twice at the same time")
    return True


def _files(folder: Path) -> list[Path]:
    """The files of all parts, the one that was written last at the end."""
    return sorted(folder.glob("part-*-of-*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _whole_lines(file: BufferedRandom) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


class _Line(msgspec.Struct, gc=False):
    """What is read of a line to know that it is there."""

    file: str
    stamp: int = 0
    error: str | None = None


_LINE = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Where the lines of images lie.

    `paths` are the files of all parts; the image at place `i` has the line that begins at byte `offsets[i]` of
    `paths[which[i]]`, none where that is -1. `stamps` are those of the images when they were shown, and `failed` marks
    those that could not be. `others` are answers for files that are not listed: how many, and one of them.
    """

    paths: Sequence[Path]
    which: Int[np.ndarray, " n"]
    offsets: Int[np.ndarray, " n"]
    stamps: Int[np.ndarray, " n"]
    failed: Bool[np.ndarray, " n"]
    others: tuple[int, str]

    def rows(self, places: Sequence[int] | Int[np.ndarray, " k"]) -> Iterator[dict[str, Any]]:
        """The rows of the images at these places, read one by one."""
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in self.paths]
            for place in places:
                file = files[int(self.which[place])]
                file.seek(int(self.offsets[place]))
                line = file.readline()
                try:
                    yield msgspec.json.decode(line)
                except msgspec.DecodeError:  # a file name that is no text
                    yield json.loads(line)


def find_answers(folder: Path, files: Sequence[str], made_by: Mapping[str, Any]) -> Answered:
    """Where the answers of these files lie in a folder; half a line at the end of a file is none.

    Of two lines the one that belongs to the file as it is now wins, else an answer over a failure, else the later one.
    Raises ConfigError if something else made them, DataError on a line that is broken.
    """
    paths = _files(folder)
    found = Answered(
        paths=paths,
        which=np.full(len(files), -1, dtype=np.int16),
        offsets=np.zeros(len(files), dtype=np.int64),
        stamps=np.zeros(len(files), dtype=np.int64),
        failed=np.zeros(len(files), dtype=bool),
        others=(0, ""),
    )
    place_of = {file: place for place, file in enumerate(files)}
    num_others, other = 0, ""
    for number, path in enumerate(paths):
        for offset, line in _iter_lines(path, made_by):
            place = place_of.get(line.file)
            if place is None:
                num_others, other = num_others + 1, line.file
                continue
            failed = line.error is not None
            known = found.which[place] >= 0 and not found.failed[place]
            if known and _is_worse(line, int(found.stamps[place])):
                continue
            found.which[place], found.offsets[place] = number, offset
            found.stamps[place], found.failed[place] = line.stamp, failed
    return replace(found, others=(num_others, other))


def _is_worse(line: _Line, known: int) -> bool:
    """Whether an answer with the stamp `known` stays before that of the line."""
    now = stamp_of(line.file)
    if line.stamp != known and now in (line.stamp, known):
        return known == now
    return line.error is not None


def _iter_lines(path: Path, made_by: Mapping[str, Any]) -> Iterator[tuple[int, _Line]]:
    """(offset, line) of each image in a file whose first line says that the same made it."""
    offset = 0
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith(b"\n"):  # being written, or half of it lost with its writer
                return
            if number == 1:
                _require_same(path, text, made_by)
            else:
                yield offset, _read_line(path, text, number)
            offset += len(text)


def _read_line(path: Path, text: bytes, number: int) -> _Line:
    try:
        return _LINE.decode(text)
    except msgspec.MsgspecError:
        pass  # it may still hold a file name that is no Unicode, which msgspec does not read
    try:
        row = json.loads(text)
        return _Line(file=row["file"], stamp=row.get("stamp", 0), error=row.get("error"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"a line of answers is broken: {error}"
        raise DataError(what, where=f"{path}, line {number}", fix="remove that line") from error


def _require_same(path: Path, text: bytes, made_by: Mapping[str, Any]) -> None:
    try:
        said = json.loads(text)["made_by"]
    except (ValueError, TypeError, KeyError) as error:
        what = "the first line does not say what made these answers"
        raise DataError(what, where=f"{path}, line 1", fix="give another folder as out=") from error
    differ = [key for key in {**said, **made_by} if said.get(key) != made_by.get(key)]
    if differ:
        told = name_some((f"{key} was {_short(said.get(key))}, is {_short(made_by.get(key))}" for key in differ), 6)
        raise ConfigError(
            f"the folder holds answers that something else made: {told}",
            where=str(path),
            fix="give another folder as out=, or the model and settings as they were",
        )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
