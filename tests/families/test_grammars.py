"""Each family's own text, letter by letter, and what its grammar says of answers that are nearly right."""

from __future__ import annotations

import re

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES, Frame
from boxtune.families.json1000 import SPOT, fit_to_chat

FRAME = Frame(original_wh=(640, 480), seen_wh=(336, 252))
BOXES = Boxes(xyxy_px=np.array([[64.0, 48.0, 320.0, 240.0], [0.0, 240.0, 640.0, 480.0]]), labels=("cat", "cat"))
JSON = '```json\n[\n\t{{"bbox_2d": [{}], "label": "cat"}},\n\t{{"bbox_2d": [{}], "label": "cat"}}\n]\n```'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "qwen2_vl",
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(100,100),(500,500)<|box_end|>"
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(0,500),(1000,1000)<|box_end|>",
        ),
        ("qwen2_5_vl", JSON.format("34, 25, 168, 126", "0, 126, 335, 251")),
        ("qwen3_vl", JSON.format("100, 100, 500, 500", "0, 500, 1000, 1000")),
        ("json1000", JSON.format("100, 100, 500, 500", "0, 500, 1000, 1000")),
        (
            "paligemma",
            "<loc0102><loc0102><loc0512><loc0512> cat ; <loc0512><loc0000><loc1023><loc1023> cat",
        ),
        (
            "florence2",
            "cat<loc_100><loc_100><loc_500><loc_500>cat<loc_0><loc_500><loc_999><loc_999>",
        ),
        ("internvl", "<ref>cat</ref><box>[[100, 100, 500, 500], [0, 500, 1000, 1000]]</box>"),
        ("deepseek_vl", "<|ref|>cat<|/ref|><|det|>[[100, 100, 500, 500], [0, 500, 999, 999]]<|/det|>"),
        ("gemma3", JSON.replace("bbox_2d", "box_2d").format("100, 100, 500, 500", "500, 0, 1000, 1000")),
        (
            "glm4v",
            '<|begin_of_box|>[{"label": "cat", "bbox_2d": [100, 100, 500, 500]}, '
            '{"label": "cat", "bbox_2d": [0, 500, 1000, 1000]}]<|end_of_box|>',
        ),
        (
            "kosmos2",
            "<phrase>cat</phrase><object><patch_index_0099><patch_index_0495></delimiter_of_multi_objects/>"
            "<patch_index_0512><patch_index_1023></object>",
        ),
        ("minicpm_v", "<ref>cat</ref><box>100 100 500 500</box><ref>cat</ref><box>0 500 1000 1000</box>"),
    ],
)
def test_the_text_is_the_familys_own(name: str, text: str) -> None:
    assert FAMILIES[name].encode(BOXES, FRAME, ["cat"]) == text


def kinds_and_number(name: str, text: str, *, ended: bool = True) -> tuple[list[str], int]:
    decoded = FAMILIES[name].decode(text, FRAME, ["cat"], ended=ended)
    return [problem.kind for problem in decoded.problems], len(decoded.boxes)


ONE = '{"bbox_2d": [1, 2, 30, 40], "label": "cat"}'


@pytest.mark.parametrize(
    ("text", "kinds", "number"),
    [
        (f"[{ONE}]", [], 1),
        (ONE, [], 1),
        (f"```\n[{ONE}]\n```", [], 1),
        (f"[{ONE}, {ONE}]", [], 2),
        ("[]", [], 0),
        ("```json\n[]\n```", [], 0),
        ('[{"bbox_2d": [1.5, 2, 30, 40], "label": "cat", "colour": "red"}]', [], 1),
        ("", ["empty_answer"], 0),
        ("```json\n```", ["malformed"], 0),
        (f"[{ONE}", ["malformed"], 1),
        (f"[{ONE} {ONE}]", ["malformed"], 2),
        (f"[{ONE}][{ONE}]", ["malformed"], 2),
        (f"Sure! [{ONE}]", ["malformed"], 1),
        (f'{{"objects": [{ONE}]}}', ["malformed", "malformed"], 1),
        (f"[{ONE.replace('bbox_2d', 'box_2d')}]", ["malformed"], 0),
        (f"[{ONE.replace('30, 40', '30')}]", ["malformed"], 0),
        (f"[{ONE.replace('30, 40', '30, 40, 50')}]", ["malformed"], 0),
        (f"[{ONE.replace('30', 'true')}]", ["malformed"], 0),
        (f"[{ONE.replace('30', 'NaN')}]", ["malformed"], 0),
        (f"[{ONE.replace('30', 'null')}]", ["malformed"], 0),
        (f"[{ONE.replace('30', '9' * 5000)}]", ["malformed"], 0),
        (f"[{ONE.replace('30', '9' * 400)}]", ["out_of_range"], 0),
        (f"[{ONE.replace('30', '1e999')}]", ["out_of_range"], 0),
        (f"[{ONE.replace('30', '1001')}]", ["out_of_range"], 0),
        (f"[{ONE.replace('1, 2', '-1, 2')}]", ["out_of_range"], 0),
        (f"[{ONE.replace('30', '0')}]", ["inverted"], 0),
        (f"[{ONE.replace('30', '1')}]", ["no_area"], 0),
        (f"[{ONE.replace('cat', 'Cat')}]", ["unknown_label"], 0),
        ('[{"bbox_2d": [1, 2, 30, 40], "bbox_2d": [1, 2, 31, 41], "label": "cat"}]', ["malformed"], 0),
        ("[" * 100_000, ["malformed"], 0),
        ('{"a":' * 2000, ["malformed"], 0),
    ],
)
def test_json(text: str, kinds: list[str], number: int) -> None:
    assert kinds_and_number("qwen3_vl", text) == (kinds, number)


