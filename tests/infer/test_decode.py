"""The loop that writes guided answers: the same text as transformers' own where that is sound, in fewer passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from squares import CLASSES
from transformers import GenerationConfig

from boxtune.data import open_image, read_dataset
from boxtune.finetune import build_encoder
from boxtune.finetune.collate import Example, collate_for_prediction
from boxtune.infer import decode
from boxtune.infer.decode import Row, Writer
from boxtune.infer.generate import LocalEngine
from boxtune.infer.guide import Guide, guides_of


@pytest.fixture(scope="module")
def images(squares: Path) -> list[Any]:
    """Six images of several shapes, so that a batch of them needs padding."""
    paths = [sample.image for sample in read_dataset(squares).splits["train"]][:6]
    shapes = [(112, 112), (60, 112), (112, 60), (40, 150), (84, 84), (112, 112)]
    return [open_image(path).resize(shape) for path, shape in zip(paths, shapes, strict=True)]


@pytest.fixture(scope="module")
def asked(load_tiny: Any, images: list[Any]) -> tuple[Any, Any, list[Example]]:
    loaded = load_tiny("none", "fp32")
    loaded.model.eval()
    encoder = build_encoder(loaded, CLASSES)
    return loaded, encoder, [encoder.encode_image(image) for image in images]


def write(asked: tuple[Any, Any, list[Example]], **settings: Any) -> Writer:
    loaded, encoder, examples = asked
    most = settings.setdefault("max_new_tokens", 80)
    guides = [guides_of(encoder).of(example.frame, example.classes) for example in examples]
    writer = Writer(guides, pad_id=encoder.layout.pad_id, **settings)
    config = GenerationConfig(max_new_tokens=most, eos_token_id=encoder.end_id, pad_token_id=encoder.layout.pad_id)
    with torch.no_grad():
        loaded.model.generate(
            **collate_for_prediction(examples, encoder.layout), generation_config=config, custom_generate=writer
        )
    return writer


@pytest.mark.slow
def test_sound_answers_are_those_of_transformers(asked: tuple[Any, Any, list[Example]], images: list[Any]) -> None:
    loaded, encoder, _ = asked
    engine = LocalEngine(loaded=loaded, encoder=encoder, max_new_tokens=150, at_once=6)
    sizes = [image.size for image in images]
    openers: list[Any] = [lambda image=image: image for image in images]
    free = dict(engine.iter_answers(openers, sizes=sizes, freely=True))
    guided = dict(engine.iter_answers(openers, sizes=sizes))
    sound = [i for i, answer in free.items() if not answer.problems]  # type: ignore[union-attr]
    assert len(sound) >= 4 and len({free[i].text for i in sound}) > 1  # type: ignore[union-attr]
    for i in sound:
        one, two = free[i], guided[i]
        assert one.text == two.text and one.boxes.labels == two.boxes.labels  # type: ignore[union-attr]
        assert np.array_equal(one.boxes.xyxy_px, two.boxes.xyxy_px)  # type: ignore[union-attr]
        assert two.num_swayed == 0 and one.boxes.scores is None  # type: ignore[union-attr]
        assert two.boxes.scores is not None and ((two.boxes.scores > 0) & (two.boxes.scores < 1)).all()  # type: ignore[union-attr]


def test_what_must_come_costs_no_pass(asked: tuple[Any, Any, list[Example]], monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaving gaps where a row has written less changes no answer and no probability."""
    many = write(asked)
    monkeypatch.setattr(decode, "_can_skip", lambda cache: False)
    one = write(asked)
    assert [row.ids for row in many.rows] == [row.ids for row in one.rows]
    longest = max(len(row.ids) for row in one.rows)
    assert longest > 15 and one.num_passes >= longest and many.num_passes < 0.75 * one.num_passes
    for left, right in zip(many.rows, one.rows, strict=True):
        for before, after in zip(left.choices, right.choices, strict=True):
            assert before.ids == after.ids and before.taken == after.taken
            np.testing.assert_allclose(np.exp(before.log_probs), np.exp(after.log_probs), atol=2e-5)
            assert before.mass == pytest.approx(after.mass, abs=2e-5)


@pytest.mark.slow
def test_drawn_answers_are_sound_and_the_same_again(asked: tuple[Any, Any, list[Example]]) -> None:
    _, encoder, examples = asked
    first, again, other = (write(asked, temperature=1.5, seed=seed) for seed in (1, 1, 2))
    assert [row.ids for row in first.rows] == [row.ids for row in again.rows] != [row.ids for row in other.rows]
    for writer in (first, other):
        for row, example in zip(writer.rows, examples, strict=True):
            text = encoder.tokenizer.decode(row.ids)
            assert encoder.family.decode(text, example.frame, example.classes).problems == ()


