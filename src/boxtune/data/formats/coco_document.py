"""One COCO .json file -> its lists as columns, with everything in them checked for form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.data.formats.coco_layout import EXPECTED
from boxtune.data.formats.json_files import MOST_SIDE, is_finite
from boxtune.data.formats.json_lists import Piece, iter_lists
from boxtune.errors import DataError, name_some

Id = int | float | str
Ids = Sequence[Any] | Int[np.ndarray, " n"]
"""A column of ids; whole numbers as an array."""

_SET = (1, True, "1")
_LISTS = ("images", "annotations", "categories")


class _Annotation(msgspec.Struct, gc=False):
    """What is read of a usual annotation; anything else is looked at key by key."""

    image_id: int | float | str
    category_id: int | float | str
    bbox: tuple[float, float, float, float]
    id: int | float | str
    iscrowd: int | float | bool | str | None = 0
    ignore: int | float | bool | str | None = 0


class _Image(msgspec.Struct, gc=False):
    id: int | float | str
    file_name: str
    width: int
    height: int


_ANNOTATIONS = msgspec.json.Decoder(list[_Annotation])
_IMAGES = msgspec.json.Decoder(list[_Image])


@dataclass(kw_only=True)
class Annotations:
    """The annotations of a file in its order, as columns of pieces.

    `xywh` is in pixels. `ids` is None where an annotation has no id. `from_polygon` are the rows boxed by their
    polygons, `mask_only` what to call annotations that have a mask alone (they have no row).
    """

    ids: list[Ids] = field(default_factory=list)
    image_ids: list[Ids] = field(default_factory=list)
    category_ids: list[Ids] = field(default_factory=list)
    xywh: list[Float[np.ndarray, "n 4"]] = field(default_factory=list)
    crowd: list[Bool[np.ndarray, " n"]] = field(default_factory=list)
    ignore: list[Bool[np.ndarray, " n"]] = field(default_factory=list)
    from_polygon: list[int] = field(default_factory=list)
    mask_only: list[tuple[Id, str]] = field(default_factory=list)
    num_rows: int = 0
    num_entries: int = 0

    def add(
        self,
        ids: Sequence[Id | None],
        image_ids: Sequence[Id],
        category_ids: Sequence[Id],
        xywh: Float[np.ndarray, "n 4"],
        crowd: Sequence[bool],
        ignore: Sequence[bool],
    ) -> None:
        """Some more rows. Whole numbers become arrays, at a quarter of the memory."""
        for column, values in ((self.ids, ids), (self.image_ids, image_ids), (self.category_ids, category_ids)):
            column.append(_compact(values))
        self.xywh.append(xywh)
        self.crowd.append(np.array(crowd, dtype=bool))
        self.ignore.append(np.array(ignore, dtype=bool))
        self.num_rows += len(xywh)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A COCO file: category names by id, and images and annotations in file order.

    `sizes_wh` is None where an image declares no usable width and height.
    """

    path: Path
    categories: Mapping[Id, str]
    image_ids: Sequence[Id]
    file_names: Sequence[str]
    sizes_wh: Sequence[tuple[int, int] | None]
    annotations: Annotations


def read_document(path: Path) -> Document:
    """The lists of a COCO file, read in pieces, so that a file of gigabytes needs no more memory than its numbers.

    Raises DataError if it is no JSON (with line and column), no COCO, or if an entry lacks an id or has a bbox that is
    not four finite numbers; the message names up to three such entries.
    """
    images = _Images(path)
    annotations, wrong = Annotations(), []
    categories: list[Any] = []
    for piece in iter_lists(path, _LISTS, EXPECTED):
        if not isinstance(piece, Piece):
            missing = [f"`{key}`" for key in _LISTS if not isinstance(piece.get(key), list)]
            if missing:
                what = f"{path.name} is JSON, without the list {' and '.join(missing)}"
                fix = f"expected is {EXPECTED} (instances, not captions)"
                raise DataError(what, where=str(path), fix=fix)
        elif piece.key == "images":
            images.add(piece)
        elif piece.key == "annotations":
            wrong += _add_annotations(annotations, piece)
        else:
            categories += piece.parse()
    images.check()
    _refuse(path, wrong, "mend or remove these annotations; bbox is x, y, width, height in pixels")
    return Document(
        path=path,
        categories=_categories(categories, path),
        image_ids=images.ids,
        file_names=images.names,
        sizes_wh=images.sizes_wh,
        annotations=annotations,
    )


