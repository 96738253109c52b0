"""ms-swift's objects: each box with the name that the text gives it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from boxtune.data.formats.chat_objects import read_objects
from boxtune.data.formats.chat_records import read_chat
from boxtune.errors import DataError

from .chat_cases import messages

A, B, C = [1, 2, 3, 4], [5, 6, 7, 8], [0.5, 0.25, 0.75, 1.0]


def read(
    question: str, answer: str, objects: Any, images: list[str] | None = None
) -> list[tuple[str | None, list[float], str]]:
    found = read_objects(read_chat(messages(images or ["a.jpg"], answer, question, objects=objects), "line 1"))
    assert found is not None
    return [(one.box.label, list(one.box.numbers), one.box.unit) for one in found.boxes]


@pytest.mark.parametrize(
    ("question", "answer", "refs", "labels"),
    [
        ("Describe.", "<ref-object><bbox> and <ref-object><bbox> play", ["cat", "dog"], ["cat", "dog"]),
        ("Find the <ref-object>", "<bbox><bbox>", ["cat"], ["cat", "cat"]),
        ("Find <ref-object> and <ref-object>", "<bbox>, <bbox>", ["cat", "dog"], ["cat", "dog"]),
        ("What are <bbox> and <bbox>?", "A <ref-object> and a <ref-object>", ["cat", "dog"], ["cat", "dog"]),
        (
            "Detect.",
            '[{"bbox_2d": <bbox>, "label": "<ref-object>"}, {"bbox_2d": <bbox>, "label": "<ref-object>"}]',
            ["cat", "dog"],
            ["cat", "dog"],
        ),
        (
            "Detect.",
            '[{"bbox_2d": <bbox>, "label": "a \\"cat\\""}, {"label": "dog", "bbox_2d": <bbox>}]',
            [],
            ['a "cat"', "dog"],
        ),
        ("Detect.", "<ref>cat</ref><box><bbox></box><ref>dog</ref><box><bbox></box>", [], ["cat", "dog"]),
        ("Boxes of what this sentence describes: a cat.", "<bbox><bbox>", [], ["a cat", "a cat"]),
        ("Where?", "<bbox><bbox>", [], [None, None]),
        (
            "Is it a <ref-object> or a <ref-object> or a <ref-object>?",
            "<bbox><bbox>",
            ["cat", "dog", "ox"],
            [None, None],
        ),
        ("no spots", "at all", ["cat", "dog"], ["cat", "dog"]),
        ("no spots", "at all", ["cat"], ["cat", "cat"]),
    ],
)
def test_names(question: str, answer: str, refs: list[str], labels: list[str | None]) -> None:
    found = read(question, answer, {"ref": refs, "bbox": [A, B]})
    assert [label for label, _, _ in found] == labels and [numbers for _, numbers, _ in found] == [A, B]


def test_several_turns() -> None:
    said = [
        ("user", "Find <ref-object>"),
        ("assistant", "<bbox><bbox>"),
        ("user", "And the others?"),
        ("assistant", "<bbox>"),
    ]
    entry = {"messages": [{"role": role, "content": text} for role, text in said], "images": ["a.jpg"]}
    entry["objects"] = {"ref": ["cat"], "bbox": [A, B, A]}  # type: ignore[assignment]
    found = read_objects(read_chat(entry, "line 1"))
    assert found is not None and [one.box.label for one in found.boxes] == ["cat", "cat", None]


def test_units_and_pictures() -> None:
    assert read("", "<ref-object><bbox>", {"ref": ["cat"], "bbox": [C], "bbox_type": "norm1"}) == [("cat", C, "unit")]
    assert read("", "<ref-object><bbox>", {"ref": ["cat"], "bbox": [A], "bbox_type": "real"}) == [("cat", A, "px")]
    objects = {"ref": ["cat", "dog"], "bbox": [A, B], "image_id": [0, 1]}
    chat = read_chat(messages(["a.jpg", "b.jpg"], "<ref-object><bbox><ref-object><bbox>", objects=objects), "x")
    found = read_objects(chat)
    assert found is not None and [one.image for one in found.boxes] == [0, 1]


def test_older_form() -> None:
    objects = [
        {"caption": "cat", "bbox": A, "bbox_type": "real", "image": 0},
        {"caption": "dog", "bbox": [B, A], "bbox_type": "norm1", "image": 0},
    ]
    expected = [("cat", A, "px"), ("dog", B, "unit"), ("dog", A, "unit")]
    assert read("", "<ref-object><bbox>", objects) == expected == read("", "", json.dumps(objects))


def test_points_and_nothing() -> None:
    chat = read_chat(messages("a.jpg", "click(<bbox>)", objects={"ref": [], "bbox": [[615, 226]]}), "x")
    found = read_objects(chat)
    assert found is not None and not found.boxes and found.num_points == 1
    assert read("", "None", {"ref": [], "bbox": []}) == []
    assert read_objects(read_chat(messages("a.jpg", "None"), "x")) is None


@pytest.mark.parametrize(
    ("answer", "objects", "message"),
    [
        ("<ref-object><bbox>", {"ref": ["cat"], "bbox": [A, B]}, "spots for 1 names and 1 boxes, objects has 1 and 2"),
        ("<ref-object><bbox><bbox>", {"ref": ["a", "b"], "bbox": [A, B]}, "spots for 1 names and 2 boxes"),
        ("<bbox>", {"bbox": [[1, 2, 3]]}, "not four numbers"),
        ("<bbox>", {"bbox": [[1, 2, 3, None]]}, "not finite numbers"),
        ("<bbox>", {"bbox": [A], "bbox_type": "percent"}, "bbox_type is 'percent'; known are real, norm1"),
        ("<bbox>", {"bbox": [A], "image_id": [1]}, "of image 1, but there are 1"),
        ("<bbox>", {"bbox": [A], "image_id": [0, 0]}, "1 bbox but 2 image_id"),
        ("<bbox>", {"bbox": "x"}, "are no lists"),
        ("<bbox>", "{", "text that is no JSON"),
        ("<bbox>", 5, "objects is 5"),
        ("<bbox>", [{"caption": "a"}], "objects holds"),
    ],
)
def test_broken(answer: str, objects: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read("", answer, objects)
    assert caught.value.where == "line 1"


def test_a_number_that_no_float_holds_is_refused() -> None:
    with pytest.raises(DataError, match="not finite numbers"):
        read("<image>find <ref-object>", "<bbox>", {"ref": ["cat"], "bbox": [[10**400, 1, 2, 3]]})
