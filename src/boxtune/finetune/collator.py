"""Rows that name samples -> training batches: images are opened, changed and asked about here, in the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL.Image import Image

from boxtune.boxes import Boxes
from boxtune.data import Sample
from boxtune.data.epoch import Epochs
from boxtune.data.training import training_image
from boxtune.errors import DataError
from boxtune.finetune.collate import Example, collate_for_training
from boxtune.finetune.encode import Encoder
from boxtune.finetune.features import IMAGES
from boxtune.finetune.packing import PACKING, Packer
from boxtune.finetune.split import CUTS, cuts_of
from boxtune.finetune.talk import Talker
from boxtune.settings import DataSettings


class TrainingCollator:
    """Rows that name samples -> a training batch; images are opened here, so that workers share the work.

    A row is `{"split": name, "i": place}`; of `train` the place is a row of the epoch (`Epochs`), of other splits that
    of the sample. A training image that turns out to be broken is left out and the next good sample takes its place,
    so that batches keep their size; `on_broken(sample, error)` is told each time and decides when it is too much. A
    broken image of any other split raises.

    Training images go through the changes of `data.augment`, and shares of them are asked for some of the classes
    only, or for classes that they lack. All of it is drawn from (seed, epoch, image id) alone, so that a resumed run
    and any number of workers see the same. `epoch` is set at the begin of each. `max_tokens` bounds a sample: one that
    turns out to be longer, which large sets are not measured for one by one, counts as broken.
    """

    def __init__(
        self,
        encoder: Encoder,
        splits: Mapping[str, Sequence[Sample]],
        on_broken: Any,
        data: DataSettings | None = None,
        *,
        epochs: Epochs | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
    ) -> None:
        self.packer: Packer | None = None
        """Set where samples are to lie in one row without padding; see `packing`."""
        self.encoder, self.splits, self.on_broken = encoder, splits, on_broken
        self.data = DataSettings(path=".") if data is None else data
        self.epochs = Epochs(samples=splits["train"], seed=seed) if epochs is None else epochs
        self.max_tokens, self.seed, self.epoch = max_tokens, seed, 0
        self.talker = Talker(encoder) if self.epochs.conversations else None

    def num_rows(self, split: str) -> int:
        """Rows of a split; of `train` those of one epoch."""
        return len(self.epochs) if split == "train" else len(self.splits[split])

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A padded batch as any trainer takes it, and under `packing` what only ours reads."""
        named = [self._example(row["split"], row["i"]) for row in rows]
        examples = [example for example, _ in named]
        packing: dict[str, Any] = {} if self.packer is None else self.packer.pack(examples)
        if packing and all(name for _, name in named):
            packing[IMAGES] = [name for _, name in named]
        batch = collate_for_training(examples, self.encoder.layout)
        return {**batch, PACKING: {CUTS: cuts_of(examples), **packing}}

    def _example(self, split: str, row: int) -> tuple[Example, str]:
        """A row's sample, and the name of its image; none where it has none, or shows another each time."""
        if split != "train":
            return self.encoder.encode_sample(self.splits[split][row]), f"{split} {row}"
        kind, place = self.epochs.find(row, self.epoch)
        if kind == "mix":
            assert self.talker is not None
            return self.talker.encode(self.epochs.conversations[place]), ""
        samples = self.splits[split]
        for step in range(len(samples)):
            at = (place + step) % len(samples)
            try:
                return self._trained(samples, at), "" if self.data.augment else f"train {at}"
            except DataError as error:
                self.on_broken(samples[at], error)
        raise DataError("not one training image can be opened", where=str(samples[0].image.parent))

    def _trained(self, samples: Sequence[Sample], place: int) -> Example:
        """One training image as this epoch shows it and asks about it. Raises DataError if it cannot be used."""

        def fits(image: Image, boxes: Boxes) -> bool:
            return self.max_tokens is None or sum(self.encoder.measure_boxes(image.size, boxes)) <= self.max_tokens

        image, boxes, asked = training_image(
            samples,
            place,
            self.encoder.classes,
            self.data,
            seed=self.seed,
            epoch=self.epoch,
            on_broken=self.on_broken,
            fits=fits,
        )
        example = self.encoder.encode_image(image, boxes, classes=asked)
        num = len(example.prompt_ids) + len(example.answer_ids)
        if self.max_tokens is not None and num > self.max_tokens:
            raise DataError(f"{num} tokens of {self.max_tokens}", where=str(samples[place].image))
        return example