def _compact(values: Sequence[Any]) -> Ids:
    if set(map(type, values)) == {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            return values
    return values


def _refuse(path: Path, wrong: Iterable[str], fix: str) -> None:
    rows = list(wrong)
    if rows:
        raise DataError(
            f"entries of {path.name} that cannot be read: {len(rows)} ({name_some(rows)})", where=str(path), fix=fix
        )


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _categories(entries: list[Any], path: Path) -> dict[Id, str]:
    names: dict[Id, str] = {}
    wrong = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            wrong.append(f"categories[{place}] has no id or no name")
        elif not entry["name"].strip():
            wrong.append(f"categories[{place}] has an empty name")
        elif names.get(entry["id"], entry["name"].strip()) != entry["name"].strip():
            wrong.append(f"category id {entry['id']!r} is both {names[entry['id']]!r} and {entry['name']!r}")
        else:
            names[entry["id"]] = entry["name"].strip()
    _refuse(path, wrong, "give every category one id and one name")
    return names


class _Images:
    """The columns of `images` while they are read, and what is wrong with entries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: list[Id] = []
        self.names: list[str] = []
        self.sizes_wh: list[tuple[int, int] | None] = []
        self.wrong: list[str] = []

    def add(self, piece: Piece) -> None:
        try:
            usual = _IMAGES.decode(piece.text)
        except msgspec.MsgspecError:
            for place, entry in enumerate(piece.parse(), start=len(self.ids) + len(self.wrong)):
                self._add(place, entry)
            return
        for image in usual:
            if not image.file_name.strip():
                self.wrong.append(f"image {image.id!r} has no file_name")
                continue
            self.ids.append(image.id)
            self.names.append(image.file_name)
            sound = 0 < image.width <= MOST_SIDE and 0 < image.height <= MOST_SIDE
            self.sizes_wh.append((image.width, image.height) if sound else None)

    def _add(self, place: int, entry: Any) -> None:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")):
            self.wrong.append(f"images[{place}] has no id")
        elif not isinstance(entry.get("file_name"), str) or not entry["file_name"].strip():
            self.wrong.append(f"image {entry['id']!r} has no file_name")
        else:
            self.ids.append(entry["id"])
            self.names.append(entry["file_name"])
            self.sizes_wh.append(_size(entry.get("width"), entry.get("height")))

    def check(self) -> None:
        """Raises DataError if an entry cannot be read, or one id stands for two files."""
        named: dict[Id, str] = {}
        for number, name in zip(self.ids, self.names, strict=True):
            if named.setdefault(number, name) != name:
                self.wrong.append(f"image id {number!r} is both {named[number]} and {name}")
        _refuse(self.path, self.wrong, "give every image its own id and a file_name")


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    for side in (width, height):
        if not is_finite(side) or not 0 < side <= MOST_SIDE or side != int(side):
            return None
    return int(width), int(height)


def _add_annotations(into: Annotations, piece: Piece) -> list[str]:
    """Add the annotations of a piece; what is wrong with those that cannot be read."""
    try:
        usual = _ANNOTATIONS.decode(piece.text)
    except msgspec.MsgspecError:
        return _add_one_by_one(into, piece.parse())
    numbers = np.fromiter(chain.from_iterable(entry.bbox for entry in usual), np.float64, 4 * len(usual))
    into.add(
        [entry.id for entry in usual],
        [entry.image_id for entry in usual],
        [entry.category_id for entry in usual],
        numbers.reshape(-1, 4),
        [entry.iscrowd in _SET for entry in usual],
        [entry.ignore in _SET for entry in usual],
    )
    into.num_entries += len(usual)
    return []


def _add_one_by_one(into: Annotations, entries: list[Any]) -> list[str]:
    wrong: list[str] = []
    rows: list[dict[str, Any]] = []
    boxes: list[tuple[float, ...]] = []
    for place, entry in enumerate(entries, start=into.num_entries):
        has_id = isinstance(entry, dict) and _is_id(entry.get("id"))
        called = f"annotation {entry['id']!r}" if has_id else f"annotations[{place}]"
        if problem := _problem(entry):
            wrong.append(f"{called} {problem}")
            continue
        xywh = tuple(float(value) for value in entry.get("bbox") or ())
        if not xywh:
            xywh = _hull_xywh(entry["segmentation"])
            if not xywh:
                into.mask_only.append((entry["image_id"], called))
                continue
            into.from_polygon.append(into.num_rows + len(rows))
        rows.append(entry)
        boxes.append(xywh)
    into.num_entries += len(entries)
    into.add(
        [entry["id"] if _is_id(entry.get("id")) else None for entry in rows],
        [entry["image_id"] for entry in rows],
        [entry["category_id"] for entry in rows],
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        [entry.get("iscrowd") in _SET for entry in rows],
        [entry.get("ignore") in _SET for entry in rows],
    )
    return wrong


def _problem(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "is no object"
    for key in ("image_id", "category_id"):
        if not _is_id(entry.get(key)):
            return f"has no {key}"
    bbox = entry.get("bbox")
    if bbox is None or bbox == []:
        return "" if entry.get("segmentation") else "has no bbox"
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_finite(value) for value in bbox):
        return f"has the bbox {str(bbox)[:60]}"
    return ""


def _hull_xywh(segmentation: Any) -> tuple[float, ...]:
    """x, y, width, height of what the polygons cover; empty for a mask (RLE) or anything that is no polygon."""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return ()
    values = [value for polygon in segmentation for value in polygon]
    if not values or any(len(polygon) % 2 for polygon in segmentation) or not all(is_finite(v) for v in values):
        return ()
    xs = [x for polygon in segmentation for x in polygon[0::2]]
    ys = [y for polygon in segmentation for y in polygon[1::2]]
    return float(min(xs)), float(min(ys)), float(max(xs) - min(xs)), float(max(ys) - min(ys))
