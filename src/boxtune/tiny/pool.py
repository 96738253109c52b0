"""Scenes kept on the device, seen each time through another window: where, how large, in what light."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from boxtune.tiny.scenes import SceneMaker

CHUNK = 256
MIN_SIDE_PX = 4.0
MIN_VISIBLE = 0.5
"""Share of a box's area inside the window below which the object is no longer named."""


class Pool:
    """`num` scenes of SIDE x SIDE pixels drawn by `maker`; `refresh` draws some of them anew."""

    SIDE = 392

    def __init__(self, maker: SceneMaker, num: int, seed: int) -> None:
        self.maker, self.seed, self.num = maker, seed, -(-num // CHUNK) * CHUNK
        first = maker.draw(seed, CHUNK)
        self.images = torch.empty((self.num, *first.images.shape[1:]), dtype=torch.uint8, device=first.images.device)
        self.boxes = torch.zeros((self.num, *first.boxes_px.shape[1:]), device=first.images.device)
        self.labels = torch.full((self.num, first.labels.shape[1]), -1, device=first.images.device)
        self.drawn = 0
        for _ in range(self.num // CHUNK):
            self.refresh()
        self._count()

    def refresh(self, step: int | None = None) -> None:
        """Draw one chunk anew, the oldest first."""
        at = (self.drawn * CHUNK) % self.num
        scenes = self.maker.draw(self.seed + 1 + self.drawn, CHUNK)
        self.images[at : at + CHUNK] = scenes.images
        self.boxes[at : at + CHUNK] = scenes.boxes_px
        self.labels[at : at + CHUNK] = scenes.labels
        self.drawn += 1
        if step is not None and self.drawn % 50 == 0:
            self._count()

    def _count(self) -> None:
        counts = (self.labels >= 0).sum(1)
        self.by_most = {most: torch.nonzero(counts <= most).flatten() for most in (4, 10, 20)}
        crowded = torch.nonzero(counts > 4).flatten()
        # Long rows are for scenes that need them.
        self.by_most[10] = torch.nonzero((counts > 3) & (counts <= 10)).flatten()
        self.by_most[20] = torch.nonzero(counts > 8).flatten() if len(crowded) else self.by_most[4]

    def take(
        self, num: int, most: int, height: int, width: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`num` scenes with at most `most` objects through windows of random place and size.

        Gives uint8 images (num, 3, height, width), boxes in 0..1 of the window (num, most, 4) and labels (num, most),
        -1 where there is no object, or too little of it in the window.
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
        theta = torch.zeros((num, 2, 3), device=device)
        theta[:, 0, 0], theta[:, 1, 1] = share[:, 0], share[:, 1]
        theta[:, :, 2] = 2 * corner + share - 1
        flow = F.affine_grid(theta, [num, 3, height, width], align_corners=False)
        images = F.grid_sample(
            self.images[which].float(), flow, mode="bilinear", padding_mode="border", align_corners=False
        )
        gain = torch.exp(0.3 * (uniform(num, 3, 1, 1) - 0.5)) * torch.exp(0.5 * (uniform(num, 1, 1, 1) - 0.5))
        images = (images * gain + 40 * (uniform(num, 1, 1, 1) - 0.5)).clamp(0, 255).round().to(torch.uint8)

        unit = (self.boxes[which] / self.SIDE - corner.repeat(1, 2)[:, None]) / share.repeat(1, 2)[:, None]
        cut = unit.clamp(0, 1)
        area, left = (box[..., 2:] - box[..., :2] for box in (unit, cut))
        size = torch.tensor([width, height], device=device)
        seen = (left.prod(-1) >= MIN_VISIBLE * area.prod(-1)) & (left * size >= MIN_SIDE_PX).all(-1)
        labels = torch.where(seen, self.labels[which], -1)
        # Objects first, so that rows for few of them need few places.
        order = (labels < 0).int().argsort(dim=1, stable=True)[:, :most]
        labels, cut = labels.gather(1, order), cut.gather(1, order[..., None].expand(-1, -1, 4))
        return images, torch.where((labels >= 0)[..., None], cut, 0.0), labels
