"""Regions of a Label Studio annotation -> labels and corners in percent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from boxtune.data.draft import Size
from boxtune.data.formats.json_files import as_number, as_numbers, as_size
from boxtune.data.formats.outline import Corners, box_around, box_around_ellipse, box_around_rotated

_SHAPES = ("rectangle", "polygon", "ellipse", "brush", "keypoint", "video", "bitmask", "vector")
_CHANNELS = 4  # a brush is kept as red, green, blue and alpha of every pixel


@dataclass(frozen=True, kw_only=True)
class Region:
    """What the items of one region say together; `shape` is the first of them that has one.

    `source` is the name of the image tag that it lies on and `item` the place in a list of images, None where the
    export does not say. `called` names it in messages.
    """

    called: str
    kind: str
    shape: Mapping[str, Any]
    labels: Sequence[str]
    source: str | None
    item: int | None
    size_wh: Size | None


def gather_regions(result: Sequence[Any]) -> list[Region]:
    """The regions of an annotation, in its order; a shape, its label and its text are items of one id."""
    groups: dict[object, list[Mapping[str, Any]]] = {}
    for place, item in enumerate(result):
        if isinstance(item, Mapping):
            number = item.get("id")
            known = isinstance(number, str | int) and number != ""
            groups.setdefault(number if known else f"number {place}", []).append(item)
    regions = []
    for key, items in groups.items():
        shaped = [(item, kind) for item in items if (kind := _kind(item)) is not None]
        if not shaped:
            continue  # a choice or a text about the whole image
        item, kind = shaped[0]
        value = item["value"] if isinstance(item.get("value"), Mapping) else {}
        source, item_index = item.get("to_name"), item.get("item_index")
        regions.append(
            Region(
                called=repr(key) if isinstance(key, str) else str(key),
                kind=kind,
                shape=value,
                labels=_labels(items),
                source=source if isinstance(source, str) else None,
                item=item_index if isinstance(item_index, int) else None,
                size_wh=as_size(item.get("original_width"), item.get("original_height"))
                or as_size(value.get("original_width"), value.get("original_height")),
            )
        )
    return regions


def _kind(item: Mapping[str, Any]) -> str | None:
    """What an item draws: a key of `_SHAPES`, None if nothing. The value tells, since a label repeats the shape."""
    value = item.get("value")
    named = next((shape for shape in _SHAPES if str(item.get("type", "")).startswith(shape)), None)
    if not isinstance(value, Mapping):
        return named
    if named in ("keypoint", "video", "vector", "bitmask") or "sequence" in value or "vertices" in value:
        return named or "video"
    if "imageDataURL" in value:
        return "bitmask"
    for key, kind in (("rle", "brush"), ("points", "polygon"), ("radiusX", "ellipse")):
        if key in value:
            return kind
    return "rectangle" if "x" in value and "width" in value and "height" in value else named


def _labels(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """The labels that any item of a region gives it; choices made for it count where there are no labels."""
    found = {False: list[str](), True: list[str]()}
    for item in items:
        value = item.get("value")
        for key, names in value.items() if isinstance(value, Mapping) else ():
            if isinstance(names, list) and (key.endswith("labels") or key == "choices"):
                found[key == "choices"] += [name for name in names if isinstance(name, str) and name.strip()]
    return list(dict.fromkeys(found[False] or found[True]))


def has_box(region: Region) -> bool:
    """Whether there is a box around a region: it is no key point, video, line or mask kept as a file."""
    return region.kind in ("rectangle", "polygon", "ellipse", "brush") and region.shape.get("closed") is not False


def is_upright(region: Region) -> bool:
    """Whether a region is a box itself, and no hull has to be taken."""
    return region.kind == "rectangle" and not _angle(region)


def _angle(region: Region) -> float:
    """The turn, clockwise, in radians."""
    return math.radians((as_number(region.shape.get("rotation")) or 0.0) % 360.0)


def corners_percent(region: Region) -> Corners:
    """The upright box around a region, in percent of the image's sides.

    Turned shapes are turned in pixels, around the upper left corner (rectangles) or the centre (ellipses). Raises
    ValueError that says what is missing.
    """
    value, angle = region.shape, _angle(region)
    if region.kind == "polygon":
        points = [as_numbers(point, 2) for point in value["points"]] if isinstance(value["points"], list) else []
        sound = [point for point in points if point is not None]
        if not sound or len(sound) < len(points):
            raise ValueError("has no list of points x, y")
        return box_around(sound)
    if region.kind == "brush":
        return _corners_of_brush(region)
    keys = ("x", "y", "width", "height") if region.kind == "rectangle" else ("x", "y", "radiusX", "radiusY")
    numbers = as_numbers([value.get(key) for key in keys])
    if numbers is None:
        raise ValueError(f"lacks a number of {', '.join(keys)}")
    if not angle and region.kind == "rectangle":
        return numbers[0], numbers[1], numbers[0] + numbers[2], numbers[1] + numbers[3]
    if angle and region.size_wh is None:
        raise ValueError("is turned, but lacks original_width and original_height")
    sides = region.size_wh or (100, 100)
    a, b, c, d = (number * side / 100 for number, side in zip(numbers, sides * 2, strict=True))
    turned = (
        box_around_rotated((a, b, c, d), angle, pivot=(a, b))
        if region.kind == "rectangle"
        else box_around_ellipse(a, b, c, d, angle)
    )
    return _to_percent(turned, sides)


def _to_percent(corners: Corners, sides: Size) -> Corners:
    width, height = sides
    x1, y1, x2, y2 = corners
    return x1 / width * 100, y1 / height * 100, x2 / width * 100, y2 / height * 100


def _corners_of_brush(region: Region) -> Corners:
    if region.size_wh is None:
        raise ValueError("is a brush without original_width and original_height")
    width, height = region.size_wh
    rle = region.shape.get("rle")
    if not isinstance(rle, list) or not all(isinstance(one, int) and 0 <= one <= 255 for one in rle):
        raise ValueError("is a brush without a list of bytes")
    mask = decode_brush(np.array(rle, dtype=np.uint8), width * height * _CHANNELS)
    ys, xs = np.nonzero(mask.reshape(height, width, _CHANNELS)[..., -1])
    if not len(xs):
        raise ValueError("is a brush that paints nothing")
    return _to_percent((float(xs.min()), float(ys.min()), float(xs.max()) + 1, float(ys.max()) + 1), region.size_wh)


def decode_brush(rle: UInt8[np.ndarray, " n"], count: int) -> Bool[np.ndarray, " count"]:
    """Which of the values of a brush are not zero.

    The bits are: the number of values (32), the bits of a value less one (5), and four lengths less one (4 each); then
    runs of: whether a single value is repeated (1), which of the four lengths its count has (2), the count less one,
    and the value, or as many values. Raises ValueError if they are cut off or are not `count` values.
    Source: the rle-pack package of thi.ng, which Label Studio uses
    """
    bits = np.unpackbits(rle)
    at = 0

    def take(length: int) -> int:
        nonlocal at
        if at + length > len(bits):
            raise ValueError("is a brush whose bytes are cut off")
        piece = bits[at : at + length]
        at += length
        return int("".join(map(str, piece.tolist())), 2)

    if take(32) != count:
        raise ValueError("is a brush of another size than original_width and original_height")
    length_of_value = take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    values = np.zeros(count, dtype=bool)
    place = 0
    while place < count:
        repeated = take(1)
        run = take(lengths[take(2)]) + 1
        if repeated:
            values[place : place + run] = take(length_of_value) > 0
        else:
            if at + run * length_of_value > len(bits):
                raise ValueError("is a brush whose bytes are cut off")
            piece = bits[at : at + run * length_of_value].reshape(run, length_of_value)
            at += run * length_of_value
            values[place : place + run] = (piece.max(axis=1) > 0)[: count - place]
        place += run
    return values
