"""Qwen2-VL's grammar: what is written is read back; what is broken is named and never becomes a box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxtune.boxes import Boxes, iou_matrix
from boxtune.errors import ModelError
from boxtune.families import FAMILIES, Frame, require_family
from boxtune.families.qwen2_vl import BINS, NOTHING, QWEN2_VL

FRAME = Frame(original_wh=(640, 480), seen_wh=(336, 252))
NAMES = ["cat", "a-b (c)", 'quote"d', "12", "a, b", "<angle>", "猫", "x" * 200, "<|not_closed|"]

sides = st.integers(min_value=28, max_value=6000)


unit = st.floats(min_value=0, max_value=1)
objects = st.lists(st.tuples(unit, unit, unit, unit, st.sampled_from(NAMES)), max_size=8)


def build(width: int, height: int, rows: list[tuple[float, float, float, float, str]]) -> tuple[Frame, Boxes]:
    frame = Frame(original_wh=(width, height), seen_wh=(28 * max(1, width // 28), 28 * max(1, height // 28)))
    corners = np.array([row[:4] for row in rows], dtype=np.float64).reshape(-1, 4) * np.array([width, height] * 2)
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    # A number at the end tells boxes of one name apart, so that each is compared with itself.
    labels = tuple(f"{row[4]} {place}" for place, row in enumerate(rows))
    return frame, Boxes(xyxy_px=np.concatenate([low, high], axis=1), labels=labels)


@given(sides, sides, objects)
def test_boxes_survive_within_half_a_bin(
    width: int, height: int, rows: list[tuple[float, float, float, float, str]]
) -> None:
    frame, boxes = build(width, height, rows)
    decoded = QWEN2_VL.decode(QWEN2_VL.encode(boxes, frame, boxes.labels), frame, boxes.labels)
    assert decoded.problems == ()
    assert sorted(decoded.boxes.labels) == sorted(boxes.labels)
    bin_px = np.array(frame.original_wh * 2) / BINS
    for label, box in zip(decoded.boxes.labels, decoded.boxes.xyxy_px, strict=True):
        source = boxes.xyxy_px[boxes.labels.index(label)]
        # Half a bin, but for a side thinner than a bin, which is written one bin wide.
        thin = np.tile(source[2:] - source[:2], 2) <= bin_px
        assert (np.abs(source - box) <= np.where(thin, 1.5, 0.5) * bin_px * (1 + 1e-9)).all()


def test_the_text_is_the_familys_own() -> None:
    boxes = Boxes(xyxy_px=np.array([[64.0, 48.0, 320.0, 240.0]]), labels=("cat",))
    assert (
        QWEN2_VL.encode(boxes, FRAME, ["cat"])
        == "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
    )


def test_order_is_by_class_asked_then_top_to_bottom() -> None:
    xyxy = np.array([[0, 200, 50, 250], [100, 10, 150, 60], [10, 10, 60, 60], [0, 0, 640, 480]], dtype=float)
    boxes = Boxes(xyxy_px=xyxy, labels=("a", "a", "a", "b"))
    texts = {QWEN2_VL.encode(boxes.take(order), FRAME, ["b", "a"]) for order in ([0, 1, 2, 3], [3, 2, 1, 0])}
    assert len(texts) == 1
    decoded = QWEN2_VL.decode(texts.pop(), FRAME, ["a", "b"])
    assert decoded.boxes.labels == ("b", "a", "a", "a")
    assert [round(x) for x in decoded.boxes.xyxy_px[1:, 0]] == [10, 100, 0]


def test_corners_are_legal_at_both_ends() -> None:
    boxes = Boxes(xyxy_px=np.array([[0.0, 0.0, 640.0, 480.0]]), labels=("cat",))
    text = QWEN2_VL.encode(boxes, FRAME, ["cat"])
    assert "(0,0),(1000,1000)" in text
    assert iou_matrix(QWEN2_VL.decode(text, FRAME, ["cat"]).boxes.xyxy_px, boxes.xyxy_px)[0, 0] == 1.0


def test_an_image_with_nothing_in_it_has_an_answer() -> None:
    assert QWEN2_VL.encode(Boxes.none(), FRAME, ["cat"]) == NOTHING
    decoded = QWEN2_VL.decode(NOTHING, FRAME, ["cat"])
    assert len(decoded.boxes) == 0 and decoded.problems == ()


REF = "<|object_ref_start|>cat<|object_ref_end|>"


@pytest.mark.parametrize(
    ("text", "ended", "kinds", "num_boxes"),
    [
        ("", True, ["empty_answer"], 0),
        ("  \n", True, ["empty_answer"], 0),
        ("no cats here", True, ["malformed"], 0),
        (NOTHING, False, ["truncated"], 0),
        (f"{REF}<|box_start|>(1,2),(3,1001)<|box_end|>", True, ["out_of_range"], 0),
        (f"{REF}<|box_start|>(-1,2),(3,10)<|box_end|>", True, ["out_of_range"], 0),
        (f"{REF}<|box_start|>(30,2),(3,10)<|box_end|>", True, ["inverted"], 0),
        (f"{REF}<|box_start|>(3,2),(3,10)<|box_end|>", True, ["no_area"], 0),
        (f"{REF}<|box_start|>(1,2),(3,10)<|box_end|>{REF}<|box_sta", False, ["truncated"], 1),
        (f"{REF}<|box_start|>(1,2),(3,10)<|box_end|>", False, ["truncated"], 1),
        (f"{REF}<|box_start|>(1,2),(3,10)<|box_end|><|box_start|>(1,2),(9,10)<|box_end|>", True, [], 2),
        (f"{REF.replace('cat', 'dog')}<|box_start|>(1,2),(3,10)<|box_end|>", True, ["unknown_label"], 0),
        (f"<|object_ref_start|>x{REF}<|box_start|>(1,2),(3,10)<|box_end|>", True, ["malformed"], 1),
        (f"{REF}{REF}<|box_start|>(1,2),(3,10)<|box_end|> and more", True, ["malformed", "malformed"], 1),
        (f"{REF}<|box_start|>(1.5,2),(3,10)<|box_end|>", True, ["malformed"], 0),
        (f"{REF}<|box_start|>(1,2),(3,{'9' * 5000})<|box_end|>", True, ["malformed"], 0),
    ],
)
def test_broken_answers_are_named(text: str, ended: bool, kinds: list[str], num_boxes: int) -> None:
    decoded = QWEN2_VL.decode(text, FRAME, ["cat"], ended=ended)
    assert [problem.kind for problem in decoded.problems] == kinds
    assert len(decoded.boxes) == num_boxes


pieces = st.sampled_from(
    [REF, "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "(1,2)", ",", "(3,4)", "9", "x"]
)


@given(st.lists(pieces, max_size=30), st.booleans())
def test_garbage_never_raises_and_never_invents(parts: list[str], ended: bool) -> None:
    text = "".join(parts)
    decoded = QWEN2_VL.decode(text, FRAME, ["cat"], ended=ended)
    whole = text.count("<|box_start|>(1,2),(3,4)<|box_end|>")
    assert len(decoded.boxes) <= whole
    assert len(decoded.boxes) > 0 or decoded.problems


def test_prompt_holds_classes_and_image() -> None:
    prompt = QWEN2_VL.prompt(["cat", "dog"], QWEN2_VL.image_token * 3)
    assert prompt.count("<|image_pad|>") == 3
    assert "cat, dog" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (644, 476)), ((20, 20), (56, 56)), ((4000, 3000), (1148, 840)), ((10_000, 100), (9996, 84))],
)
def test_resize_rule(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert QWEN2_VL.seen_wh(size, 56 * 56, 28 * 28 * 1280) == expected


def test_resize_refuses_extreme_aspect() -> None:
    with pytest.raises(ValueError, match="200 times"):
        QWEN2_VL.seen_wh((5000, 20), 56 * 56, 28 * 28 * 1280)


def test_class_names_the_grammar_cannot_carry() -> None:
    faults = QWEN2_VL.check_classes(["ok", "", " x", "a<|box_start|>", "b", "b"])
    assert len(faults) == 4
    assert QWEN2_VL.check_classes(NAMES) == []


def test_unknown_label_is_refused_when_writing() -> None:
    boxes = Boxes(xyxy_px=np.array([[0.0, 0.0, 1.0, 1.0]]), labels=("dog",))
    with pytest.raises(ValueError, match="dog"):
        QWEN2_VL.encode(boxes, FRAME, ["cat"])


def test_unknown_model_type_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="qwen2_vl"):
        require_family("llama", where="config.json")
    assert require_family("qwen2_vl", where="config.json") is FAMILIES["qwen2_vl"]
