"""Sprites of drawn things: shapes, cells, digits, figures, small objects and scraps.

A sprite has four channels: the signed distance to its outline (negative inside), the share of its second colour, the
share of its third, and its light (0 dark, 0.5 as it is, 1 white). The first colour is what remains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from boxtune.tiny.scene_names import DIGITS, KINDS
from boxtune.tiny.scene_outlines import (
    Loop,
    box_sdf,
    digit_lines,
    fit,
    loops_sdf,
    points,
    radial,
    shape_loops,
    smooth,
    strokes_sdf,
    turned,
    wobbly,
)

SIDE = 96
FIELD_SIDE = 64
"""Fields are smooth, so they are computed on fewer points and enlarged."""
Plane = Float[np.ndarray, "_ _"]


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """`aspect` is the thing's own width over height; the field may have fewer points than the other planes."""

    kind: str
    aspect: float
    field: Plane
    second: Plane | None = None
    third: Plane | None = None
    light: Plane | None = None


def noise(rng: np.random.Generator, cells: int, side: int = SIDE) -> Plane:
    """Smooth noise in 0..1 with that many cells across."""
    knots = rng.random((cells + 2, cells + 2))
    at = np.linspace(0, cells + 0.999, side, endpoint=False)
    low = at.astype(int)
    part = (at - low) ** 2 * (3 - 2 * (at - low))
    rows = knots[low] * (1 - part)[:, None] + knots[low + 1] * part[:, None]
    return rows[:, low] * (1 - part) + rows[:, low + 1] * part


def soft(field: Plane, width: float = 0.03) -> Plane:
    """1 inside, 0 outside, with a soft edge of that width."""
    return np.clip(0.5 - field / (2 * width), 0, 1)


def _shape(name: str, rng: np.random.Generator) -> Sprite:
    loops, aspect = fit(shape_loops(name, rng))
    if name in ("ellipse", "rectangle"):
        aspect = float(np.exp(rng.uniform(0.35, 1.1)))
    return Sprite(kind=name, aspect=aspect, field=loops_sdf(loops, FIELD_SIDE))


def _cell(name: str, rng: np.random.Generator) -> Sprite:
    wobble = {"disc cell": 0.045, "nucleus cell": 0.08, "speck": 0.25, "blob": 0.5}[name]
    loops, aspect = fit([wobbly(rng, wobble * rng.uniform(0.3, 1.3))])
    field = loops_sdf(loops, FIELD_SIDE)
    x, y = points(SIDE)
    far = np.hypot(x - rng.normal(0, 0.08), (y - rng.normal(0, 0.08)) * rng.uniform(0.85, 1.2))
    rim = np.exp(-(((1 - far) / 0.16) ** 2))
    if name == "disc cell":
        pale, edge = rng.choice([0.0, rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.55)]), rng.uniform(0.05, 0.2)
        centre = np.clip(0.5 + (pale - far) / (2 * edge), 0, 1) * (pale > 0)
        return Sprite(kind=name, aspect=aspect, field=field, second=centre, third=rim * rng.uniform(0.2, 0.9))
    if name == "nucleus cell":
        nucleus = np.zeros((SIDE, SIDE))
        num, middle = int(rng.integers(1, 5)), rng.normal(0, 0.12, 2)
        for angle in turned(num, rng.uniform(0, 6.3)):
            size = rng.uniform(0.5, 0.85) if num == 1 else rng.uniform(0.28, 0.45)
            at = middle + (0 if num == 1 else rng.uniform(0.25, 0.42)) * np.array([np.cos(angle), np.sin(angle)])
            nucleus = np.maximum(nucleus, soft(loops_sdf([wobbly(rng, 0.2, num=28) * size + at], SIDE), 0.06))
        nucleus = nucleus * (0.8 + 0.35 * noise(rng, 9))
        grains = soft(0.62 - noise(rng, int(rng.integers(12, 30))), 0.1) * rng.uniform(0, 0.9)
        return Sprite(
            kind=name, aspect=aspect, field=field, second=nucleus.clip(0, 1), third=np.maximum(grains, rim * 0.3)
        )
    inner = soft(far - rng.uniform(0.2, 0.7), 0.25) * rng.uniform(0, 0.8)
    return Sprite(kind=name, aspect=aspect, field=field, second=inner, third=np.maximum(noise(rng, 5) - 0.4, 0.0))


