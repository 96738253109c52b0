"""What the auxiliary heads are asked: the smallest thing over each token, and never nothing for a small one."""

from __future__ import annotations

from typing import Any

import torch

from boxtune.tiny.auxiliary import Heads, auxiliary_loss, things_under
from boxtune.tiny.fast import Grid
from boxtune.tiny.scenes import NAMES, NUM_COLOURS

GRID = Grid(rows=8, columns=12, vision_cos=torch.zeros(0), vision_sin=torch.zeros(0))


def _scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A large thing 0 on the left half, a small thing 1 on it, a speck 2 between the centres of tokens."""
    unit = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.2, 0.2, 0.35, 0.4], [0.66, 0.49, 0.68, 0.51], [0, 0, 0, 0]]])
    return unit, torch.tensor([[0, 1, 2, -1]])


def test_the_smallest_thing_lies_over_a_token() -> None:
    unit, labels = _scene()
    centre, box, which, hit = things_under(GRID, unit, labels)
    label = labels.gather(1, which)
    assert centre.shape == (24, 2) and box.shape == (1, 24, 4)
    assert torch.allclose(centre[0], torch.tensor([1 / 12, 1 / 8]))
    names = torch.where(hit, label, -1).view(4, 6)
    assert names[0, 0] == 0 and names[3, 2] == 0 and names[1, 1] == 1
    assert torch.equal(box[0, 7], unit[0, 1])
    # The speck holds no token's centre; the tokens that hold its middle are asked for it all the same.
    assert (names[1:3, 3:5] == 2).any() and (names[:, 5] == -1).all()


def test_the_loss_falls_to_nothing_where_the_heads_are_right() -> None:
    unit, labels = _scene()
    # The speck has no colour to speak of.
    told = torch.stack([labels, torch.tensor([[5, 6, 7, -1]]), torch.tensor([[1, 2, -1, -1]])], dim=-1)
    centre, box, which, hit = things_under(GRID, unit, labels)
    sizes = {"edges": 4, "corners": 4, "label": len(NAMES) + 1, "sprite": 8, "colour": NUM_COLOURS}
    width = sum(sizes.values())
    heads = Heads(width, num_sprites=8)

    def certain(place: int, num: int, absent: int) -> torch.Tensor:
        value = torch.where(hit, told[..., place].gather(1, which), absent).clamp(min=0)
        return torch.nn.functional.one_hot(value, num).float() * 50

    # Features that hold the answers, and heads that read them out.
    edges = torch.cat([centre - box[..., :2], box[..., 2:] - centre], dim=-1)
    names, sprites = certain(0, len(NAMES) + 1, len(NAMES)), certain(1, 8, 0)
    features = torch.cat([edges, box, names, sprites, certain(2, NUM_COLOURS, 0)], dim=-1)
    start = 0
    with torch.no_grad():
        for name, size in sizes.items():
            head = getattr(heads, name)
            head.bias.zero_()
            head.weight.copy_(torch.eye(width)[start : start + size])
            start += size
    right: Any = auxiliary_loss(heads, features, features, GRID, unit, told)
    wrong: Any = auxiliary_loss(heads, features + 0.1, features, GRID, unit, told)
    assert right < 1e-5 and wrong > 0.4
    # Another drawing or colour costs; one that is not to speak of does not.
    for place, row, costs in ((1, 0, True), (2, 0, True), (2, 2, False)):
        other = told.clone()
        other[0, row, place] = 3 if costs else -1
        loss: Any = auxiliary_loss(heads, features, features, GRID, unit, other)
        assert (loss > 1) == costs
