"""How things and whole pictures look: outlines, patterns, shadows, ink; surfaces, light, blur and grain.

Planned for many scenes at once. Lengths are in thousandths of the scene's side.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from boxtune.tiny.scene_colours import any_colour, luma
from boxtune.tiny.scene_layout import log_uniform
from boxtune.tiny.scene_names import BY_COLOUR, KIND, KINDS, TINTED

STREWN, DESK, SCAN, POSTER, FIELD = range(5)
"""The styles: strewn things, a desk, a scanned page, a poster, a microscope's field."""
LOOKS = (
    "outline rim rim_dark pattern pattern_fx pattern_fy pattern_both shade_x shade_y mottle mottle_size opacity "
    "clear warp warp_f warp_p shadow shadow_x shadow_y shadow_soft"
).split()
"""The numbers of a thing. `clear`: its paper is not drawn, only what is on it. Frequencies are in its own frame."""
PHOTOS = (
    "mix_a mix_b ramp_x ramp_y light_x light_y vignette gamma contrast lift red green blue grey blur noise ink_cut"
).split()
"""The numbers of a picture. `mix`: how much of each surface shows; `ink_cut`: 1 where it is cut to black and white."""

Many = Float[np.ndarray, "n s"]
NUM_KINDS_OF_SURFACE, NUM_SURFACES = 10, 40
_CATEGORY = np.array([kind.category for kind in KINDS])
_NO_OUTLINE = [KIND[name] for name in ("circle", "ellipse", "ring", "gear")]
"""Their outlines would be rings, or hide what they are."""
_NO_PATTERN = [KIND[name] for name in ("square", "rectangle")]
"""Patterned they would be panels."""
# What lies under each style: numbers of `scene_atlas._surface`.
_GROUNDS: tuple[tuple[int, ...], ...] = (
    tuple(range(10)),
    (0, 0, 0, 1, 1, 2, 2, 3, 6, 7, 9),
    (9, 2),
    (0, 1, 2, 6, 7, 8, 4),
    (8, 9, 9),
)


def plan_looks(
    rng: np.random.Generator, style: Int[np.ndarray, " n"], level: Int[np.ndarray, " n"], kind: Int[np.ndarray, "n s"]
) -> Float[np.ndarray, "n s l"]:
    """The numbers of every thing, in the order of LOOKS."""
    num, shape = len(kind), kind.shape
    category = np.where(kind >= 0, _CATEGORY[kind], "")
    is_shape, is_cell = category == "shape", category == "cell"
    desk, scan, poster, field = ((style == which)[:, None] for which in (DESK, SCAN, POSTER, FIELD))
    coloured = np.isin(level, [TINTED, BY_COLOUR])[:, None]

    def share(of: float | np.ndarray) -> np.ndarray:
        return rng.random(shape) < of

    def by_scene(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (num, 1)) + np.zeros(shape)

    outline = is_shape & ~np.isin(kind, _NO_OUTLINE) & share(0.22)
    rim = (is_shape | (category == "panel") | (category == "sheet")) & share(0.25)
    pattern = is_shape & ~coloured & ~np.isin(kind, _NO_PATTERN) & share(0.25)
    angle, waves = rng.uniform(0, 2 * np.pi, shape), log_uniform(rng, 5.0, 22.0, shape)
    both = share(0.4)
    mottled = np.where(category == "board", 0.2, np.where(is_cell, 0.08, np.where(category == "print", 0.05, 0.15)))
    clear = np.select([scan, poster & True], [0.97, 0.6], 0.25) * (category == "print")
    clear = np.where(kind == KIND["stamp"], 0.9, clear)
    # Print on a busy ground could not be told from it.
    clear = np.where(desk, 0.0, clear)
    towards = rng.uniform(0, 2 * np.pi, (num, 1)) + np.zeros(shape)
    shaded = np.select([desk, scan | field], [rng.random((num, 1)) < 0.85, False], rng.random((num, 1)) < 0.35)
    shaded = shaded & ~((category == "print") & poster) & (category != "junk")
    wavy = np.select([is_cell, category == "digit", scan], [0.06, 0.05, 0.0], 0.02) * (category != "sheet")
    seen_through = np.select(
        [is_cell & field, is_shape & share(0.06)], [by_scene(0.72, 1.0), rng.uniform(0.65, 0.9, shape)], 1.0
    )
    numbers = {
        "outline": outline * log_uniform(rng, 5.0, 22.0, shape),
        "rim": rim * log_uniform(rng, 3.0, 12.0, shape),
        "rim_dark": rng.choice([-1.0, 1.0], shape) * rng.uniform(0.3, 0.9, shape),
        "pattern": pattern * rng.uniform(0.4, 1.0, shape),
        "pattern_fx": np.where(both, 1, np.cos(angle)) * waves,
        "pattern_fy": np.where(both, 1, np.sin(angle)) * waves,
        "pattern_both": both,
        "shade_x": share(0.6) * rng.uniform(-0.25, 0.25, shape) * ~scan,
        "shade_y": share(0.6) * rng.uniform(-0.25, 0.25, shape) * ~scan,
        "mottle": share(0.6) * rng.random(shape) * 2 * mottled * ~scan,
        "mottle_size": log_uniform(rng, 0.15, 0.8, shape),
        "opacity": seen_through,
        "clear": share(clear),
        "warp": share(0.6) * rng.random(shape) * wavy,
        "warp_f": rng.uniform(1.5, 4.5, shape),
        "warp_p": rng.uniform(0, 6.28, shape),
        "shadow": shaded * by_scene(0.15, 0.7),
        "shadow_x": np.cos(towards),
        "shadow_y": np.sin(towards),
        "shadow_soft": by_scene(4.0, 30.0),
    }
    return np.stack([numbers[name] * np.ones(shape) for name in LOOKS], axis=2)


