"""Batched greedy generation, left-padded, grouped by length, one answer for every image.

An answer is guided by the family's grammar, so that nothing but boxes can be written, and each box comes with what the
model's own probabilities say of it. Freely the model writes what it likes, token by token, through transformers' own
loop: what it has learned of the format is seen there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from boxtune.boxes import Boxes, repeated
from boxtune.errors import DataError
from boxtune.families import Problem
from boxtune.finetune.collate import Example, answers_begin, collate_for_prediction
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Loaded
from boxtune.infer.answer import Answer
from boxtune.infer.confidence import POOLED, Calibration, read_signals
from boxtune.infer.decode import REACH, Row, Writer
from boxtune.infer.engine import OfEncoder, Opener
from boxtune.infer.guide import guides_of
from boxtune.infer.selection import EVERYTHING, Selection

SAME = 0.7
"""IoU from which a further box of the same label is another one's repetition."""


@dataclass(frozen=True, kw_only=True)
class LocalEngine(OfEncoder):
    """An `Engine` of a model in memory. `calibration` makes scores of a box's signals."""

    loaded: Loaded
    encoder: Encoder
    max_new_tokens: int
    at_once: int = 16
    calibration: Calibration = POOLED
    selection: Selection = EVERYTHING

    def summary(self) -> list[str]:
        """See `Engine`."""
        return []

    def iter_answers(
        self,
        images: Sequence[Opener],
        *,
        sizes: Sequence[tuple[int, int]],
        classes: Sequence[Sequence[str]] | None = None,
        part: tuple[int, int] = (0, 1),
        freely: bool = False,
    ) -> Iterator[tuple[int, Answer | DataError]]:
        """See `Engine`: images come as soon as their batch is done, shortest prompts first."""
        encoder, at_once = self.encoder, self.at_once
        lengths = [encoder.family.num_image_tokens(size, *self.budget) for size in sizes]
        order = sorted(range(len(images)), key=lambda i: (lengths[i], i))
        number, num_parts = part
        for start in range(number * at_once, len(order), num_parts * at_once):
            examples: dict[int, Example] = {}
            for i in order[start : start + at_once]:
                try:
                    examples[i] = encoder.encode_image(images[i](), classes=None if classes is None else classes[i])
                except DataError as error:
                    yield i, error
            for together in _groups(examples, pads_left=encoder.layout.pads_left):
                with _evaluating(self.loaded.model):
                    answers = (_answer_freely if freely else _answer)(self, list(together.values()))
                yield from zip(together, answers, strict=True)


def _groups(examples: dict[int, Example], *, pads_left: bool) -> Iterator[dict[int, Example]]:
    """The examples that are answered in one batch: all, or those with prompts of one length."""
    lengths = {i: 0 if pads_left else len(example.prompt_ids) for i, example in examples.items()}
    for length in sorted(set(lengths.values())):
        yield {i: example for i, example in examples.items() if lengths[i] == length}


@torch.no_grad()
def _answer(engine: LocalEngine, examples: list[Example]) -> list[Answer]:
    guides = guides_of(engine.encoder)
    writer = Writer(
        [guides.of(example.frame, example.classes) for example in examples],
        max_new_tokens=engine.max_new_tokens,
        pad_id=engine.encoder.layout.pad_id,
        reach=REACH,
    )
    _generate(engine, examples, custom_generate=writer)
    return [_read_row(engine, row, example) for row, example in zip(writer.rows, examples, strict=True)]


@torch.no_grad()
def _answer_freely(engine: LocalEngine, examples: list[Example]) -> list[Answer]:
    encoder = engine.encoder
    written = _generate(engine, examples)
    answers = []
    for ids, example in zip(written, examples, strict=True):
        ended = encoder.end_id in ids
        kept = ids[: ids.index(encoder.end_id)] if ended else ids
        text = _text(encoder, kept)
        decoded = encoder.family.decode(text, example.frame, example.classes, ended=ended)
        answers.append(Answer(text=text, boxes=decoded.boxes, problems=decoded.problems, truncated=not ended))
    return answers


def _generate(engine: LocalEngine, examples: list[Example], **more: Any) -> list[list[int]]:
    """The ids behind the prompts, padded."""
    from transformers import GenerationConfig

    loaded, encoder = engine.loaded, engine.encoder
    batch = collate_for_prediction(examples, encoder.layout)
    batch = {name: tensor.to(loaded.placement.device) for name, tensor in batch.items()}
    # Whole, so that no sampling default of the checkpoint's own generation config comes in.
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=engine.max_new_tokens,
        eos_token_id=encoder.end_id,
        pad_token_id=encoder.layout.pad_id,
        use_cache=True,
    )
    with loaded.placement.autocast():
        written = loaded.model.generate(**batch, generation_config=config, **more)
    ids: list[list[int]] = written[:, answers_begin(batch) :].tolist()
    return ids


def _text(encoder: Encoder, ids: Sequence[int]) -> str:
    # Special tokens carry the boxes: they must not be skipped.
    text: str = encoder.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _read_row(engine: LocalEngine, row: Row, example: Example) -> Answer:
    """A guided answer; one that was cut or closed is whole again but for what its end was taken off."""
    encoder = engine.encoder
    whole = _text(encoder, row.ids)
    decoded = encoder.family.decode(whole, example.frame, example.classes)
    if decoded.problems:
        raise RuntimeError(f"a guided answer is not sound: {whole!r} has {decoded.problems}")
    signals = read_signals(row.guide, row.choices, decoded.boxes, example.frame)
    scores = [engine.calibration.score(signal) for signal in signals]
    # A model whose numbers are not finite holds nothing for likely.
    boxes = replace(decoded.boxes, scores=np.nan_to_num(np.array(scores, dtype=np.float64), nan=0.0))
    num_own = len(boxes) if row.own is None else row.own_boxes
    own = np.arange(len(boxes)) < num_own
    kept = own | ~repeated(boxes, threshold=SAME)
    cut = row.cut and row.own is None
    return Answer(
        text=whole if row.own is None else _text(encoder, row.own),
        boxes=boxes.take(own),
        further=boxes.take(kept & ~own) if kept.sum() > num_own else Boxes.none(),
        problems=(Problem(kind="truncated", text=""),) if cut else (),
        truncated=cut,
        looped=row.looped and row.own is None,
        signals=tuple(signal for signal, keep in zip(signals, kept, strict=True) if keep),
        num_swayed=sum(c.swayed for c in (row.choices if row.own is None else row.choices[: row.own_choices])),
    )


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode inside, whatever mode the model was in after."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
