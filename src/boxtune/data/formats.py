"""The formats that are read, and which of them a path holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from boxtune.data.coco import read_coco
from boxtune.data.coco_layout import sniff_coco
from boxtune.data.places import name_contents
from boxtune.data.sample import Dataset
from boxtune.errors import ConfigError, DataError


class Reader(Protocol):
    """Reads one format; raises DataError on what it cannot read."""

    def __call__(self, path: Path, *, images: Path | None = None) -> Dataset:
        """The data set at `path`; `images` is the image folder where it lies elsewhere."""
        ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: `sniff` says why a path fits or None, from names and first bytes only; `looks_for` is for people."""

    sniff: Callable[[Path], str | None]
    read: Reader
    looks_for: str


# The first format that fits wins. A new one is its own file and one line here.
FORMATS: Mapping[str, Format] = {
    "coco": Format(
        sniff=sniff_coco,
        read=read_coco,
        looks_for="COCO: SPLIT/_annotations.coco.json, annotations/*.json, or one .json beside images/",
    ),
}


def read_dataset(path: str | Path, *, format: str = "auto", images: Path | None = None) -> Dataset:
    """The data set at `path`, a folder or an annotation file, with the format told from what is there.

    `format` names a reader instead; `images` is the image folder where it lies elsewhere. `why` of the result says
    what was recognised and what else lies there unread. Raises DataError if there is nothing to read, ConfigError
    on an unknown `format`.
    """
    here = Path(path).expanduser()
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}", where="data.format", fix=f"one of auto, {', '.join(FORMATS)}")
    if not here.exists():
        raise _not_there(str(path), here)
    if format != "auto":
        return FORMATS[format].read(here, images=images)
    for known in FORMATS.values():
        if known.sniff(here):
            return known.read(here, images=images)
    looked_for = "; ".join(known.looks_for for known in FORMATS.values())
    if here.is_file():
        raise DataError(f"{here.name} is no annotation file that is read", where=str(here), fix=f"give {looked_for}")
    contents = name_contents(here)
    raise DataError(
        "the folder is empty" if contents == "nothing" else f"no data set was recognised; the folder holds {contents}",
        where=str(here),
        fix=f"looked for {looked_for}",
    )


def _not_there(given: str, here: Path) -> DataError:
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", given) and not here.parent.exists():
        return DataError(
            f"{given} is no local path, and data sets of the Hugging Face hub are not read yet",
            where=given,
            fix="download it and give the local folder",
        )
    parent = next(folder for folder in here.absolute().parents if folder.is_dir())
    return DataError(
        f"{given} does not exist",
        where=str(here),
        fix=f"check the path; {parent} holds {name_contents(parent)}",
    )
