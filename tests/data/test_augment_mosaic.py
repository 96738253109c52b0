"""Four images in one: each box where its thing is, nothing left empty, and one bad image spoils no batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.augment import training_picture
from boxtune.data.mosaic import MIDDLE, draw_group, mosaic
from boxtune.data.sample import Sample
from boxtune.errors import DataError

from .cases import save

PALETTE = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
GROUND = (60, 60, 60)


def part(label: str, size_wh: tuple[int, int], box: Sequence[int]) -> tuple[Image.Image, Boxes]:
    """A rectangle of one colour on dark grey."""
    image = Image.new("RGB", size_wh, GROUND)
    image.paste(PALETTE[label], tuple(box))
    return image, Boxes(xyxy_px=np.array([box], dtype=np.float64), labels=(label,))


def four() -> list[tuple[Image.Image, Boxes]]:
    return [
        part("red", (120, 80), (50, 30, 80, 55)),
        part("green", (64, 64), (20, 24, 40, 50)),
        part("blue", (50, 200), (15, 80, 35, 120)),
        part("white", (300, 90), (120, 30, 180, 70)),
    ]


def hull_of(image: Image.Image, label: str) -> list[int]:
    """The pixels nearer to this colour than to the ground or another colour, as a box."""
    known = np.array([GROUND, *PALETTE.values()])
    distance = np.linalg.norm(np.asarray(image)[..., None, :].astype(float) - known, axis=-1)
    ys, xs = np.nonzero(distance.argmin(axis=-1) == 1 + list(PALETTE).index(label))
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


@pytest.mark.slow
def test_each_box_is_where_its_thing_is() -> None:
    seen, corners = 0, set()
    for key in range(60):
        image, boxes = mosaic(four(), (160, 120), np.random.default_rng(key))
        assert image.size == (160, 120) and image.mode == "RGB"
        assert len(set(boxes.labels)) == len(boxes)
        for box, label in zip(boxes.xyxy_px, boxes.labels, strict=True):
            assert np.abs(box - hull_of(image, label)).max() <= 1.01
            seen += 1
            if label == "red":
                corners.add((box[0] > 80, box[1] > 60))
    assert seen > 180 and len(corners) == 4  # each image comes to each quarter


def test_no_canvas_stays_empty() -> None:
    plain = [(Image.new("RGB", size, (1, 2, 3)), Boxes.none()) for size in ((9, 5), (400, 3), (3, 400), (50, 50))]
    for key in range(40):
        image, boxes = mosaic(plain, (61, 47), np.random.default_rng(key))
        assert (np.asarray(image) == (1, 2, 3)).all() and len(boxes) == 0


def test_the_four_meet_in_the_middle_part() -> None:
    plain = [(Image.new("RGB", (80, 80), colour), Boxes.none()) for colour in PALETTE.values()]
    for key in range(30):
        image, _ = mosaic(plain, (100, 50), np.random.default_rng(key))
        pixels = np.asarray(image)
        x = int((pixels[0] == pixels[0, 0]).all(axis=1).sum())
        y = int((pixels[:, 0] == pixels[0, 0]).all(axis=1).sum())
        assert MIDDLE[0] * 100 <= x <= MIDDLE[1] * 100 and MIDDLE[0] * 50 <= y <= MIDDLE[1] * 50
        assert len({tuple(pixels[row, column]) for row in (0, 49) for column in (0, 99)}) == 4


@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=4, max_size=4),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(0, 2**32 - 1),
)
def test_any_sizes(sizes: list[tuple[int, int]], canvas_wh: tuple[int, int], key: int) -> None:
    parts = [
        (Image.new("RGB", size), Boxes(xyxy_px=np.array([[0.0, 0.0, *size]]), labels=(f"of {i}",)))
        for i, size in enumerate(sizes)
    ]
    image, boxes = mosaic(parts, canvas_wh, np.random.default_rng(key))
    again = mosaic(parts, canvas_wh, np.random.default_rng(key))
    assert image.size == canvas_wh and np.array_equal(boxes.xyxy_px, again[1].xyxy_px)
    assert (boxes.xyxy_px >= 0).all() and (boxes.xyxy_px <= np.tile(canvas_wh, 2)).all()
    assert set(boxes.labels) <= {f"of {i}" for i in range(4)} and len(set(boxes.labels)) == len(boxes)


def test_a_mosaic_is_of_four() -> None:
    with pytest.raises(ValueError, match="made of 4 images, not 3"):
        mosaic(four()[:3], (10, 10), np.random.default_rng(0))


def test_groups_are_drawn_only_where_asked_for() -> None:
    rng = np.random.default_rng(0)
    assert draw_group(3, 10, ("flip",), rng) == (3,) and draw_group(0, 1, ("mosaic",), rng) == (0,)
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


def test_half_of_all_samples_get_partners_that_are_never_themselves() -> None:
    groups = [draw_group(key % 5, 5, ("mosaic",), np.random.default_rng(key)) for key in range(400)]
    fours = [group for group in groups if len(group) == 4]
    assert 160 < len(fours) < 240 and {len(group) for group in groups} == {1, 4}
    for place, group in enumerate(groups):
        assert group[0] == place % 5 and group[0] not in group[1:] and set(group) <= set(range(5))
    assert {other for group in fours for other in group[1:]} == set(range(5))
    assert groups == [draw_group(key % 5, 5, ("mosaic",), np.random.default_rng(key)) for key in range(400)]


def samples(folder: Path) -> list[Sample]:
    made = []
    for number, (image, boxes) in enumerate(four()):
        flags = np.zeros(1, dtype=bool)
        path = save(image, folder / f"{number}.png")
        made.append(
            Sample(image=path, image_id=number, size_wh=image.size, boxes=boxes, crowd=flags, ignore=flags.copy())
        )
    return made


def never(sample: Sample, error: DataError) -> None:
    raise AssertionError(sample.image)


def test_a_training_picture_is_the_mosaic_of_its_group(tmp_path: Path) -> None:
    group = samples(tmp_path)
    image, boxes = training_picture(group, ("mosaic",), np.random.default_rng(5), on_broken=never)
    made = mosaic(four(), (120, 80), np.random.default_rng(5))
    assert image.tobytes() == made[0].tobytes() and np.array_equal(boxes.xyxy_px, made[1].xyxy_px)
    alone, one = training_picture(group[:1], ("mosaic",), np.random.default_rng(5), on_broken=never)
    assert alone.tobytes() == four()[0][0].tobytes() and one.labels == ("red",)


def test_what_is_ignored_is_not_asked_for(tmp_path: Path) -> None:
    group = samples(tmp_path)
    object.__setattr__(group[1], "ignore", np.array([True]))
    _, boxes = training_picture(group, ("mosaic",), np.random.default_rng(5), on_broken=never)
    assert "green" not in boxes.labels and "red" in boxes.labels


def test_a_mosaic_too_much_for_one_answer_is_not_made(tmp_path: Path) -> None:
    group = samples(tmp_path)
    seen = []

    def fits(image: Image.Image, boxes: Boxes) -> bool:
        seen.append((image.size, len(boxes)))
        return False

    image, boxes = training_picture(group, (), np.random.default_rng(5), on_broken=never, fits=fits)
    assert len(seen) == 1 and seen[0][0] == (120, 80) and seen[0][1] > 1
    assert boxes.labels == ("red",) and image.tobytes() == four()[0][0].tobytes()


def test_a_broken_partner_is_told_of_and_the_first_stands_alone(tmp_path: Path) -> None:
    group = samples(tmp_path)
    group[2].image.write_bytes(b"no image")
    told: list[Path] = []
    image, boxes = training_picture(
        group, ("mosaic",), np.random.default_rng(5), on_broken=lambda sample, error: told.append(sample.image)
    )
    assert told == [group[2].image] and boxes.labels == ("red",) and image.size == (120, 80)
    group[0].image.unlink()
    with pytest.raises(DataError, match="does not exist"):
        training_picture(group, ("mosaic",), np.random.default_rng(5), on_broken=never)
