"""Colours of things and of what lies behind them, planned for many scenes at once; RGB in 0..1."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.tiny.scene_names import COLOURS, DARK, KIND, KINDS, LIGHT, NUM_TINTS

Rgb = Float[np.ndarray, "*some 3"]
Grey = Float[np.ndarray, "*some"]
_RANGES = np.array(list(COLOURS.values()))
CATEGORY = np.array([kind.category for kind in KINDS])
BRIGHT = np.array([kind.bright for kind in KINDS])
_LUMA = np.array([0.299, 0.587, 0.114])
# Circuit boards: green, blue, black, red, white, purple.
NUM_COLOURS = len(COLOURS) + 6
"""The named colours, and behind them those of boards."""
_BOARD_HUES = np.array([0.38, 0.6, 0.6, 0.0, 0.1, 0.78])
_BOARD_SATURATIONS = np.array([0.75, 0.8, 0.3, 0.85, 0.08, 0.6])
_BOARD_VALUES = np.array([0.35, 0.45, 0.13, 0.6, 0.9, 0.35])


def hsv_to_rgb(hue: Grey, sat: Grey, value: Grey) -> Rgb:
    """Hue in turns (any real number), saturation and value in 0..1."""
    k = (np.array([5.0, 3.0, 1.0]) + np.asarray(hue)[..., None] * 6) % 6
    return np.asarray(value)[..., None] * (1 - np.asarray(sat)[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def luma(rgb: Rgb) -> Grey:
    return rgb @ _LUMA


def named_colour(rng: np.random.Generator, colour: Int[np.ndarray, "*some"]) -> Rgb:
    """Some shade of each named colour."""
    low, high = _RANGES[colour, :, 0], _RANGES[colour, :, 1]
    part = low + (high - low) * rng.random(low.shape)
    return hsv_to_rgb(part[..., 0], part[..., 1], part[..., 2])


def any_colour(
    rng: np.random.Generator, shape: tuple[int, ...], sat: tuple[float, float], value: tuple[float, float]
) -> Rgb:
    return hsv_to_rgb(rng.random(shape), rng.uniform(*sat, shape), rng.uniform(*value, shape))


def ground_colours(rng: np.random.Generator, num: int) -> Float[np.ndarray, "n 3 3"]:
    """Three colours of a ground for each scene: its own, one not far from it, and one of another hue."""
    hue, sat, value = rng.random(num), rng.random(num) ** 2 * 0.8, 0.05 + 0.95 * rng.random(num) ** 0.8
    # Woods and papers are commoner than other grounds.
    warm = rng.random(num) < 0.35
    hue, sat = np.where(warm, rng.uniform(0.03, 0.14, num), hue), np.where(warm, rng.uniform(0.05, 0.6, num), sat)
    step = rng.uniform(0.05, 0.4, num) * rng.choice([-1, 1], num)
    near = hsv_to_rgb(hue + rng.normal(0, 0.03, num), sat, np.clip(value + step, 0.03, 1))
    other = hsv_to_rgb(hue + rng.uniform(-0.3, 0.3, num), sat, np.clip(value - step, 0.03, 1))
    return np.stack([hsv_to_rgb(hue, sat, value), near, other], axis=1)


def thing_colours(
    rng: np.random.Generator, kind: Int[np.ndarray, "n s"], ground: Rgb, *, tints_only: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n s 3 3"], Int[np.ndarray, "n s"]]:
    """The three colours of each thing, and which named colour its body has; boards have colours of their own, which
    count on behind the named ones.

    Of two colours a thing takes the one that stands out from the ground, unless it is the first by chance.
    `tints_only` keeps a scene to the colours that are named before shapes.
    """
    shape = kind.shape
    most = np.where(tints_only, NUM_TINTS, len(COLOURS))[:, None, None]
    choice = (rng.random((*shape, 2)) * most).astype(np.int64)
    # A scene in three keeps to one or two colours.
    few = rng.random(len(kind)) < 0.33
    choice[few, :, 0] = choice[few, 0, 0][:, None]
    figure = (kind == KIND["figurine"])[..., None] & (rng.random((len(kind), 1, 1)) < 0.6)
    choice = np.where(figure, np.where(rng.random(choice.shape) < 0.5, LIGHT, DARK), choice)
    bodies = named_colour(rng, choice)
    away = np.abs(bodies - ground[:, None, None]).sum(axis=-1)
    second = (away[..., 0] < 0.6) & (away[..., 1] > away[..., 0])
    rows = np.take_along_axis(bodies, second[..., None, None].astype(np.int64), axis=2)[:, :, 0]
    colour = np.where(second, choice[..., 1], choice[..., 0])
    dark = luma(rows)[..., None] < 0.45
    contrast = np.where(
        dark, rows + (1 - rows) * rng.uniform(0.5, 1, (*shape, 1)), rows * rng.uniform(0, 0.4, (*shape, 1))
    )
    other = any_colour(rng, shape, (0.1, 1.0), (0.2, 1.0))
    free = rng.random((*shape, 1)) < 0.5
    colours = np.stack([rows, np.where(free, contrast, other), np.where(free, other, contrast)], axis=2)
    _print_colours(rng, kind, colours)
    boards = kind == KIND["board"]
    if boards.any():
        colours[boards], which = _board_colours(rng, int(boards.sum()))
        colour = np.where(boards, 0, colour)
        colour[boards] = len(COLOURS) + which
    return colours, colour


def _print_colours(
    rng: np.random.Generator, kind: Int[np.ndarray, "n s"], colours: Float[np.ndarray, "n s 3 3"]
) -> None:
    """Dark ink on light paper, seldom the reverse, one pair for each scene; some things have a coloured ink."""
    at = CATEGORY[kind] == "print"
    at &= kind >= 0
    num = len(kind)
    paper = any_colour(rng, (num, 1), (0.0, 0.15), (0.85, 1.0))
    paper = np.where(rng.random((num, 1, 1)) < 0.15, any_colour(rng, (num, 1), (0.2, 0.8), (0.6, 1.0)), paper)
    ink = any_colour(rng, kind.shape, (0.0, 0.3), (0.0, 0.2))
    loud = (rng.random(kind.shape) < 0.2)[..., None] | (kind == KIND["stamp"])[..., None]
    ink = np.where(loud, any_colour(rng, kind.shape, (0.6, 1.0), (0.15, 0.6)), ink)
    flip = rng.random((num, 1, 1)) < 0.12
    pair = np.broadcast_to(paper, ink.shape)
    first, second = np.where(flip, ink, pair), np.where(flip, pair, ink)
    third = 0.5 * first + 0.5 * any_colour(rng, kind.shape, (0.0, 1.0), (0.3, 0.9))
    colours[at] = np.stack([first, second, third], axis=2)[at]


def _board_colours(rng: np.random.Generator, num: int) -> tuple[Float[np.ndarray, "b 3 3"], Int[np.ndarray, " b"]]:
    """The three colours of boards, and which of their colours each has."""
    which = rng.choice(6, num, p=[0.4, 0.22, 0.16, 0.08, 0.06, 0.08])
    body = hsv_to_rgb(
        _BOARD_HUES[which] + rng.normal(0, 0.03, num),
        np.clip(_BOARD_SATURATIONS[which] + rng.normal(0, 0.08, num), 0, 1),
        np.clip(_BOARD_VALUES[which] * rng.uniform(0.6, 1.5, num), 0.04, 0.95),
    )
    chips = hsv_to_rgb(rng.random(num), rng.uniform(0, 0.2, num), rng.uniform(0.03, 0.22, num))
    metal = hsv_to_rgb(rng.choice([0.13, 0.6], num), rng.uniform(0.02, 0.45, num), rng.uniform(0.6, 0.95, num))
    return np.stack([body, chips, metal], axis=1), which


def cell_colours(
    rng: np.random.Generator, kind: Int[np.ndarray, "n s"]
) -> tuple[Float[np.ndarray, "n s 3 3"], Float[np.ndarray, "n 3 3"]]:
    """The colours of a microscope's field: of its cells, and of its ground.

    Mostly stained (pale red discs, purple nuclei, a light ground), else any hue, seldom light on dark.
    """
    num, shape = len(kind), kind.shape
    stained, dark = rng.random((num, 1)) < 0.65, rng.random((num, 1)) < 0.12
    hue = np.where(stained, rng.uniform(0.93, 1.04, (num, 1)), rng.random((num, 1))) + rng.normal(0, 0.008, shape)
    sat = rng.uniform(0.12, 0.5, (num, 1)) * rng.uniform(0.8, 1.2, shape)
    value = np.where(dark, rng.uniform(0.3, 0.8, (num, 1)), rng.uniform(0.62, 0.88, (num, 1)))
    value = value * rng.uniform(0.93, 1.07, shape)
    body = hsv_to_rgb(hue, sat, np.clip(value, 0, 1))
    away = np.where(stained, 0.75, rng.random((num, 1)))
    deep = hsv_to_rgb(
        away + rng.normal(0, 0.02, shape),
        np.broadcast_to(rng.uniform(0.4, 0.8, (num, 1)), shape),
        np.broadcast_to(rng.uniform(0.35, 0.65, (num, 1)), shape),
    )
    ground_value = np.where(dark, rng.uniform(0.02, 0.15, (num, 1)), rng.uniform(0.78, 0.97, (num, 1)))
    ground = hsv_to_rgb(rng.random((num, 1)), rng.uniform(0, 0.15, (num, 1)), ground_value)
    pale = body + (ground - body) * rng.uniform(0.4, 0.9, (num, 1, 1))
    rim = np.clip(body * rng.uniform(0.7, 0.95, (num, 1, 1)), 0, 1)
    disc = np.stack([body, pale, rim], axis=2)
    # The body round a nucleus is paler than the discs, its grains darker.
    big = np.stack([0.5 * (body + ground), deep, 0.6 * body + 0.4 * deep], axis=2)
    speck = np.stack([deep, 0.7 * deep, 0.5 * (deep + body)], axis=2)
    colours = np.select(
        [(kind == KIND["nucleus cell"])[..., None, None], (kind == KIND["speck"])[..., None, None]], [big, speck], disc
    )
    return colours, np.stack([ground[:, 0], ground[:, 0] * 0.95, ground[:, 0] * 0.9], axis=1)
