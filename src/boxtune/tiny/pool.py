"""Scenes kept on the device, seen each time through another window: where, how large, in what light."""

from __future__ import annotations

import torch

from boxtune.tiny.scenes import SceneMaker

CHUNK = 1024
COUNTS = ((0, 2), (2, 4), (4, 10), (8, 20))
"""Least and most objects of the scenes that are taken together."""
MIN_SIDE_PX = 4.0
MIN_VISIBLE = 0.5
"""Share of a box's area inside the window below which the object is no longer named."""


def look_through(
    images: torch.Tensor,
    which: torch.Tensor,
    corner: torch.Tensor,
    share: torch.Tensor,
    gain: torch.Tensor,
    lift: torch.Tensor,
    height: int,
    width: int,
) -> torch.Tensor:
    """uint8 (num, 3, height, width) of the images `which`, seen between `corner` and `corner + share` (x, y in 0..1),
    bilinear, with their colours times `gain` plus `lift` (of 255)."""
    side = images.shape[-1]

    def along(axis: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        steps = (torch.arange(size, device=images.device) + 0.5) / size
        place = ((corner[:, axis, None] + share[:, axis, None] * steps) * side - 0.5).clamp(0, side - 1)
        low = place.floor().clamp(max=side - 2)
        return low.long(), place - low

    (x, part_x), (y, part_y) = along(0, width), along(1, height)
    part_x, part_y = part_x[:, None, None, :], part_y[:, None, :, None]
    channel = torch.arange(3, device=images.device)[None, :, None, None]
    image, row, column = which[:, None, None, None], y[:, None, :, None], x[:, None, None, :]

    def across(row: torch.Tensor) -> torch.Tensor:
        left, right = images[image, channel, row, column], images[image, channel, row, column + 1]
        return torch.lerp(left.float(), right.float(), part_x)

    return (torch.lerp(across(row), across(row + 1), part_y) * gain + lift).clamp(0, 255).round().to(torch.uint8)


class Pool:
    """`num` scenes of SIDE x SIDE pixels drawn by `maker`; `refresh` draws some of them anew."""

    SIDE = 392

    def __init__(self, maker: SceneMaker, num: int, seed: int, *, compiled: bool = False) -> None:
        self._look = torch.compile(look_through, dynamic=True) if compiled else look_through
        self.maker, self.seed, self.chunk = maker, seed, min(CHUNK, num)
        self.num = -(-num // self.chunk) * self.chunk
        first = maker.draw(seed, self.chunk)
        self.images = torch.empty((self.num, *first.images.shape[1:]), dtype=torch.uint8, device=first.images.device)
        self.boxes = torch.zeros((self.num, *first.boxes_px.shape[1:]), device=first.images.device)
        # By thing: its name, its drawing, its colour.
        self.told = torch.full((self.num, first.labels.shape[1], 3), -1, device=first.images.device)
        self.drawn = 0
        for _ in range(self.num // self.chunk):
            self._draw()
        self._count()

    def refresh(self) -> None:
        """Draw one chunk anew, the oldest first."""
        self._draw()
        self._count()

    def _draw(self) -> None:
        at = (self.drawn * self.chunk) % self.num
        scenes = self.maker.draw(self.seed + 1 + self.drawn, self.chunk)
        rows = slice(at, at + self.chunk)
        self.images[rows], self.boxes[rows] = scenes.images, scenes.boxes_px
        self.told[rows] = torch.stack([scenes.labels, scenes.sprites, scenes.colours], dim=-1)
        self.drawn += 1

    def _count(self) -> None:
        counts = (self.told[..., 0] >= 0).sum(1)
        # Long rows are for scenes that need them.
        self.by_most = {most: torch.nonzero((counts >= least) & (counts <= most)).flatten() for least, most in COUNTS}

    def take(
        self, num: int, most: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`num` scenes with at most `most` objects through windows of random place and size.

        Gives uint8 images (num, 3, height, width), boxes in 0..1 of the window (num, most, 4), and name, drawing and
        colour (num, most, 3), all -1 where there is no object, or too little of it in the window.
        """
        device = self.images.device

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator, device=device)

        pool = self.by_most[most]
        which = pool[(uniform(num) * len(pool)).long()]
        # The window's sides as shares of the scene's: from the whole down to a half, aspect within 15 %.
        reach = torch.tensor([width, height], device=device) / max(width, height)
        zoom = 1 - 0.5 * uniform(num, 1) ** 2
        share = (reach * zoom * torch.exp(0.3 * (uniform(num, 2) - 0.5))).clamp(max=1.0)
        corner = uniform(num, 2) * (1 - share)
        gain = torch.exp(0.3 * (uniform(num, 3, 1, 1) - 0.5)) * torch.exp(0.5 * (uniform(num, 1, 1, 1) - 0.5))
        lift = 40 * (uniform(num, 1, 1, 1) - 0.5)
        images = self._look(self.images, which, corner, share, gain, lift, height, width)

        unit = (self.boxes[which] / self.SIDE - corner.repeat(1, 2)[:, None]) / share.repeat(1, 2)[:, None]
        cut = unit.clamp(0, 1)
        area, left = (box[..., 2:] - box[..., :2] for box in (unit, cut))
        size = torch.tensor([width, height], device=device)
        seen = (left.prod(-1) >= MIN_VISIBLE * area.prod(-1)) & (left * size >= MIN_SIDE_PX).all(-1)
        told = torch.where(seen[..., None], self.told[which], -1)
        # Objects first, so that rows for few of them need few places.
        order = (told[..., 0] < 0).int().argsort(dim=1, stable=True)[:, :most, None]
        told, cut = told.gather(1, order.expand(-1, -1, 3)), cut.gather(1, order.expand(-1, -1, 4))
        return images, torch.where(told[..., :1] >= 0, cut, 0.0), told