REF = "<ref>cat</ref>"


@pytest.mark.parametrize(
    ("text", "ended", "kinds", "number"),
    [
        (f"{REF}<box>[[1, 2, 30, 40]]</box>", True, [], 1),
        (f"{REF}<box>[[1,2,30,40],[1, 2, 30, 41]]</box>\n", True, [], 2),
        (f"{REF}<box>[[1, 2, 30, 40], [1, 2", False, ["truncated"], 1),
        (f"{REF}<box>[[1, 2, 30, 40]", True, ["malformed"], 1),
        (f"{REF}<box>[[1, 2, 30, 40]", False, ["truncated"], 1),
        (f"{REF}<box>[]</box>", True, ["malformed"], 0),
        (f"{REF}<box>[[1, 2, 30]]</box>", True, ["malformed"], 0),
        (f"{REF}<box>[[1, 2, 30, 40], none]</box>{REF}<box>[[1, 2, 3, 4]]</box>", True, ["malformed"], 2),
        ("<box>[[1, 2, 30, 40]]</box>", True, ["malformed"], 0),
        (f"<ref>x{REF}<box>[[1, 2, 30, 40]]</box>", True, ["malformed"], 1),
        (f"{REF}<box>[[1, 2, 1001, 40], [30, 2, 1, 40]]</box>", True, ["out_of_range", "inverted"], 0),
    ],
)
def test_lists_behind_names(text: str, ended: bool, kinds: list[str], number: int) -> None:
    assert kinds_and_number("internvl", text, ended=ended) == (kinds, number)


PLACES = "<loc0001><loc0002><loc0300><loc0400>"


@pytest.mark.parametrize(
    ("text", "ended", "kinds", "number"),
    [
        (f"{PLACES} cat", True, [], 1),
        (f"{PLACES} cat ; {PLACES} cat", True, [], 2),
        (f"{PLACES} cat ; ", True, [], 1),
        ("", True, [], 0),
        ("", False, ["empty_answer"], 0),
        (f"{PLACES} cat", False, ["truncated"], 0),
        (f"{PLACES} cat ; ", False, ["truncated"], 1),
        (f"{PLACES} cat{PLACES} cat", True, ["malformed"], 1),
        (f"<loc0001>{PLACES} cat", True, ["malformed"], 0),
        ("<loc0001><loc0002><loc0300> cat", True, ["malformed"], 0),
        (f"a cat {PLACES} cat", True, ["malformed"], 1),
        (PLACES, True, ["malformed"], 0),
        ("<loc0001><loc0002><loc1024><loc0400> cat", True, ["out_of_range"], 0),
        ("<loc0300><loc0002><loc0001><loc0400> cat", True, ["inverted"], 0),
        ("<loc0300><loc0002><loc0300><loc0400> cat", True, ["no_area"], 0),
        (f"{PLACES} dog", True, ["unknown_label"], 0),
    ],
)
def test_places_before_names(text: str, ended: bool, kinds: list[str], number: int) -> None:
    assert kinds_and_number("paligemma", text, ended=ended) == (kinds, number)


