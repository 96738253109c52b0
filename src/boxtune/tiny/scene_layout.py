"""Where the things of a scene lie: strewn, crowded, or set in columns on a sheet.

Everything is planned for many scenes at once. Frame: the scene's own, x right, y down, 0..1 in both axes. Arrays are
(scenes, things).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.tiny.scene_atlas import Index
from boxtune.tiny.scene_names import KIND, KINDS

Many = Float[np.ndarray, "n s"]
STRETCH = np.array([kind.stretch for kind in KINDS])
TURN = np.array([kind.turn for kind in KINDS])
TRIES = 7


@dataclass(kw_only=True)
class Lie:
    """Kinds (-1 for none), sprites, middles, half sizes along the thing's own axes, and turns in radians."""

    kind: Int[np.ndarray, "n s"]
    sprite: Int[np.ndarray, "n s"]
    x: Many
    y: Many
    half_w: Many
    half_h: Many
    turn: Many


def pick_sprites(rng: np.random.Generator, index: Index, kind: Int[np.ndarray, "*some"]) -> Int[np.ndarray, "*some"]:
    """A sprite of each kind, any for -1."""
    return index.first[kind] + (rng.random(kind.shape) * index.count[kind]).astype(np.int64)


def log_uniform(rng: np.random.Generator, low: float, high: float, size: tuple[int, ...]) -> Float[np.ndarray, "*some"]:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


def counts(rng: np.random.Generator, num: int, most: int) -> Int[np.ndarray, " n"]:
    """How many things each scene gets: half of them 1 to 4, some many."""
    share, part = rng.random(num), rng.random(num)
    few, some, many = 1 + part * 4, 5 + part * 5, 10 + part * 11
    return np.minimum(np.select([share < 0.55, share < 0.8], [few, some], many).astype(np.int64), most)


def size_things(
    rng: np.random.Generator, index: Index, kind: Int[np.ndarray, "n s"], size: Many, stretch: float = 1.0
) -> Lie:
    """Things about that large (the square root of their area), not yet placed; none longer than 0.85."""
    sprite = pick_sprites(rng, index, kind)
    aspect = index.aspect[sprite] * np.exp(STRETCH[kind] * stretch * rng.uniform(-1, 1, kind.shape))
    # A scene in three has everything upright.
    free = np.where(rng.random((len(kind), 1)) < 0.33, 0.03, 1.0)
    turn = np.where(TURN[kind] > 3, rng.uniform(-np.pi, np.pi, kind.shape), rng.normal(0, 0.5, kind.shape) * TURN[kind])
    root = np.sqrt(aspect)
    size = np.minimum(size, 0.85 / np.maximum(root, 1 / root))
    none = np.full(kind.shape, 0.5)
    half_w, half_h = size * root / 2, size / root / 2
    return Lie(kind=kind, sprite=sprite, x=none, y=none.copy(), half_w=half_w, half_h=half_h, turn=turn * free)


def hull_halves(lie: Lie) -> tuple[Many, Many]:
    """Half the width and height of the upright rectangle about each turned one."""
    c, s = np.abs(np.cos(lie.turn)), np.abs(np.sin(lie.turn))
    return c * lie.half_w + s * lie.half_h, s * lie.half_w + c * lie.half_h


