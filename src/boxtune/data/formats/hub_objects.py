"""The objects of a row in a hub data set: where its boxes and classes stand, and the objects one by one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boxtune.data.formats.hub_tables import Row, Table, parse_text
from boxtune.data.formats.json_files import is_finite
from boxtune.errors import DataError, name_some

_COLUMNS = ("objects", "object", "annotations", "annotation", "instances", "detections", "labels", "bboxes", "boxes")
_BOXES = ("bbox", "bboxes", "boxes", "box", "bounding_box", "bounding_boxes")
_NAMES = ("category_name", "class_name", "label_name", "category", "label", "class", "name")
_LABELS = (
    *(form for name in _NAMES for form in (name, f"{name}s")),
    *("categories", "classes", "category_names", "class_names", "label_names"),
    *(form for name in ("category", "class", "label") for form in (f"{name}_id", f"{name}_ids")),
    *("class_label", "class_labels"),
)
_CROWDS = ("iscrowd", "is_crowd")
_AREAS = ("area", "areas")

# Four named numbers say their order themselves.
_FIELDS = {
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("x_min", "y_min", "x_max", "y_max"): "xyxy",
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("x0", "y0", "x1", "y1"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy",
    ("x", "y", "width", "height"): "xywh",
    ("x", "y", "w", "h"): "xywh",
    ("left", "top", "width", "height"): "xywh",
    ("x_center", "y_center", "width", "height"): "cxcywh",
    ("cx", "cy", "w", "h"): "cxcywh",
}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One object: four numbers, their order where they are named, its class as a name or a number, None if none."""

    numbers: tuple[float, float, float, float]
    order: str | None
    label: str | int | None
    label_key: str
    crowd: bool
    area: float | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the boxes stand: the key of the box, in the column `column`, or, where that is None, a column itself."""

    column: str | None
    box: str

    def __str__(self) -> str:
        return self.box if self.column is None else f"{self.column}.{self.box}"


def find_objects(table: Table) -> Place | None:
    """Where a table keeps its boxes; None if it has none."""
    for column in _COLUMNS:
        for box in _BOXES:
            if box in table.columns.get(column, ()):
                return Place(column=column, box=box)
    alone = next((name for name in _BOXES if name in table.columns), None)
    return None if alone is None else Place(column=None, box=alone)


def iter_things(row: Row, place: Place, where: str) -> Iterator[Thing]:
    """The objects of a row; DataError with `where` if lists differ in length or a box is not four finite numbers."""
    for number, entry in enumerate(_entries(row, place, where)):
        here = f"{where}, object {number}"
        numbers, order = _numbers(entry[place.box], here)
        label, key = _label(entry)
        areas = [value for name in _AREAS if is_finite(value := entry.get(name))]
        crowd = any(entry.get(name) in (1, True) for name in _CROWDS)
        yield Thing(
            numbers=numbers,
            order=order,
            label=label,
            label_key=key,
            crowd=crowd,
            area=float(areas[0]) if areas else None,
        )


def _entries(row: Row, place: Place, where: str) -> list[Mapping[str, Any]]:
    """Each object as a mapping, whether the row holds a list of them, or a list for each of their fields."""
    value: Any = row if place.column is None else row.get(place.column)
    if isinstance(value, str):
        value = parse_text(value) if value.strip() else None
        if value is None and row[place.column or ""].strip():
            raise _unreadable(f"{place.column} is text that is no list or object", where)
    if value is None or (isinstance(value, Mapping) and value.get(place.box) is None):
        return []
    if isinstance(value, Mapping):
        return _by_object(value, place, where)
    if not isinstance(value, list) or not all(isinstance(one, Mapping) and place.box in one for one in value):
        raise _unreadable(f"not every object has a {place.box}", where)
    return value


def _by_object(fields: Mapping[str, Any], place: Place, where: str) -> list[Mapping[str, Any]]:
    keys = [place.box, *(name for name in (*_LABELS, *_CROWDS, *_AREAS) if fields.get(name) is not None)]
    values = {
        key: parse_text(fields[key]) if isinstance(fields[key], str) and key == place.box else fields[key]
        for key in keys
    }
    boxes = values[place.box]
    if isinstance(boxes, Mapping) or (isinstance(boxes, list) and boxes and isinstance(boxes[0], int | float)):
        return [
            {
                key: value[0] if key != place.box and isinstance(value, list) and value else value
                for key, value in values.items()
            }
        ]
    if not isinstance(boxes, list):
        raise _unreadable(f"{place} is {boxes!r}, no list of boxes", where)
    lists = {key: value for key, value in values.items() if isinstance(value, list)}
    lengths = {key: len(value) for key, value in lists.items()}
    wrong = [f"{length} {key}" for key, length in lengths.items() if length != len(boxes)]
    if wrong:
        raise _unreadable(f"there are {len(boxes)} {place.box} but {name_some(wrong)}", where)
    return [{key: value[number] for key, value in lists.items()} for number in range(len(boxes))]


def _numbers(box: Any, where: str) -> tuple[tuple[float, float, float, float], str | None]:
    order = None
    if isinstance(box, Mapping):
        names = next((names for names in _FIELDS if all(name in box for name in names)), None)
        if names is None:
            raise _unreadable(f"a box has the fields {name_some(box)}", where)
        box, order = [box[name] for name in names], _FIELDS[names]
    if not isinstance(box, list | tuple) or len(box) != 4:
        raise _unreadable(f"a box is {box!r}, not four numbers", where)
    if not all(map(is_finite, box)):
        raise _unreadable(f"a box is {str(list(box))[:80]}, not four finite numbers", where)
    x, y, third, fourth = (float(value) for value in box)
    return (x, y, third, fourth), order


def _label(entry: Mapping[str, Any]) -> tuple[str | int | None, str]:
    """The class of an object: a name goes before a number, whichever key it stands under."""
    there = [(entry[key], key) for key in _LABELS if entry.get(key) is not None]
    for value, key in there:
        if isinstance(value, str) and value.strip():
            return value, key
    for value, key in there:
        if is_finite(value) and value == math.floor(value):
            return int(value), key
    return None, ""


def class_names(features: Any, key: str) -> Mapping[int, str] | None:
    """The names that the features of the datasets library give the numbers under `key`; None if they give none.

    Raises ValueError if neither side of a mapping of names is whole numbers.
    """
    if isinstance(features, Mapping):
        if key in features and (names := _class_label(features[key])) is not None:
            return names
        # The card (README.md) writes [{"name": key, "dtype": {"class_label": {"names": {"0": ...}}}}] instead.
        if features.get("name") == key and (names := _class_label(features)) is not None:
            return names
    inner: Iterable[Any] = ()
    if isinstance(features, Mapping):
        inner = features.values()
    elif isinstance(features, Sequence) and not isinstance(features, str):
        inner = features
    return next((names for one in inner if (names := class_names(one, key)) is not None), None)


def number_names(names: Mapping[Any, Any]) -> Mapping[int, str]:
    """Number -> name, of a mapping in either direction, in the order of the numbers; ValueError if it is neither."""
    for pairs in (list(names.items()), [(number, name) for name, number in names.items()]):
        if all(re.fullmatch(r"-?[0-9]{1,9}", str(number)) for number, _ in pairs):
            return {int(number): str(name) for number, name in sorted(pairs, key=lambda pair: int(pair[0]))}
    raise ValueError(f"names are {str(dict(names))[:60]}, neither numbers with names nor names with numbers")


def _class_label(feature: Any) -> Mapping[int, str] | None:
    if isinstance(feature, Mapping):
        names = feature.get("names")
        if isinstance(names, list) and (feature.get("_type") == "ClassLabel" or "dtype" not in feature):
            return dict(enumerate(map(str, names)))
        if isinstance(names, Mapping):
            return number_names(names)
        return next((found for one in feature.values() if (found := _class_label(one)) is not None), None)
    if isinstance(feature, list):
        return next((found for one in feature if (found := _class_label(one)) is not None), None)
    return None


def _unreadable(what: str, where: str) -> DataError:
    fix = "write objects as {bbox: [[x, y, w, h], ...], category: [...]}"
    return DataError(what, where=where, fix=fix)
