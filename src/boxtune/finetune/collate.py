"""Examples into batches of model inputs: padded ids, masks that say what each token is, the tensors of the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from boxtune.families import Frame

IGNORED = -100
"""Label of a token that is not supervised, as torch's cross entropy has it."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image and its prompt, as ids and tensors; `answer_ids` is empty where there is no truth to learn.

    `classes` are the names that the prompt asks for. `inputs` are what the model is given of the image, by the names
    of its forward pass; the first dimension is the image's own.
    """

    classes: tuple[str, ...]
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    inputs: dict[str, torch.Tensor]
    frame: Frame


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a batch of this model must hold besides ids and images.

    `image_token_id` is the id that stands once for each visual token. `marks` are the masks over tokens that the
    model reads, by name, each with a function of ids and a mask of the answers. `decoder_start` are the ids that a
    decoder of its own begins with, before the answer; empty where prompt and answer are one sequence.
    """

    pad_id: int
    image_token_id: int
    marks: dict[str, Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]]
    decoder_start: tuple[int, ...] = ()

    @property
    def pads_left(self) -> bool:
        """Whether prompts of several lengths can be answered together.

        Kosmos-2 counts padding into the position of every token that it generates, but the first.
        """
        return "image_embeds_position_mask" not in self.marks


def _mark_images(ids: torch.Tensor, is_answer: torch.Tensor, image_token_id: int) -> torch.Tensor:
    return (ids == image_token_id).int()


def _mark_answers(ids: torch.Tensor, is_answer: torch.Tensor, image_token_id: int) -> torch.Tensor:
    return is_answer.int()


def _mark_inside(ids: torch.Tensor, is_answer: torch.Tensor, image_token_id: int) -> torch.Tensor:
    # The token that opens the image is the same as those inside; it is the first of each row.
    is_image = ids == image_token_id
    return (is_image & (is_image.cumsum(dim=1) > 1)).int()


def token_marks(names: Sequence[str], *, marks_suffix: bool) -> dict[str, Callable[..., torch.Tensor]]:
    """The masks over tokens among a processor's input `names`.

    `token_type_ids` tell images from text (Gemma 3), or the answer from the prompt where the processor takes a suffix
    (PaliGemma): what is 0 there sees all of the prompt, what is 1 only what stands before it.
    """
    known = {
        "mm_token_type_ids": _mark_images,
        "token_type_ids": _mark_answers if marks_suffix else _mark_images,
        "image_embeds_position_mask": _mark_inside,
    }
    return {name: mark for name, mark in known.items() if name in names}


def collate_for_training(examples: Sequence[Example], layout: Layout) -> dict[str, torch.Tensor]:
    """A right-padded batch with labels on the answers, nothing cut.

    With a decoder of its own the prompts alone are `input_ids`; `decoder_input_ids` begin with the decoder's start and
    stand one place behind their `labels`.
    """
    if layout.decoder_start:
        start = layout.decoder_start
        answers = [(*start, *example.answer_ids[:-1]) for example in examples]
        decoder_ids, _ = _pad(answers, layout.pad_id)
        labels = torch.full_like(decoder_ids, IGNORED)
        for row, example in enumerate(examples):
            last = len(start) - 1
            labels[row, last : last + len(example.answer_ids)] = torch.tensor(example.answer_ids)
        return {
            **_with_images(*_pad([example.prompt_ids for example in examples], layout.pad_id), examples, layout),
            "decoder_input_ids": decoder_ids,
            "labels": labels,
        }
    ids, mask = _pad([(*example.prompt_ids, *example.answer_ids) for example in examples], layout.pad_id)
    labels = torch.full_like(ids, IGNORED)
    for row, example in enumerate(examples):
        start_at, stop = len(example.prompt_ids), len(example.prompt_ids) + len(example.answer_ids)
        labels[row, start_at:stop] = torch.tensor(example.answer_ids)
    return {**_with_images(ids, mask, examples, layout, labels != IGNORED), "labels": labels}


def collate_for_prediction(examples: Sequence[Example], layout: Layout) -> dict[str, torch.Tensor]:
    """A batch of prompts, left-padded so that every answer begins at the same place.

    A decoder of its own begins every answer with `decoder_input_ids`; then the prompts are padded on the right, as in
    training, since an encoder counts positions from the left.
    """
    prompts = [example.prompt_ids for example in examples]
    if layout.decoder_start:
        batch = _with_images(*_pad(prompts, layout.pad_id), examples, layout)
        return {**batch, "decoder_input_ids": torch.tensor([layout.decoder_start] * len(examples))}
    return _with_images(*_pad(prompts, layout.pad_id, left=True), examples, layout)


def answers_begin(batch: dict[str, torch.Tensor]) -> int:
    """The place in a generated row at which the answer begins."""
    return batch.get("decoder_input_ids", batch["input_ids"]).shape[1]


def _pad(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of equal length, and a mask that is 1 where there was an id."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, where] = torch.tensor(row)
        mask[place, where] = 1
    return ids, mask


def _with_images(
    ids: torch.Tensor,
    mask: torch.Tensor,
    examples: Sequence[Example],
    layout: Layout,
    is_answer: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    answers = torch.zeros_like(ids, dtype=torch.bool) if is_answer is None else is_answer
    # A conversation may come without an image; its row then has no token that stands for one.
    names = dict.fromkeys(name for example in examples for name in example.inputs)
    inputs = {name: [example.inputs[name] for example in examples if name in example.inputs] for name in names}
    # Patches of all images in one long row, with their sizes beside it.
    packed = "pixel_values" if "target_sizes" in inputs else None
    return {
        "input_ids": ids,
        "attention_mask": mask,
        **{name: mark(ids, answers, layout.image_token_id) for name, mark in layout.marks.items()},
        **{name: torch.cat(parts, dim=-1) if name == packed else _join(parts) for name, parts in inputs.items()},
    }


def _join(parts: list[torch.Tensor]) -> torch.Tensor:
    """Tensors of several images, one behind the other; images of fewer tiles get empty ones, which models leave out."""
    if parts[0].ndim > 2 and len({part.shape[1] for part in parts}) > 1:
        most = max(part.shape[1] for part in parts)
        parts = [
            torch.cat([part, part.new_zeros(part.shape[0], most - part.shape[1], *part.shape[2:])], dim=1)
            for part in parts
        ]
    return torch.cat(parts)
