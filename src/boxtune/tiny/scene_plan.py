"""A plan of many scenes: every parameter, drawn with numpy, nothing yet of pixels.

A scene has one style: strewn things, a desk, a scanned page, a poster, or a microscope's field. Things lie in slots,
later ones on top: first what is never named, then what is named, then some scraps over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from boxtune.tiny.scene_atlas import Index
from boxtune.tiny.scene_colours import cell_colours, ground_colours, thing_colours
from boxtune.tiny.scene_layout import (
    Lie,
    counts,
    crowd_cells,
    log_uniform,
    set_in_columns,
    size_things,
    strew,
)
from boxtune.tiny.scene_looks import (
    DESK,
    FIELD,
    LOOKS,
    POSTER,
    SCAN,
    STREWN,
    plan_looks,
    plan_photos,
    set_paper,
    set_rims,
)
from boxtune.tiny.scene_names import COLOURS, KIND, KINDS, LABELS, TINTED, TINTED_SHAPES, kinds_of

STYLE_SHARES = (0.38, 0.2, 0.17, 0.1, 0.15)
EMPTY_SHARE = 0.05
UNDER, OVER = 6, 2
"""Slots for unnamed things below and above the named ones."""
CATEGORY = np.array([kind.category for kind in KINDS])

# What a scene is about, with its share: the categories of its kinds.
_STREWN_THEMES: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.44, ("shape",)),
    (0.1, ("digit",)),
    (0.1, ("figure",)),
    (0.07, ("thing",)),
    (0.09, ("print",)),
    (0.05, ("panel",)),
    (0.05, ("board",)),
    (0.1, ("shape", "digit", "thing", "figure", "cell", "panel", "board")),
)
_DESK_THEMES: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.45, ("board",)),
    (0.25, ("figure",)),
    (0.15, ("thing",)),
    (0.1, ("print",)),
    (0.05, ("thing", "figure", "board", "panel")),
)


@dataclass(kw_only=True)
class Plan:
    """Every parameter of the scenes.

    `matrix` carries a thing's own frame (-1..1) to the scene's (0..1); `colours` are its first, second and third;
    `colour` says which colour its body has, -1 where it has none to speak of; `look` holds the numbers named in LOOKS.
    By scene: the colours of the ground, `surface` (which two), `lay` (the frame of the scene to that of each surface),
    `photo` (the numbers named in PHOTOS), `shift` of the grain.
    """

    style: Int[np.ndarray, " n"]
    level: Int[np.ndarray, " n"]
    kind: Int[np.ndarray, "n s"]
    sprite: Int[np.ndarray, "n s"]
    label: Int[np.ndarray, "n s"]
    matrix: Float[np.ndarray, "n s 3 3"]
    colours: Float[np.ndarray, "n s 3 3"]
    colour: Int[np.ndarray, "n s"]
    look: Float[np.ndarray, "n s l"]
    ground: Float[np.ndarray, "n 3 3"]
    surface: Int[np.ndarray, "n 2"]
    lay: Float[np.ndarray, "n 2 3 3"]
    photo: Float[np.ndarray, "n p"]
    shift: Int[np.ndarray, "n 2"]


def _kinds(
    rng: np.random.Generator, level: Int[np.ndarray, " n"], most: int, themes: tuple[tuple[float, tuple[str, ...]], ...]
) -> Int[np.ndarray, "n s"]:
    """Kinds for every slot of strewn scenes: each scene keeps to one to six kinds of its theme."""
    num = len(level)
    palette = np.zeros((num, 6), dtype=np.int64)
    tinted = np.array([KIND[name] for name in TINTED_SHAPES])
    chosen = rng.choice(len(themes), num, p=[share for share, _ in themes])
    if themes is _STREWN_THEMES:
        chosen = np.where((level == TINTED) & (rng.random(num) < 0.8), 0, chosen)
    for i, (_, categories) in enumerate(themes):
        rows = np.flatnonzero(chosen == i)
        pool = kinds_of(*categories)
        palette[rows] = pool[rng.integers(len(pool), size=(len(rows), 6))]
        if categories == ("shape",):
            mine = (level[rows] == TINTED)[:, None] & (rng.random((len(rows), 6)) < 0.8)
            palette[rows] = np.where(mine, tinted[rng.integers(len(tinted), size=mine.shape)], palette[rows])
    width = rng.choice([1, 1, 2, 3, 4, 6], num)[:, None]
    return np.take_along_axis(palette, (rng.random((num, most)) * width).astype(np.int64), axis=1)


def _strewn(rng: np.random.Generator, index: Index, level: Int[np.ndarray, " n"], most: int, *, desk: bool) -> Lie:
    num = len(level)
    kind = _kinds(rng, level, most, _DESK_THEMES if desk else _STREWN_THEMES)
    count = counts(rng, num, most)
    if desk:
        count = np.where(rng.random(num) < 0.75, rng.integers(1, min(3, most) + 1, num), np.minimum(count, 8))
    kind = np.where(np.arange(most) < count[:, None], kind, -1)
    base = log_uniform(rng, 0.1 if desk else 0.05, 0.8, (num, 1))
    base = np.minimum(base, 1.0 / np.sqrt(np.maximum(count, 1))[:, None])
    size = base * np.exp(rng.normal(0, 0.3, (num, 1)) * rng.normal(0, 1.3, (num, most)))
    least = np.where(np.isin(CATEGORY[kind], ["print", "board"]), 0.09, np.where(CATEGORY[kind] == "digit", 0.05, 0.02))
    lie = size_things(rng, index, kind, np.maximum(size, least), stretch=1.6)
    overlap = np.where(rng.random(num) < 0.3, rng.uniform(0.1, 1.2, num), 0.0)
    strew(rng, lie, overlap, np.where(rng.random(num) < 0.35, rng.uniform(0, 0.5, num), 0.0))
    return lie


def _camera(
    rng: np.random.Generator, num: int, turn: Float[np.ndarray, " n"], tilt: Float[np.ndarray, " n"]
) -> np.ndarray:
    """Homographies of the scene's frame, turned and tilted about its middle."""
    c, s = np.cos(turn), np.sin(turn)
    a, b = np.clip(rng.normal(0, 1, (2, num)), -2, 2) * tilt
    matrix = np.zeros((num, 3, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = c, -s, s, c
    matrix[:, 2, 0], matrix[:, 2, 1], matrix[:, 2, 2] = a, b, 1
    to_middle = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]])
    return np.linalg.inv(to_middle) @ matrix @ to_middle


