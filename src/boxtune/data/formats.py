"""The formats that are read, and which of them a path holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from boxtune.data.assemble import assemble
from boxtune.data.coco import read_coco
from boxtune.data.coco_layout import sniff_coco
from boxtune.data.draft import Options, Raw
from boxtune.data.places import name_contents
from boxtune.data.sample import Dataset
from boxtune.errors import ConfigError, DataError


class Reader(Protocol):
    """Reads one format; raises DataError on what it cannot read."""

    def __call__(self, path: Path, options: Options) -> Raw:
        """What the annotations at `path`, a folder or a file, say."""
        ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: `sniff` says why a path fits or None, from names and first bytes only; `looks_for` is for people."""

    sniff: Callable[[Path], str | None]
    read: Reader
    looks_for: str


# The first format that fits is read, the others are named. A new one is its own file and one line here.
FORMATS: Mapping[str, Format] = {
    "coco": Format(
        sniff=sniff_coco,
        read=read_coco,
        looks_for="COCO: SPLIT/_annotations.coco.json, annotations/*.json, or one .json beside images/",
    ),
}


def read_dataset(
    path: str | Path, *, format: str = "auto", images: Path | None = None, boxes: str | None = None
) -> Dataset:
    """The data set at `path`, a folder or an annotation file, with the format told from what is there.

    `format` names a reader instead; `images` is the image folder where it lies elsewhere; `boxes` says how the four
    numbers of a box are meant, for formats that leave it open (`reading`). `why` of the result says what was
    recognised, what else it could have been, and what lies there unread. Raises DataError if there is nothing to read,
    ConfigError on an unknown `format`.
    """
    here = Path(path).expanduser()
    name, raw = read_raw(path, format=format, options=Options(images=images, boxes=boxes))
    return assemble(here, name, raw, images=images)


def read_raw(path: str | Path, *, format: str = "auto", options: Options | None = None) -> tuple[str, Raw]:
    """The name of the format, and what its reader found, before anything of it is checked."""
    here, options = Path(path).expanduser(), options or Options()
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}", where="data.format", fix=f"one of auto, {', '.join(FORMATS)}")
    if not here.exists():
        raise _not_there(str(path), here)
    if format != "auto":
        return format, FORMATS[format].read(here, options)
    fits = sniff(here)
    if not fits:
        raise _unrecognised(here)
    name, *others = fits
    raw = FORMATS[name].read(here, options)
    if others:
        also = "; ".join(f"format={other} ({fits[other]})" for other in others)
        raw = replace(raw, why=f"{raw.why}; could also be read as {also}")
    return name, raw


def sniff(path: Path) -> dict[str, str]:
    """Every format that a path could be, with the reason, the one that is taken first."""
    reasons = {name: known.sniff(path) for name, known in FORMATS.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _unrecognised(here: Path) -> DataError:
    looked_for = "; ".join(known.looks_for for known in FORMATS.values())
    if here.is_file():
        return DataError(f"{here.name} is no annotation file that is read", where=str(here), fix=f"give {looked_for}")
    contents = name_contents(here)
    return DataError(
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
