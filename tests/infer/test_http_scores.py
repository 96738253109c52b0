"""Scores that are made of a server's log-probabilities are those that the model itself gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from http_stand_in import HURRIED, Behaviour, build_turn, serving
from PIL import Image, ImageDraw
from squares import CLASSES, COLOURS

from boxtune.families import Frame
from boxtune.finetune.collate import answers_begin, collate_for_prediction
from boxtune.infer import Answer, LocalEngine, answer_images
from boxtune.infer.guide import guides_of
from boxtune.infer.http import HttpEngine
from boxtune.infer.http_scores import TokenIds, read_served_signals, read_tokens, replay

FRAME = Frame(original_wh=(112, 112), seen_wh=(112, 112))
NUM = 8
PATIENT = replace(HURRIED, timeout_s=60.0)
"""Everything that the model could say of a token is much to write."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the model writes freely of one image: its text and, at each token, the logarithms of all of them."""

    text: str
    ids: list[int]
    logs: Any

    def likeliest(self, at: int, most: int) -> Mapping[int, float]:
        values, numbers = self.logs[at].topk(most)
        told = dict(zip(numbers.tolist(), values.tolist(), strict=True))
        return {self.ids[at]: float(self.logs[at][self.ids[at]]), **told}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Squares, with their number in the first pixel, by which the stand-in knows them."""
    rng, made = np.random.default_rng(1), []
    for number in range(NUM):
        image = Image.new("RGB", (112, 112), (120, 120, 120))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 3))):
            side = int(rng.integers(24, 56))
            x, y = (int(v) for v in rng.integers(0, 112 - side, 2))
            draw.rectangle((x, y, x + side - 1, y + side - 1), fill=COLOURS[CLASSES[int(rng.integers(2))]])
        image.putpixel((0, 0), (number, 0, 77))
        made.append(image)
    return made


@pytest.fixture(scope="module")
def local(tiny: Any, encoder: Any, images: list[Image.Image]) -> list[Answer]:
    """The guided answers of the model in memory."""
    engine = LocalEngine(loaded=tiny, encoder=encoder, max_new_tokens=120)
    answers = answer_images(engine, [lambda i=i: i for i in images], sizes=[i.size for i in images])  # type: ignore[misc]
    assert sum(len(answer.boxes) for answer in answers) >= 6
    return answers


@pytest.fixture(scope="module")
def written(tiny: Any, encoder: Any, images: list[Image.Image]) -> list[Written]:
    """The free ones, with everything that a server could tell."""
    from transformers import GenerationConfig

    tiny.model.eval()
    config = GenerationConfig(
        do_sample=False, max_new_tokens=120, eos_token_id=encoder.end_id, pad_token_id=encoder.layout.pad_id,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    found = []
    for image in images:
        batch = collate_for_prediction([encoder.encode_image(image)], encoder.layout)
        with torch.no_grad():
            made = tiny.model.generate(**batch, generation_config=config)
        ids = made.sequences[0, answers_begin(batch) :].tolist()
        logs = torch.stack(made.logits)[:, 0].float().log_softmax(-1)
        found.append(Written(text=encoder.tokenizer.decode(ids[:-1]), ids=ids, logs=logs))
    return found


def ask(written: list[Written], images: list[Image.Image], most: int = 20, **how: Any) -> list[Any]:
    """The answers through a server that writes what the model wrote."""
    behaviour = Behaviour(
        turn=build_turn(),
        answer=lambda place: written[place].text,
        **{"gives_logs": True, "logs": lambda place, at: written[place].likeliest(at, most), **how},
    )
    with serving(behaviour) as server:
        engine = HttpEngine(turn=build_turn(), urls=[server.url], max_new_tokens=120, patience=PATIENT)
        found = dict(engine.iter_answers([lambda i=i: i for i in images], sizes=[i.size for i in images]))  # type: ignore[misc]
    return [found[place] for place in range(len(images))]


@pytest.mark.parametrize("as_ids", [True, False])
@pytest.mark.parametrize(("most", "tolerance"), [(768, 1e-4), (20, 5e-3)])
def test_signals_are_the_models_own(
    local: list[Answer], written: list[Written], images: list[Image.Image], most: int, tolerance: float, as_ids: bool
) -> None:
    num = 0
    served = ask(written, images, most, as_ids=as_ids)
    for own, there in zip(local, served, strict=True):
        if own.text != there.text:
            continue
        assert there.boxes.xyxy_px.tolist() == own.boxes.xyxy_px.tolist() and not len(there.further)
        assert own.signals is not None and there.signals is not None and there.num_swayed is None
        assert there.boxes.scores == pytest.approx(own.boxes.scores, abs=tolerance)
        for one, other in zip(there.signals, own.signals, strict=False):
            for name in ("presence", "label", "expected_iou", "corners", "soft_px"):
                assert getattr(one, name) == pytest.approx(getattr(other, name), rel=10 * tolerance, abs=tolerance)
            num += 1
    assert num >= 6


def test_without_log_probabilities_there_are_no_scores(written: list[Written], images: list[Image.Image]) -> None:
    answers = ask(written, images, gives_logs=False)
    assert [(answer.boxes.scores, answer.signals) for answer in answers] == [(None, None)] * NUM
    assert sum(len(answer.boxes) for answer in answers) >= 6


def test_an_unsound_answer_has_no_scores(written: list[Written], images: list[Image.Image]) -> None:
    place = next(i for i, one in enumerate(written) if "box_start" in one.text)
    ids = build_turn().encoder.ids(written[place].text + " and a dog")
    changed = Written(text=written[place].text + " and a dog", ids=[*ids, written[place].ids[-1]], logs=None)
    flat = {"logs": lambda place, at: {number: -1.0 for number in [*changed.ids]}}
    (answer,) = ask([changed] * (place + 1), [images[place]], **flat)
    assert [problem.kind for problem in answer.problems] == ["malformed"]
    assert answer.boxes.scores is None and answer.signals is None and len(answer.boxes)


@pytest.fixture(scope="module")
def words() -> Any:
    """The encoder of the embedded model, without the model."""
    return build_turn().encoder


def test_a_cut_answer_has_scores_for_whole_boxes(words: Any) -> None:
    one = "<|object_ref_start|>red<|object_ref_end|><|box_start|>(10,20),(300,400)<|box_end|>"
    whole, cut = (
        read(words, one, ended=True),
        read(words, one + "<|object_ref_start|>red<|object_ref_end|><|box_start|>(5", ended=False),
    )
    assert whole is not None and cut is not None and len(whole) == len(cut) == 1
    assert cut[0].label == whole[0].label and cut[0].corners == whole[0].corners


def read(words: Any, text: str, *, ended: bool = True, **changed: Any) -> Any:
    """The signals of a text of which each token has probability a half."""
    ids = [*words.ids(text), *([words.end_id] if ended else [])]
    records = [
        {"token": f"token_id:{number}", "logprob": float(np.log(0.5)), "top_logprobs": [], **changed} for number in ids
    ]
    boxes = words.family.decode(text, FRAME, CLASSES, ended=ended).boxes
    guide = guides_of(words).of(FRAME, CLASSES)
    return read_served_signals(words, TokenIds(guide.vocabulary), records, boxes, FRAME, CLASSES)


TEXT = "<|object_ref_start|>blue<|object_ref_end|><|box_start|>(10,20),(300,400)<|box_end|>"


@pytest.mark.parametrize(
    "changed",
    [
        {"token": None},
        {"token": "token_id:many"},
        {"token": "\ud800"},
        {"token": "no token of this tokenizer"},
        {"logprob": None},
        {"logprob": float("nan")},
        {"logprob": "-0.1"},
    ],
)
def test_a_token_that_is_not_known_leaves_no_scores(words: Any, changed: dict[str, Any]) -> None:
    assert read(words, TEXT) is not None
    assert read(words, TEXT, **changed) is None


def test_alternatives_that_are_not_known_are_left_out(words: Any) -> None:
    known = read(words, TEXT)
    assert read(words, TEXT, top_logprobs=None) == known
    assert read(words, TEXT, top_logprobs=[7, {"token": "no token of it", "logprob": -1.0}, {"token": "a"}]) == known


def test_tokens_of_another_answer_leave_no_scores(words: Any) -> None:
    guide = guides_of(words).of(FRAME, CLASSES)
    ids = TokenIds(guide.vocabulary)
    records = [{"id": number, "logprob": 0.0} for number in [*words.ids(TEXT), words.end_id]]
    own = words.family.decode(TEXT, FRAME, CLASSES).boxes
    other = words.family.decode(TEXT.replace("10", "11"), FRAME, CLASSES).boxes
    assert read_served_signals(words, ids, records, own, FRAME, CLASSES) is not None
    assert read_served_signals(words, ids, records, other, FRAME, CLASSES) is None
    assert read_served_signals(words, ids, [*records[:-1], 7], own, FRAME, CLASSES) is None


def test_what_must_come_is_no_choice(words: Any) -> None:
    guide = guides_of(words).of(FRAME, CLASSES)
    records = [{"id": number, "logprob": -1.0} for number in [*words.ids(TEXT), words.end_id]]
    tokens = read_tokens(TokenIds(guide.vocabulary), records)
    assert tokens is not None
    found = replay(guide, tokens)
    assert found is not None and found.num_begun == 1 and list(found.ids) == list(words.ids(TEXT))
    # The start, the name, digits with what may follow them, and the end; not the tags and commas that must come.
    assert 8 <= len(found.choices) <= 16 and found.choices[-1].step is None
    assert replay(guide, [tokens[1]]) is None


def test_a_record_names_its_token_in_several_ways(words: Any) -> None:
    ids = TokenIds(guides_of(words).of(FRAME, CLASSES).vocabulary)
    (seven,) = words.ids("7")
    end = words.family.end_of_turn
    assert ids.of({"id": seven}) == ids.of({"token": "7"}) == ids.of({"token": f"token_id:{seven}"}) == seven
    assert ids.of({"token": "?", "bytes": [55]}) == seven and ids.of({"token": end}) == words.end_id
    assert ids.of({"token": "7", "bytes": [700]}) is None and ids.of({}) is None
