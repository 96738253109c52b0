"""Things drawn into pictures: windows around them are filled all at once, then laid over each other slot by slot.

Every thing is a sprite seen through its own homography. Windows come in a few sizes, known on the CPU beforehand, so
nothing waits for the device. Frames: pixels of the picture, x right, y down, the middle of the first one at 0.5, 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from boxtune.tiny.scene_atlas import SIZES, Atlas
from boxtune.tiny.scene_looks import LOOKS
from boxtune.tiny.scene_outlines import REACH

WINDOW_SHARES = (0.12, 0.24, 0.42, 0.68, 1.0)
"""Widths and heights of windows, as shares of the picture's side."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The things of a number of scenes, sorted by window and slot: flat arrays on the CPU.

    `inverse` carries pixels to the thing's own frame; `tile` is its left and top texel and the texels across;
    `window` holds left, top, width and height in pixels.
    """

    scene: Int[np.ndarray, " m"]
    slot: Int[np.ndarray, " m"]
    inverse: Float[np.ndarray, "m 3 3"]
    tile: Int[np.ndarray, "m 3"]
    colours: Float[np.ndarray, "m 3 3"]
    look: Float[np.ndarray, "m l"]
    window: Int[np.ndarray, "m 4"]


def window_sizes(side: int) -> Int[np.ndarray, " w"]:
    """The widths that windows have, in pixels."""
    return np.unique([min(side, max(16, round(share * side / 8) * 8)) for share in WINDOW_SHARES[:-1]] + [side])


def build_batch(
    atlas: Atlas,
    kind: Int[np.ndarray, "n s"],
    sprite: Int[np.ndarray, "n s"],
    matrix: Float[np.ndarray, "n s 3 3"],
    colours: Float[np.ndarray, "n s 3 3"],
    look: Float[np.ndarray, "n s l"],
    side: int,
) -> Batch:
    """The things of these scenes that can be seen, with the window each needs."""
    scene, slot = np.nonzero(kind >= 0)
    to_px = np.diag([side, side, 1.0]) @ matrix[scene, slot]
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1.0]]) * [REACH, REACH, 1]
    carried = corners @ np.swapaxes(to_px, 1, 2)
    points = carried[..., :2] / np.maximum(carried[..., 2:], 1e-3)
    low, high = np.floor(points.min(axis=1)) - 2, np.ceil(points.max(axis=1)) + 2
    visible = ((high > 0) & (low < side)).all(axis=1)
    low, high = np.clip(low, 0, side).astype(np.int64), np.clip(high, 0, side).astype(np.int64)
    sizes = window_sizes(side)
    extent = sizes[np.searchsorted(sizes, high - low).clip(0, len(sizes) - 1)]
    window = np.concatenate([np.minimum(low, side - extent), extent], axis=1)
    # The level whose texels are nearest to pixels, by the area of the thing.
    across = np.sqrt(np.abs(np.linalg.det(to_px[:, :2, :2]))) * 2 * REACH
    level = np.round(np.log2(SIZES[0] / np.maximum(across, 1)) - 0.15).clip(0, len(SIZES) - 1).astype(np.int64)
    chosen = np.flatnonzero(visible)
    order = chosen[np.lexsort((slot[chosen], extent[chosen, 1], extent[chosen, 0]))]
    scene, slot = scene[order], slot[order]
    return Batch(
        scene=scene,
        slot=slot,
        inverse=np.linalg.inv(to_px[order]),
        tile=atlas.index.tiles[sprite[scene, slot], level[order]],
        colours=colours[scene, slot],
        look=look[scene, slot],
        window=window[order],
    )


def _runs(keys: Int[np.ndarray, "m k"]) -> Iterator[slice]:
    """Slices of equal rows."""
    if not len(keys):
        return
    starts = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
    bounds = [0, *starts.tolist(), len(keys)]
    yield from (slice(a, b) for a, b in pairwise(bounds))


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Drawn windows of one size: what is kept of the picture below, what is added, and which pixels are the thing's."""

    keep: torch.Tensor
    add: torch.Tensor
    own: torch.Tensor