@pytest.mark.slow
def test_further_boxes_stand_behind_the_own_answer(asked: tuple[Any, Any, list[Example]]) -> None:
    plain, further = write(asked), write(asked, reach=1e-6)
    went_on = [row for row in further.rows if row.own is not None]
    assert went_on
    for one, two in zip(plain.rows, further.rows, strict=True):
        assert tuple(one.ids) == (tuple(two.ids) if two.own is None else two.own)
        assert two.own is None or two.own_boxes == one.boxes < two.boxes or two.cut
        assert two.going_on >= 1e-6
    assert [row.own for row in write(asked, reach=1.1).rows] == [None] * len(plain.rows)


def row_of(encoder: Any, example: Example) -> Row:
    guide: Guide = guides_of(encoder).of(example.frame, example.classes)
    return Row(guide=guide, state=guide.start)


def say(row: Row, ids: list[int], most: int = 1000) -> None:
    """Choose what these ids say, wherever there is a choice."""
    while not row.done and len(row.ids) < len(ids):
        row.take(ids[len(row.ids)], most)


@pytest.mark.parametrize("num_before", [0, 1])
def test_an_answer_in_circles_is_closed(asked: tuple[Any, Any, list[Example]], num_before: int) -> None:
    _, encoder, examples = asked
    box = "<|object_ref_start|>{}<|object_ref_end|><|box_start|>({},10),(200,{})<|box_end|>"
    other = box.format(CLASSES[0], 7, 400) * num_before
    repeated = box.format(CLASSES[0], 5, 300)
    row = row_of(encoder, examples[0])
    say(row, list(encoder.ids(other + repeated * 20)))
    assert row.looped and not row.ended and not row.cut
    # Closed behind the first of what came again and again.
    assert tuple(row.ids) == encoder.ids(other + repeated)
    row = row_of(encoder, examples[0])
    different = "".join(box.format(CLASSES[0], 5, 300 + number) for number in range(20))
    say(row, list(encoder.ids(different)))
    assert not row.looped and tuple(row.ids) == encoder.ids(different)
    row = row_of(encoder, examples[0])
    zeros = "".join(box.format(CLASSES[0], place, 1000) for place in range(20))
    say(row, list(encoder.ids(zeros)))
    assert not row.looped and tuple(row.ids) == encoder.ids(zeros)


def test_an_answer_that_is_too_long_ends_behind_its_last_box(asked: tuple[Any, Any, list[Example]]) -> None:
    _, encoder, examples = asked
    box = f"<|object_ref_start|>{CLASSES[0]}<|object_ref_end|><|box_start|>(5,10),(200,300)<|box_end|>"
    ids = list(encoder.ids(box + box.replace("(5", "(6")))
    # In the midst of the second box, and before its last digit: (200,30 is no answer for (200,300.
    for most in (len(ids) - 5, len(ids) - 3, len(ids) // 2 + 1):
        row = row_of(encoder, examples[0])
        say(row, ids, most)
        assert row.cut and not row.ended and row.ids == list(encoder.ids(box))
        assert all(choice.box <= 1 for choice in row.choices)
    row = row_of(encoder, examples[0])
    say(row, ids, 3)
    assert row.cut and tuple(row.ids) == encoder.ids("There are none.")


def test_only_whole_caches_skip() -> None:
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    cache = DynamicCache()
    assert not decode._can_skip(cache)
    cache.layers = [DynamicLayer(), DynamicLayer()]
    assert decode._can_skip(cache)
    cache.layers = [DynamicLayer(), DynamicSlidingWindowLayer(sliding_window=4)]
    assert not decode._can_skip(cache)


@pytest.mark.slow
def test_an_answer_is_made_of_what_is_asked_for(asked: tuple[Any, Any, list[Example]]) -> None:
    loaded, encoder, examples = asked
    narrow = [replace(example, classes=CLASSES[:1]) for example in examples]
    writer = write((loaded, encoder, narrow), temperature=1.5, seed=3)
    labels = set()
    for row, example in zip(writer.rows, narrow, strict=True):
        decoded = encoder.family.decode(encoder.tokenizer.decode(row.ids), example.frame, example.classes)
        assert decoded.problems == ()
        labels |= set(decoded.boxes.labels)
    assert labels <= set(CLASSES[:1])
