"""What becomes of images that are missing, broken, or not of the size that was declared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from boxtune.data.frames import AskedFrame, Framed, Headers, check_frames, count_evidence, set_upright
from boxtune.data.images import open_image, read_header
from boxtune.data.sample import Dataset, Sample
from boxtune.data.table import SampleTable, as_table, take_samples
from boxtune.errors import DataError, Finding, name_some

_NAMED = 5  # unusable images that an error names one by one

MAX_LEFT_OUT = 0.01
"""Share of the training images or samples that may be left out, by name (DESIGN section 4)."""
MOST_HEADERS = 50_000
"""Headers that are read of one split, in some ten seconds; of a larger one they are read in equal steps."""


def leave_out_broken(
    dataset: Dataset, *, open_all: bool = False, max_share: float = MAX_LEFT_OUT, frame: AskedFrame = "auto"
) -> Dataset:
    """The data set without its unusable training images, each of them named in a finding, and with upright boxes.

    Unusable is an image that is missing, cannot be identified, or whose size is not the declared one. Boxes drawn on
    the stored picture are turned with it (see `frames.set_upright`, whose `frame` this is). Only headers are read,
    well under a millisecond an image; with `open_all` every image is decoded to its last pixel. Of a split of more
    than 50,000 images headers are read in equal steps, unless one of those shows that boxes have to be moved.

    Raises DataError that names the images if more than `max_share` (0..1) of the training images looked at are
    unusable, or a single one of another split: validation never changes silently.
    """
    tables = {split: as_table(samples) for split, samples in dataset.splits.items()}
    headers = {split: _look(table, open_all, _step(table, open_all, frame)) for split, table in tables.items()}
    framed = _set_upright(tables, headers, frame)
    moving = [s for s, one in framed.items() if one.table is not tables[s] and len(headers[s].places) < len(tables[s])]
    if moving:
        headers.update({split: _look(tables[split], open_all, 1) for split in moving})
        framed = _set_upright(tables, headers, frame)
    bad = {split: {**headers[split].problems, **one.wrong} for split, one in framed.items()}
    for split, problems in bad.items():
        num_seen = len(headers[split].places)
        if len(problems) > (max_share * num_seen + 1e-9 if split == "train" else 0):
            raise _too_many(dataset, split, list(problems.values()), num_seen, max_share)
    splits = {split: _sound(dataset.splits[split], tables[split], one, bad[split]) for split, one in framed.items()}
    where = str(dataset.path)
    findings = check_frames(framed, frame, lambda split, place: Path(tables[split].files[place]).name, where)
    return dataset.with_splits(splits, _left_out(headers, bad, tables, open_all, where), *findings)


def _set_upright(
    tables: Mapping[str, SampleTable], headers: Mapping[str, Headers], frame: AskedFrame
) -> dict[str, Framed]:
    votes = [count_evidence(table, headers[split]) for split, table in tables.items()]
    total = (sum(upright for upright, _ in votes), sum(stored for _, stored in votes))
    return {split: set_upright(table, headers[split], frame, total) for split, table in tables.items()}


def _sound(samples: Sequence[Sample], before: SampleTable, framed: Framed, bad: Mapping[int, str]) -> Sequence[Sample]:
    """The samples without the bad ones; they stay what they are, list or table, unless boxes were moved."""
    kept = samples if framed.table is before else framed.table
    return take_samples(kept, [place for place in range(len(kept)) if place not in bad]) if bad else kept


def _step(table: SampleTable, open_all: bool, frame: AskedFrame) -> int:
    """Every how manieth image is looked at."""
    return 1 if open_all or frame == "stored" else max(1, -(-len(table) // MOST_HEADERS))


def _look(table: SampleTable, open_all: bool, step: int) -> Headers:
    places = np.arange(0, len(table), step)
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        rows = list(pool.map(partial(_read, open_all), (table.files[place] for place in places.tolist())))
    return Headers(
        places=places,
        sizes_wh=np.array([size_wh for size_wh, _, _ in rows], dtype=np.int64).reshape(-1, 2),
        turns=np.array([turn for _, turn, _ in rows], dtype=np.int64),
        problems={place: told for place, (_, _, told) in zip(places.tolist(), rows, strict=True) if told},
    )


def _read(open_all: bool, file: str) -> tuple[tuple[int, int], int, str]:
    """Upright size and EXIF orientation of an image, (0, 0) and 1 with what is wrong where it cannot be read."""
    try:
        size_wh, turn = read_header(file)
        if open_all:
            open_image(file)
    except DataError as problem:
        return (0, 0), 1, problem.what
    return size_wh, turn, ""


def _too_many(dataset: Dataset, split: str, bad: Sequence[str], num_images: int, max_share: float) -> DataError:
    rule = f"up to {max_share:.0%} may be left out" if split == "train" else f"{split} never changes silently"
    more = [f"and {len(bad) - _NAMED} more"] if len(bad) > _NAMED else []
    rows = [f"{len(bad)} of {num_images} images of the {split} split cannot be used ({rule}):", *bad[:_NAMED], *more]
    return DataError(
        "\n    ".join(rows),
        where=str(dataset.path),
        fix="restore these images, or take them out of the annotations",
    )


def _left_out(
    headers: Mapping[str, Headers],
    bad: Mapping[str, Mapping[int, str]],
    tables: Mapping[str, SampleTable],
    open_all: bool,
    where: str,
) -> Finding:
    num_seen, num_images = sum(len(one.places) for one in headers.values()), sum(map(len, tables.values()))
    how = "decoded" if open_all else "headers read"
    if num_seen < num_images:
        how += f" of {num_seen:,} images in equal steps of {num_images:,}; a broken one among the others is left out "
        how += "by name when training meets it"
    problems = list(bad.get("train", {}).values())
    if not problems:
        seen = f"{num_seen} images are there and of the declared size ({how})"
        return Finding(check="image.left_out", level="ok", seen=seen)
    seen = f"{len(problems)} of {len(headers['train'].places)} training images left out ({how}): "
    seen += name_some(problems, limit=20)
    fix = "restore them or take them out of the annotations"
    return Finding(check="image.left_out", level="warn", seen=seen, where=where, fix=fix)
