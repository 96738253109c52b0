"""Batched greedy generation, left-padded, grouped by length, one answer for every image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from boxtune.boxes import Boxes
from boxtune.families import Problem
from boxtune.finetune.encode import Encoder, Example, collate_for_prediction
from boxtune.finetune.load import Loaded


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said of one image.

    `boxes` are in pixels of the upright original, without scores; `text` is the answer as generated, special
    tokens included, without the end of turn; `truncated` if the end of turn did not come.
    """

    text: str
    boxes: Boxes
    problems: tuple[Problem, ...]
    truncated: bool


def answer_images(
    loaded: Loaded,
    encoder: Encoder,
    images: Sequence[Callable[[], Image]],
    *,
    sizes: Sequence[tuple[int, int]],
    max_new_tokens: int,
    at_once: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Answer]:
    """One answer for each image, in the order given.

    `images` open an upright RGB image when called, `sizes` are their (width, height); images of like length are
    answered together. An image that cannot be opened raises: nobody's answer is ever made up.
    """
    lengths = [
        encoder.family.num_image_tokens(encoder.family.seen_wh(s, encoder.min_pixels, encoder.max_pixels))
        for s in sizes
    ]
    order = sorted(range(len(images)), key=lambda i: (lengths[i], i))
    answers: dict[int, Answer] = {}
    with _evaluating(loaded.model):
        for start in range(0, len(order), at_once):
            batch = order[start : start + at_once]
            examples = [encoder.encode_image(images[i]()) for i in batch]
            for i, answer in zip(batch, _answer(loaded, encoder, examples, max_new_tokens), strict=True):
                answers[i] = answer
            progress(len(batch))
    return [answers[i] for i in range(len(images))]


@torch.no_grad()
def _answer(loaded: Loaded, encoder: Encoder, examples: list[Example], max_new_tokens: int) -> list[Answer]:
    from transformers import GenerationConfig

    batch = collate_for_prediction(examples, pad_id=encoder.pad_id, image_token_id=encoder.image_token_id)
    batch = {name: tensor.to(loaded.placement.device) for name, tensor in batch.items()}
    # Whole, so that no sampling default of the checkpoint's own generation config comes in.
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=encoder.end_id,
        pad_token_id=encoder.pad_id,
        use_cache=True,
    )
    with loaded.placement.autocast():
        written = loaded.model.generate(**batch, generation_config=config)
    return [
        _read(encoder, ids, example)
        for ids, example in zip(written[:, batch["input_ids"].shape[1] :].tolist(), examples, strict=True)
    ]


def _read(encoder: Encoder, ids: list[int], example: Example) -> Answer:
    ended = encoder.end_id in ids
    kept = ids[: ids.index(encoder.end_id)] if ended else ids
    # Special tokens carry the boxes: they must not be skipped.
    text = encoder.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    decoded = encoder.family.decode(text, example.frame, encoder.classes, ended=ended)
    return Answer(text=text, boxes=decoded.boxes, problems=decoded.problems, truncated=not ended)


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode inside, whatever mode the model was in after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
