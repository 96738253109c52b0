"""The shapes of CVAT's XML -> the upright box around each."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping

from boxtune.data.formats.outline import Corners, box_around, box_around_ellipse, box_around_rotated
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.xml_files import read_number
from boxtune.errors import Level

REMARKS: dict[str, tuple[Level, str, str]] = {
    "cvat.hull": ("ok", "polygons, ellipses, masks and turned boxes, taken by their upright hull", ""),
    "cvat.left_out": ("warn", "points, lines and other shapes that are no boxes, left out", ""),
    "cvat.unlabelled": ("warn", "shapes without a label, left out", "label them"),
    "cvat.between": ("ok", "boxes between key frames, placed in a straight line as CVAT does", ""),
    "cvat.no_frame": ("warn", "boxes of frames that are not there as images, left out", "add the frames"),
}
_LEFT_OUT = ("polyline", "points", "cuboid", "skeleton")


def read_shape(shape: ET.Element, label: str, called: str, remarks: Remarks) -> Corners | None:
    """The box around a shape, or None, with a remark or a fault, where it is none or has no label."""
    if shape.tag in _LEFT_OUT:
        remarks.add("cvat.left_out", called)
        return None
    if shape.tag not in _CORNERS:
        return None  # a tag is of the whole image, an attribute of the track
    corners = _CORNERS[shape.tag](shape.attrib)
    if corners is None:
        remarks.fault(f"{called}: {ET.tostring(shape, encoding='unicode').strip()[:120]}")
    elif not label:
        remarks.add("cvat.unlabelled", called)
        return None
    elif shape.tag != "box" or read_number(shape.get("rotation")):
        remarks.add("cvat.hull", called)
    return corners


def _numbers(shape: Mapping[str, str], *names: str) -> list[float] | None:
    numbers = [read_number(shape.get(name)) for name in names]
    return None if None in numbers else [number for number in numbers if number is not None]


def _angle(shape: Mapping[str, str]) -> float | None:
    """The rotation in radians, clockwise; 0 where none is given, None where it is no number."""
    degrees = read_number(shape.get("rotation", "0"))
    return None if degrees is None else math.radians(degrees)


def _box(shape: Mapping[str, str]) -> Corners | None:
    """The upright hull of a <box>, which CVAT turns clockwise around its centre; None if a number is missing."""
    numbers, angle = _numbers(shape, "xtl", "ytl", "xbr", "ybr"), _angle(shape)
    if numbers is None or angle is None:
        return None
    x1, y1, x2, y2 = numbers
    if not angle:
        return x1, y1, x2, y2
    return box_around_rotated((x1, y1, x2 - x1, y2 - y1), angle, pivot=((x1 + x2) / 2, (y1 + y2) / 2))


def _polygon(shape: Mapping[str, str]) -> Corners | None:
    """The hull of a <polygon>, whose points are written `x,y;x,y`; None if there are no three, or one is broken."""
    pairs = [text.split(",") for text in shape.get("points", "").split(";") if text.strip()]
    points = [[number for value in pair if (number := read_number(value)) is not None] for pair in pairs]
    if len(points) < 3 or any(len(pair) != 2 for pair in pairs) or any(len(point) != 2 for point in points):
        return None
    return box_around(points)


def _ellipse(shape: Mapping[str, str]) -> Corners | None:
    """The hull of an <ellipse>; None if a number is missing."""
    numbers, angle = _numbers(shape, "cx", "cy", "rx", "ry"), _angle(shape)
    if numbers is None or angle is None:
        return None
    cx, cy, rx, ry = numbers
    return box_around_ellipse(cx, cy, rx, ry, angle)


def _mask(shape: Mapping[str, str]) -> Corners | None:
    """The rectangle that a <mask> is cut out of, which is as small as it can be; None if a number is missing."""
    numbers = _numbers(shape, "left", "top", "width", "height")
    if numbers is None:
        return None
    left, top, width, height = numbers
    return left, top, left + width, top + height


_CORNERS: dict[str, Callable[[Mapping[str, str]], Corners | None]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}
