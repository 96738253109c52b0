"""What the scenes hold and what it is called: the kinds of things, their names, and the levels of naming.

A red star is truly a "star", a "red star", a "red shape" and a "shape". Each scene names all its things at one level,
so that whoever asks for some of the names of a scene gets every thing that bears one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PLAIN, TINTED, BY_COLOUR, GROUPED = range(4)
"""The levels: "star" · "red star" · "red shape" · "shape". What has no such name keeps its plain one."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of thing and how freely it may be placed.

    `stretch` is the greatest factor by which its own aspect is changed (as a natural logarithm), `turn` the greatest
    turn in radians, `bright` whether its body takes one of the named colours.
    """

    name: str
    category: str
    group: str = ""
    stretch: float = 0.25
    turn: float = np.pi
    bright: bool = True


def _kinds(names: str, category: str, **more: str | float | bool) -> tuple[Kind, ...]:
    return tuple(Kind(name=name.replace("_", " "), category=category, **more) for name in names.split())  # type: ignore[arg-type]


SHAPES = (
    "circle ellipse square rectangle triangle star ring cross heart diamond hexagon arrow crescent half_disc pentagon "
    "trapezoid drop cloud gear leaf bolt pie chevron house"
)
# Drawn as they are: stretching would turn them into one of the others.
RIGID = ("circle", "square")
VESSELS = "bottle cup vase bowl jar goblet"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

KINDS: tuple[Kind, ...] = (
    *(
        Kind(name=kind.name, category="shape", group="shape", stretch=0.0 if kind.name in RIGID else 0.6)
        for kind in _kinds(SHAPES, "shape")
    ),
    *_kinds("disc_cell nucleus_cell", "cell", group="cell", stretch=0.18),
    *_kinds("speck blob", "cell", stretch=0.35),
    *_kinds(" ".join(DIGITS), "digit", group="digit", turn=0.35),
    *_kinds("paragraph title text_line", "print", group="text", stretch=0.2, turn=0.12, bright=False),
    *_kinds("grid form chart", "print", stretch=0.3, turn=0.12, bright=False),
    *_kinds("barcode square_code", "print", stretch=0.15, turn=0.3, bright=False),
    *_kinds("stamp", "print", stretch=0.15, turn=0.6, bright=False),
    *_kinds("board", "board", stretch=0.3),
    *_kinds("figurine tower lamp", "figure", stretch=0.25, turn=0.22),
    *_kinds(VESSELS, "figure", group="vessel", stretch=0.25, turn=0.22),
    *_kinds("coin ball button", "thing", stretch=0.0),
    *_kinds("bar pen key", "thing", stretch=0.2),
    *_kinds("striped_panel checked_panel dotted_panel", "panel", group="panel", stretch=0.8),
    # Never named: what lies about, and the sheet under a poster.
    *_kinds("scrap", "junk", stretch=0.6),
    *_kinds("sheet", "sheet", stretch=0.0),
)
KIND = {kind.name: i for i, kind in enumerate(KINDS)}
UNNAMED = ("junk", "sheet")

COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # hue (in turns, below 0 wraps), saturation, value
    "red": ((-0.025, 0.015), (0.75, 1.0), (0.6, 0.95)),
    "orange": ((0.055, 0.09), (0.8, 1.0), (0.85, 1.0)),
    "yellow": ((0.13, 0.16), (0.7, 1.0), (0.85, 1.0)),
    "green": ((0.27, 0.41), (0.5, 1.0), (0.3, 0.8)),
    "blue": ((0.55, 0.66), (0.6, 1.0), (0.45, 0.95)),
    "purple": ((0.74, 0.8), (0.45, 0.9), (0.4, 0.8)),
    "black": ((0.0, 1.0), (0.0, 0.25), (0.02, 0.14)),
    "white": ((0.0, 1.0), (0.0, 0.05), (0.92, 1.0)),
    "pink": ((0.89, 0.95), (0.25, 0.5), (0.9, 1.0)),
    "brown": ((0.05, 0.08), (0.5, 0.75), (0.3, 0.5)),
    "grey": ((0.0, 1.0), (0.0, 0.06), (0.4, 0.65)),
}
NUM_TINTS = 8
"""The first so many colours also stand before the names of these shapes."""
TINTED_SHAPES = ("circle", "square", "triangle", "star", "ring", "heart", "cross")


def _names() -> tuple[str, ...]:
    tints = list(COLOURS)[:NUM_TINTS]
    return (
        *(kind.name for kind in KINDS if kind.category not in UNNAMED),
        *dict.fromkeys(kind.group for kind in KINDS if kind.group),
        *(f"{colour} {shape}" for shape in TINTED_SHAPES for colour in tints),
        *(f"{colour} shape" for colour in COLOURS),
        "light figurine",
        "dark figurine",
    )


NAMES: tuple[str, ...] = _names()
LIGHT = list(COLOURS).index("white")
DARK = list(COLOURS).index("black")


def _label_of(level: int, kind: Kind, colour: str) -> int:
    """The index in NAMES of one thing, -1 for what is never named."""
    if kind.category in UNNAMED:
        return -1
    name = kind.name
    if level == GROUPED and kind.group:
        name = kind.group
    elif level == BY_COLOUR and kind.category == "shape":
        name = f"{colour} shape"
    elif level in (TINTED, BY_COLOUR) and kind.name == "figurine" and colour in ("white", "black"):
        name = "light figurine" if colour == "white" else "dark figurine"
    elif level == TINTED and f"{colour} {name}" in NAMES:
        name = f"{colour} {name}"
    return NAMES.index(name)


LABELS: np.ndarray = np.array(
    [[[_label_of(level, kind, colour) for colour in COLOURS] for kind in KINDS] for level in range(4)]
)
"""Index in NAMES by level, kind and colour; -1 where there is none."""


def kinds_of(*categories: str) -> np.ndarray:
    """The indices in KINDS of every kind of these categories."""
    return np.array([i for i, kind in enumerate(KINDS) if kind.category in categories])


def level_of(name: str) -> int:
    """The level at which a name is used."""
    if name in {kind.group for kind in KINDS}:
        return GROUPED
    if name.endswith(" shape"):
        return BY_COLOUR
    return PLAIN if name in KIND else TINTED


def absent_names() -> tuple[list[int], list[list[bool]]]:
    """The level of each name, and for each level which names may be asked for where nothing bears them.

    A scene that says "star" holds a thing that is truly a "red star", so names of other levels are no fair question;
    nor are those of plain outlines, since an unnamed sheet or spot may have one.
    """
    levels = [level_of(name) for name in NAMES]
    unfair = {"rectangle", "square", "ellipse", "circle", "shape", "trapezoid"}
    tinted = {name.split(" ", 1)[1] for name, level in zip(NAMES, levels, strict=True) if level == TINTED}
    shapes = {kind.name for kind in KINDS if kind.category == "shape"}
    grouped = {kind.name for kind in KINDS if kind.group}
    hidden = {PLAIN: set(), TINTED: tinted, BY_COLOUR: shapes | {"figurine"}, GROUPED: grouped}
    fair = [
        [
            used in (PLAIN, level) and name not in hidden[level] and name.rpartition(" ")[2] not in unfair
            for name, used in zip(NAMES, levels, strict=True)
        ]
        for level in (PLAIN, TINTED, BY_COLOUR, GROUPED)
    ]
    return levels, fair
