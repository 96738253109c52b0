"""One COCO .json file -> its lists, with everything in them checked for form."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.data.coco_layout import EXPECTED
from boxtune.errors import DataError, name_some

Id = int | float | str

_SET = (1, True, "1")


@dataclass(frozen=True, kw_only=True)
class ImageEntry:
    """One entry of `images`. `size_wh` is None where the file declares no usable width and height."""

    image_id: Id
    file_name: str
    size_wh: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class AnnotationEntry:
    """One entry of `annotations`. `xywh` is in pixels; None where there is only a mask."""

    called: str
    image_id: Id
    category_id: Id
    xywh: tuple[float, float, float, float] | None
    from_polygon: bool
    crowd: bool
    ignore: bool


@dataclass(frozen=True, kw_only=True)
class Document:
    """A COCO file: category names by id, images and annotations in file order, and ids that are used twice."""

    path: Path
    categories: Mapping[Id, str]
    images: tuple[ImageEntry, ...]
    annotations: tuple[AnnotationEntry, ...]
    repeated_annotations: tuple[str, ...]


def read_document(path: Path) -> Document:
    """The lists of a COCO file.

    Raises DataError if it is no JSON (with line and column), no COCO, or if an entry lacks an id or has a bbox that is
    not four finite numbers; the message names up to three such entries.
    """
    content = _read_json(path)
    lists = {key: content.get(key) for key in ("images", "annotations", "categories")} if _is_object(content) else {}
    wrong = [f"`{key}`" for key, value in lists.items() if not isinstance(value, list)]
    if wrong or not lists:
        seen = f"without the list {' and '.join(wrong)}" if wrong else f"but a {type(content).__name__}"
        raise DataError(
            f"{path.name} is JSON, {seen}", where=str(path), fix=f"expected is {EXPECTED} (instances, not captions)"
        )
    annotations, repeated = _annotations(lists["annotations"], path)
    return Document(
        path=path,
        categories=_categories(lists["categories"], path),
        images=_images(lists["images"], path),
        annotations=annotations,
        repeated_annotations=repeated,
    )


def _is_object(content: Any) -> bool:
    return isinstance(content, dict)


def _read_json(path: Path) -> Any:
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise DataError(
            f"{path} cannot be read: {problem.strerror}", where=str(path), fix="give a readable .json file"
        ) from problem
    if not raw.strip():
        raise DataError(f"{path.name} is empty", where=str(path), fix=f"expected is {EXPECTED}")
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"{path.name} is not UTF-8 text", where=f"{path}, line {line}", fix="save the file as UTF-8"
        ) from problem
    except json.JSONDecodeError as problem:
        raise DataError(
            f"{path.name} is not JSON: {problem.msg}",
            where=f"{path}, line {problem.lineno}, column {problem.colno}",
            fix="mend the file there, or export it again (a cut-off download ends in the middle)",
        ) from problem


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
        if not _is_object(entry) or not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            wrong.append(f"categories[{place}] has no id or no name")
        elif not entry["name"].strip():
            wrong.append(f"categories[{place}] has an empty name")
        elif names.get(entry["id"], entry["name"].strip()) != entry["name"].strip():
            wrong.append(f"category id {entry['id']!r} is both {names[entry['id']]!r} and {entry['name']!r}")
        else:
            names[entry["id"]] = entry["name"].strip()
    _refuse(path, wrong, "give every category one id and one name")
    return names


def _images(entries: list[Any], path: Path) -> tuple[ImageEntry, ...]:
    images: list[ImageEntry] = []
    wrong = []
    for place, entry in enumerate(entries):
        if not _is_object(entry) or not _is_id(entry.get("id")):
            wrong.append(f"images[{place}] has no id")
        elif not isinstance(entry.get("file_name"), str) or not entry["file_name"].strip():
            wrong.append(f"image {entry['id']!r} has no file_name")
        else:
            size_wh = _size(entry.get("width"), entry.get("height"))
            images.append(ImageEntry(image_id=entry["id"], file_name=entry["file_name"], size_wh=size_wh))
    named: dict[Id, str] = {}
    for image in images:
        if named.setdefault(image.image_id, image.file_name) != image.file_name:
            wrong.append(f"image id {image.image_id!r} is both {named[image.image_id]} and {image.file_name}")
    _refuse(path, wrong, "give every image its own id and a file_name")
    return tuple(images)


def _size(width: Any, height: Any) -> tuple[int, int] | None:
    for side in (width, height):
        if not _is_number(side) or side <= 0 or side != int(side):
            return None
    return int(width), int(height)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _annotations(entries: list[Any], path: Path) -> tuple[tuple[AnnotationEntry, ...], tuple[str, ...]]:
    """The annotations, an entry that is there twice word for word only once, and the names of repeated ids."""
    annotations: list[AnnotationEntry] = []
    wrong: list[str] = []
    repeated: list[str] = []
    seen: dict[Id, list[Any]] = {}
    for place, entry in enumerate(entries):
        has_id = _is_object(entry) and _is_id(entry.get("id"))
        called = f"annotation {entry['id']!r}" if has_id else f"annotations[{place}]"
        problem = _problem(entry)
        if problem:
            wrong.append(f"{called} {problem}")
            continue
        if has_id:
            earlier = seen.setdefault(entry["id"], [])
            if earlier:
                repeated.append(called)
            if entry in earlier:
                continue
            earlier.append(entry)
        annotations.append(_annotation(entry, called))
    _refuse(path, wrong, "mend or remove these annotations; bbox is x, y, width, height in pixels")
    return tuple(annotations), tuple(repeated)


def _problem(entry: Any) -> str:
    if not _is_object(entry):
        return "is no object"
    for key in ("image_id", "category_id"):
        if not _is_id(entry.get(key)):
            return f"has no {key}"
    bbox = entry.get("bbox")
    if bbox is None or bbox == []:
        return "" if entry.get("segmentation") else "has no bbox"
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        return f"has the bbox {str(bbox)[:60]}"
    return ""


def _annotation(entry: dict[str, Any], called: str) -> AnnotationEntry:
    xywh = tuple(float(value) for value in entry.get("bbox") or ())
    from_polygon = not xywh
    if from_polygon:
        xywh = _hull_xywh(entry["segmentation"])
    return AnnotationEntry(
        called=called,
        image_id=entry["image_id"],
        category_id=entry["category_id"],
        xywh=(xywh[0], xywh[1], xywh[2], xywh[3]) if xywh else None,
        from_polygon=from_polygon,
        crowd=entry.get("iscrowd") in _SET,
        ignore=entry.get("ignore") in _SET,
    )


def _hull_xywh(segmentation: Any) -> tuple[float, ...]:
    """x, y, width, height of what the polygons cover; empty for a mask (RLE) or anything that is no polygon."""
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return ()
    values = [value for polygon in segmentation for value in polygon]
    if not values or any(len(polygon) % 2 for polygon in segmentation) or not all(_is_number(v) for v in values):
        return ()
    xs = [x for polygon in segmentation for x in polygon[0::2]]
    ys = [y for polygon in segmentation for y in polygon[1::2]]
    return float(min(xs)), float(min(ys)), float(max(xs) - min(xs)), float(max(ys) - min(ys))
