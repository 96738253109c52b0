"""Each check of the audit fires where it should and is quiet where it should; sizes are those after the resize."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data import Dataset, Sample, SampleTable
from boxtune.data.audit import Audit, audit_dataset, check_negatives_share
from boxtune.data.seen import look, seen_sides, spread, unique_sizes
from boxtune.data.target import Target, Vocabulary, build_target
from boxtune.errors import Finding
from boxtune.families import FAMILIES, Frame

Box = tuple[str, float, float, float, float]
VOCABULARY = Vocabulary(count=lambda text: len(text.split("|")), keeps=lambda text: text.isascii())


def sample(place: int, boxes: Sequence[Box], size_wh: tuple[int, int] = (640, 480), ignored: int = 0) -> Sample:
    """One image; the last `ignored` boxes are to be ignored."""
    ignore = np.arange(len(boxes)) >= len(boxes) - ignored
    xyxy = np.array([box[1:] for box in boxes], dtype=np.float64).reshape(-1, 4)
    return Sample(
        image=Path(f"/x/{place}.jpg"),
        image_id=place,
        size_wh=size_wh,
        boxes=Boxes(xyxy_px=xyxy, labels=tuple(box[0] for box in boxes)),
        crowd=np.zeros(len(boxes), dtype=bool),
        ignore=ignore,
    )


def run(target: Target | None = None, **splits: Sequence[Sample]) -> tuple[Audit, dict[str, Finding]]:
    names = dict.fromkeys(label for samples in splits.values() for one in samples for label in one.boxes.labels)
    dataset = Dataset(path=Path("/x"), format="coco", why="", classes=tuple(names), splits=splits)
    audit, findings = audit_dataset(dataset, target)
    found = {finding.check: finding for finding in findings}
    assert len(found) == len(findings)
    return audit, found


def large(num: int, size_wh: tuple[int, int] = (640, 480)) -> list[Sample]:
    return [sample(i, [("cat", 10, 10, 210, 110)], size_wh) for i in range(num)]


def test_sound_set_is_quiet() -> None:
    audit, found = run(train=large(20), valid=large(3))
    assert not found
    assert audit.family == "Qwen2-VL" and audit.patch_px == 14 and audit.under_patch == audit.under_step == 0
    assert audit.negatives == {"train": 0, "valid": 0}
    assert audit.image_tokens is not None and audit.image_tokens.median == (644 // 28) * (476 // 28)


def test_sides_are_those_that_are_seen() -> None:
    """3000 x 2000 is shown as 1204 x 812: a box of 200 x 100 is 80.3 x 40.6 there."""
    audit, found = run(train=large(4, (3000, 2000)))
    side = np.sqrt(200 * 1204 / 3000 * 100 * 812 / 2000)
    assert audit.side_px is not None and audit.side_px.median == pytest.approx(side)
    assert audit.side_patches is not None and audit.side_patches.median == pytest.approx(side / 14)
    assert audit.scale is not None and audit.scale.median == pytest.approx(np.sqrt(1204 * 812 / 6e6))
    assert not found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    """The columns say what one box at a time says, whatever the family; ignored boxes do not count."""
    target = build_target(family=name)
    sizes = [(640, 480), (333, 500), (2000, 1500), (640, 480), (90, 60)]
    rows = [sample(i, [("cat", 5, 5, 50 + i, 40), ("dog", 0, 0, 9, 50)], wh, ignored=1) for i, wh in enumerate(sizes)]
    audit, found = run(target, train=rows)
    assert "image.refused" not in found
    sides = []
    for one in rows:
        seen_w, seen_h = target.family.seen_wh(one.size_wh, target.min_pixels, target.max_pixels)
        x1, y1, x2, y2 = one.targets.xyxy_px[0]
        sides.append(np.sqrt((x2 - x1) * seen_w / one.size_wh[0] * (y2 - y1) * seen_h / one.size_wh[1]))
    assert audit.side_px is not None
    want = np.percentile(sides, [5, 50, 95])
    assert [audit.side_px.p5, audit.side_px.median, audit.side_px.p95] == pytest.approx(want.tolist())
    assert (audit.image_tokens is None) == (not target.family.knows_processor)
    longest = audit.longest_answer
    assert longest is not None and longest.num_boxes == 1 and longest.unit == "characters"


def test_small_boxes_are_counted_with_advice() -> None:
    """In 4000 x 3000 a box of 40 px is seen with 11.5: less than a patch, but more with four times the area."""
    small = [sample(i, [("bolt", 100, 100, 140, 140), ("cat", 0, 0, 999, 999)], (4000, 3000)) for i in range(10)]
    audit, found = run(train=small)
    tiny = found["box.tiny_seen"]
    assert audit.under_patch == 0.5 and tiny.level == "warn"
    assert "10 of 20 (50.0%); 10 of 10 bolt" in tiny.seen and "patch of 14 pixels, as Qwen2-VL sees them" in tiny.seen
    assert f"image.max_pixels={4 * audit.max_pixels} would leave 0.0%" in tiny.fix and "(data.tile)" in tiny.fix


def test_where_more_pixels_do_not_help() -> None:
    small = [sample(i, [("bolt", 100, 100, 104, 104)], (4000, 3000)) for i in range(10)]
    _, found = run(train=small)
    assert found["box.tiny_seen"].fix.startswith("cut the images into tiles") and "hardly" in found["box.tiny_seen"].fix
    assert "bolt" not in found["box.tiny_seen"].seen  # a single class has nothing to be compared with
    _, found = run(build_target(family="paligemma"), train=[sample(0, [("bolt", 100, 100, 140, 140)], (4000, 3000))])
    assert "hardly" in found["box.tiny_seen"].fix  # its size is fixed


def test_large_boxes_need_fewer_pixels() -> None:
    """A box of half of each side of 1003 x 1003 pixels has 36 patches a side: a seventh of that is enough."""
    rows = [sample(i, [("page", 0, 0, 1000, 1000)], (2000, 2000)) for i in range(3)]
    audit, _ = run(train=rows)
    asked = re.search(r"image.min_pixels=(\d+) image.max_pixels=(\d+):", audit.smaller_budget)
    assert asked is not None and asked[1] == asked[2]
    less = build_target(min_pixels=int(asked[1]), max_pixels=int(asked[2]))
    after, _ = run(less, train=rows)
    assert after.side_patches is not None and after.image_tokens is not None and 4 <= after.side_patches.p5 <= 5.5
    told = f": {after.image_tokens.median:,.0f}, 95 % of boxes {after.side_patches.p5:.1f} patches"
    assert told in audit.smaller_budget
    # It is small enough then; and a family that sees all images at one size cannot be asked.
    assert not after.smaller_budget
    assert not run(build_target(family="paligemma"), train=rows)[0].smaller_budget


def test_one_small_box_of_many_is_no_warning() -> None:
    _, found = run(train=[*large(200), sample(200, [("cat", 0, 0, 3, 3)])])
    assert found["box.tiny_seen"].level == "ok" and "1 of 201" in found["box.tiny_seen"].seen


def test_boxes_thinner_than_a_step() -> None:
    """A thousandth of 4000 px is 4 px."""
    thin = [sample(i, [("line", 10, 10, 3000, 13)], (4000, 3000)) for i in range(3)]
    audit, found = run(train=thin)
    assert audit.under_step == 0  # a thousandth of the height is 3 px
    audit, found = run(train=[sample(9, [("line", 10, 10, 3000, 12.9)], (4000, 3000)), *thin])
    assert (
        audit.under_step == 0.25 and found["box.under_step"].level == "warn" and "25.0%" in found["box.under_step"].seen
    )


def test_refused_images_are_named() -> None:
    _, found = run(train=[*large(3), sample(7, [("cat", 0, 0, 500, 3)], (5000, 10))])
    refused = found["image.refused"]
    assert refused.level == "fail" and "Qwen2-VL refuses: 1 (7.jpg)" in refused.seen and "200" in refused.seen


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"train": (60, 100), "valid": (0, 10)}, "60 of 100 training images (60%)"),
        ({"train": (0, 100), "valid": (3, 10)}, "valid (3 of 10)"),
        ({"train": (1, 100), "valid": (3, 10)}, ""),
        ({"train": (0, 100), "valid": (0, 10)}, ""),
        ({"train": (50, 100)}, ""),
        ({"valid": (9, 10)}, ""),
        ({"train": (0, 0), "valid": (3, 10)}, ""),
    ],
)
def test_share_of_negatives(counts: Mapping[str, tuple[int, int]], words: str) -> None:
    found = check_negatives_share(counts)
    assert len(found) == bool(words)
    if words:
        assert words in found[0].seen and found[0].level == "warn" and found[0].fix


def test_ignored_boxes_leave_a_negative() -> None:
    audit, found = run(train=large(2), valid=[sample(0, [("cat", 0, 0, 99, 99)], ignored=1)])
    assert audit.negatives == {"train": 0, "valid": 1} and "valid (1 of 1)" in found["data.negatives_share"].seen


def test_names_that_the_grammar_cannot_carry() -> None:
    audit, found = run(train=[sample(0, [("<|box_start|>", 0, 0, 99, 99), ("cat", 0, 0, 99, 99)])])
    fault = found["class.not_in_grammar"]
    assert fault.level == "fail" and "<|box_start|>" in fault.seen and audit.longest_answer is None


def test_names_that_the_tokenizer_cannot_hold() -> None:
    rows = [sample(0, [("猫", 0, 0, 99, 99), ("dog", 0, 0, 99, 99)])]
    target = replace(build_target(), vocabulary=VOCABULARY)
    assert "class.not_in_tokenizer" not in run(train=rows)[1]
    fault = run(target, train=rows)[1]["class.not_in_tokenizer"]
    assert fault.level == "fail" and "changed: 1 ('猫')" in fault.seen
    assert not run(target, train=large(1))[1]


def test_longest_answer_is_the_one_that_is_written() -> None:
    """Of many images the one whose answer is longest, told in tokens where there is a tokenizer."""
    rows = [sample(i, [("cat", 10, 10, 200, 100)] * (1 + i % 7)) for i in range(60)]
    rows[33] = sample(33, [("a much longer name", 10, 10, 200, 100)] * 9)
    audit, found = run(train=rows[:30], valid=rows[30:])
    family, longest = FAMILIES["qwen2_vl"], audit.longest_answer
    frame = Frame(original_wh=(640, 480), seen_wh=(644, 476))
    written = family.encode(rows[33].targets, frame, ("cat", "a much longer name"))
    assert longest is not None and "answer.long" not in found
    assert (longest.image, longest.num_boxes, longest.length) == ("33.jpg", 9, len(written))
    audit, _ = run(replace(build_target(), vocabulary=VOCABULARY), train=rows)
    assert audit.longest_answer is not None and audit.longest_answer.unit == "tokens"
    assert audit.longest_answer.length == len(written.split("|"))


def test_long_answers_are_a_warning() -> None:
    boxes: list[Box] = [("cat", 10.0 + i, 10, 200, 100) for i in range(150)]
    _, found = run(train=[sample(0, boxes)])
    assert found["answer.long"].level == "warn" and "0.jpg, 150 boxes" in found["answer.long"].seen
    assert "answer.long" not in run(train=[sample(0, boxes[:50])])[1]


def test_nothing_to_measure() -> None:
    for rows in ([], [sample(0, [])]):
        audit, found = run(train=rows)
        assert audit.side_px is None and audit.longest_answer is None and audit.under_patch == 0
        assert set(found) <= {"data.negatives_share"}


def test_sizes_that_nobody_knows_are_left_aside() -> None:
    rows = [sample(5, [("cat", 0, 0, 9, 9)] * 3, (0, 0)), *large(1)]
    audit, found = run(train=rows)
    assert audit.side_px is not None and audit.side_px.p5 > 100 and "image.refused" not in found
    assert audit.longest_answer is not None and audit.longest_answer.image == "0.jpg"  # of the image that is known
    assert audit.image_tokens is not None


def test_unique_sizes_and_spread() -> None:
    sizes, of, counts = unique_sizes(np.array([[640, 480], [48, 64], [640, 480], [64, 48]]))
    assert sizes.tolist() == [[48, 64], [64, 48], [640, 480]] and counts.tolist() == [1, 1, 2]
    assert sizes[of].tolist() == [[640, 480], [48, 64], [640, 480], [64, 48]]
    assert unique_sizes(np.zeros((0, 2), dtype=np.int64))[0].shape == (0, 2)
    assert spread(np.array([np.nan])) is None and spread(np.zeros(0)) is None


@pytest.mark.slow
def test_columns_say_what_single_boxes_say() -> None:
    """A table of 400 sizes, ignored boxes in between: the first images box by box."""
    rng = np.random.default_rng(0)
    num, each = 10_000, 10
    sizes = rng.integers(400, 420, (num, 2))
    low = rng.random((num * each, 2)) * 200
    table = SampleTable(
        files=[f"{i}.jpg" for i in range(num)],
        image_ids=np.arange(num),
        sizes_wh=sizes,
        starts=np.arange(num + 1) * each,
        xyxy_px=np.concatenate([low, low + 1 + rng.random(low.shape) * 100], axis=1),
        codes=rng.integers(0, 3, num * each).astype(np.int32),
        names=("a", "b", "c"),
        crowd=np.zeros(num * each, dtype=bool),
        ignore=rng.random(num * each) < 0.1,
    )
    target = build_target()
    sides = seen_sides(table, look(table, target))
    assert len(sides) == int(table.targets.sum())
    start = 0
    for place in range(0, 50):
        one = table[place]
        seen_w, seen_h = target.family.seen_wh(one.size_wh, target.min_pixels, target.max_pixels)
        w, h = (one.targets.xyxy_px[:, 2:] - one.targets.xyxy_px[:, :2]).T
        want = np.sqrt(w * seen_w / one.size_wh[0] * h * seen_h / one.size_wh[1])
        assert np.allclose(sides[start : start + len(want)], want)
        start += len(want)
    audit, _ = run(train=table)
    assert audit.longest_answer is not None and audit.longest_answer.num_boxes == 10
