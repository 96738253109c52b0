"""The ground under the things, and what a camera makes of the picture: light, blur, colour, grain.

Everything is (3, scenes, side, side) or (scenes, side, side), float32 in about 0..1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from boxtune.tiny.scene_atlas import GRAIN_SIDE, Atlas
from boxtune.tiny.scene_looks import PHOTOS

TAPS = 3
"""How many steps the blur reaches to each side."""
Numbers = dict[str, torch.Tensor]


def by_name(photo: torch.Tensor) -> Numbers:
    """The numbers of each picture by name, each (scenes, 1, 1)."""
    return {name: photo[:, i, None, None] for i, name in enumerate(PHOTOS)}


def _axes(side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """x and y of the pixels' middles in 0..1, (1, 1, side) and (1, side, 1)."""
    line = (torch.arange(side, device=device) + 0.5) / side
    return line[None, None, :], line[None, :, None]


def paint_ground(
    atlas: Atlas, ground: torch.Tensor, surface: torch.Tensor, lay: torch.Tensor, p: Numbers, side: int
) -> torch.Tensor:
    """The grounds of the scenes: `ground` (n, 3, 3) colours, `surface` (n, 2), `lay` (n, 2, 3, 3)."""
    x, y = _axes(side, ground.device)
    grey = []
    for which in range(2):
        m = lay[:, which, :, :, None, None]
        over = 1 / (m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2]).clamp_min(0.2)
        u = (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) * over
        v = (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) * over
        where = torch.stack([u, v], dim=-1)
        tiles = atlas.surfaces[surface[:, which]]
        grey.append(F.grid_sample(tiles, where, padding_mode="reflection", align_corners=False)[:, 0])
    a, b, c = (ground[:, i].t()[:, :, None, None] for i in range(3))
    ramp = (p["ramp_x"] * (x - 0.5) + p["ramp_y"] * (y - 0.5)).abs()
    picture = a + (grey[0] * p["mix_a"]) * (b - a)
    return (picture + (grey[1] * p["mix_b"] + ramp).clamp(0, 1) * (c - picture)).contiguous()


def _blur(picture: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur by `sigma` (scenes, 1, 1) pixels, of both axes; the taps spread where it is strong."""
    steps = torch.arange(-TAPS, TAPS + 1, device=picture.device)
    weights = torch.exp(-0.5 * (steps / sigma.clamp_min(0.05)) ** 2)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    for dim in (2, 3):
        pad = (TAPS, TAPS, 0, 0) if dim == 3 else (0, 0, TAPS, TAPS)
        wide = F.pad(picture, pad, mode="replicate")
        size = picture.shape[dim]
        total = weights[..., 0:1] * wide.narrow(dim, 0, size)
        for tap in range(1, 2 * TAPS + 1):
            total = torch.addcmul(total, weights[..., tap : tap + 1], wide.narrow(dim, tap, size))
        picture = total
    return picture


def expose(atlas: Atlas, picture: torch.Tensor, p: Numbers, shift: torch.Tensor) -> torch.Tensor:
    """The pictures as a camera or scanner gives them: uint8 (scenes, 3, side, side)."""
    side = picture.shape[-1]
    x, y = _axes(side, picture.device)
    far = (x - 0.5) ** 2 + (y - 0.5) ** 2
    light = 1 + p["light_x"] * (x - 0.5) + p["light_y"] * (y - 0.5) - 2 * p["vignette"] * far
    picture = _blur(picture * light, p["blur"] * (side / 1000))
    cast = torch.stack([p["red"], p["green"], p["blue"]])
    picture = (picture.clamp(0, 1) ** p["gamma"] - 0.5) * (p["contrast"] * cast) + (0.5 * cast + p["lift"])
    rows = (torch.arange(side, device=picture.device) + shift[:, :1]) % GRAIN_SIDE
    columns = (torch.arange(side, device=picture.device) + shift[:, 1:]) % GRAIN_SIDE
    grain = atlas.grain[rows[:, :, None], columns[:, None, :]].permute(3, 0, 1, 2)
    picture = picture + grain * p["noise"]
    grey = (picture * picture.new_tensor([0.299, 0.587, 0.114])[:, None, None, None]).sum(dim=0)
    # Cut a little below the paper, not at half: thin strokes are pale once they are small.
    paper = grey.amax(dim=(1, 2), keepdim=True)
    cut = (0.5 + 8 * (grey - 0.8 * paper)).clamp(0, 1)
    picture = torch.lerp(torch.lerp(picture, grey[None], p["grey"]), cut[None], p["ink_cut"])
    return (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 0, 2, 3).contiguous()
