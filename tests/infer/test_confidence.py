"""What a box's signals are made of, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from architectures import BUILDERS

from boxtune.families import FAMILIES, Frame
from boxtune.infer.confidence import Calibration, Signals, read_signals, read_spreads
from boxtune.infer.decode import Choice
from boxtune.infer.guide import Guide, Guides

CLASSES = ("cat", "dog")
FRAME = Frame(original_wh=(1000, 1000), seen_wh=(1008, 1008))


def guide_of(name: str, classes: tuple[str, ...] = CLASSES) -> tuple[Any, Guide]:
    family = FAMILIES[name]
    tokenizer = BUILDERS[name](family.special_tokens).tokenizer
    end_id = tokenizer.convert_tokens_to_ids(family.end_of_turn)
    return tokenizer, Guides(family, tokenizer, end_id).of(FRAME, classes)


def choose(
    tokenizer: Any, guide: Guide, text: str, shares: Mapping[int, Mapping[str, float]] = {}
) -> tuple[list[Choice], Any]:
    """The choices of an answer, each taken with certainty but for `shares`: place of the token -> what it could be."""
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], guide.end_id]
    state, choices, begun = guide.start, [], 0
    for place, token in enumerate(ids):
        allowed = guide.allowed(state)
        step = None if token == guide.end_id else guide.step(state, token)
        if len(allowed) > 1:
            given = {tokenizer.convert_tokens_to_ids(key): share for key, share in shares.get(place, {}).items()}
            given = given or {token: 1.0}
            assert set(given) <= set(allowed)
            with np.errstate(divide="ignore"):
                log_probs = np.log(np.array([given.get(one, 0.0) for one in allowed]))
            choices.append(
                Choice(
                    ids=allowed, log_probs=log_probs, taken=allowed.index(token), mass=1.0, swayed=False, box=begun,
                    step=step,
                )
            )  # fmt: skip
        if step is not None:
            state, begun = step.state, begun + step.begins
    return choices, FAMILIES["qwen2_vl"].decode(text, FRAME, CLASSES).boxes


def answer(*rows: str) -> str:
    return "".join(
        f"<|object_ref_start|>{name}<|object_ref_end|><|box_start|>({numbers})<|box_end|>"
        for name, numbers in (row.split(" ") for row in rows)
    )


def place_of(tokenizer: Any, text: str, start: str) -> int:
    """The place of the token behind the text's beginning."""
    return len(tokenizer(start, add_special_tokens=False)["input_ids"])


def test_certain_choices_are_certain_boxes() -> None:
    tokenizer, guide = guide_of("qwen2_vl")
    text = answer("cat 100,200),(300,400", "dog 500,500),(600,800")
    choices, boxes = choose(tokenizer, guide, text)
    for signals, xyxy in zip(read_signals(guide, choices, boxes, FRAME), boxes.xyxy_px, strict=True):
        assert (signals.presence, signals.label) == (1.0, 1.0)
        assert signals.corners == (1.0, 1.0, 1.0, 1.0)
        assert signals.expected_iou == pytest.approx(1.0)
        assert signals.soft_px == pytest.approx(tuple(xyxy))


def test_each_choice_counts_where_it_belongs() -> None:
    tokenizer, guide = guide_of("qwen2_vl")
    first, second = answer("cat 100,200),(300,400"), answer("dog 500,500),(600,800")
    open_name = first + "<|object_ref_start|>"
    end = tokenizer.convert_ids_to_tokens(guide.end_id)
    shares = {
        place_of(tokenizer, first, first): {"<|object_ref_start|>": 0.25, end: 0.75},
        place_of(tokenizer, first, open_name): {"d": 0.5, "c": 0.5},
        place_of(tokenizer, first, open_name + "dog<|object_ref_end|><|box_start|>(500,"): {"5": 0.8, "9": 0.2},
    }
    choices, boxes = choose(tokenizer, guide, first + second, shares)
    one, two = read_signals(guide, choices, boxes, FRAME)
    assert (one.presence, one.label, one.corners) == (1.0, 1.0, (1.0, 1.0, 1.0, 1.0))
    assert (two.presence, two.label) == (pytest.approx(0.25), pytest.approx(0.5))
    assert two.corners == (1.0, pytest.approx(0.8), 1.0, 1.0)
    assert two.geometric == pytest.approx(0.8**0.25) and two.least == pytest.approx(0.8)
    # y1 is 500, or with 0.2 one of 900 to 999, behind y2: no box, so no IoU.
    assert two.expected_iou == pytest.approx(0.8, abs=0.02)


