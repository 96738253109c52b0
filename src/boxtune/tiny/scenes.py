"""Scenes without end for the embedded model to learn boxes from: pictures, boxes and names, drawn in batches.

`scene_plan` draws every parameter with numpy from the seed; `scene_render` and `scene_photo` turn the plan into
pixels with torch, alike on a CPU and on a GPU but for rounding. Nothing of any data set is in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from boxtune.tiny.scene_atlas import Atlas, build_atlas
from boxtune.tiny.scene_colours import NUM_COLOURS
from boxtune.tiny.scene_names import NAMES
from boxtune.tiny.scene_photo import by_name, expose, paint_ground
from boxtune.tiny.scene_plan import OVER, UNDER, Plan, plan_scenes
from boxtune.tiny.scene_render import Painter, build_batch

__all__ = ["NAMES", "NUM_COLOURS", "SceneMaker", "Scenes"]

LEAST_VISIBLE = 0.4
"""A thing bears a name while this share of its pixels can be seen."""
LEAST_SIDE_PX, LEAST_PIXELS = 4.0, 10
SMALLEST_SIDE = 56
# Pixels of pictures, and of windows, that are held at a time.
CHUNK_PIXELS = {"cpu": 2**20, "cuda": 2**28}


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """`images` uint8 (b, 3, side, side); `boxes_px` float32 (b, n, 4) x1 y1 x2 y2; `labels` int64 (b, n).

    Boxes are tight around what can be seen of a thing, in pixels; labels index NAMES and are -1, with a box of zeros,
    where there is nothing. Every thing that bears one of a scene's names has its box, but for those mostly covered.
    `sprites` and `colours` int64 (b, n) tell things of one name apart: which drawing each is of, and in which colour
    (-1 for none to speak of, and where there is nothing).
    """

    images: torch.Tensor
    boxes_px: torch.Tensor
    labels: torch.Tensor
    sprites: torch.Tensor
    colours: torch.Tensor


class SceneMaker:
    """Draws scenes of one size on one device."""

    def __init__(self, *, side: int = 336, device: torch.device | str = "cpu") -> None:
        """Makes the sprites, which takes some seconds. Raises ValueError for a side below 56 pixels."""
        if side < SMALLEST_SIDE:
            raise ValueError(f"side {side}: below {SMALLEST_SIDE} pixels too few things can be told apart")
        self.side, self.device = side, torch.device(device)
        self.atlas: Atlas = build_atlas(self.device)
        pixels = CHUNK_PIXELS.get(self.device.type, CHUNK_PIXELS["cpu"])
        self.chunk = max(1, pixels // side**2)
        self._painter = Painter(self.atlas, side, pixels // 8)

    def plan(self, seed: int, num: int, *, max_objects: int = 20) -> Plan:
        """What `draw` draws, before any pixel. Raises ValueError for less than one scene or one thing."""
        if num < 1 or max_objects < 1:
            raise ValueError(f"cannot draw {num} scenes of at most {max_objects} things")
        return plan_scenes(seed, num, max_objects, self.atlas.index)

    def draw(self, seed: int, num: int, *, max_objects: int = 20) -> Scenes:
        """`num` scenes with at most `max_objects` boxes each; the same for the same arguments and side."""
        scenes: Scenes = self.render(self.plan(seed, num, max_objects=max_objects))
        return scenes

    @torch.no_grad()
    def render(self, plan: Plan) -> Scenes:
        """The scenes of a plan, a chunk at a time."""
        num = len(plan.kind)
        parts = [self._draw_some(plan, slice(at, min(at + self.chunk, num))) for at in range(0, num, self.chunk)]
        images, boxes, labels, sprites, colours = (torch.cat(part) for part in zip(*parts, strict=True))
        return Scenes(images=images, boxes_px=boxes, labels=labels, sprites=sprites, colours=colours)

    def _draw_some(self, plan: Plan, rows: slice) -> tuple[torch.Tensor, ...]:
        p = by_name(self._tensor(plan.photo[rows]))
        canvas = paint_ground(
            self.atlas,
            self._tensor(plan.ground[rows]),
            self._tensor(plan.surface[rows]),
            self._tensor(plan.lay[rows]),
            p,
            self.side,
        )
        slots = plan.kind.shape[1]
        batch = build_batch(
            self.atlas,
            plan.kind[rows],
            plan.sprite[rows],
            plan.matrix[rows],
            plan.colours[rows],
            plan.look[rows],
            self.side,
        )
        box, seen, whole = self._painter.paint(canvas, batch, slots)
        images = expose(self.atlas, canvas, p, self._tensor(plan.shift[rows]))
        named = slice(UNDER, slots - OVER)
        box, seen, whole = box[:, named], seen[:, named], whole[:, named]
        label = self._tensor(plan.label[rows, named])
        sides = (box[..., 2:] - box[..., :2]).amin(dim=-1)
        kept = (label >= 0) & (seen >= LEAST_VISIBLE * whole) & (seen >= LEAST_PIXELS) & (sides >= LEAST_SIDE_PX)
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
        box = torch.where(kept[..., None], box, 0.0).gather(1, order[..., None].expand(-1, -1, 4))
        told = [label, *(self._tensor(array[rows, named]) for array in (plan.sprite, plan.colour))]
        return images, box, *(torch.where(kept, which, -1).gather(1, order) for which in told)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        kind = torch.int64 if array.dtype.kind in "iu" else torch.float32
        return torch.from_numpy(np.ascontiguousarray(array)).to(kind).to(self.device)
