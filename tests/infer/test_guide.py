"""By a guide every family's own tokenizer writes sound answers alone, all that were trained on among them."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from architectures import BUILDERS

from boxtune.boxes import Boxes
from boxtune.errors import DataError, ModelError
from boxtune.families import FAMILIES, Family, Frame
from boxtune.infer.guide import Guide, Guides

CLASSES = ("cat", "ca", "cat-like (small)")
WH = (640, 480)
BOXES = Boxes(
    xyxy_px=np.array(
        [[0, 0, 640, 480], [10, 20, 30, 41], [10, 20, 600, 450], [638, 478, 640, 480], [99, 100, 320, 479]], dtype=float
    ),
    labels=("cat", "ca", "ca", "cat-like (small)", "cat"),
)


def frame_of(family: Family) -> Frame:
    return Frame(original_wh=WH, seen_wh=family.seen_wh(WH, family.defaults.min_pixels, family.defaults.max_pixels))


@lru_cache(maxsize=2)
def parts(name: str) -> tuple[Family, Any, int, Guide]:
    family = FAMILIES[name]
    tokenizer = BUILDERS[name](family.special_tokens).tokenizer
    end_id = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    return family, tokenizer, end_id, Guides(family, tokenizer, end_id).of(frame_of(family), CLASSES)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def text_of(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def walk(guide: Guide, source: random.Random, *, forces: bool) -> list[int]:
    """Tokens at random, ended where they may be with a chance of one in three."""
    state, ids = guide.start, []
    while len(ids) < 3000:
        following = list(guide.forced(state, ids[-1] if ids else None)) if forces else []
        if not following:
            allowed = guide.allowed(state)
            if guide.end_id in allowed and (len(allowed) == 1 or source.random() < 0.33):
                return ids
            following = [source.choice([token for token in allowed if token != guide.end_id])]
        for token in following:
            assert token in guide.allowed(state)
            state = guide.step(state, token).state
            ids.append(token)
    raise AssertionError("an answer without an end")


every_family = pytest.mark.parametrize("name", list(FAMILIES))


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("forces", [False, True])
def test_whatever_is_allowed_is_sound(name: str, forces: bool) -> None:
    family, tokenizer, _, guide = parts(name)
    source, some = random.Random(4), 0
    for _ in range(6):
        text = text_of(tokenizer, walk(guide, source, forces=forces))
        decoded = family.decode(text, frame_of(family), CLASSES)
        assert decoded.problems == (), text
        some += len(decoded.boxes)
    assert some > 2


@every_family
@pytest.mark.parametrize("num", [0, 1, 5])
def test_a_trained_answer_is_allowed_and_what_is_forced_is_its_own(name: str, num: int) -> None:
    """Forced tokens are those that the tokenizer makes of the whole answer: what the model was trained on."""
    family, tokenizer, end_id, guide = parts(name)
    shown = BOXES.take(range(num))
    ids = [*ids_of(tokenizer, family.encode(shown, frame_of(family), CLASSES)), end_id]
    state, begun, saved = guide.start, 0, 0
    for place, token in enumerate(ids):
        forced = list(guide.forced(state, ids[place - 1] if place else None))
        assert ids[place : place + len(forced)] == forced
        saved += bool(forced)
        assert token in guide.allowed(state)
        if token != end_id:
            step = guide.step(state, token)
            state, begun = step.state, begun + step.begins
    assert begun == num
    assert saved or num == 0 or name in ("florence2", "paligemma")


@pytest.mark.slow
@every_family
def test_an_answer_can_be_closed_behind_every_box(name: str) -> None:
    family, tokenizer, end_id, _ = parts(name)
    # Where names stand last one that begins another has not ended before what follows it.
    names = {"cat": "kitten", "ca": "dog", "cat-like (small)": "cat-like (small)"}
    boxes = replace(BOXES, labels=tuple(names[label] for label in BOXES.labels))
    asked = tuple(names.values())
    guide = Guides(family, tokenizer, end_id).of(frame_of(family), asked)
    ids = ids_of(tokenizer, family.encode(boxes, frame_of(family), asked))
    state, closed = guide.start, set()
    assert text_of(tokenizer, list(guide.closing(state) or ())).strip() == text_of(
        tokenizer, ids_of(tokenizer, family.encode(Boxes.none(), frame_of(family), asked))
    )
    for place, token in enumerate(ids):
        state = guide.step(state, token).state
        if (closing := guide.closing(state)) is not None:
            decoded = family.decode(text_of(tokenizer, [*ids[: place + 1], *closing]), frame_of(family), asked)
            assert decoded.problems == ()
            closed.add(len(decoded.boxes))
    # Behind every box, or behind every name where its boxes stand together.
    assert len(closed) >= 3 and max(closed) == len(BOXES)


def test_guides_are_shared_by_images_with_the_same_numbers() -> None:
    family, tokenizer, end_id, _ = parts("qwen2_vl")
    guides = Guides(family, tokenizer, end_id)
    wide = Frame(original_wh=(300, 100), seen_wh=(280, 112))
    assert guides.of(frame_of(family), CLASSES) is guides.of(wide, CLASSES)
    assert guides.of(wide, CLASSES[:1]) is not guides.of(wide, CLASSES)
    family, tokenizer, end_id, _ = parts("qwen2_5_vl")
    guides = Guides(family, tokenizer, end_id)
    assert guides.of(frame_of(family), CLASSES) is not guides.of(wide, CLASSES)


def test_a_tokenizer_that_cannot_be_looked_into_is_refused() -> None:
    class Slow:
        pass

    with pytest.raises(ModelError, match="Slow is no tokenizer of the tokenizers library"):
        Guides(FAMILIES["qwen2_vl"], Slow(), 0)


def test_a_name_that_the_tokenizer_cannot_write_is_told() -> None:
    """Kosmos-2's knows a fixed alphabet; what is not in it would come back as `<unk>`."""
    family, tokenizer, end_id, _ = parts("kosmos2")
    with pytest.raises(DataError, match="cannot write the class name '犬'"):
        Guides(family, tokenizer, end_id).of(frame_of(family), ("cat", "犬"))
    family, tokenizer, end_id, _ = parts("qwen2_vl")
    Guides(family, tokenizer, end_id).of(frame_of(family), ("cat", "犬"))
