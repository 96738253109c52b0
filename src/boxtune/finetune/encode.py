"""Samples into token ids and pixels, with labels on the answer and the end of turn alone.

Prompt and answer are tokenised apart and joined as ids, so the prompt's ids are the same in training and in
prediction by construction, and what is supervised is exactly the answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from boxtune.boxes import Boxes
from boxtune.data import Sample, augment_image, open_image
from boxtune.errors import DataError
from boxtune.families import Family, Frame

Change = Callable[[Image, Boxes], tuple[Image, Boxes]]
IGNORED = -100
"""Label of a token that is not supervised, as torch's cross entropy has it."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One image and its prompt, as ids and pixels; `answer_ids` is empty where there is no truth to learn.

    `classes` are the names that the prompt asks for. `pixels` are the flattened patches (num_patches, patch_values),
    `grid_thw` their (1, rows, columns).
    """

    classes: tuple[str, ...]
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    pixels: torch.Tensor
    grid_thw: torch.Tensor
    frame: Frame


class Encoder:
    """Turns images and boxes into model inputs for one family, one tokenizer, one set of classes."""

    def __init__(
        self,
        *,
        family: Family,
        tokenizer: Any,
        image_processor: Any,
        classes: Sequence[str],
        min_pixels: int,
        max_pixels: int,
    ) -> None:
        self.family, self.tokenizer, self.image_processor = family, tokenizer, image_processor
        self.classes = tuple(classes)
        self.min_pixels, self.max_pixels = min_pixels, max_pixels
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(family.image_token)
        self.end_id: int = tokenizer.convert_tokens_to_ids(family.end_of_turn)
        self.pad_id: int = tokenizer.pad_token_id

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, nothing added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer_ids(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> tuple[int, ...]:
        """Ids of the answer for these boxes (pixels of the upright original), the end of turn included."""
        return (*self.ids(self.family.encode(boxes, frame, classes)), self.end_id)

    def encode_image(
        self, image: Image, boxes: Boxes | None = None, *, classes: Sequence[str] | None = None
    ) -> Example:
        """An upright RGB image, asked for `classes` (all of them if None), with the answer for `boxes` if given.

        The frame comes from the grid that the processor really made. Raises ValueError if the processor made another
        number of tokens than the family's rule says, for then lengths were measured wrong.
        """
        made = self.image_processor(images=[image], return_tensors="pt")
        rows, columns = (int(side) for side in made["image_grid_thw"][0, 1:])
        patch = self.image_processor.patch_size
        frame = Frame(original_wh=image.size, seen_wh=(columns * patch, rows * patch))
        expected = self.family.seen_wh(image.size, self.min_pixels, self.max_pixels)
        if frame.seen_wh != expected:
            raise ValueError(f"the processor made {frame.seen_wh} of {image.size}, the family's rule says {expected}")
        asked = self.classes if classes is None else tuple(classes)
        prompt = self.family.prompt(asked, self.family.num_image_tokens(frame.seen_wh))
        return Example(
            classes=asked,
            prompt_ids=self.ids(prompt),
            answer_ids=() if boxes is None else self.answer_ids(boxes, frame, asked),
            pixels=made["pixel_values"],
            grid_thw=made["image_grid_thw"],
            frame=frame,
        )

    def encode_sample(
        self,
        sample: Sample,
        change: Change = lambda image, boxes: (image, boxes),
        *,
        classes: Sequence[str] | None = None,
    ) -> Example:
        """A sample with its answer, after `change`, asked for `classes` (all of them if None).

        DataError if the image cannot be opened or is not of the declared size.
        """
        image = open_image(sample.image)
        if image.size != sample.size_wh:
            raise DataError(
                f"the image is {image.size[0]}x{image.size[1]}, its annotation says {sample.size_wh[0]}x"
                f"{sample.size_wh[1]}",
                where=str(sample.image),
                fix="annotate the image as it is, or put back the image that was annotated",
            )
        image, boxes = change(image, sample.targets)
        if classes is not None:
            boxes = boxes.take([i for i, label in enumerate(boxes.labels) if label in classes])
        return self.encode_image(image, boxes, classes=classes)

    def measure(self, sample: Sample) -> tuple[int, int]:
        """Tokens of prompt and answer, from the declared size alone: the image is not opened."""
        seen = self.family.seen_wh(sample.size_wh, self.min_pixels, self.max_pixels)
        frame = Frame(original_wh=sample.size_wh, seen_wh=seen)
        blank = len(self.ids(self.family.prompt(self.classes, 0)))
        return blank + self.family.num_image_tokens(seen), len(self.answer_ids(sample.targets, frame, self.classes))


def collate_for_training(examples: Sequence[Example], *, pad_id: int, image_token_id: int) -> dict[str, torch.Tensor]:
    """A right-padded batch with labels on the answers, nothing cut."""
    rows = [(*example.prompt_ids, *example.answer_ids) for example in examples]
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for place, (row, example) in enumerate(zip(rows, examples, strict=True)):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
        labels[place, len(example.prompt_ids) : len(row)] = torch.tensor(example.answer_ids)
    return {**_shared(ids, mask, examples, image_token_id), "labels": labels}


def collate_for_prediction(examples: Sequence[Example], *, pad_id: int, image_token_id: int) -> dict[str, torch.Tensor]:
    """A left-padded batch of prompts, so that every answer begins at the same place."""
    width = max(len(example.prompt_ids) for example in examples)
    ids = torch.full((len(examples), width), pad_id)
    mask = torch.zeros_like(ids)
    for place, example in enumerate(examples):
        ids[place, width - len(example.prompt_ids) :] = torch.tensor(example.prompt_ids)
        mask[place, width - len(example.prompt_ids) :] = 1
    return _shared(ids, mask, examples, image_token_id)


def _shared(
    ids: torch.Tensor, mask: torch.Tensor, examples: Sequence[Example], image_token_id: int
) -> dict[str, torch.Tensor]:
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_token_id).int(),
        "pixel_values": torch.cat([example.pixels for example in examples]),
        "image_grid_thw": torch.cat([example.grid_thw for example in examples]),
    }


def without_traceback(error: DataError) -> DataError:
    """The error as it was raised: torch hands on a worker's exception with the worker's traceback as its text."""
    marker = "DataError: "
    if marker not in error.what:
        return error
    what, _, rest = error.what.rpartition(marker)[2].strip().partition("\n")
    parts = {line.strip().partition(":")[0]: line.strip().partition(":")[2].strip() for line in rest.splitlines()}
    return DataError(what, where=parts.get("where", ""), fix=parts.get("do", ""))


class TrainingCollator:
    """Rows that name samples -> a training batch; images are opened here, so that workers share the work.

    A row is `{"split": name, "i": place}`. A training image that turns out to be broken is left out and the next
    good sample takes its place, so that batches keep their size; `on_broken(sample, error)` is told each time and
    decides when it is too much. A broken image of any other split raises.

    Training images go through the `changes` of `data.augment`, and a `subset` of them is asked for some of the classes
    only (one up to all but one, as often each); both are drawn from (seed, epoch, image id) alone, so that a resumed
    run and any number of workers see the same. `epoch` is set at the begin of each.
    """

    def __init__(
        self,
        encoder: Encoder,
        splits: Mapping[str, Sequence[Sample]],
        on_broken: Any,
        changes: Collection[str] = (),
        subset: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.encoder, self.splits, self.on_broken = encoder, splits, on_broken
        self.changes, self.subset, self.seed, self.epoch = tuple(changes), subset, seed, 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        examples = [self._example(row["split"], row["i"]) for row in rows]
        return collate_for_training(examples, pad_id=self.encoder.pad_id, image_token_id=self.encoder.image_token_id)

    def _example(self, split: str, place: int) -> Example:
        samples = self.splits[split]
        for step in range(len(samples)):
            sample = samples[(place + step) % len(samples)]
            try:
                if split != "train":
                    return self.encoder.encode_sample(sample)
                key = (self.seed, self.epoch, zlib.crc32(str(sample.image_id).encode()))
                rng = np.random.default_rng(key)
                asked = self._ask(rng)
                change = partial(augment_image, changes=self.changes, rng=rng)
                return self.encoder.encode_sample(sample, change, classes=asked)
            except DataError as error:
                if split != "train":
                    raise
                self.on_broken(sample, error)
        raise DataError("not one training image can be opened", where=str(samples[0].image.parent))

    def _ask(self, rng: np.random.Generator) -> tuple[str, ...] | None:
        """Some of the classes in their order, or None for all of them."""
        every = self.encoder.classes
        if rng.random() >= self.subset or len(every) < 2:
            return None
        chosen = rng.permutation(len(every))[: int(rng.integers(1, len(every)))]
        return tuple(every[i] for i in sorted(chosen.tolist()))
