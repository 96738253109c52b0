"""All sprites in one picture, each at several sizes; surfaces for backgrounds; and grain for the sensor.

Made on the CPU from one fixed seed in a few seconds, so that two makers hold the same.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from boxtune.tiny import scene_print, scene_sprites
from boxtune.tiny.scene_names import KIND, KINDS
from boxtune.tiny.scene_sprites import Plane, Sprite, noise

SEED = 20_250_131
WIDTH = 4096
SIZES = (scene_print.SIDE, scene_sprites.SIDE, 48, 24, 12)
"""Texels across a sprite at each level; the first is for print and boards alone."""
SURFACE_SIDE = 256
GRAIN_SIDE = 512


@dataclass(frozen=True, kw_only=True)
class Index:
    """What the planning needs to know of the sprites: no pixels.

    `first` and `count` are by kind; `kinds` and `aspect` by sprite; `tiles` holds by sprite and level the left and top
    texel and the texels across (a sprite without the finest level repeats the next).
    """

    kinds: Int[np.ndarray, " sprites"]
    first: Int[np.ndarray, " kinds"]
    count: Int[np.ndarray, " kinds"]
    aspect: Float[np.ndarray, " sprites"]
    tiles: Int[np.ndarray, "sprites levels 3"]


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """`texels` is (1, 4, height, width), channels as in `scene_sprites`; `surfaces` (num, 1, 256, 256) in 0..1;
    `grain` (512, 512, 3) with mean 0 and deviation 1."""

    index: Index
    texels: torch.Tensor
    surfaces: torch.Tensor
    grain: torch.Tensor


def _planes(sprite: Sprite) -> torch.Tensor:
    """The four channels of a sprite, (4, side, side), its field enlarged."""
    side = SIZES[0] if sprite.kind in scene_print.KINDS_PRINTED else SIZES[1]
    field = torch.from_numpy(np.ascontiguousarray(sprite.field, dtype=np.float32))[None, None]
    field = F.interpolate(field, size=(side, side), mode="bilinear", align_corners=False)[0, 0]
    rest = [
        torch.full((side, side), blank)
        if plane is None
        else torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))
        for plane, blank in ((sprite.second, 0.0), (sprite.third, 0.0), (sprite.light, 0.5))
    ]
    return torch.stack([field, *rest])


def _pack(sprites: list[Sprite]) -> tuple[torch.Tensor, Int[np.ndarray, "sprites levels 3"]]:
    """The sprites at every level, row by row, and where each lies."""
    tiles = np.zeros((len(sprites), len(SIZES), 3), dtype=np.int64)
    levels = [_planes(sprite) for sprite in sprites]
    strips, top = [], 0
    for level, size in enumerate(SIZES):
        held = [i for i, planes in enumerate(levels) if planes.shape[-1] == size]
        across = WIDTH // size
        rows = -(-len(held) // across)
        strip = torch.zeros(4, rows * size, WIDTH)
        for place, i in enumerate(held):
            y, x = place // across * size, place % across * size
            strip[:, y : y + size, x : x + size] = levels[i]
            tiles[i, level] = x, top + y, size
            levels[i] = F.avg_pool2d(levels[i], 2)
            if sprites[i].kind in scene_print.KINDS_PRINTED:
                # Ink spreads: without this small print would fade to the grey of its paper.
                levels[i][1] = (levels[i][1] * 1.25).clamp_max(1)
        strips.append(strip)
        top += rows * size
    missing = tiles[:, 0, 2] == 0
    tiles[missing, 0] = tiles[missing, 1]
    return torch.cat(strips, dim=1)[None], tiles


def _surface(rng: np.random.Generator, number: int) -> Plane:
    """One grey surface; the number picks what it is of."""
    side = SURFACE_SIDE
    y, x = np.mgrid[0:side, 0:side] / side
    fine, coarse = noise(rng, 60, side), noise(rng, int(rng.integers(3, 7)), side)
    mid, speck = noise(rng, int(rng.integers(10, 25)), side), rng.random((side, side))
    waves = int(rng.integers(4, 9)) * np.pi
    if number % 10 == 0:  # wood: rings stretched along one axis, boards
        streak = noise(rng, 40, side)[:, [0]] * 0.35 + 0.65 * np.repeat(noise(rng, 9, side)[:, ::16], 16, axis=1)
        board = np.abs((y * int(rng.integers(2, 6))) % 1 - 0.5) > 0.49
        return (0.55 * streak + 0.25 * noise(rng, 30, side) + 0.2 * coarse - 0.5 * board).clip(0, 1)
    if number % 10 == 1:  # woven cloth
        return (0.5 + 0.22 * np.sin(40 * np.pi * x) + 0.22 * np.sin(40 * np.pi * y) + 0.3 * (fine - 0.5)).clip(0, 1)
    if number % 10 == 2:  # concrete, stone
        return (0.45 * coarse + 0.3 * mid + 0.2 * fine + 0.15 * speck).clip(0, 1)
    if number % 10 == 3:  # chequered
        return ((np.floor(x * 8) + np.floor(y * 8)) % 2) * 0.9 + 0.1 * fine
    if number % 10 == 4:  # stripes
        return (0.5 + 2 * np.sin(waves * 2 * x)).clip(0, 1)
    if number % 10 == 5:  # dots
        return (2 * np.sin(waves * x) * np.sin(waves * y) - 0.5).clip(0, 1)
    if number % 10 == 6:  # tiles
        num = int(rng.integers(3, 8))
        joint = np.maximum(np.abs((x * num) % 1 - 0.5), np.abs((y * num) % 1 - 0.5)) > 0.47
        return (0.6 + 0.3 * (mid - 0.5) - 0.6 * joint).clip(0, 1)
    if number % 10 == 7:  # carpet, grass
        return (0.6 * speck + 0.4 * fine).clip(0, 1)
    if number % 10 == 8:  # blobs out of focus
        return np.clip((coarse - 0.5) * 4 + 0.5, 0, 1)
    return coarse


@functools.lru_cache(maxsize=1)
def build_atlas(device: torch.device) -> Atlas:
    """The atlas on the device; the same on every machine but for rounding. Made once: it takes some seconds."""
    rng = np.random.default_rng(SEED)
    drawn = [*scene_sprites.draw_sprites(rng), *scene_print.draw_printed(rng)]
    sprites = sorted(drawn, key=lambda sprite: KIND[sprite.kind])
    kinds = np.array([KIND[sprite.kind] for sprite in sprites])
    texels, tiles = _pack(sprites)
    surfaces = np.stack([_surface(rng, number) for number in range(40)])[:, None]
    grain = rng.normal(0, 1, (GRAIN_SIDE, GRAIN_SIDE, 3))
    return Atlas(
        index=Index(
            kinds=kinds,
            first=np.searchsorted(kinds, np.arange(len(KINDS))),
            count=np.bincount(kinds, minlength=len(KINDS)),
            aspect=np.array([sprite.aspect for sprite in sprites]),
            tiles=tiles,
        ),
        texels=texels.to(device),
        surfaces=torch.from_numpy(surfaces.astype(np.float32)).to(device),
        grain=torch.from_numpy(grain.astype(np.float32)).to(device),
    )