def _digit(name: str, rng: np.random.Generator) -> Sprite:
    width = rng.uniform(0.1, 0.32)
    lines, aspect = fit(digit_lines(name, rng), pad=width / 2)
    aspect = max(aspect, 0.3)
    return Sprite(kind=name, aspect=aspect, field=strokes_sdf(lines, width, FIELD_SIDE))


def _lathe(knots: Loop) -> tuple[Loop, Plane]:
    """The outline of a turned body from (height, half width) top down, and its light."""
    knots = np.array(knots)
    y = (knots[:, 0] - knots[0, 0]) / (knots[-1, 0] - knots[0, 0]) * 2 - 1
    half = knots[:, 1] / knots[:, 1].max()
    loop = np.concatenate([np.column_stack([half, y]), np.column_stack([-half, y])[::-1]])
    x, rows = points(SIDE)
    across = np.interp(rows[:, 0], y, half)
    t = np.clip(x / np.maximum(across[:, None], 0.05), -1.2, 1.2)
    return loop, (0.62 - 0.42 * (t + 0.25) ** 2 + 0.25 * np.exp(-(((t + 0.45) / 0.12) ** 2))).clip(0.05, 1)


def _knots(name: str, rng: np.random.Generator) -> tuple[Loop, float]:
    """A profile top down and the body's width over height."""
    u = rng.uniform
    if name in ("figurine", "tower", "lamp"):
        foot = [(2.3, 0.55), (2.32, 0.75), (2.55, 0.78), (2.57, 1.0), (3.0, 1.0)]
        if name == "lamp":
            return np.array([(0, u(0.3, 0.6)), (1.2, 1.05), (1.21, 0.1), (2.4, 0.1), (2.5, 0.6), (2.8, 0.65)]), u(
                0.4, 0.8
            )
        if name == "tower":
            wide = u(0.6, 0.95)
            return np.array([(0, wide), (0.5, wide), (0.52, wide - 0.2), (2.2, wide - 0.1), *foot]), u(0.35, 0.65)
        neck, head = u(0.18, 0.4), u(0.3, 0.65)
        bulb = [(0.7 - 0.7 * np.cos(a), 0.05 + head * np.sin(a)) for a in np.linspace(0, np.pi * 0.85, 9)]
        crown = [(0, head), (0.25, head * 0.6), (0.7, head * 1.1), (0.9, neck)]
        tops = [bulb, crown, [(0, 0.08), (0.2, 0.1), (0.21, 0.3), (0.3, 0.1), *[(h + 0.3, w) for h, w in bulb[1:6]]]]
        chosen = tops[int(rng.integers(3))]
        last = chosen[-1][0]
        collar = [(last + 0.05, 0.6), (last + 0.18, 0.6), (last + 0.2, neck), (last + 0.5, neck + 0.05)]
        return np.array([*chosen, *collar, *[(h + last - 1.2, w) for h, w in foot]]), u(0.3, 0.6)
    if name == "bottle":
        neck = u(0.22, 0.4)
        return np.array([(0, neck), (0.2, neck), (0.8, neck), (u(1.0, 1.5), 0.96), (3, 1), (3.1, 0.9)]), u(0.25, 0.45)
    if name == "vase":
        top, waist = u(0.35, 0.8), u(0.2, 0.5)
        waisted = [(0, top), (0.5, waist), (1.4, 1.2), (2.2, 0.9), (2.7, u(0.3, 0.6)), (3, u(0.4, 0.7))]
        return smooth(np.array(waisted)), u(0.45, 0.8)
    if name == "bowl":
        return np.array([(0, 1), (0.3, 0.97), (0.7, 0.8), (1.0, 0.5), (1.02, 0.45), (1.12, 0.48)]), u(1.5, 2.4)
    if name == "jar":
        lidded = [(0, 0.75), (0.4, 0.75), (0.41, 0.65), (0.55, 0.7), (0.8, 1), (2.6, 1), (2.75, 0.9)]
        return np.array(lidded), u(0.6, 0.95)
    if name == "goblet":
        wide = u(0.7, 1.0)
        line = [(0, wide), (0.8, wide * u(0.9, 1.1)), (1.3, 0.12), (2.3, 0.1), (2.45, u(0.5, 0.9)), (2.55, 0.9)]
        return np.array(line), u(0.4, 0.65)
    return np.array([(0, 1), (0.2, 0.99), (1.5, u(0.65, 1.0)), (1.6, 0.6)]), u(0.7, 1.1)


