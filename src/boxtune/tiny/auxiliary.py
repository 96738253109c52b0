"""What helps the embedded model to learn where things are, and is thrown away after: heads on its visual tokens.

The vision tower knows relative positions only, so each visual token is asked how far the edges of the thing under it
are; each image position of the language tower is asked where those edges lie in the image. And each visual token is
asked what the thing is: its name, which drawing of that name, in which colour. Names alone would let it forget what
tells two boards apart, and whoever tunes the model may ask for just that.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from boxtune.tiny.fast import Grid
from boxtune.tiny.scenes import NAMES, NUM_COLOURS

FAR = 9.0
"""More than any area, in units of the image's."""


class Heads(torch.nn.Module):
    """Edges, name, drawing and colour from a visual token, corners from an image position of the language tower."""

    def __init__(self, width: int, num_sprites: int) -> None:
        super().__init__()
        self.sprite = torch.nn.Linear(width, num_sprites)
        self.colour = torch.nn.Linear(width, NUM_COLOURS)
        self.edges = torch.nn.Linear(width, 4)
        self.label = torch.nn.Linear(width, len(NAMES) + 1)
        self.corners = torch.nn.Linear(width, 4)


def things_under(grid: Grid, unit: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """For each visual token its centre (tokens, 2), and the box (b, tokens, 4), place in `labels` (b, tokens) and
    presence of the smallest thing over that centre.

    `unit` (b, n, 4) are boxes in 0..1 of the sides, `labels` (b, n) their names, -1 for none. A thing smaller than a
    token lies under the token that holds its middle.
    """
    rows, columns = grid.rows // 2, grid.columns // 2
    device = unit.device
    y = ((torch.arange(rows, device=device) + 0.5) / rows).repeat_interleave(columns)
    x = ((torch.arange(columns, device=device) + 0.5) / columns).repeat(rows)
    centre = torch.stack([x, y], dim=-1)
    middle, half = (unit[..., :2] + unit[..., 2:]) / 2, (unit[..., 2:] - unit[..., :2]) / 2
    reach = torch.stack([half[..., 0].clamp(min=0.5 / columns), half[..., 1].clamp(min=0.5 / rows)], dim=-1)
    inside = ((centre[None, :, None] - middle[:, None]).abs() <= reach[:, None]).all(-1) & (labels >= 0)[:, None]
    area, which = torch.where(inside, half.prod(-1)[:, None].expand_as(inside), FAR).min(-1)
    box = unit.gather(1, which[..., None].expand(-1, -1, 4))
    return centre, box, which, area < FAR


def auxiliary_loss(
    heads: Heads, tokens: torch.Tensor, tapped: torch.Tensor, grid: Grid, unit: torch.Tensor, told: torch.Tensor
) -> torch.Tensor:
    """The loss of the heads for visual tokens (b, tokens, width) and hidden states at their places; `told` (b, n, 3)
    holds name, drawing and colour."""
    centre, box, which, hit = things_under(grid, unit, told[..., 0])
    name, sprite, colour = told.gather(1, which[..., None].expand(-1, -1, 3)).unbind(-1)
    edges = torch.cat([centre - box[..., :2], box[..., 2:] - centre], dim=-1)
    weight = hit.float() / hit.sum().clamp(min=1)
    names = torch.where(hit, name, len(NAMES))
    loss = F.cross_entropy(heads.label(tokens).flatten(0, 1).float(), names.flatten())
    for head, wanted in ((heads.sprite, sprite), (heads.colour, colour)):
        asked = hit & (wanted >= 0)
        each = F.cross_entropy(head(tokens).flatten(0, 1).float(), wanted.clamp(min=0).flatten(), reduction="none")
        # A share of the loss of names, which counts every token.
        loss = loss + 0.5 * (each * asked.flatten()).sum() / hit.sum().clamp(min=1)
    loss = loss + 5 * ((heads.edges(tokens).float() - edges).abs().mean(-1) * weight).sum()
    return loss + 5 * ((heads.corners(tapped).float() - box).abs().mean(-1) * weight).sum()
