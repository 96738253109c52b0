"""Drawn scenes: the same from the same seed, tight boxes of what can be seen, names that are true and all in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from boxtune.tiny.scene_atlas import build_atlas
from boxtune.tiny.scene_looks import FIELD, LOOKS, PHOTOS, SCAN, STREWN
from boxtune.tiny.scene_names import COLOURS, KIND, KINDS, LABELS, PLAIN, UNNAMED
from boxtune.tiny.scene_outlines import box_sdf, digit_lines, loops_sdf, points, radial, turned
from boxtune.tiny.scene_plan import OVER, UNDER, Plan
from boxtune.tiny.scene_render import window_sizes
from boxtune.tiny.scenes import LEAST_SIDE_PX, NAMES, SceneMaker, Scenes

SIDE = 112
NUM = 240


@pytest.fixture(scope="module")
def maker() -> SceneMaker:
    return SceneMaker(side=SIDE)


@pytest.fixture(scope="module")
def drawn(maker: SceneMaker) -> Scenes:
    return maker.draw(3, NUM)


@pytest.fixture(scope="module")
def plan(maker: SceneMaker) -> Plan:
    return maker.plan(11, 2000)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_scenes_however_they_are_chunked(maker: SceneMaker) -> None:
    first = maker.draw(5, 30)
    whole, maker.chunk = maker.chunk, 7
    again = maker.draw(5, 30)
    maker.chunk = whole
    assert torch.equal(first.boxes_px, again.boxes_px) and torch.equal(first.labels, again.labels)
    assert (first.images.int() - again.images.int()).abs().max() <= 1
    assert not torch.equal(first.images, maker.draw(6, 30).images)


@pytest.mark.slow
def test_two_makers_draw_alike(maker: SceneMaker) -> None:
    build_atlas.cache_clear()
    assert torch.equal(SceneMaker(side=SIDE).draw(1, 6).images, maker.draw(1, 6).images)


def test_the_arrays_are_as_promised(drawn: Scenes) -> None:
    assert drawn.images.shape == (NUM, 3, SIDE, SIDE) and drawn.images.dtype == torch.uint8
    assert drawn.boxes_px.shape == (NUM, 20, 4) and drawn.boxes_px.dtype == torch.float32
    assert drawn.labels.shape == (NUM, 20) and drawn.labels.dtype == torch.int64
    assert len({image.numpy().tobytes() for image in drawn.images}) == NUM


def test_boxes_lie_inside_and_have_some_size(drawn: Scenes) -> None:
    there = drawn.labels >= 0
    boxes = drawn.boxes_px[there]
    assert len(boxes) > 3 * NUM
    assert boxes.min() >= 0 and boxes.max() <= SIDE
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= LEAST_SIDE_PX
    assert drawn.labels[there].max() < len(NAMES)


def test_what_is_not_there_is_marked_and_comes_last(drawn: Scenes) -> None:
    there = drawn.labels >= 0
    assert (drawn.labels[~there] == -1).all() and (drawn.boxes_px[~there] == 0).all()
    assert not (~there[:, :-1] & there[:, 1:]).any()


def test_some_scenes_are_empty_many_hold_few_and_some_many(drawn: Scenes) -> None:
    num = (drawn.labels >= 0).sum(dim=1)
    # 5 % are left empty; about as many again hold only what is too small at this size.
    assert 0.02 < (num == 0).float().mean() < 0.15
    assert ((num >= 1) & (num <= 4)).float().mean() > 0.3
    assert (num >= 10).float().mean() > 0.05


def test_sizes_and_aspects_spread(drawn: Scenes) -> None:
    boxes = drawn.boxes_px[drawn.labels >= 0]
    wide, high = ((boxes[:, 2 + i] - boxes[:, i]) / SIDE for i in (0, 1))
    for extent in (wide, high):
        assert extent.quantile(0.05) < 0.08 and extent.quantile(0.95) > 0.45
    aspect = (wide / high).log()
    assert aspect.quantile(0.02) < np.log(0.4) and aspect.quantile(0.98) > np.log(2.5)


def test_fewer_things_than_asked_for_at_most(maker: SceneMaker) -> None:
    scenes = maker.draw(2, 12, max_objects=3)
    assert scenes.labels.shape == (12, 3) and (scenes.labels >= 0).any()


def test_a_size_at_which_nothing_can_be_told_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="side 40"):
        SceneMaker(side=40)


def test_one_scene_can_be_drawn_and_none_is_refused(maker: SceneMaker) -> None:
    for seed in range(12):
        assert maker.draw(seed, 1, max_objects=1).images.shape == (1, 3, SIDE, SIDE)
    for num, most in ((0, 20), (5, 0)):
        with pytest.raises(ValueError, match="cannot draw"):
            maker.plan(0, num, max_objects=most)


def test_names_are_plain_words_without_those_kept_for_the_tasks() -> None:
    assert 60 <= len(NAMES) <= 150 and len(set(NAMES)) == len(NAMES)
    for name in NAMES:
        assert name == name.strip() and all(part.isalpha() and part.islower() for part in name.split(" "))
        assert not any(word in name for word in ("nutrition", "package", "table"))


def test_every_name_occurs(plan: Plan) -> None:
    found = set(np.unique(plan.label)) - {-1}
    assert [NAMES[i] for i in range(len(NAMES)) if i not in found] == []


def test_a_scene_names_all_its_things_at_one_level(plan: Plan) -> None:
    named = plan.kind >= 0
    assert (plan.label[named] == -1).sum() == np.isin(plan.kind, [KIND["scrap"], KIND["sheet"]]).sum()
    for row in range(200):
        for kind, label in zip(plan.kind[row], plan.label[row], strict=True):
            if kind >= 0:
                assert label in LABELS[plan.level[row], kind]


def test_the_levels_name_a_red_star_truly() -> None:
    red = list(COLOURS).index("red")
    named = [NAMES[LABELS[level, KIND["star"], red]] for level in range(4)]
    assert named == ["star", "red star", "red shape", "shape"]
    assert all((LABELS[:, i] < 0).all() == (kind.category in UNNAMED) for i, kind in enumerate(KINDS))


def test_styles_and_kinds_come_as_planned(plan: Plan) -> None:
    assert np.bincount(plan.style, minlength=5).min() > 120
    kinds = plan.kind[plan.style == SCAN][:, UNDER:-OVER]
    assert (kinds == KIND["grid"]).sum(axis=1).max() == 2
    cells = [KIND[name] for name in ("disc cell", "nucleus cell", "speck", "blob")]
    assert np.isin(plan.kind[plan.style == FIELD], [-1, *cells]).all()


def _bare(plan: Plan, num: int) -> Plan:
    """The first strewn scenes of a plan, with no things, on plain black ground, seen by a perfect camera."""
    rows = np.flatnonzero(plan.style == STREWN)[:num]
    assert len(rows) == num
    photo = np.zeros((num, len(PHOTOS)))
    photo[:, [PHOTOS.index(name) for name in ("gamma", "contrast", "red", "green", "blue")]] = 1
    cut = {name: getattr(plan, name)[rows].copy() for name in vars(plan)}
    cut["kind"][:] = -1
    cut["label"][:] = -1
    cut["ground"][:] = 0
    return replace(plan, **{**cut, "photo": photo})


def _alone(plan: Plan, num: int) -> Plan:
    """Strewn scenes, each with only its first thing, without shadow."""
    one = _bare(plan, num)
    rows = np.flatnonzero(plan.style == STREWN)[:num]
    one.kind[:, UNDER], one.label[:, UNDER] = plan.kind[rows, UNDER], plan.label[rows, UNDER]
    for name, value in (("shadow", 0), ("opacity", 1), ("clear", 0)):
        one.look[..., LOOKS.index(name)] = value
    return one


@pytest.mark.slow
def test_boxes_are_where_the_ground_cannot_be_seen(maker: SceneMaker, plan: Plan) -> None:
    """The same thing on white and on black ground: the two pictures differ by half or less exactly inside its box."""
    num = 150
    alone = _alone(plan, num)
    black = maker.render(alone)
    white = maker.render(replace(alone, ground=np.ones_like(alone.ground)))
    assert torch.equal(black.boxes_px, white.boxes_px) and torch.equal(black.labels, white.labels)
    change = white.images[:, 1].int() - black.images[:, 1].int()
    seen = 0
    for shown, boxes, labels in zip(change.numpy() < 128, black.boxes_px, black.labels, strict=True):
        assert (labels >= 0).sum() <= 1
        if labels[0] < 0:
            continue
        ys, xs = np.nonzero(shown)
        hull = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(hull - boxes[0].numpy()).max() <= 1.5, NAMES[labels[0]]
        seen += 1
    assert seen > 100


def _square(plan: Plan, row: int, slot: int, x: float, y: float, half: float, maker: SceneMaker) -> None:
    kind = KIND["square"]
    plan.kind[row, slot], plan.sprite[row, slot] = kind, maker.atlas.index.first[kind]
    plan.label[row, slot] = LABELS[PLAIN, kind, 0]
    plan.matrix[row, slot] = [[half, 0, x], [0, half, y], [0, 0, 1]]
    plan.look[row, slot] = 0
    plan.look[row, slot, LOOKS.index("opacity")] = 1


def test_a_thing_counts_by_what_can_be_seen_of_it(maker: SceneMaker, plan: Plan) -> None:
    bare = _bare(plan, 4)
    for row in range(4):
        _square(bare, row, UNDER, 0.4, 0.5, 0.2, maker)
    # Row 0: nothing over it. Row 1: a quarter of it hidden on the right. Row 2: three quarters. Row 3: hidden by scrap.
    _square(bare, 1, UNDER + 1, 0.7, 0.5, 0.2, maker)
    _square(bare, 2, UNDER + 1, 0.5, 0.5, 0.2, maker)
    _square(bare, 3, bare.kind.shape[1] - 1, 0.4, 0.5, 0.25, maker)
    bare.label[3, -1] = -1
    scenes = maker.render(bare)
    assert (scenes.labels >= 0).sum(dim=1).tolist() == [1, 2, 1, 0]
    px = scenes.boxes_px / SIDE
    assert torch.allclose(px[0, 0], torch.tensor([0.2, 0.3, 0.6, 0.7]), atol=0.01)
    assert torch.allclose(px[1, 0], torch.tensor([0.2, 0.3, 0.5, 0.7]), atol=0.01)
    _square(bare, 2, UNDER + 1, 0.62, 0.5, 0.2, maker)
    assert (maker.render(bare).labels[2] >= 0).sum() == 2


def test_a_thing_over_the_edge_is_clipped(maker: SceneMaker, plan: Plan) -> None:
    bare = _bare(plan, 2)
    _square(bare, 0, UNDER, 0.05, 0.5, 0.1, maker)
    _square(bare, 1, UNDER, 1.5, 0.5, 0.1, maker)
    scenes = maker.render(bare)
    assert torch.allclose(scenes.boxes_px[0, 0] / SIDE, torch.tensor([0, 0.4, 0.15, 0.6]), atol=0.01)
    assert (scenes.labels[1] == -1).all()


def test_fields_are_distances() -> None:
    x, y = points(48)
    circle = loops_sdf([radial(0.8, turned(200))], 48)
    assert np.abs(circle - (np.hypot(x, y) - 0.8)).max() < 0.001
    ring = loops_sdf([radial(0.8, turned(200)), radial(0.4, turned(200))], 48)
    assert (ring[23:25, 23:25] > 0.3).all() and ring[np.hypot(x, y) < 0.3].min() > 0
    assert np.abs(box_sdf(48)[24] - (np.abs(x[24]) - 1))[np.abs(x[24]) > 0.9].max() < 1e-9


def test_digits_have_paths_of_their_own() -> None:
    names = [kind.name for kind in KINDS if kind.category == "digit"]
    assert len(names) == 10
    for name in names:
        one, other = (digit_lines(name, np.random.default_rng(seed)) for seed in (0, 1))
        assert not np.array_equal(one[0], other[0])


def test_windows_reach_up_to_the_whole_picture() -> None:
    for side in (56, 112, 336, 448):
        sizes = window_sizes(side)
        assert sizes[-1] == side and (np.diff(sizes) > 0).all()


@pytest.mark.gpu
def test_a_gpu_draws_what_the_cpu_draws(maker: SceneMaker) -> None:
    here, there = maker.draw(4, 24), SceneMaker(side=SIDE, device="cuda").draw(4, 24)
    same = here.labels == there.labels.cpu()
    assert same.float().mean() > 0.99
    assert (here.boxes_px - there.boxes_px.cpu())[same].abs().max() <= 2
    far = (here.images.int() - there.images.cpu().int()).abs()
    assert (far > 2).float().mean() < 0.01