def _figure(name: str, rng: np.random.Generator) -> Sprite:
    knots, aspect = _knots(name, rng)
    loop, light = _lathe(knots)
    _, y = points(SIDE)
    second = ((y > rng.uniform(-0.6, 0.2)) & (y < rng.uniform(0.3, 0.9))) * 1.0 * (rng.random() < 0.45)
    third = (np.abs(y - rng.uniform(-0.9, 0.9)) < 0.07) * 1.0 + (y < rng.uniform(-1.2, -0.6))
    field = loops_sdf([loop], FIELD_SIDE)
    if name == "cup":
        # The handle stands out to one side; the body gives way for it.
        reach = rng.uniform(0.35, 0.55)
        body = loop * [1 - reach / 2, 1] - [reach / 2, 0]
        at = np.array([1 - reach, rng.uniform(-0.2, 0.1)])
        arc = radial(1.0, np.linspace(-1.9, 1.9, 24)) * [reach * 0.9, rng.uniform(0.4, 0.6)] + at
        width = rng.uniform(0.1, 0.18)
        field = np.minimum(loops_sdf([body], FIELD_SIDE), strokes_sdf([arc], width, FIELD_SIDE))
        aspect *= 1 + reach / 2
    if name == "tower":
        x64, y64 = points(FIELD_SIDE)
        width, deep = rng.uniform(0.1, 0.2), -1 + rng.uniform(0.12, 0.3)
        for middle in (-0.4, 0.4) if rng.random() < 0.7 else (0.0,):
            field = np.maximum(field, -np.maximum(np.abs(x64 - middle) - width, y64 - deep))
    return Sprite(kind=name, aspect=aspect, field=field, second=second, third=third.clip(0, 1), light=light)


def _thing(name: str, rng: np.random.Generator) -> Sprite:
    x, y = points(SIDE)
    far, circle = np.hypot(x, y), [radial(1.0, turned(56))]
    if name == "ball":
        dx, dy = rng.uniform(-0.45, 0.45), rng.uniform(-0.6, -0.1)
        away = np.hypot(x - dx, y - dy)
        light = (0.72 - 0.38 * away + 0.4 * np.exp(-((away / 0.2) ** 2))).clip(0.04, 1)
        mark = (np.abs(y + 0.3 * x) < rng.uniform(0.1, 0.3)) * float(rng.random() < 0.4)
        return Sprite(kind=name, aspect=1.0, field=loops_sdf(circle, FIELD_SIDE), second=mark, light=light)
    if name == "coin":
        relief = rng.choice(["star", "heart", "cross", "crescent"])
        motif = loops_sdf([fit(shape_loops(str(relief), rng))[0][0] * 0.5], SIDE)
        if rng.random() < 0.5:
            motif = strokes_sdf([line * 0.5 for line in fit(digit_lines(str(rng.choice(DIGITS)), rng))[0]], 0.16, SIDE)
        light = (0.5 + 0.12 * x * rng.choice([-1, 1]) - 0.12 * y).clip(0, 1)
        rim = np.exp(-(((far - 0.86) / 0.05) ** 2))
        field = loops_sdf(circle, FIELD_SIDE)
        return Sprite(kind=name, aspect=1.0, field=field, second=soft(motif, 0.05), third=rim, light=light)
    if name == "button":
        num, size = int(rng.choice([2, 4])), rng.uniform(0.08, 0.16)
        holes = [
            radial(size, turned(20)) + 0.32 * np.array([np.cos(a), np.sin(a)]) for a in turned(num, rng.uniform(0, 3))
        ]
        rim = np.exp(-(((far - 0.7) / 0.06) ** 2)) * 0.8
        return Sprite(kind=name, aspect=1.0, field=loops_sdf([*circle, *holes], FIELD_SIDE), second=rim)
    tube = (0.65 - 0.5 * np.abs(y + 0.2) ** 2 + 0.25 * np.exp(-(((y + 0.4) / 0.12) ** 2))).clip(0.05, 1)
    if name == "bar":
        field = box_sdf(FIELD_SIDE, corner=rng.uniform(0, 0.3))
        return Sprite(kind=name, aspect=rng.uniform(4, 8), field=field, light=tube)
    if name == "pen":
        tip = rng.uniform(0.6, 0.8)
        loop = np.array([(-1, -1), (tip, -1), (1, -0.12), (1, 0.12), (tip, 1), (-1, 1)], dtype=np.float64)
        second = (x > tip) | (x < rng.uniform(-0.9, -0.2))
        third = np.abs(x - rng.uniform(-0.5, 0.5)) < 0.04
        field = loops_sdf([loop], FIELD_SIDE)
        return Sprite(
            kind=name, aspect=rng.uniform(7, 12), field=field, second=second * 1.0, third=third * 1.0, light=tube
        )
    # A key: a bow, a shaft and some teeth.
    bow = radial(0.75, turned(28)) * [0.33, 1] + [-0.62, 0]
    lines = [np.concatenate([bow, bow[:1]]), np.array([(-0.3, 0.0), (0.92, 0.0)])]
    lines += [np.array([(at, 0.0), (at, rng.uniform(0.3, 0.85))]) for at in (0.55, 0.72, 0.88)]
    fitted, _ = fit(lines, pad=0.1)
    return Sprite(kind="key", aspect=rng.uniform(2, 2.8), field=strokes_sdf(fitted, 0.2, FIELD_SIDE))


