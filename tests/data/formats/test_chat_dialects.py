"""Boxes out of the text of answers, in every grammar that is known, and what becomes of the rest of the text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data.formats.chat_dialects import DIALECTS, Answered, dialect_of, parse_answer
from boxtune.data.formats.chat_labels import asks_for_boxes, denies, is_nothing, label_before, label_in_question
from boxtune.families import FAMILIES, Frame

SIZE = (1000, 1000)
REFER = "Please provide the bounding box coordinate of the region this sentence describes: the red car."


def told(answered: Answered) -> list[tuple[str | None, list[float]]]:
    return [(box.label, [round(number, 2) for number in box.numbers]) for box in answered.boxes]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_is_understood(name: str) -> None:
    """What a family writes is read again, and lies within a step of where it was."""
    xyxy = np.array([[62.5, 125.0, 500.0, 750.0], [0.0, 0.0, 999.0, 999.0]])
    boxes = Boxes(xyxy_px=xyxy, labels=("cat", "white dog"))
    frame = Frame(original_wh=SIZE, seen_wh=SIZE)
    answered = parse_answer("", FAMILIES[name].encode(boxes, frame, ["cat", "white dog"]))
    assert answered.dialect is not None and not answered.faults
    assert [box.label for box in answered.boxes] == ["cat", "white dog"]
    step = 1000 / 32 if name == "kosmos2" else 1.0
    assert np.abs(np.array([box.numbers for box in answered.boxes]) - xyxy).max() <= step
    assert answered.boxes[0].unit == DIALECTS[answered.dialect].unit
    nothing = FAMILIES[name].encode(Boxes.none(), frame, ["cat"])
    assert parse_answer("", nothing).dialect is None and (is_nothing(nothing) or denies(nothing))


@pytest.mark.parametrize(
    ("dialect", "answer", "expected"),
    [
        (
            "qwen2_vl",
            "<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(221,423),(569,886)<|box_end|> and "
            "<|object_ref_start|>a woman<|object_ref_end|><|box_start|>(451,381),(733,793)<|box_end|> are playing",
            [("a dog", [221, 423, 569, 886]), ("a woman", [451, 381, 733, 793])],
        ),
        (
            "qwen2_vl",
            "It is <|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>.",
            [(None, [1, 2, 3, 4]), (None, [5, 6, 7, 8])],
        ),
        (
            "qwen_vl",
            "<ref>cat</ref><box>(1,2),(3,4)</box><box>(5,6),(7,8)</box>",
            [("cat", [1, 2, 3, 4]), ("cat", [5, 6, 7, 8])],
        ),
        (
            "internvl",
            "<ref>cat</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>",
            [("cat", [1, 2, 3, 4]), ("cat", [5, 6, 7, 8])],
        ),
        ("internvl", "<box>[[1, 2, 3, 4]]</box>", [(None, [1, 2, 3, 4])]),
        ("deepseek", "<|det|>[[0, 0, 999, 999]]<|/det|>", [(None, [0, 0, 1000, 1000])]),
        ("minicpm", "<ref>cat</ref><box>1 2 3 4</box>", [("cat", [1.5, 2.5, 3.5, 4.5])]),
        (
            "kosmos2",
            "<phrase>cat</phrase><object><patch_index_0000><patch_index_1023></object>",
            [("cat", [15.62, 15.62, 984.38, 984.38])],
        ),
        ("paligemma", "<loc0000><loc1023><loc0001><loc0000> x", []),
        (
            "paligemma",
            "<loc0000><loc0000><loc1023><loc1023> big cat; <loc0000><loc0000><loc0341><loc0682><seg001><seg127> dog ;",
            [("big cat", [0, 0, 1000, 1000]), ("dog", [0, 0, 666.67, 333.33])],
        ),
        ("paligemma", "<loc0000><loc0000><loc1023><loc1023>", [(None, [0, 0, 1000, 1000])]),
        (
            "florence2",
            "</s>cat<loc_0><loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7>Käse-1<loc_8><loc_9><loc_10><loc_999></s>",
            [("cat", [0.5, 1.5, 2.5, 3.5]), ("cat", [4.5, 5.5, 6.5, 7.5]), ("Käse-1", [8.5, 9.5, 10.5, 999.5])],
        ),
        ("gemini", '```json\n[{"box_2d": [1, 2, 30, 40], "label": "cat"}]\n```', [("cat", [2, 1, 40, 30])]),
        ("glm", "It is at <|begin_of_box|>[[1,2,3,4]]<|end_of_box|>", [(None, [1, 2, 3, 4])]),
        ("glm", '<|begin_of_box|>[{"label": "a", "bbox_2d": [1, 2, 3, 4]}]<|end_of_box|>', [("a", [1, 2, 3, 4])]),
        ("json", 'Here:\n{"bbox_2d": [1.5, 2, 3, 4], "label": "cat", "why": {"x": 1}}', [("cat", [1.5, 2, 3, 4])]),
        (
            "json",
            '[{"bbox": [1, 2, 3, 4], "category": "a \\"b\\""}, {"bbox": [5, 6, 7, 8]}]',
            [('a "b"', [1, 2, 3, 4]), (None, [5, 6, 7, 8])],
        ),
        (
            "json",
            '{"objects": [{"label": 7, "bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}]}',
            [("7", [1, 2, 3, 4]), ("7", [5, 6, 7, 8])],
        ),
        ("brackets", "cat: [0.1, 0.2, 0.3, 0.4]; white dog [0.5, .6, 0.7, 0.8]", [("cat", [0.1, 0.2, 0.3, 0.4])]),
        ("brackets", "[[1, 2, 3, 4], [5, 6, 7, 8]]", [(None, [1, 2, 3, 4]), (None, [5, 6, 7, 8])]),
        ("brackets", "The two cats that you mean are at [1, 2, 3, 4]", [(None, [1, 2, 3, 4])]),
    ],
)
def test_forms(dialect: str, answer: str, expected: list[tuple[str | None, list[float]]]) -> None:
    answered = parse_answer("What is there?", answer)
    assert answered.dialect == dialect == dialect_of(answer) and told(answered) == expected
    assert bool(answered.faults) == (not expected)


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("[0.1, 0.2, 0.3, 0.4]", [0.1, 0.2, 0.3, 0.4]),
        ("<box>[[1, 2, 3, 4]]</box>", [1, 2, 3, 4]),
        ("Sure: <|box_start|>(1,2),(3,4)<|box_end|>", [1, 2, 3, 4]),
        ('{"bbox_2d": [1, 2, 3, 4]}', [1, 2, 3, 4]),
        ("<loc_1><loc_2><loc_3><loc_4>", [1.5, 2.5, 3.5, 4.5]),
        ("<|det|>[[0, 0, 999, 999]]<|/det|>", [0, 0, 1000, 1000]),
    ],
)
def test_names_from_the_question(answer: str, numbers: list[float]) -> None:
    assert told(parse_answer(REFER, answer)) == [("the red car", numbers)]


@pytest.mark.parametrize(
    ("answer", "fault", "sound"),
    [
        ("<ref>a</ref><box>[[1, 2, 3, 4]]</box><ref>b</ref><box>[[1, 2, 3", "malformed: <ref>b</ref>", 1),
        ("<ref>a</ref><box>[[1, 2, 3, 4]", "malformed: cut off", 1),
        ("<ref>a</ref><box>[[3, 2, 1, 4]]</box>", "inverted: ", 0),
        ("<ref>a</ref><box>[[1, 2, 1, 4]]</box>", "no area: ", 0),
        ("<ref>a</ref><box>[[1, 2, 1001, 4]]</box>", "out of range: ", 0),
        ("a<loc_0><loc_0><loc_1000><loc_5>", "out of range: ", 0),
        ("a<loc_0><loc_0><loc_5>", "malformed: ", 0),
        ("<loc0001><loc0002><loc0003> x ; <loc0001><loc0002><loc0003><loc0004> cat", "malformed: <loc0001>", 1),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6', 'malformed: {"bbox_2d": [5, 6', 1),
        ('[{"bbox_2d": [1, 2, 3], "label": "a"}]', "malformed: ", 0),
        ("[{'bbox_2d': [1, 2, 3, 4], 'label': 'a'}]", "malformed: {'bbox_2d'", 0),
        ("[5, 2, 3, 4]", "inverted: ", 0),
    ],
)
def test_what_is_no_sound_box(answer: str, fault: str, sound: int) -> None:
    answered = parse_answer(REFER, answer)
    assert len(answered.faults) == 1 and answered.faults[0].startswith(fault), answered.faults
    assert len(answered.boxes) == sound


@pytest.mark.parametrize(
    "answer", ["A cat on a mat.", "", "[]", "In 1999 [see 3] it was (1, 2).", '{"point_2d": [1, 2]}']
)
def test_talk(answer: str) -> None:
    assert parse_answer(REFER, answer) == Answered(dialect=None)


def test_points_and_text_regions_are_no_boxes() -> None:
    point = parse_answer("Click", "Action: click(start_box='<|box_start|>(246,113)<|box_end|>')")
    assert point == Answered(dialect=None, num_points=1)
    region = "STOP<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>"
    assert parse_answer("<OCR_WITH_REGION>", region).dialect is None
    assert len(parse_answer("<OD>", region).boxes) == 2


def test_many_names_survive() -> None:
    names = ["Käse", 'a "quoted" one', "x-y (z)", "<b>", "7", "a, b; c", "名"]
    rows = [{"bbox_2d": [1, 2, 3, 4], "label": name} for name in names]
    assert [label for label, _ in told(parse_answer("", json.dumps(rows)))] == names


@pytest.mark.parametrize(
    ("question", "label"),
    [
        (REFER, "the red car"),
        ("Find <ref>a cat</ref> and <ref>a cat</ref>", "a cat"),
        ("Find <ref>a cat</ref> and <ref>a dog</ref>", None),
        ("Help me to locate the cat in the image and give me its bounding boxes.", "the cat"),
        ("<OPEN_VOCABULARY_DETECTION>a green car", "a green car"),
        ("detect cat\n", "cat"),
        ("detect cat ; dog", None),
        ("<image>\nPlease locate all of the white cats in this image.", "white cats"),
        ("Give me the bounding box of the cat", "cat"),
        ("Detect every object in the image.", None),
        ("Detect the cat and the dog.", None),
        ("detect cat and dog", None),
        ("Detect each: cat, dog.", None),
        ("Where are they?", None),
    ],
)
def test_labels_of_questions(question: str, label: str | None) -> None:
    assert label_in_question(question) == label


def test_words() -> None:
    assert (
        label_before("a box; white dog: [") == "white dog" and label_before("this is far too long for a name ") is None
    )
    assert asks_for_boxes("Detect all cats") and asks_for_boxes("<OD>") and not asks_for_boxes("What colour is it?")
    for text in ("No object.", "None", "There are no cats.", "there aren't any"[:9] + " none", "I cannot see any"):
        assert denies(text), text
    assert not denies("Nobody is there, but a cat is") and not denies("A cat.")
    assert is_nothing("```json\n[\n\n]\n```") and not is_nothing("No object.")


def test_the_mark_of_a_missing_name_is_no_name() -> None:
    loc = "<loc0102><loc0102><loc0307><loc0307>"
    assert [box.label for box in parse_answer("detect it", loc).boxes] == [None]
    for answer in (f"{loc} cat <odd>", f"{loc} cat<", f"{loc} cat \ufffd"):
        assert all("\ufffd" not in (box.label or "") for box in parse_answer("detect it", answer).boxes), answer