def strew(rng: np.random.Generator, lie: Lie, overlap: Float[np.ndarray, " n"], cut: Float[np.ndarray, " n"]) -> None:
    """Places the things in turn, each at the freest of some random spots.

    `overlap` is how deep they may reach into each other before a spot counts as less free (0 none, 1 anything);
    `cut` how much of a thing's half size may lie beyond the edge. Things that found no free spot are left out, unless
    anything goes.
    """
    num, most = lie.kind.shape
    wide, high = hull_halves(lie)
    # What is wider than the scene is pushed to its middle.
    reach_x, reach_y = (np.maximum(0.5 - half * (1 - cut)[:, None], 0.0) for half in (wide, high))
    spots = rng.uniform(-1, 1, (num, most, TRIES, 2))
    rows = np.arange(num)
    there = lie.kind >= 0
    slack = (1 - overlap)[:, None, None]
    for s in range(most):
        xs = 0.5 + spots[:, s, :, 0] * reach_x[:, s, None]
        ys = 0.5 + spots[:, s, :, 1] * reach_y[:, s, None]
        best = np.zeros(num, dtype=np.int64)
        if s:
            dx = np.abs(xs[:, :, None] - lie.x[:, None, :s]) - (wide[:, :s] + wide[:, [s]])[:, None] * slack
            dy = np.abs(ys[:, :, None] - lie.y[:, None, :s]) - (high[:, :s] + high[:, [s]])[:, None] * slack
            room = np.where(there[:, None, :s], np.maximum(dx, dy), 1.0).min(axis=2)
            best = room.argmax(axis=1)
            there[:, s] &= (room[rows, best] > 0) | (overlap >= 1)
        lie.x[:, s], lie.y[:, s] = xs[rows, best], ys[rows, best]
    lie.kind[~there] = -1


BLOCKS = np.array(
    [
        KIND[name]
        for name in "paragraph,title,text line,grid,form,chart,barcode,square code,stamp,star,ring,heart,leaf".split(
            ","
        )
    ]
)
_SCAN = np.array([0.34, 0.13, 0.12, 0.26, 0.05, 0.07, 0.01, 0.01, 0.01, 0, 0, 0, 0])
_POSTER = np.array([0.16, 0.18, 0.13, 0.24, 0.03, 0.03, 0.06, 0.03, 0.04, 0.03, 0.02, 0.03, 0.02])
_SMALL = np.isin(BLOCKS, [KIND[n] for n in ("barcode", "square code", "stamp", "star", "ring", "heart", "leaf")])


