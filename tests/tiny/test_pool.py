"""The pool: windows show what they say, boxes go with them, chunks are drawn anew one after another."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from boxtune.tiny.pool import MIN_SIDE_PX, Pool, look_through
from boxtune.tiny.scenes import SceneMaker, Scenes


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(SceneMaker(side=Pool.SIDE), 64, seed=5)


def test_a_window_is_torchs_own_bilinear_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 64, 64), generator=generator, dtype=torch.uint8)
    which = torch.tensor([4, 0, 2])
    corner, share = torch.rand(3, 2, generator=generator) * 0.4, torch.rand(3, 2, generator=generator) * 0.3 + 0.3
    ones, none = torch.ones(3, 3, 1, 1), torch.zeros(3, 1, 1, 1)
    seen = look_through(images, which, corner, share, ones, none, 28, 42)
    theta = torch.zeros(3, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = share[:, 0], share[:, 1]
    theta[:, :, 2] = 2 * corner + share - 1
    flow = F.affine_grid(theta, [3, 3, 28, 42], align_corners=False)
    wanted = F.grid_sample(images[which].float(), flow, padding_mode="border", align_corners=False)
    assert (seen.float() - wanted).abs().max() <= 0.51
    brighter = look_through(images, which, corner, share, ones * 2, none + 10, 28, 42)
    assert (brighter.float() - (wanted * 2 + 10).clamp(0, 255)).abs().max() <= 0.51


class Dots(SceneMaker):
    """Draws grey scenes with one white square each, whose box is known."""

    def __init__(self) -> None:
        """No sprites are made."""

    def draw(self, seed: int, num: int, *, max_objects: int = 20) -> Scenes:
        images = torch.full((num, 3, Pool.SIDE, Pool.SIDE), 60, dtype=torch.uint8)
        boxes, labels = torch.zeros(num, max_objects, 4), torch.full((num, max_objects), -1)
        sprites, colours = labels.clone(), labels.clone()
        for row in range(num):
            x, y = 100 + (37 * (row + seed)) % 150, 100 + (53 * (row + seed)) % 150
            images[row, :, y : y + 60, x : x + 60] = 250
            boxes[row, 0], labels[row, 0] = torch.tensor([x, y, x + 60, y + 60]).float(), seed % 7
            sprites[row, 0], colours[row, 0] = row, row % 3
        return Scenes(images=images, boxes_px=boxes, labels=labels, sprites=sprites, colours=colours)


def test_boxes_lie_where_the_window_shows_their_things() -> None:
    pool = Pool(Dots(), 32, seed=1)
    images, unit, told = pool.take(32, 2, 224, 280, torch.Generator().manual_seed(3))
    assert images.shape == (32, 3, 224, 280) and unit.shape == (32, 2, 4) and told.shape == (32, 2, 3)
    labels = told[..., 0]
    there = labels >= 0
    assert torch.equal(told[there][:, 1] % 3, told[there][:, 2]) and (told[~there] == -1).all()
    seen = 0
    for image, box, label in zip(images, unit[:, 0], labels[:, 0], strict=True):
        if label < 0:
            continue
        level = image.float().mean(0)
        ys, xs = torch.nonzero(level > (level.min() + level.max()) / 2, as_tuple=True)
        hull = torch.tensor([xs.min() / 280, ys.min() / 224, (xs.max() + 1) / 280, (ys.max() + 1) / 224])
        assert (hull - box).abs().max() < 0.006
        seen += 1
    assert seen > 25


@pytest.mark.slow
def test_few_objects_come_in_short_rows(pool: Pool) -> None:
    for most in (2, 4, 10, 20):
        _, unit, told = pool.take(24, most, 112, 168, torch.Generator().manual_seed(most))
        there = told[..., 0] >= 0
        assert there.shape == (24, most) and there.any()
        assert not (~there[:, :-1] & there[:, 1:]).any()
        sides = (unit[..., 2:] - unit[..., :2]) * torch.tensor([168, 112])
        assert sides[there].min() >= MIN_SIDE_PX - 1e-3
        assert unit.min() >= 0 and unit.max() <= 1 and (unit[~there] == 0).all()


def test_a_refresh_draws_the_oldest_chunk_anew() -> None:
    pool = Pool(Dots(), 40, seed=1)
    pool.chunk = 20
    before = pool.images.clone()
    pool.drawn = 2
    pool.refresh()
    changed = (pool.images != before).flatten(1).any(1)
    assert changed[:20].all() and not changed[20:].any()
