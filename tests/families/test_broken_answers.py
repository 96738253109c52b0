"""Broken answers of every family: cut at every letter, doubled, mixed, nonsense. No box comes of what was not one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES, Family

from .answers import as_rows, every_family, frame_of

# The begin of a name is a name too, so that a name cut off is mistaken for another where that can happen.
CLASSES = ["cat", "ca", "cat-like (small)", 'a "b", {c} [1, 2, 3, 4]']
SIZE = (640, 480)
XYXY = np.array(
    [
        [0, 0, 640, 480],
        [64, 48, 320, 240],
        [100, 300, 200, 400],
        [10, 20, 630, 470],
        [300, 100, 420, 200],
        [5, 5, 90, 80],
    ],
    dtype=np.float64,
)
BOXES = Boxes(xyxy_px=XYXY, labels=("cat", "ca", CLASSES[2], CLASSES[3], "cat", "ca"))
OTHERS = Boxes(xyxy_px=XYXY[:3] * 0.5 + np.array([30, 40, 35, 45]), labels=("ca", CLASSES[3], "cat"))


def write(family: Family, boxes: Boxes = BOXES) -> tuple[str, list[tuple[str, tuple[float, ...]]]]:
    """An answer, and the boxes that are read from it whole."""
    frame = frame_of(family, SIZE)
    text = family.encode(boxes, frame, CLASSES)
    decoded = family.decode(text, frame, CLASSES)
    assert decoded.problems == () and len(decoded.boxes) == len(boxes)
    return text, as_rows(decoded.boxes)


@every_family
def test_cut_at_every_letter(family: Family) -> None:
    text, whole = write(family)
    most = 0
    for cut in range(len(text) + 1):
        decoded = family.decode(text[:cut], frame_of(family, SIZE), CLASSES, ended=False)
        rows = as_rows(decoded.boxes)
        # What was read is the begin of what was written, and it is said that the end is missing.
        assert rows == whole[: len(rows)], text[:cut]
        assert decoded.problems[-1].kind in ("truncated", "empty_answer"), text[:cut]
        assert len(rows) >= most - 1
        most = max(most, len(rows))
        family.decode(text[:cut], frame_of(family, SIZE), CLASSES)
    assert most >= len(whole) - 1


@every_family
def test_cut_and_begun_again(family: Family) -> None:
    text, whole = write(family)
    for cut in range(1, len(text)):
        decoded = family.decode(text[:cut] + text, frame_of(family, SIZE), CLASSES)
        rows = as_rows(decoded.boxes)
        assert set(rows) <= set(whole), text[:cut]
        assert decoded.problems or len(rows) > len(whole)


@every_family
def test_doubled(family: Family) -> None:
    text, whole = write(family)
    for between in ("", "\n", " and "):
        decoded = family.decode(text + between + text, frame_of(family, SIZE), CLASSES)
        assert set(as_rows(decoded.boxes)) <= set(whole)
        assert len(decoded.boxes) >= len(whole)


@every_family
def test_one_answer_inside_another(family: Family) -> None:
    (text, whole), (other, others) = write(family), write(family, OTHERS)
    corners = {box for _, box in [*whole, *others]}
    for cut in range(len(text) + 1):
        decoded = family.decode(text[:cut] + other + text[cut:], frame_of(family, SIZE), CLASSES)
        # Where a name is followed by any number of boxes, a box may come under the wrong one; none is made up.
        assert {box for _, box in as_rows(decoded.boxes)} <= corners, text[:cut]


@every_family
def test_words_around_an_answer_are_said(family: Family) -> None:
    text, whole = write(family)
    decoded = family.decode(f"Here they are:\n{text}", frame_of(family, SIZE), CLASSES)
    assert set(as_rows(decoded.boxes)) <= set(whole) and len(decoded.boxes) >= len(whole) - 1
    assert decoded.problems


@every_family
def test_other_names_are_unknown(family: Family) -> None:
    text, whole = write(family)
    decoded = family.decode(text, frame_of(family, SIZE), ["Cat", "ca"])
    assert as_rows(decoded.boxes) == [row for row in whole if row[0] == "ca"]
    assert [problem.kind for problem in decoded.problems] == ["unknown_label"] * 4


pieces = st.lists(
    st.one_of(
        st.sampled_from(
            ["cat", "ca", " ", "\n", "0", "9", "1000", "-1", "1.5", "99999999999", "(", ")", "[", "]", "{", "}"]
        ),
        st.sampled_from(
            [",", ", ", '"', "\\", ":", "<", ">", "|", "/", ";", " ; ", "```json", "```", "null", "NaN", "1e999"]
        ),
        st.sampled_from(
            [token for family in FAMILIES.values() for token in family.special_tokens if "000" not in token][:200]
        ),
        st.sampled_from(
            ["<loc0001>", "<loc1024>", "<loc_1>", "<loc_1000>", "<patch_index_0001>", "<patch_index_1024>"]
        ),
        st.sampled_from(['{"bbox_2d": [1, 2, 3, 4], "label": "cat"}', '{"label": "cat"}', '"bbox_2d": [4, 3, 2, 1]']),
        st.text(max_size=5),
    ),
    max_size=40,
)


@every_family
@given(pieces, st.booleans())
def test_nonsense_never_raises(family: Family, parts: list[str], ended: bool) -> None:
    frame = frame_of(family, SIZE)
    decoded = family.decode("".join(parts), frame, CLASSES, ended=ended)
    assert set(decoded.boxes.labels) <= set(CLASSES)
    xyxy = decoded.boxes.xyxy_px
    assert (xyxy >= 0).all() and (xyxy <= np.array(SIZE * 2)).all() and (xyxy[:, :2] < xyxy[:, 2:]).all()
    assert ended or decoded.problems


@every_family
@pytest.mark.parametrize(
    "bit", ["{", "[", "[[", '{"a":', "9", '{"bbox_2d": [', "<ref>", "<box>", "cat", "<loc0001>", "\\", '"']
)
def test_endless_answers_are_read_in_time(family: Family, bit: str) -> None:
    decoded = family.decode(bit * 1000, frame_of(family, SIZE), CLASSES, ended=False)
    assert len(decoded.boxes) == 0 and decoded.problems
