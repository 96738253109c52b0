"""Batched answers are the single ones: left padding changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from squares import CLASSES

from boxtune.boxes import Boxes
from boxtune.data import open_image, read_dataset
from boxtune.finetune import Encoder, build_encoder
from boxtune.finetune.collate import Example, collate_for_prediction
from boxtune.infer import Answer, LocalEngine, answer_images
from boxtune.infer.predictor import at_least

TOLERANCE = {"fp32": 1e-5, "bf16": 2 * 2.0**-7}
"""Largest difference of a first-token logit, batched against alone, as a share of the largest logit; for bf16 two
units in its last place."""


@pytest.fixture(scope="module")
def images(squares: Path) -> list[Any]:
    """Five images of five shapes, so that a batch of them needs padding."""
    paths = [sample.image for sample in read_dataset(squares).splits["train"]][:5]
    shapes = [(112, 112), (60, 112), (112, 60), (40, 150), (84, 84)]
    return [open_image(path).resize(shape) for path, shape in zip(paths, shapes, strict=True)]


def answers(loaded: Any, images: list[Any], at_once: int, max_new_tokens: int = 60) -> list[Any]:
    encoder = build_encoder(loaded, CLASSES)
    engine = LocalEngine(loaded=loaded, encoder=encoder, max_new_tokens=max_new_tokens, at_once=at_once)
    openers = [lambda image=image: image for image in images]  # type: ignore[misc]
    return answer_images(engine, openers, sizes=[image.size for image in images])


def first_logits(loaded: Any, encoder: Encoder, examples: list[Example]) -> torch.Tensor:
    batch = collate_for_prediction(examples, encoder.layout)
    loaded.model.eval()
    with torch.no_grad(), loaded.placement.autocast():
        return loaded.model(**batch).logits[:, -1].float()


@pytest.mark.slow
def test_batched_text_equals_single_text_in_fp32(load_tiny: Any, images: list[Any]) -> None:
    loaded = load_tiny("none", "fp32")
    together, alone = answers(loaded, images, 5), answers(loaded, images, 1)
    assert [a.text for a in together] == [a.text for a in alone]
    # Different images, different answers: equality above is not that of one constant text.
    assert len({a.text for a in alone}) > 1


def test_an_answer_that_hits_the_limit_is_said_to_be_cut(tiny: Any, images: list[Any]) -> None:
    assert [answer.truncated for answer in answers(tiny, images, 5, max_new_tokens=3)] == [True] * 5
    assert [answer.truncated for answer in answers(tiny, images, 5, max_new_tokens=200)] == [False] * 5


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "precision"), [("nf4", "fp32"), ("nf4", "bf16"), ("none", "bf16")])
def test_first_logits_agree_within_tolerance(
    load_tiny: Any, images: list[Any], quantization: str, precision: str
) -> None:
    loaded = load_tiny(quantization, precision)
    encoder = build_encoder(loaded, CLASSES)
    examples = [encoder.encode_image(image) for image in images]
    together = first_logits(loaded, encoder, examples)
    alone = torch.cat([first_logits(loaded, encoder, [example]) for example in examples])
    assert (together - alone).abs().max() <= TOLERANCE[precision] * alone.abs().max()
    assert alone.std() > 0.1


def test_wrong_padding_would_be_seen(load_tiny: Any, images: list[Any]) -> None:
    """The tolerance is narrow enough: the same batch without its mask is far outside."""
    loaded = load_tiny("nf4", "fp32")
    encoder = build_encoder(loaded, CLASSES)
    examples = [encoder.encode_image(image) for image in images]
    batch = collate_for_prediction(examples, encoder.layout)
    right = first_logits(loaded, encoder, examples)
    with torch.no_grad():
        wrong = loaded.model(**{**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}).logits[:, -1]
    assert (right - wrong).abs().max() > 100 * TOLERANCE["fp32"] * right.abs().max()


@pytest.mark.slow
def test_generation_leaves_the_model_as_it_was(load_tiny: Any, images: list[Any]) -> None:
    loaded = load_tiny()
    for training in (True, False):
        loaded.model.train(training)
        answers(loaded, images[:1], 1)
        assert loaded.model.training is training


def test_a_threshold_reaches_boxes_that_were_not_said() -> None:
    def boxes(*scores: float) -> Boxes:
        corners = np.array([[0.0, 0, 10 + 10 * place, 10] for place in range(len(scores))]).reshape(-1, 4)
        return Boxes(xyxy_px=corners, labels=("cat",) * len(scores), scores=np.array(scores, dtype=np.float64))

    answer = Answer(text="", boxes=boxes(0.9, 0.2), further=boxes(0.3, 0.1), problems=(), truncated=False)
    kept = {limit: at_least(answer, limit).scores for limit in (None, 0.0, 0.25, 0.95)}
    assert [None if scores is None else scores.tolist() for scores in kept.values()] == [
        [0.9, 0.2], [0.9, 0.2, 0.3, 0.1], [0.9, 0.3], []
    ]  # fmt: skip
