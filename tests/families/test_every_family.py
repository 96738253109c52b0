"""What holds for every family in the registry, without naming one: what is written is read back, or refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given

from boxtune.boxes import Boxes
from boxtune.errors import ModelError
from boxtune.families import FAMILIES, Family, Frame, require_family

from .answers import AWKWARD, NAMES, build_boxes, every_family, frame_of, most_off, objects, sides


def check_round_trip(family: Family, frame: Frame, boxes: Boxes) -> None:
    decoded = family.decode(family.encode(boxes, frame, boxes.labels), frame, boxes.labels)
    assert decoded.problems == ()
    assert sorted(decoded.boxes.labels) == sorted(boxes.labels)
    for label, box in zip(decoded.boxes.labels, decoded.boxes.xyxy_px, strict=True):
        source = boxes.xyxy_px[boxes.labels.index(label)]
        assert (np.abs(source - box) <= most_off(family, frame, source)).all(), (label, source, box)
        assert (box >= 0).all() and (box <= np.array(frame.original_wh * 2)).all()


@every_family
@given(sides, sides, objects)
def test_boxes_survive_or_their_names_are_refused(
    family: Family, width: int, height: int, rows: list[tuple[float, float, float, float, str]]
) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    boxes = build_boxes((width, height), rows)
    refused = [label for label in boxes.labels if family.check_classes([label])]
    for label in refused:
        assert repr(label) in family.check_classes([label])[0]
    kept = boxes.take([i for i, label in enumerate(boxes.labels) if label not in refused])
    if len(kept):
        check_round_trip(family, frame_of(family, (width, height)), kept)


@every_family
def test_ordinary_awkward_names_are_carried(family: Family) -> None:
    assert family.check_classes(NAMES) == []
    rows = [(0.1 * i % 0.9, 0.2, 0.1 * i % 0.9 + 0.1, 0.5, label) for i, label in enumerate(NAMES)]
    check_round_trip(family, frame_of(family, (640, 480)), build_boxes((640, 480), rows))


@every_family
def test_each_awkward_name_alone_and_beside_another(family: Family) -> None:
    frame = frame_of(family, (640, 480))
    carried = 0
    for label in (label for label in AWKWARD if not family.check_classes([label])):
        carried += 1
        xyxy = np.array([[64.0, 48, 128, 96], [320, 240, 400, 300], [10, 200, 500, 400]])
        for classes in ([label], [label, "dog"], ["dog", label]):
            labels = tuple((classes * 3)[:3])
            decoded = family.decode(family.encode(Boxes(xyxy_px=xyxy, labels=labels), frame, classes), frame, classes)
            assert decoded.problems == (), label
            assert sorted(decoded.boxes.labels) == sorted(labels)
    assert carried >= 20


@every_family
def test_names_that_no_answer_can_hold_are_refused(family: Family) -> None:
    faults = family.check_classes(["ok", "", " x", "y ", "\ud800", "b", "b"])
    assert len(faults) == 5
    assert "twice" in faults[-1] and "surrogate" in faults[3]
    for token in [family.end_of_turn, family.visual_token, family.image_token]:
        assert family.check_classes([f"a {token} b"]), token


@every_family
def test_descriptions_stand_behind_their_names_in_the_prompt(family: Family) -> None:
    classes, told = ["cat", "dog-house"], {"dog-house": "where a dog lives"}
    plain, described = family.prompt(classes, "IMAGE"), family.prompt(classes, "IMAGE", told)
    assert plain.count("IMAGE") == 1 and plain.index("cat") < plain.index("dog-house")
    # The name stays as it is, and so does all the rest.
    assert described.replace(" (where a dog lives)", "") == plain
    assert re.search(r"dog-house\S* \(where a dog lives\)", described)
    assert family.prompt(classes, "IMAGE", {}) == plain
    assert family.check_classes(classes, told) == []
    assert len(family.check_classes(classes, {"cat": f"x {family.end_of_turn}", "bird": "?"})) == 2


@every_family
def test_an_image_with_nothing_in_it_has_an_answer(family: Family) -> None:
    frame = frame_of(family, (640, 480))
    text = family.encode(Boxes.none(), frame, ["cat"])
    decoded = family.decode(text, frame, ["cat"])
    assert len(decoded.boxes) == 0 and decoded.problems == ()
    cut_off = family.decode(text, frame, ["cat"], ended=False)
    assert len(cut_off.boxes) == 0 and [problem.kind for problem in cut_off.problems][-1:] in (
        ["truncated"],
        ["empty_answer"],
    )


@every_family
def test_corners_are_legal_at_both_ends(family: Family) -> None:
    for size in [(640, 480), (20, 20), (10_000, 2500), (37, 91)]:
        frame = frame_of(family, size)
        whole = Boxes(
            xyxy_px=np.array([[0.0, 0.0, *size], [0.0, 0.0, 0.0, 0.0], [*size, *size]]), labels=("a", "b", "c")
        )
        check_round_trip(family, frame, whole)


@every_family
def test_sizes_and_aspects(family: Family) -> None:
    sizes = {
        (round(long * min(1, across / down)), round(long * min(1, down / across)))
        for across, down in [(1, 1), (4, 1), (1, 4), (3, 2), (9, 16)]
        for long in (80, 97, 448, 1000, 4032, 10_000)
    } | {(20, 20), (20, 25)}
    assert len(sizes) >= 30
    rng = np.random.default_rng(5)
    for size in sorted(sizes):
        rows = [(*(float(x) for x in rng.random(4)), "thing") for _ in range(8)]
        check_round_trip(family, frame_of(family, size), build_boxes(size, rows))


@every_family
def test_order_is_by_class_asked_then_top_to_bottom(family: Family) -> None:
    frame = frame_of(family, (640, 480))
    xyxy = np.array([[0, 200, 50, 250], [200, 10, 250, 60], [10, 10, 60, 60], [0, 0, 640, 480]], dtype=float)
    boxes = Boxes(xyxy_px=xyxy, labels=("a", "a", "a", "b"))
    texts = {
        family.encode(boxes.take(order), frame, ["b", "a"]) for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])
    }
    assert len(texts) == 1
    decoded = family.decode(texts.pop(), frame, ["a", "b"]).boxes
    assert decoded.labels == ("b", "a", "a", "a")
    assert np.abs(decoded.xyxy_px[1:, 0] - [10, 200, 0]).max() <= 20
    with pytest.raises(ValueError, match="dog"):
        family.encode(Boxes(xyxy_px=xyxy[:1], labels=("dog",)), frame, ["cat"])


@pytest.mark.slow
def test_every_coordinate_that_is_a_token_is_a_special_one() -> None:
    with_tokens = set()
    for family in FAMILIES.values():
        frame = frame_of(family, (3000, 3000))
        edges = np.linspace(0, 3000, 2001)
        boxes = Boxes(xyxy_px=np.stack([edges[:-1], edges[:-1], edges[1:], edges[1:]], axis=1), labels=("cat",) * 2000)
        used = set(re.findall(r"<[a-z_]+\d+>", family.encode(boxes, frame, ["cat"])))
        places = {token for token in family.special_tokens if re.fullmatch(r"<[a-z_]+\d+>", token)}
        assert used <= places
        # All of them but those off the diagonal of a grid.
        assert len(used) == len(places) or (len(used) == 32 and len(places) == 1024)
        if used:
            with_tokens.add(family.name)
    assert with_tokens >= {"paligemma", "florence2", "kosmos2"}


@every_family
def test_image_text_holds_the_visual_tokens_that_are_counted(family: Family) -> None:
    budget = family.defaults.min_pixels, family.defaults.max_pixels
    text = family.image_text((640, 480), *budget)
    number = family.num_image_tokens((640, 480), *budget)
    assert text.count(family.visual_token) == number
    assert (number >= 50) == family.knows_processor
    assert isinstance(family.image_settings(*budget), dict)
    assert family.defaults_for({}) == family.defaults


def test_registry() -> None:
    assert len(FAMILIES) >= 13
    kinds = [kind for family in FAMILIES.values() for kind in family.model_types]
    assert len(kinds) == len(set(kinds)) >= 17
    assert [name for name, family in FAMILIES.items() if not family.model_types] == ["json1000"]


def test_model_types_are_transformers_own() -> None:
    import importlib.util

    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    texts = [path.read_text("utf-8") for path in (Path(spec.origin).parent / "models").glob("*/configuration_*.py")]
    known = {kind for text in texts for kind in re.findall(r'^    model_type = "([^"]+)"', text, re.MULTILINE)}
    assert len(known) > 100
    assert {kind for family in FAMILIES.values() for kind in family.model_types} <= known


def test_unknown_models_are_refused_with_a_way_out() -> None:
    with pytest.raises(ModelError, match="qwen2_vl") as refused:
        require_family("llama", where="config.json")
    message = str(refused.value)
    for word in ("'llama'", "config.json", "one file", "family=json1000", "florence2", "kosmos-2"):
        assert word in message
    assert require_family("qwen2_vl", where="config.json") is FAMILIES["qwen2_vl"]
    assert require_family("llama", where="config.json", asked="json1000") is FAMILIES["json1000"]
    with pytest.raises(ModelError, match="json2000"):
        require_family("llama", where="config.json", asked="json2000")


def test_defaults_follow_the_checkpoint_where_its_size_decides() -> None:
    for name, side in [("paligemma", 224), ("paligemma", 896)]:
        defaults = FAMILIES[name].defaults_for({"vision_config": {"image_size": side}})
        assert defaults.min_pixels == defaults.max_pixels == side**2
    smaller = FAMILIES["smolvlm"].defaults_for({"vision_config": {"image_size": 384}})
    assert (smaller.min_pixels, smaller.max_pixels) == (384**2, 1536**2)
    for family in FAMILIES.values():
        assert len(family.defaults.source) > 20


def test_a_budget_that_nothing_is_known_of_is_refused() -> None:
    family = FAMILIES["json1000"]
    least, most = family.defaults.min_pixels, family.defaults.max_pixels
    assert family.image_settings(least, most) == {}
    with pytest.raises(ValueError, match="decides by itself how large images are"):
        family.image_settings(least, most // 2)