class Painter:
    """Draws batches of things for one atlas and one size of picture."""

    def __init__(self, atlas: Atlas, side: int, most_pixels: int) -> None:
        """`most_pixels` bounds how many pixels of windows are computed at a time."""
        self.atlas, self.side, self.most_pixels = atlas, side, most_pixels
        self.device = atlas.texels.device

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        kind = torch.int64 if array.dtype.kind in "iu" else torch.float32
        return torch.from_numpy(np.ascontiguousarray(array)).to(kind).to(self.device, non_blocking=True)

    def paint(self, canvas: torch.Tensor, batch: Batch, slots: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Lays the things onto the canvas (3, scenes, side, side), in place.

        Returns by scene and slot the box of what stays visible (x1, y1, x2, y2 in pixels), how many pixels of it are
        visible, and how many it has within the picture.
        """
        num, side = canvas.shape[1], self.side
        scene, slot, window = (self._tensor(array) for array in (batch.scene, batch.slot, batch.window))
        numbers = [self._tensor(array) for array in (batch.inverse, batch.tile, batch.colours, batch.look)]
        groups = []
        for run in _runs(batch.window[:, 2:]):
            width, height = (int(v) for v in batch.window[run.start, 2:])
            groups += [(run, self._draw([*numbers, window], run, width, height))]
        start = scene * side * side + window[:, 1] * side + window[:, 0]
        owner = torch.full((num * side * side,), -1, dtype=torch.int16, device=self.device)
        flat = canvas.view(3, -1)
        # By slot first: a scene has one thing in each, so that no two windows of a step can overlap.
        steps = []
        for number, (run, patches) in enumerate(groups):
            for part in _runs(batch.slot[run, None]):
                steps.append((int(batch.slot[run][part.start]), number, part, patches))
        for at_slot, number, part, patches in sorted(steps, key=lambda step: step[:2]):
            rows = slice(groups[number][0].start + part.start, groups[number][0].start + part.stop)
            where = start[rows, None, None] + self._offsets(*patches.own.shape[1:])
            flat[:, where] = flat[:, where] * patches.keep[None, part] + patches.add[:, part]
            own = patches.own[part]
            owner[where] = torch.where(own, at_slot, owner[where])
        box = torch.zeros(num, slots, 4, device=self.device)
        seen, whole = (torch.zeros(num, slots, device=self.device) for _ in range(2))
        for run, patches in groups:
            where = start[run, None, None] + self._offsets(*patches.own.shape[1:])
            left = owner[where] == slot[run, None, None]
            box[scene[run], slot[run]] = _extents(left) + window[run, :2].repeat(1, 2)
            seen[scene[run], slot[run]] = left.sum(dim=(1, 2)).float()
            whole[scene[run], slot[run]] = patches.own.sum(dim=(1, 2)).float()
        return box, seen, whole

    def _offsets(self, height: int, width: int) -> torch.Tensor:
        rows = torch.arange(height, device=self.device)[:, None] * self.side
        return rows + torch.arange(width, device=self.device)

    def _draw(self, numbers: list[torch.Tensor], run: slice, width: int, height: int) -> Patches:
        step = max(1, self.most_pixels // (width * height))
        parts = []
        for at in range(run.start, run.stop, step):
            rows = slice(at, min(at + step, run.stop))
            inverse, tile, colours, look, window = (array[rows] for array in numbers)
            parts.append(self._draw_some(inverse, tile, colours, look, window, width, height))
        keep, add, own = zip(*parts, strict=True)
        return Patches(keep=torch.cat(keep), add=torch.cat(add, dim=1), own=torch.cat(own))

    def _draw_some(
        self,
        inverse: torch.Tensor,
        tile: torch.Tensor,
        colours: torch.Tensor,
        look: torch.Tensor,
        window: torch.Tensor,
        width: int,
        height: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is kept of the ground, what is added (3 first) and what is the thing's, for windows of one size."""
        p = {name: look[:, i, None, None] for i, name in enumerate(LOOKS)}
        px = self.side / 1000
        x = (torch.arange(width, device=self.device) + 0.5)[None, None, :] + window[:, 0, None, None]
        y = (torch.arange(height, device=self.device) + 0.5)[None, :, None] + window[:, 1, None, None]
        m = inverse[..., None, None]
        over = 1 / (m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2])
        u = (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) * over
        v = (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) * over
        u, v = u + p["warp"] * torch.sin(p["warp_f"] * v + p["warp_p"]), v + p["warp"] * torch.sin(p["warp_f"] * u)
        field, second, third, light = self._look_up(u, v, tile)
        # The field over its own slope is the distance in pixels, however the thing is stretched or tilted.
        across = F.pad(field[:, :, 1:] - field[:, :, :-1], (0, 1), mode="replicate")
        down = F.pad((field[:, 1:] - field[:, :-1]).unsqueeze(1), (0, 0, 0, 1), mode="replicate").squeeze(1)
        slope = torch.sqrt(across * across + down * down).clamp_min(1e-4)
        far = field / slope
        inside = (0.5 - far).clamp(0, 1)
        thick = (p["outline"] * px).clamp_min(1.4)
        band = (0.5 + thick / 2 - (far + thick / 2).abs()).clamp(0, 1)
        inside = torch.where(p["outline"] > 0, band, inside)
        marks = torch.maximum(second, third)
        alpha = inside * torch.lerp(torch.ones_like(marks), marks, p["clear"]) * p["opacity"]
        colour = self._colour(colours, p, u, v, second, third, light, far / px)
        # A soft shadow, deeper on the side away from the light.
        side = 0.6 + 0.4 * (u * p["shadow_x"] + v * p["shadow_y"]).clamp(-1.5, 1)
        shadow = p["shadow"] * side * torch.exp(-far.clamp_min(0) / (p["shadow_soft"] * px)) * (1 - p["clear"])
        # Where the field is flat at the sprite's rim, no distance can be told: shadows fade before it.
        fade = ((REACH - torch.maximum(u.abs(), v.abs())) / (REACH - 1)).clamp(0, 1)
        keep = (1 - alpha) * (1 - shadow * fade)
        return keep, alpha * colour, inside > 0.5

    def _look_up(self, u: torch.Tensor, v: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        """The four channels at these places of the sprites, each (m, height, width)."""
        size = tile[:, 2, None, None]
        high, wide = self.atlas.texels.shape[2:]
        tx, ty = ((axis / REACH * 0.5 + 0.5) * size for axis in (u, v))
        tx = torch.minimum(tx.clamp_min(0.5), size - 0.5) + tile[:, 0, None, None]
        ty = torch.minimum(ty.clamp_min(0.5), size - 0.5) + tile[:, 1, None, None]
        where = torch.stack([tx * (2 / wide) - 1, ty * (2 / high) - 1], dim=-1)
        flat = where.view(1, -1, where.shape[2], 2)
        return F.grid_sample(self.atlas.texels, flat, align_corners=False).view(4, *u.shape)

    def _colour(
        self,
        colours: torch.Tensor,
        p: dict[str, torch.Tensor],
        u: torch.Tensor,
        v: torch.Tensor,
        second: torch.Tensor,
        third: torch.Tensor,
        light: torch.Tensor,
        far: torch.Tensor,
    ) -> torch.Tensor:
        """RGB at every pixel, (3, m, height, width); `far` is the distance to the outline in thousandths."""
        one, two = u * p["pattern_fx"], v * p["pattern_fy"]
        wave = torch.where(p["pattern_both"] > 0, torch.sin(one) * torch.sin(two), torch.sin(one + two))
        amount = torch.maximum((0.5 + 3 * wave).clamp(0, 1) * p["pattern"], third)
        a, b, c = (colours[:, i].t()[:, :, None, None] for i in range(3))
        colour = a + amount * (c - a)
        colour = colour + second * (b - colour)
        rim = (1 + far / p["rim"].clamp_min(0.1)).clamp(0, 1) * (p["rim"] > 0) * p["rim_dark"]
        grain = self._mottle(u, v, p) * p["mottle"]
        gain = (2 * light).clamp_max(1) * (1 + p["shade_x"] * u + p["shade_y"] * v + grain - rim.clamp_min(0))
        colour = colour * gain
        return colour + ((2 * light - 1).clamp_min(0) + (-rim).clamp_min(0)) * (1 - colour)

    def _mottle(self, u: torch.Tensor, v: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
        """Rough noise in -1..1 that lies on the thing."""
        where = torch.stack([u + p["warp_p"], v + p["warp_p"]], dim=-1) * p["mottle_size"].unsqueeze(-1)
        flat = where.view(1, -1, where.shape[2], 2)
        stone = self.atlas.surfaces[2:3]
        return F.grid_sample(stone, flat, padding_mode="reflection", align_corners=False).view(u.shape) * 2 - 1


def _extents(mask: torch.Tensor) -> torch.Tensor:
    """x1, y1, x2, y2 of the true pixels of each (m, height, width); nonsense where there are none."""
    ends = []
    for dim in (1, 2):
        line = mask.any(dim=dim).to(torch.uint8)
        first = line.argmax(dim=1)
        last = line.shape[1] - line.flip(1).argmax(dim=1)
        ends.append((first, last))
    (x1, x2), (y1, y2) = ends
    return torch.stack([x1, y1, x2, y2], dim=1).float()