def _panel(name: str, rng: np.random.Generator) -> Sprite:
    x, y = points(SIDE)
    waves = rng.uniform(3, 8) * np.pi / 2
    a, b = np.sin(waves * x + rng.uniform(0, 6)), np.sin(waves * y + rng.uniform(0, 6))
    if name == "striped panel":
        ink = soft(-np.sin(waves * (x * np.cos(t := rng.uniform(0, 3)) + y * np.sin(t))), 0.2)
    elif name == "checked panel":
        ink = soft(-a * b, 0.08)
    else:
        ink = soft(rng.uniform(0.3, 0.7) - (a * b), 0.15)
    field = box_sdf(FIELD_SIDE, corner=float(rng.choice([0.0, 0.1, 0.25])))
    return Sprite(kind=name, aspect=float(np.exp(rng.uniform(-0.6, 0.6))), field=field, second=ink)


def _scrap(name: str, rng: np.random.Generator) -> Sprite:
    if rng.random() < 0.6:
        line = smooth(np.cumsum(rng.normal(0, 1, (int(rng.integers(2, 8)), 2)), axis=0) + 1e-3)
        width = rng.uniform(0.03, 0.12)
        fitted, aspect = fit([line], pad=width / 2)
        return Sprite(kind=name, aspect=float(np.clip(aspect, 0.3, 3)), field=strokes_sdf(fitted, width, FIELD_SIDE))
    spots = [
        radial(rng.uniform(0.03, 0.12), turned(9)) + rng.uniform(-0.9, 0.9, 2) for _ in range(int(rng.integers(2, 7)))
    ]
    return Sprite(kind=name, aspect=1.0, field=loops_sdf(fit(spots)[0], FIELD_SIDE))


def _sheet(name: str, rng: np.random.Generator) -> Sprite:
    return Sprite(kind=name, aspect=1.0, field=box_sdf(FIELD_SIDE, corner=float(rng.choice([0.0, 0.02, 0.06, 0.15]))))


_DRAWN: dict[str, tuple[Callable[[str, np.random.Generator], Sprite], int]] = {
    "shape": (_shape, 5),
    "cell": (_cell, 14),
    "digit": (_digit, 10),
    "figure": (_figure, 7),
    "thing": (_thing, 6),
    "panel": (_panel, 5),
    "junk": (_scrap, 36),
    "sheet": (_sheet, 8),
}
"""By category: what draws it, and how many of each kind."""


def draw_sprites(rng: np.random.Generator) -> Iterator[Sprite]:
    """Every sprite of the categories that are drawn by curves, kind by kind."""
    for kind in KINDS:
        if kind.category in _DRAWN:
            draw, num = _DRAWN[kind.category]
            for _ in range(num):
                yield draw(kind.name, rng)
