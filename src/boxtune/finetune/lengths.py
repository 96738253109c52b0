"""How long the samples are, before the run: nothing is ever cut, so what does not fit is left out by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from boxtune.data import HELD_OUT, MAX_LEFT_OUT, Dataset, Sample, SampleTable, take_samples
from boxtune.data.tiles import TiledSamples
from boxtune.errors import DataError, Finding, name_some
from boxtune.finetune.encode import Encoder

MOST_MEASURED = 50_000
"""Samples that are measured of one split, some ten seconds. Of a larger one those with the most boxes, one of every
image size and others in equal steps are; what turns out too long in training is left out then, by name."""


@dataclass(frozen=True, kw_only=True)
class Longest:
    """Tokens of the longest prompt (image included) and of the longest answer.

    `train` are prompt and answer of every training sample that was measured.
    """

    prompt: int
    answer: int
    train: Int[np.ndarray, "k 2"] = field(default_factory=lambda: np.zeros((0, 2), dtype=int), compare=False)

    def __str__(self) -> str:
        return f"longest sample: {self.prompt} tokens of prompt and image, {self.answer} of answer"

    @property
    def max_new_tokens(self) -> int:
        """Bound on a generated answer: the longest one to learn and a quarter, at least 16 more."""
        return self.answer + max(16, self.answer // 4)


def fit_samples(dataset: Dataset, encoder: Encoder, max_positions: int) -> tuple[Dataset, Longest]:
    """The data set without the training samples that are longer than the model's positions, and the longest ones.

    Also left out are images that the family's resize rule refuses. Of more than 50,000 samples a choice is measured
    (MOST_MEASURED). Raises DataError if more than 1 % of the training samples measured do not fit, or any of another
    split.
    """
    kept: dict[str, Sequence[Sample]] = {}
    findings = []
    prompt = answer = 0
    trained: list[tuple[int, int]] = []
    for split, samples in dataset.splits.items():
        measured = choose_measured(samples)
        refused: dict[int, str] = {}
        for place in measured.tolist():
            sample = samples[place]
            try:
                lengths = encoder.measure(sample)
            except ValueError as error:
                refused[place] = f"{sample.image} ({error})"
                continue
            if sum(lengths) > max_positions:
                refused[place] = f"{sample.image} ({sum(lengths)} tokens of {max_positions})"
                continue
            prompt, answer = max(prompt, lengths[0]), max(answer, lengths[1])
            if split == "train":
                trained.append(lengths)
        kept[split] = samples
        if len(measured) < len(samples):
            how = "with most boxes, of every size, in steps"
            seen = f"{len(measured):,} of {len(samples):,} samples of {split} measured: {how}"
            findings.append(Finding(check="lengths.measured", level="ok", seen=seen))
        if not refused:
            continue
        seen = f"{len(refused)} of {len(measured)} samples of {split} do not fit the model"
        where = name_some(refused.values())
        # The held-out images were training images, and are no result by themselves.
        if split != HELD_OUT and (split != "train" or len(refused) > MAX_LEFT_OUT * len(measured)):
            fix = "lower image.max_pixels, or split the images into tiles with fewer boxes each (data.tile)"
            raise DataError(seen, where=where, fix=fix)
        kept[split] = take_samples(samples, [place for place in range(len(samples)) if place not in refused])
        findings.append(Finding(check="lengths.left_out", level="warn", seen=f"{seen} and are left out", where=where))
    return dataset.with_splits(kept, *findings), Longest(
        prompt=prompt, answer=answer, train=np.array(trained, dtype=int).reshape(-1, 2)
    )


def choose_measured(samples: Sequence[Sample], most: int = MOST_MEASURED) -> Int[np.ndarray, " k"]:
    """The places of the samples that are measured, ascending: all of them, or about `most` of many."""
    if len(samples) <= most or not isinstance(samples, SampleTable | TiledSamples):
        return np.arange(len(samples))
    if isinstance(samples, SampleTable):
        crowded, sizes_wh = np.argsort(-np.diff(samples.starts), kind="stable")[: most // 3], samples.sizes_wh
    else:  # how many boxes a tile shows is known once it is made
        shown = np.flatnonzero(samples.has_boxes)
        crowded = shown[:: max(1, -(-len(shown) // (most // 3)))]
        sizes_wh = samples.windows[:, 2:] - samples.windows[:, :2]
    _, firsts = np.unique(sizes_wh, axis=0, return_index=True)
    steps = np.arange(0, len(samples), -(-len(samples) // (most // 3)))
    return np.unique(np.concatenate([crowded, firsts[: most // 3], steps]))