def set_paper(
    rng: np.random.Generator,
    style: Int[np.ndarray, " n"],
    kind: Int[np.ndarray, "n s"],
    clear: Many,
    colours: Float[np.ndarray, "n s 3 3"],
    ground: Float[np.ndarray, "n 3 3"],
) -> None:
    """Colours the sheets, and makes ink that has no paper of its own stand out from what is below it. In place."""
    num = len(kind)
    scan, poster = style == SCAN, style == POSTER
    white = any_colour(rng, (num,), (0.0, 0.06), (0.9, 1.0))
    bright = np.where(rng.random((num, 1)) < 0.45, white, any_colour(rng, (num,), (0.1, 0.95), (0.25, 1.0)))
    sheet = np.where(scan[:, None], white, bright)
    has_sheet = scan | poster
    colours[has_sheet, 0, 0] = sheet[has_sheet]
    colours[has_sheet, 0, 2] = 0.7 * sheet[has_sheet]
    # What shows beside a scanned page is the scanner's lid: white, grey or black.
    lid = rng.choice([0.02, 0.1, 0.6, 0.8, 0.95], num)[:, None] * np.ones(3)
    ground[scan] = lid[scan, None] * np.array([1, 0.95, 0.9])[:, None]
    below = np.where(has_sheet[:, None], sheet, ground[:, 0])
    dark_ink = any_colour(rng, kind.shape, (0.0, 0.6), (0.0, 0.22))
    light_ink = any_colour(rng, kind.shape, (0.0, 0.15), (0.88, 1.0))
    ink = np.where(luma(below)[:, None, None] > 0.42, dark_ink, light_ink)
    stamp = kind == KIND["stamp"]
    at = (clear > 0) & (kind >= 0) & (_CATEGORY[kind] == "print") & ~(stamp & scan[:, None])
    colours[..., 0, :][at] = np.broadcast_to(below[:, None], ink.shape)[at]
    colours[..., 1, :][at] = ink[at]
    # Filled rows and bars are between ink and paper.
    part = rng.uniform(0.15, 0.85, (num, 1, 1))
    colours[..., 2, :][at] = (part * ink + (1 - part) * below[:, None])[at]
    # A body too near to what is below it goes the other way.
    near = (np.abs(colours[..., 0, :] - below[:, None]).sum(axis=-1) < 0.3) & poster[:, None] & (kind >= 0) & ~at
    near[:, 0] = False
    plain = near & (_CATEGORY[kind] == "print")
    colours[..., 0, :][plain] = np.where(luma(below)[:, None, None] > 0.5, 0.75, 1.0)[:, 0][
        np.nonzero(plain)[0]
    ] * np.ones(3)


def set_rims(
    rng: np.random.Generator,
    kind: Int[np.ndarray, "n s"],
    colours: Float[np.ndarray, "n s 3 3"],
    ground: Float[np.ndarray, "n 3 3"],
    look: Float[np.ndarray, "n s l"],
) -> None:
    """Gives things as bright or dark as their ground a rim by which they can be told from it. In place."""
    light = luma(ground[:, 0])[:, None]
    alike = np.abs(luma(colours[..., 0, :]) - light) < 0.14
    alike &= np.isin(np.where(kind >= 0, _CATEGORY[kind], ""), ["shape", "panel", "digit", "thing", "figure", "board"])
    alike &= rng.random(kind.shape) < 0.85
    rim, dark = LOOKS.index("rim"), LOOKS.index("rim_dark")
    look[..., rim] = np.where(alike, rng.uniform(4, 9, kind.shape), look[..., rim])
    towards = np.where(light > 0.35, 1.0, -1.0) * rng.uniform(0.4, 0.8, kind.shape)
    look[..., dark] = np.where(alike, towards, look[..., dark])


