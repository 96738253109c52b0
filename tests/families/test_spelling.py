"""Whoever writes letter by letter as a spelling lets them can write sound answers, all of them, and nothing else."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES, Family
from boxtune.families.family import Frame
from boxtune.families.spelling import Letters, Spelling

from .answers import every_family

CLASSES = ["cat", "ca", "cat-like (small)", "Straßenschild", "犬"]
WH = (640, 480)


def frame_of(family: Family) -> Frame:
    least, most = family.defaults.min_pixels, family.defaults.max_pixels
    return Frame(original_wh=WH, seen_wh=family.seen_wh(WH, least, most))


@lru_cache(maxsize=4)
def spelling_of(name: str, classes: tuple[str, ...] = tuple(CLASSES)) -> tuple[Spelling, Letters]:
    family = FAMILIES[name]
    letters = Letters(family.special_tokens)
    return family.spell(frame_of(family), classes, letters), letters


def text_of(written: str, letters: Letters) -> str:
    names = {number: name for name, number in letters.numbers.items()}
    parts, run = [], b""
    for letter in written:
        if ord(letter) in names:
            parts, run = [*parts, run.decode(), names[ord(letter)]], b""
        else:
            run += bytes([ord(letter)])
    return "".join([*parts, run.decode()])


def walk(spelling: Spelling, source: random.Random, *, most: int = 3000) -> str:
    """An answer at random, ended where it may be with a chance of one in four."""
    state, written = spelling.start, ""
    while not (spelling.can_end(state) and (source.random() < 0.25 or not set(spelling.next_letters(state)))):
        assert state and len(written) < most
        letter = source.choice(sorted(set(spelling.next_letters(state))))
        state, written = spelling.follow(state, letter), written + letter
    return written


@every_family
def test_what_can_be_written_is_sound(family: Family) -> None:
    spelling, letters = spelling_of(family.name)
    source, some = random.Random(0), 0
    for _ in range(30):
        text = text_of(walk(spelling, source), letters)
        decoded = family.decode(text, frame_of(family), CLASSES)
        assert decoded.problems == (), text
        some += len(decoded.boxes)
    assert some > 15


@pytest.mark.slow
@every_family
@settings(max_examples=15)
@given(data=st.data())
def test_every_sound_answer_can_be_written(family: Family, data: st.DataObject) -> None:
    corner = st.tuples(st.integers(0, WH[0] - 2), st.integers(0, WH[1] - 2))
    boxes = []
    for x, y in data.draw(st.lists(corner, max_size=5)):
        boxes.append([x, y, data.draw(st.integers(x + 1, WH[0])), data.draw(st.integers(y + 1, WH[1]))])
    labels = tuple(data.draw(st.sampled_from(CLASSES)) for _ in boxes)
    shown = Boxes(xyxy_px=np.array(boxes, dtype=np.float64).reshape(-1, 4), labels=labels)
    spelling, letters = spelling_of(family.name)
    state = spelling.start
    for letter in letters.of(family.encode(shown, frame_of(family), CLASSES)):
        assert letter in set(spelling.next_letters(state))
        state = spelling.follow(state, letter)
    assert spelling.can_end(state)


@pytest.mark.slow
@every_family
def test_a_letter_that_is_not_next_leads_nowhere(family: Family) -> None:
    spelling, _ = spelling_of(family.name)
    source, state = random.Random(1), spelling.start
    for _ in range(30):
        known = set(spelling.next_letters(state))
        for letter in map(chr, range(256 + len(family.special_tokens))):
            assert bool(spelling.follow(state, letter)) == (letter in known)
        if not known:
            break
        state = spelling.follow(state, source.choice(sorted(known)))


@every_family
def test_what_is_forced_is_all_that_can_follow(family: Family) -> None:
    spelling, _ = spelling_of(family.name, ("cat",))
    source, state, most = random.Random(2), spelling.start, 0
    for _ in range(200):
        forced = spelling.forced(state)
        most = max(most, len(forced))
        for letter in forced:
            assert not spelling.can_end(state) and set(spelling.next_letters(state)) == {letter}
            state = spelling.follow(state, letter)
        known = set(spelling.next_letters(state))
        assert spelling.can_end(state) or len(known) > 1
        # From the beginning again where the answer is over.
        state = spelling.follow(state, source.choice(sorted(known))) if known else spelling.start
    assert most >= len("cat")


@pytest.mark.parametrize("name", ["qwen2_vl", "florence2", "gemma3"])
def test_corners_leave_room_for_a_box(name: str) -> None:
    """The largest number of a side cannot be a first corner, and a second one lies beyond the first."""
    frame = frame_of(FAMILIES[name])
    spelling, _ = spelling_of(name)
    for x in (0, 1, 500, 998):
        assert spelling.scale.allowed(2, (x, None, None, None), frame).start == x + 1
    top = spelling.scale.allowed(2, (None,) * 4, frame).stop
    assert spelling.scale.allowed(0, (None,) * 4, frame) == range(top - 1)
    assert spelling.scale.allowed(1, (None, None, None, 7), frame) == range(7)


def test_a_special_token_is_no_sequence_of_bytes() -> None:
    letters = Letters(["<a>", "<a>b"])
    assert letters.of("x<a>") == "x" + chr(256) and letters.of("<a>bc") == chr(257) + "c"
    assert letters.of("é") == "Ã©" and Letters([]).of("<a>") == "<a>"