def set_in_columns(
    rng: np.random.Generator, index: Index, num: int, most: int, *, posters: Bool[np.ndarray, " n"]
) -> tuple[Lie, Float[np.ndarray, "n 4"]]:
    """Blocks laid out in one to three columns down a sheet, without overlap, at most two grids on each.

    Also the sheet itself, x1, y1, x2, y2: about the whole scene for a scanned page, less for a poster.
    """
    wide = np.where(
        posters, rng.uniform(0.35, 1.15, num), np.where(rng.random(num) < 0.6, 1.0, rng.uniform(0.62, 0.95, num))
    )
    high = np.where(
        posters, (wide * log_uniform(rng, 0.7, 1.6, (num,))).clip(0.3, 1.15), rng.choice([1.0, 1.0, 0.95], num)
    )
    left, top = (1 - wide) * rng.uniform(0.2, 0.8, num), (1 - high) * rng.uniform(0.2, 0.8, num)
    sheet = np.column_stack([left, top, left + wide, top + high])
    margin = rng.uniform(0.03, 0.13, num) * wide
    columns = np.where(posters, rng.choice([1, 1, 2], num), rng.choice([1, 1, 1, 2, 2, 3], num))
    gutter = rng.uniform(0.02, 0.05, num) * wide
    first_y = top + margin * rng.uniform(0.5, 2.5, num)
    floor_y = top + high - margin * rng.uniform(0.6, 3.0, num)
    # How much each page has of each block differs from page to page.
    shares = np.where(posters[:, None], _POSTER, _SCAN) * rng.exponential(1, (num, len(BLOCKS)))
    ladder = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
    # Some pages are a heading and one large grid.
    lead = rng.random(num) < 0.35
    columns = np.where(lead, 1, columns)
    column_w = (wide - 2 * margin - gutter * (columns - 1)) / columns
    picked = np.minimum((rng.random((num, most, 1)) > ladder[:, None]).sum(axis=2), len(BLOCKS) - 1)
    picked[lead, : min(2, most)] = np.array([1, 3])[: min(2, most)]
    part, stretch, gap = (
        rng.random((num, most)),
        rng.uniform(-1, 1, (num, most)),
        log_uniform(rng, 0.008, 0.06, (num, most)),
    )
    kind = np.full((num, most), -1)
    sprite = np.zeros((num, most), dtype=np.int64)
    x, y, w, h = (np.full((num, most), 0.5) for _ in range(4))
    column, at, grids = np.zeros(num, dtype=np.int64), first_y.copy(), np.zeros(num, dtype=np.int64)
    middle = rng.random(num) < 0.5
    for s in range(most):
        block = np.where((BLOCKS[picked[:, s]] == KIND["grid"]) & (grids >= 2), 0, picked[:, s])
        kinds = BLOCKS[block]
        sprite[:, s] = pick_sprites(rng, index, kinds)
        share = np.where(_SMALL[block], 0.12 + 0.3 * part[:, s], 0.45 + 0.55 * part[:, s])
        share = np.where(kinds == KIND["paragraph"], 1 - 0.1 * part[:, s], share)
        share = np.where(kinds == KIND["text line"], 0.15 + 0.4 * part[:, s] ** 2, share)
        share = np.where(kinds == KIND["grid"], 0.5 + 0.6 * part[:, s], share).clip(0, 1)
        w[:, s] = column_w * share
        # Headings keep to the size of letters.
        is_title = kinds == KIND["title"]
        w[:, s] = np.where(is_title, np.minimum(w[:, s], 0.09 * index.aspect[sprite[:, s]]), w[:, s])
        h[:, s] = w[:, s] / (index.aspect[sprite[:, s]] * np.exp(STRETCH[kinds] * stretch[:, s]))
        if s == 1:
            h[:, s] = np.where(lead, np.maximum(h[:, s], part[:, s] * (floor_y - at)), h[:, s])
        left_over = floor_y - at
        full = left_over < np.minimum(h[:, s] * 0.5, 0.12)
        column, at = column + full, np.where(full, first_y, at)
        h[:, s] = np.minimum(h[:, s], floor_y - at)
        there = (column < columns) & (h[:, s] > 0.006)
        start = left + margin + column * (column_w + gutter)
        x[:, s] = start + np.where(middle, column_w / 2, w[:, s] / 2)
        y[:, s] = at + h[:, s] / 2
        at = at + h[:, s] + gap[:, s]
        kind[there, s] = kinds[there]
        grids += there & (kinds == KIND["grid"])
    w, h = np.maximum(w, 0.004), np.maximum(h, 0.004)
    return Lie(kind=kind, sprite=sprite, x=x, y=y, half_w=w / 2, half_h=h / 2, turn=np.zeros((num, most))), sheet


def crowd_cells(rng: np.random.Generator, index: Index, num: int, most: int) -> Lie:
    """A microscope's field: round cells of about one size, some touching, a few with a nucleus, a few specks."""
    count = np.minimum((5 + rng.random(num) ** 0.7 * max(most - 4, 1)).astype(np.int64), most)
    base = np.minimum(log_uniform(rng, 0.09, 0.26, (num,)), 0.95 / np.sqrt(count))
    part = rng.random((num, most))
    nuclei, specks = rng.choice([0.0, 0.08, 0.12, 0.4], (num, 1)), rng.choice([0.0, 0.12, 0.2], (num, 1))
    kind = np.where(part < nuclei, KIND["nucleus cell"], KIND["disc cell"])
    kind = np.where(part > 1 - specks, KIND["speck"], kind)
    # A few fields hold irregular blobs alone.
    kind = np.where(rng.random((num, 1)) < 0.08, KIND["blob"], kind)
    size = base[:, None] * np.exp(rng.normal(0, 0.12, (num, most)))
    size = size * np.select([kind == KIND["nucleus cell"], kind == KIND["speck"]], [rng.uniform(1.1, 2.0), 0.35], 1.0)
    kind = np.where(np.arange(most) < count[:, None], kind, -1)
    lie = size_things(rng, index, kind, size)
    strew(rng, lie, rng.choice([0.0, 0.2, 0.35, 0.5], num), rng.uniform(0.0, 0.6, num))
    return lie