def plan_photos(
    rng: np.random.Generator, style: Int[np.ndarray, " n"], level: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n p"], Int[np.ndarray, "n 2"], Float[np.ndarray, "n 2 3 3"]]:
    """The numbers of every picture in the order of PHOTOS, its two surfaces, and the frame of the scene in each.

    In a surface's frame one tile is -1..1; it goes on mirrored.
    """
    num = len(style)
    scan, desk, field = style == SCAN, style == DESK, style == FIELD
    coloured = np.isin(level, [TINTED, BY_COLOUR])

    def share(of: float | np.ndarray) -> np.ndarray:
        return rng.random(num) < of

    def within(size: float | np.ndarray) -> np.ndarray:
        return rng.uniform(-1, 1, num) * size

    mix = np.select([scan, field, desk], [0.06, 0.35, rng.uniform(0.3, 1, num)], share(0.65) * rng.uniform(0.1, 1, num))
    lit = np.where(scan, 0.05, np.where(field, 0.12, 0.45))
    cast = np.where(coloured | scan, 0.05, 0.16)
    blur = share(0.65) * log_uniform(rng, 0.8, 4.0, (num,))
    blur = np.where(share(0.08), log_uniform(rng, 4.0, 8.0, (num,)), blur)
    numbers = {
        "mix_a": mix,
        "mix_b": np.select([scan, field], [0.03, 0.1], share(0.5) * rng.uniform(0, 0.7, num)),
        "ramp_x": share(0.5) * within(np.where(scan | field, 0.1, 0.8)),
        "ramp_y": share(0.5) * within(np.where(scan | field, 0.1, 0.8)),
        "light_x": within(lit),
        "light_y": within(lit),
        "vignette": share(0.5) * rng.uniform(0, 1, num) * np.where(scan, 0.1, 0.45),
        "gamma": np.exp(rng.normal(0, 0.18, num).clip(-0.45, 0.45)),
        "contrast": np.where(scan, rng.uniform(0.8, 1.3, num), rng.uniform(0.6, 1.25, num)),
        "lift": rng.normal(0, 0.05, num),
        "red": 1 + within(cast),
        "green": 1 + within(cast),
        "blue": 1 + within(cast),
        "grey": share(np.where(scan, 0.5, np.where(coloured, 0.0, 0.1))),
        "blur": np.where(scan, 0.5, 1.0) * blur,
        "noise": share(0.75) * log_uniform(rng, 0.004, 0.07, (num,)) * np.where(scan, 0.5, 1.0),
        "ink_cut": share(np.where(scan, 0.3, 0.0)),
    }
    photo = np.stack([numbers[name] * np.ones(num) for name in PHOTOS], axis=1)
    types = np.zeros((num, 2), dtype=np.int64)
    for which, choices in enumerate(_GROUNDS):
        rows = np.flatnonzero(style == which)
        types[rows] = rng.choice(choices, (len(rows), 2))
    surface = types + NUM_KINDS_OF_SURFACE * rng.integers(NUM_SURFACES // NUM_KINDS_OF_SURFACE, size=(num, 2))
    turn = rng.uniform(0, 2 * np.pi, (num, 2)) * (rng.random((num, 1)) < 0.7)
    scale = log_uniform(rng, 0.5, 4.0, (num, 2))
    # Chequered ground is mostly seen as one board of eight by eight.
    scale = np.where((types == 3) & (rng.random((num, 2)) < 0.6), rng.uniform(1.6, 2.6, (num, 2)), scale)
    tilt = rng.normal(0, 1, (2, num, 2)).clip(-2, 2) * np.where(desk, 0.25, 0.05)[:, None]
    lay = np.zeros((num, 2, 3, 3))
    lay[..., 0, 0], lay[..., 0, 1] = np.cos(turn) * scale, -np.sin(turn) * scale
    lay[..., 1, 0], lay[..., 1, 1] = np.sin(turn) * scale, np.cos(turn) * scale
    lay[..., 2, 0], lay[..., 2, 1], lay[..., 2, 2] = tilt[0], tilt[1], 1
    to_middle = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    lay = lay @ to_middle
    shift = rng.uniform(-1, 1, (num, 2, 2)) * (rng.random((num, 1, 1)) < 0.7)
    lay[..., :2, :] += shift[..., None] * lay[..., 2:, :]
    return photo, surface, lay