@pytest.mark.parametrize(
    ("text", "ended", "kinds", "number"),
    [
        ("<s>cat<loc_1><loc_2><loc_30><loc_40></s>", True, [], 1),
        ("cat<loc_1><loc_2><loc_30><loc_40><loc_1><loc_2><loc_31><loc_41>", True, [], 2),
        ("cat<loc_1><loc_2><loc_30><loc_40><loc_5>", True, ["malformed"], 0),
        ("<loc_1><loc_2><loc_30><loc_40>", True, ["malformed"], 0),
        ("cat<loc_1><loc_2><loc_30><loc_1000>", True, ["out_of_range"], 0),
        ("cat<loc_1><loc_2><loc_30><loc_40>cat<loc_1><loc_2>", False, ["truncated"], 1),
        ("There are none.", True, [], 0),
        ("none", True, ["malformed"], 0),
    ],
)
def test_places_behind_names(text: str, ended: bool, kinds: list[str], number: int) -> None:
    assert kinds_and_number("florence2", text, ended=ended) == (kinds, number)


@pytest.mark.parametrize(
    ("first", "last", "xyxy_unit"),
    [
        (44, 863, (12.5, 1.5, 31.5, 26.5)),  # transformers' own example
        (5, 911, (5.5, 0.5, 15.5, 28.5)),  # transformers' own example
        (33, 33, (1, 1, 2, 2)),
        (33, 35, (1, 1, 4, 2)),
        (33, 97, (1, 1, 2, 4)),
        (0, 1023, (0.5, 0.5, 31.5, 31.5)),
    ],
)
def test_cells_are_read_as_published(first: int, last: int, xyxy_unit: tuple[float, ...]) -> None:
    text = f"<phrase> cat</phrase><object><patch_index_{first:04d}> <patch_index_{last:04d}></object>"
    decoded = FAMILIES["kosmos2"].decode(text, FRAME, ["cat"])
    assert decoded.problems == ()
    assert np.allclose(decoded.boxes.xyxy_px[0], np.array(xyxy_unit) / 32 * [640, 480, 640, 480])


def test_cells_out_of_the_grid_or_turned_round() -> None:
    for first, last, kind in [(0, 1024, "out_of_range"), (33, 0, "inverted"), (3, 33, "inverted")]:
        text = f"<phrase>cat</phrase><object><patch_index_{first:04d}><patch_index_{last:04d}></object>"
        assert kinds_and_number("kosmos2", text) == ([kind], 0)


def test_names_that_a_tokenizer_would_change() -> None:
    assert FAMILIES["qwen2_vl"].check_classes(["caf\u00e9", "\u2460"]) == []
    (fault,) = FAMILIES["qwen2_vl"].check_classes(["cafe\u0301"])
    assert "NFC" in fault
    assert len(FAMILIES["kosmos2"].check_classes(["\u2460", "two  spaces", "two\nlines"])) == 3
    assert FAMILIES["gemma3"].check_classes(["cafe\u0301"]) == []


def test_json1000_inside_a_models_own_chat() -> None:
    rendered = f"<bos>[U]<picture>\n{SPOT}[A]"
    family = fit_to_chat(rendered, image_token="<picture>", visual_token="<p>", end_of_turn="[E]")
    prompt = family.prompt(["cat"], "<p><p>")
    assert prompt.startswith("<bos>[U]<p><p>\nDetect every object of these classes: cat.") and prompt.endswith("[A]")
    assert (family.end_of_turn, family.visual_token, family.knows_processor) == ("[E]", "<p>", False)
    assert family.seen_wh((640, 480), 1, 1) == (640, 480)
    with pytest.raises(ValueError, match="picture"):
        fit_to_chat("<bos>[U][A]", image_token="<picture>", visual_token="<p>", end_of_turn="[E]")


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ("model.language_model.layers.3.self_attn.q_proj", "attention"),
        ("base_model.model.text_model.model.layers.0.self_attn.out_proj", "attention"),
        ("transformer.h.4.attention.query_key_value", "attention"),
        ("model.layers.11.mlp.down_proj", "mlp"),
        ("model.vision_tower.encoder.layers.3.self_attn.q_proj", None),
        ("model.visual.blocks.0.mlp.fc1", None),
        ("image_encoder.layers.0.self_attn.q_proj", None),
        ("model.multi_modal_projector.mlp.fc1", None),
        ("lm_head", None),
    ],
)
def test_json1000_adapts_layers_of_the_language_model_alone(layer: str, kind: str | None) -> None:
    patterns = FAMILIES["json1000"].adapted["language"]
    assert [name for name, pattern in patterns.items() if re.fullmatch(pattern, layer)] == ([kind] if kind else [])