def test_a_spread_has_the_other_numbers_of_as_many_digits() -> None:
    tokenizer, guide = guide_of("qwen2_vl")
    text = answer("cat 100,200),(300,400")
    before = "<|object_ref_start|>cat<|object_ref_end|><|box_start|>("
    tens = place_of(tokenizer, text, before + "1")
    choices, boxes = choose(tokenizer, guide, text, {tens: {"0": 0.6, "2": 0.4}})
    own = [c for c in choices if c.step is not None and c.step.about == "number"]
    spread = next(s for s in read_spreads(guide, own, (100, 200, 300, 400)) if s.places == (0,))
    assert sorted(spread.values[:-1, 0]) == [*range(120, 130)] and spread.values[-1, 0] == 100
    assert spread.shares == pytest.approx([0.04] * 10 + [0.6])
    assert spread.mean == pytest.approx([0.6 * 100 + 0.4 * 124.5])
    (signals,) = read_signals(guide, choices, boxes, FRAME)
    assert signals.soft_px[0] == pytest.approx(109.8)
    # With 0.4 the other box begins 24.5 later on average: (300 - 124.5) / 200 of the box is shared.
    assert signals.expected_iou == pytest.approx(0.6 + 0.4 * 175.5 / 200, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paligemma", "florence2", "kosmos2", "qwen2_5_vl", "gemma3"])
def test_every_kind_of_grammar_has_signals(name: str) -> None:
    """Flat choices are uncertain in every respect that the grammar leaves open."""
    tokenizer, guide = guide_of(name)
    family = FAMILIES[name]
    from boxtune.boxes import Boxes

    shown = Boxes(xyxy_px=np.array([[100.0, 200, 300, 400], [500, 500, 600, 800]]), labels=("cat", "dog"))
    ids = [*tokenizer(family.encode(shown, FRAME, CLASSES), add_special_tokens=False)["input_ids"], guide.end_id]
    state, choices, begun = guide.start, [], 0
    for token in ids:
        allowed = guide.allowed(state)
        step = None if token == guide.end_id else guide.step(state, token)
        if len(allowed) > 1:
            flat = np.full(len(allowed), -np.log(len(allowed)))
            choices.append(
                Choice(
                    ids=allowed,
                    log_probs=flat,
                    taken=allowed.index(token),
                    mass=1.0,
                    swayed=False,
                    box=begun,
                    step=step,
                )
            )
        if step is not None:
            state, begun = step.state, begun + step.begins
    text = tokenizer.decode(ids[:-1], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    boxes = family.decode(text, FRAME, CLASSES).boxes
    found = read_signals(guide, choices, boxes, FRAME)
    assert len(found) == 2
    for signals in found:
        assert 0 < signals.label <= 0.5 and max(signals.corners) < 0.5 and 0 < signals.expected_iou < 0.6
    assert found[1].presence < 0.9


def test_scores_rise_with_every_signal() -> None:
    def signals(**changed: float) -> Signals:
        values = {"presence": 0.5, "label": 0.5, "expected_iou": 0.5, **changed}
        return Signals(corners=(0.1, 0.1, 0.1, 0.1), soft_px=(0.0, 0.0, 1.0, 1.0), **values)

    calibration = Calibration()
    middle = calibration.score(signals())
    for name in ("presence", "label", "expected_iou"):
        assert calibration.score(signals(**{name: 0.4})) < middle < calibration.score(signals(**{name: 0.9}))
    assert calibration.score(signals(presence=1.0, label=1.0, expected_iou=1.0)) > 0.9
    assert calibration.score(signals(presence=0.0, label=0.0, expected_iou=0.0)) < 1e-6