def _matrices(rng: np.random.Generator, lie: Lie, tilt: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n s 3 3"]:
    """From each thing's own frame to the scene's, with a tilt of its own."""
    c, s = np.cos(lie.turn), np.sin(lie.turn)
    a, b = np.clip(rng.normal(0, 1, (2, *lie.x.shape)), -2, 2) * tilt[:, None]
    a, b = a * (lie.half_w + 0.1), b * (lie.half_h + 0.1)
    matrix = np.zeros((*lie.x.shape, 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1] = c * lie.half_w + lie.x * a, -s * lie.half_h + lie.x * b
    matrix[..., 1, 0], matrix[..., 1, 1] = s * lie.half_w + lie.y * a, c * lie.half_h + lie.y * b
    matrix[..., 0, 2], matrix[..., 1, 2] = lie.x, lie.y
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = a, b, 1
    return matrix


def _set(lie: Lie, rows: np.ndarray, columns: slice, part: Lie) -> None:
    for name in ("kind", "sprite", "x", "y", "half_w", "half_h", "turn"):
        getattr(lie, name)[rows, columns] = getattr(part, name)


def _scraps(rng: np.random.Generator, index: Index, num: int, most: int, share: float) -> Lie:
    """Scraps in some of the scenes, anywhere."""
    count = np.where(rng.random(num) < share, rng.integers(1, most + 1, num), 0)
    kind = np.where(np.arange(most) < count[:, None], KIND["scrap"], -1)
    lie = size_things(rng, index, kind, log_uniform(rng, 0.03, 0.7, (num, most)))
    strew(rng, lie, np.full(num, 2.0), np.full(num, 0.6))
    return lie


def plan_scenes(seed: int, num: int, max_objects: int, index: Index) -> Plan:
    """The plan of `num` scenes with at most `max_objects` named things each; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    style = rng.choice(5, num, p=STYLE_SHARES)
    # Colours before names are for strewn shapes above all.
    level = rng.choice(4, num, p=[0.55, 0.1, 0.1, 0.25])
    level = np.where(style == STREWN, rng.choice(4, num, p=[0.3, 0.35, 0.15, 0.2]), level)
    slots = UNDER + max_objects + OVER
    named = slice(UNDER, UNDER + max_objects)
    none = np.full((num, slots), -1)
    x, y, half_w, half_h, turned = (np.full((num, slots), value) for value in (0.5, 0.5, 0.5, 0.5, 0.0))
    lie = Lie(kind=none, sprite=none * 0, x=x, y=y, half_w=half_w, half_h=half_h, turn=turned)
    rows = [np.flatnonzero(style == which) for which in range(5)]
    _set(lie, rows[STREWN], named, _strewn(rng, index, level[rows[STREWN]], max_objects, desk=False))
    _set(lie, rows[DESK], named, _strewn(rng, index, level[rows[DESK]], max_objects, desk=True))
    _set(lie, rows[FIELD], named, crowd_cells(rng, index, len(rows[FIELD]), max_objects))
    pages = np.concatenate([rows[SCAN], rows[POSTER]])
    posters = style[pages] == POSTER
    blocks, sheet = set_in_columns(rng, index, len(pages), max_objects, posters=posters)
    _set(lie, pages, named, blocks)
    loose = np.concatenate([rows[STREWN], rows[DESK], rows[POSTER]])
    _set(lie, loose, slice(0, UNDER), _scraps(rng, index, len(loose), UNDER, 0.35))
    loose = np.concatenate([rows[STREWN], rows[DESK]])
    _set(lie, loose, slice(UNDER + max_objects, slots), _scraps(rng, index, len(loose), OVER, 0.15))
    papers = rows[DESK][rng.random(len(rows[DESK])) < 0.35]
    paper = size_things(rng, index, np.full((len(papers), 1), KIND["sheet"]), rng.uniform(0.3, 1.1, (len(papers), 1)))
    paper.half_w *= log_uniform(rng, 0.6, 1.6, paper.x.shape)
    strew(rng, paper, np.full(len(papers), 2.0), np.full(len(papers), 1.2))
    _set(lie, papers, slice(0, 1), paper)
    lie.kind[rng.random(num) < EMPTY_SHARE, named] = -1
    # The sheet lies under everything of its scene; a scan that fills the picture needs none.
    lie.kind[pages, 0] = KIND["sheet"]
    lie.sprite[pages, 0] = (
        index.first[KIND["sheet"]] + rng.integers(index.count[KIND["sheet"]], size=len(pages)) * posters
    )
    lie.x[pages, 0], lie.y[pages, 0] = (sheet[:, 0] + sheet[:, 2]) / 2, (sheet[:, 1] + sheet[:, 3]) / 2
    lie.half_w[pages, 0], lie.half_h[pages, 0] = (sheet[:, 2] - sheet[:, 0]) / 2, (sheet[:, 3] - sheet[:, 1]) / 2
    lie.turn[pages, 0] = 0
    whole = pages[(sheet[:, 2] - sheet[:, 0] > 0.99) & ~posters]
    lie.half_w[whole, 0], lie.half_h[whole, 0] = 0.7, 0.7

    tilt = np.choose(style, [0.05, 0.35, 0.0, 0.02, 0.0]) * rng.random(num)
    turn = np.choose(style, [0.0, 0.0, 0.012, 0.12, 0.0]) * rng.normal(0, 1, num)
    quarter = (style == POSTER) & (rng.random(num) < 0.08)
    camera = _camera(rng, num, turn + quarter * np.pi / 2, np.choose(style, [0.0, 0.0, 0.004, 0.12, 0.0]))
    matrix = camera[:, None] @ _matrices(rng, lie, tilt)

    ground = ground_colours(rng, num)
    colours, colour = thing_colours(rng, lie.kind, ground[:, 0], tints_only=level == TINTED)
    cells = rows[FIELD]
    colours[cells], ground[cells] = cell_colours(rng, lie.kind[cells])
    look = plan_looks(rng, style, level, lie.kind)
    set_paper(rng, style, lie.kind, look[..., LOOKS.index("clear")], colours, ground)
    set_rims(rng, lie.kind, colours, ground, look)
    tint = np.minimum(colour, len(COLOURS) - 1)
    label = np.where(lie.kind >= 0, LABELS[level[:, None], lie.kind, tint], -1)
    colour = np.where(np.isin(CATEGORY[lie.kind], ("print", "cell", "junk", "sheet")) | (lie.kind < 0), -1, colour)
    photo, surface, lay = plan_photos(rng, style, level)
    return Plan(
        style=style, level=level, kind=lie.kind, sprite=lie.sprite, label=label, matrix=matrix, colours=colours,
        colour=colour, look=look, ground=ground, surface=surface, lay=lay, photo=photo,
        shift=rng.integers(0, 512, (num, 2)),
    )  # fmt: skip
