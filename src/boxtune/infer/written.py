"""Answers of all images -> the files that were asked for, all or nothing, whoever else is about to write them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image

from boxtune.artifacts import read_json, write_json
from boxtune.boxes import Boxes
from boxtune.data import open_image
from boxtune.errors import DataError
from boxtune.infer.shards import Answered, alone
from boxtune.infer.sources import Listing
from boxtune.infer.writers import WRITERS, About, JsonList, Labelled, trim_boxes
from boxtune.pictures import draw_boxes


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """The folder of drawn images, which lie there as the images lie below their common folder."""

    folder: Path
    listing: Listing

    def path(self, place: int) -> Path:
        """The file of the drawing of the image at a place."""
        return self.folder / f"{self.listing.name(place)}.jpg"

    def draw(self, place: int, image: Image, boxes: Boxes) -> None:
        """Write the drawing of an image; what is there of it is always whole."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        picture = draw_boxes(image, None, boxes, caption=os.path.basename(self.listing.files[place]))
        picture.save(part, format="JPEG", quality=90)
        part.replace(path)


def write_all(
    out: Path,
    formats: Sequence[str],
    listing: Listing,
    found: Answered,
    about: About,
    drawings: Drawings | None,
) -> list[Path]:
    """What was written of each format, in the order of `formats`; it is printed too.

    Only one process of all writes at a time, and what is there is always whole. What is there from the very same
    answers stays as it is. A data set that is there from others stays too, since somebody may have corrected it:
    DataError says so once everything else is written.
    """
    written, in_the_way = [], []
    with alone(out / "answers"):
        record = out / "answers" / "written.json"
        digests = read_json(record) if record.is_file() else {}
        digest = _digest(listing, found, about)
        for name in formats:
            target = out / ("predictions.json" if name == "json" else name)
            written.append(target)
            if target.exists() and digests.get(name) == digest:
                print(f"{name}: {target}, as it was")
                continue
            if name != "json" and target.exists():
                in_the_way.append(target)
                continue
            lines = _write_rows(target, found) if name == "json" else _write_set(target, name, listing, found, about)
            digests[name] = digest
            write_json(record, digests)
            print("\n  ".join([f"{name}: {target}", *lines]))
        if drawings is not None:
            _draw_missing(drawings, listing, found)
            print(f"drawn: {drawings.folder}")
    if in_the_way:
        raise DataError(
            "there is a data set already that was not written from these answers; it may hold corrections",
            where=", ".join(map(str, in_the_way)),
            fix="move it away; the same command then writes it, and answers nothing again",
        )
    return written


def _digest(listing: Listing, found: Answered, about: About) -> str:
    """A digest of what the files are made of: another one means that they would be others."""
    digest = hashlib.sha256(json.dumps(asdict(about)).encode())
    for file in listing.files:
        digest.update(os.fsencode(file) + b"\0")
    # The order of the files is that of their times.
    names = sorted(path.name for path in found.paths)
    order = np.array([names.index(path.name) for path in found.paths], dtype=np.int64)
    for column in (order[found.which], found.offsets, found.failed):
        digest.update(column.tobytes())
    return digest.hexdigest()[:24]


def _write_rows(target: Path, found: Answered) -> list[str]:
    part = target.with_name(f".{target.name}.part")
    with part.open("wb") as file:
        rows = JsonList(file)
        for row in found.rows(range(len(found.which))):
            rows.add({key: value for key, value in row.items() if key not in ("stamp", "turn")})
        rows.close()
        file.write(b"\n")
    part.replace(target)
    return []


def _write_set(target: Path, name: str, listing: Listing, found: Answered, about: About) -> list[str]:
    part = target.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed: nobody else is here
    part.mkdir()
    flat: list[int] = []
    lines = WRITERS[name](part, _iter_labelled(listing, found, flat), about)
    part.rename(target)
    failed = int(found.failed.sum())
    lines += [f"{failed:,} images that could not be answered are left out"] if failed else []
    return lines + ([f"{sum(flat):,} boxes without area are left out"] if sum(flat) else [])


def _iter_labelled(listing: Listing, found: Answered, flat: list[int]) -> Iterator[Labelled]:
    """The images that were answered; `flat` is given how many boxes of each have no area."""
    places = np.flatnonzero(~found.failed)
    for place, row in zip(places.tolist(), found.rows(places), strict=True):
        boxes, num_flat = trim_boxes(row)
        flat.append(num_flat)
        yield Labelled(
            image_id=place + 1 if listing.image_ids is None else int(listing.image_ids[place]),
            file=listing.files[place],
            name=listing.name(place),
            turned="turn" in row,
            size_wh=(row["width"], row["height"]),
            boxes=boxes,
        )


def _draw_missing(drawings: Drawings, listing: Listing, found: Answered) -> None:
    """Draw what was answered before drawings were asked for."""
    places = [place for place in np.flatnonzero(~found.failed).tolist() if not drawings.path(place).is_file()]
    for place, row in zip(places, found.rows(places), strict=True):
        scores = [box["score"] for box in row["boxes"]]
        boxes = Boxes(
            xyxy_px=np.array([box["xyxy_px"] for box in row["boxes"]], dtype=np.float64).reshape(-1, 4),
            labels=tuple(box["label"] for box in row["boxes"]),
            scores=None if None in scores else np.array(scores, dtype=np.float64),
        )
        try:
            image = open_image(listing.files[place])
        except DataError as error:
            print(f"not drawn: {error.what}")
            continue
        drawings.draw(place, image, boxes)
