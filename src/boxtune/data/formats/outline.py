"""Shapes that annotation tools draw -> the upright box around each, as x1, y1, x2, y2."""

from __future__ import annotations

import math
from collections.abc import Sequence

Corners = tuple[float, float, float, float]


def box_around(points: Sequence[Sequence[float]]) -> Corners:
    """The hull of points x, y; there must be one at least."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def box_around_rotated(xywh: Sequence[float], radians: float, *, pivot: tuple[float, float]) -> Corners:
    """The hull of a rectangle x, y, width, height that is turned clockwise (y points down) around `pivot`."""
    x, y, width, height = xywh
    cos, sin = math.cos(radians), math.sin(radians)
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    arms = [(cx - pivot[0], cy - pivot[1]) for cx, cy in corners]
    return box_around([(pivot[0] + cos * a - sin * b, pivot[1] + sin * a + cos * b) for a, b in arms])


def box_around_ellipse(cx: float, cy: float, rx: float, ry: float, radians: float = 0.0) -> Corners:
    """The hull of an ellipse whose first axis is turned by that angle from the x axis."""
    half_width = math.hypot(rx * math.cos(radians), ry * math.sin(radians))
    half_height = math.hypot(rx * math.sin(radians), ry * math.cos(radians))
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height
