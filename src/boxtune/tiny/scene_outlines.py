"""Signed distance fields of closed curves and strokes, and the curves of the plain shapes.

Frame: a sprite's own, x right, y down, its thing filling -1..1 in both; the field reaches out to `REACH`. Distances
are in that frame, negative inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

REACH = 96 / 83
Loop = Float[np.ndarray, "_ 2"]


def points(side: int) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, "s s"]]:
    """x and y of the texels' middles in the sprite's frame."""
    line = ((np.arange(side) + 0.5) / side * 2 - 1) * REACH
    x, y = np.meshgrid(line, line)
    return x, y


def _to_segments(
    x: Float[np.ndarray, " m"], y: Float[np.ndarray, " m"], a: Float[np.ndarray, "k 2"], b: Float[np.ndarray, "k 2"]
) -> Float[np.ndarray, " m"]:
    """Distance from each point to the nearest of the segments."""
    dx, dy = (b - a)[:, :1], (b - a)[:, 1:]
    px, py = x[None] - a[:, :1], y[None] - a[:, 1:]
    along = np.clip((px * dx + py * dy) / np.maximum(dx * dx + dy * dy, 1e-9), 0, 1)
    return np.sqrt(((px - along * dx) ** 2 + (py - along * dy) ** 2).min(axis=0))


def loops_sdf(loops: Sequence[Loop], side: int) -> Float[np.ndarray, "s s"]:
    """The field of the area within an odd number of the closed curves."""
    x, y = (axis.ravel() for axis in points(side))
    a = np.concatenate(list(loops))
    b = np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])
    rising = (a[:, 1:] > y) != (b[:, 1:] > y)
    slope = (b[:, :1] - a[:, :1]) / np.where(a[:, 1:] == b[:, 1:], 1e-9, b[:, 1:] - a[:, 1:])
    inside = (rising & (x < a[:, :1] + (y - a[:, 1:]) * slope)).sum(axis=0) % 2 == 1
    return np.where(inside, -1, 1).reshape(side, side) * _to_segments(x, y, a, b).reshape(side, side)


def strokes_sdf(lines: Sequence[Loop], width: float, side: int) -> Float[np.ndarray, "s s"]:
    """The field of polylines drawn with a round pen of that width."""
    x, y = (axis.ravel() for axis in points(side))
    a = np.concatenate([line[:-1] for line in lines])
    b = np.concatenate([line[1:] for line in lines])
    return _to_segments(x, y, a, b).reshape(side, side) - width / 2


def box_sdf(side: int, *, corner: float = 0.0) -> Float[np.ndarray, "s s"]:
    """The field of the whole square -1..1, its corners rounded by that radius."""
    x, y = points(side)
    dx, dy = np.abs(x) - (1 - corner), np.abs(y) - (1 - corner)
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def fit(loops: Sequence[Loop], pad: float = 0.0) -> tuple[list[Loop], float]:
    """The curves scaled to fill -1..1 less `pad` in both axes, and their own width over height."""
    low, high = (f(np.concatenate(list(loops)), axis=0) for f in (np.min, np.max))
    span = high - low
    return [((loop - low) / span * 2 - 1) * (1 - pad) for loop in loops], float(span[0] / span[1])


def turned(num: int, start: float = 0.0) -> Float[np.ndarray, " num"]:
    return start + np.arange(num) * 2 * np.pi / num


def radial(radius: Float[np.ndarray, " n"] | float, angle: Float[np.ndarray, " n"]) -> Loop:
    """A closed curve by its radius at each angle."""
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def wobbly(rng: np.random.Generator, amount: float, num: int = 56, waves: int = 6) -> Loop:
    """A closed curve about a circle, its radius varied by some low waves."""
    angle = turned(num)
    k = np.arange(2, 2 + waves)[:, None]
    size = amount * rng.normal(0, 1, (waves, 1)) / k
    return radial(1 + (size * np.cos(k * angle + rng.uniform(0, 6.3, (waves, 1)))).sum(axis=0).clip(-0.6, 0.8), angle)


def smooth(line: Loop, rounds: int = 3) -> Loop:
    """The polyline with its corners cut, ends kept (Chaikin)."""
    for _ in range(rounds):
        a, b = line[:-1], line[1:]
        cut = np.stack([0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b], axis=1).reshape(-1, 2)
        line = np.concatenate([line[:1], cut[1:-1], line[-1:]])
    return line


def _poly(*xy: int | float) -> Loop:
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


def shape_loops(name: str, rng: np.random.Generator) -> list[Loop]:
    """The closed curves of one example of a plain shape, in no particular frame."""
    r, angle = rng.uniform(0, 1), turned(56)
    if name in ("circle", "ellipse"):
        return [radial(1.0, angle)]
    if name in ("square", "rectangle"):
        return [_poly(-1, -1, 1, -1, 1, 1, -1, 1)]
    if name == "triangle":
        return [_poly(rng.choice([0.0, 0.0, -1.0, rng.uniform(-1, 1)]), -0.87, 1, 0.87, -1, 0.87)]
    if name == "star":
        num = int(rng.choice([4, 5, 5, 5, 6, 8]))
        return [radial(np.tile([1.0, rng.uniform(0.35, 0.55)], num), turned(2 * num, -np.pi / 2))]
    if name == "ring":
        return [radial(1.0, angle), radial(0.45 + 0.4 * r, angle)]
    if name == "cross":
        w = 0.16 + 0.24 * r
        return [_poly(-w, -1, w, -1, w, -w, 1, -w, 1, w, w, w, w, 1, -w, 1, -w, w, -1, w, -1, -w, -w, -w)]
    if name == "heart":
        y = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        return [np.column_stack([16 * np.sin(angle) ** 3, -y])]
    if name == "diamond":
        return [_poly(0, -1.4 - r, 1, 0, 0, 1.4 + r, -1, 0)]
    if name in ("hexagon", "pentagon"):
        return [radial(1.0, turned(6 if name == "hexagon" else 5, -np.pi / 2))]
    if name == "arrow":
        w, h, tip = 0.12 + 0.2 * r, rng.uniform(0.45, 0.7), rng.uniform(-0.1, 0.5)
        return [_poly(-1, -w, tip, -w, tip, -h, 1, 0, tip, h, tip, w, -1, w)]
    if name == "crescent":
        bend = np.linspace(-1, 1, 28) * np.pi * (0.62 + 0.12 * r)
        outer = radial(1.0, bend + np.pi)
        inner = outer[::-1] * [0.35 + 0.3 * r, 1.0] + [outer[0, 0] * (0.65 - 0.3 * r), 0]
        return [np.concatenate([outer, inner[1:-1]])]
    if name == "half disc":
        return [radial(1.0, np.linspace(0, np.pi, 32))]
    if name == "trapezoid":
        top = 0.25 + 0.4 * r
        return [_poly(-top, -0.6, top, -0.6, 1, 0.6, -1, 0.6)]
    if name == "drop":
        return [np.column_stack([np.sin(angle) * np.sin(angle / 2) ** (1 + r), -np.cos(angle)])]
    if name == "cloud":
        lumps = int(rng.integers(5, 9))
        long = turned(96)
        return [radial(0.75 + 0.25 * np.abs(np.sin(lumps * long / 2)), long) * [1.5, 1.0]]
    if name == "gear":
        teeth = int(rng.integers(7, 13))
        long = turned(teeth * 8)
        return [radial(np.tile([1, 1, 1, 1, 0.78, 0.78, 0.78, 0.78], teeth), long), radial(0.2 + 0.25 * r, angle)]
    if name == "leaf":
        t = np.linspace(0, 1, 28)
        bulge = (0.3 + 0.25 * r) * np.sin(np.pi * t) ** 0.8
        return [np.concatenate([np.column_stack([2 * t - 1, -bulge]), np.column_stack([1 - 2 * t, bulge[::-1]])[1:-1]])]
    if name == "bolt":
        return [_poly(0.25, -1, -0.55, 0.15, -0.05, 0.15, -0.3, 1, 0.55, -0.25, 0.05, -0.25, 0.6, -1)]
    if name == "pie":
        gap = 0.25 + 0.5 * r
        return [np.concatenate([_poly(0, 0), radial(1.0, np.linspace(gap, 2 * np.pi - gap, 48))])]
    if name == "chevron":
        w = 0.5 + 0.4 * r
        return [_poly(-1, -1, -1 + w, -1, 0.3 + w, 0, -1 + w, 1, -1, 1, 0.3, 0)]
    if name == "house":
        return [_poly(0, -1, 1, -0.1, 0.8, -0.1, 0.8, 1, -0.8, 1, -0.8, -0.1, -1, -0.1)]
    raise ValueError(f"no shape {name!r}")


# Pen paths of the digits in a unit square; a path with its mark 1 is drawn with straight lines.
_PATHS: dict[str, tuple[tuple[int, tuple[float, ...]], ...]] = {
    "zero": (
        (0, (0.5, 0.02, 0.2, 0.08, 0.08, 0.5, 0.2, 0.92, 0.5, 0.99, 0.8, 0.92, 0.92, 0.5, 0.8, 0.08, 0.48, 0.02)),
    ),
    "one": ((1, (0.3, 0.28, 0.55, 0.03, 0.53, 0.97)),),
    "two": ((0, (0.1, 0.28, 0.25, 0.0, 0.8, -0.02, 0.85, 0.4, 0.45, 0.65, 0.08, 0.95)), (1, (0.08, 0.95, 0.9, 0.93))),
    "three": (
        (0, (0.12, 0.12, 0.55, -0.08, 0.95, 0.2, 0.75, 0.45, 0.4, 0.47)),
        (0, (0.4, 0.47, 0.85, 0.47, 1.0, 0.8, 0.6, 1.08, 0.1, 0.86)),
    ),
    "four": ((1, (0.55, 0.02, 0.1, 0.62, 0.92, 0.6)), (1, (0.68, 0.35, 0.66, 0.98))),
    "five": (
        (1, (0.85, 0.04, 0.28, 0.05, 0.2, 0.45)),
        (0, (0.2, 0.45, 0.65, 0.3, 1.0, 0.6, 0.8, 1.02, 0.4, 1.0, 0.1, 0.86)),
    ),
    "six": ((0, (0.72, 0.02, 0.3, 0.2, 0.08, 0.7, 0.2, 1.05, 0.8, 1.05, 0.95, 0.6, 0.5, 0.45, 0.14, 0.72)),),
    "seven": ((1, (0.1, 0.06, 0.9, 0.05, 0.42, 0.97)),),
    "eight": (
        (0, (0.5, 0.47, 0.1, 0.35, 0.2, 0.0, 0.8, 0.0, 0.9, 0.35, 0.5, 0.47)),
        (0, (0.5, 0.47, 0.0, 0.62, 0.1, 1.05, 0.9, 1.05, 1.0, 0.62, 0.5, 0.47)),
    ),
    "nine": ((0, (0.86, 0.3, 0.55, 0.58, 0.1, 0.45, 0.15, 0.02, 0.7, -0.08, 0.9, 0.2, 0.85, 0.6, 0.66, 0.98)),),
}


def digit_lines(name: str, rng: np.random.Generator) -> list[Loop]:
    """The pen's path for one handwritten digit: slanted, squeezed and unsteady; every path its own hand."""
    lines = []
    slant = np.array([[1.0, 0.0], [rng.normal(0, 0.12), 1.0]])
    for straight, path in _PATHS[name]:
        line = _poly(*path)
        if not straight:
            line = smooth(line)
        elif len(line) > 1:
            line = np.concatenate([np.linspace(a, b, 6) for a, b in pairwise(line)])
        phase, size = rng.uniform(0, 6.3, 2), rng.normal(0, 0.035, 2)
        sway = size * np.sin(4 * line[:, ::-1] + phase)
        lines.append((line + sway) @ slant)
    if name == "seven" and rng.random() < 0.4:
        lines.append(_poly(0.35, 0.5, 0.8, 0.47) @ slant)
    return lines
