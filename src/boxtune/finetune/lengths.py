"""How long the samples are, before the run: nothing is ever cut, so what does not fit is left out by name."""

from __future__ import annotations

from dataclasses import dataclass

from boxtune.data import MAX_LEFT_OUT, Dataset, Sample
from boxtune.errors import DataError, Finding, name_some
from boxtune.finetune.encode import Encoder


@dataclass(frozen=True, kw_only=True)
class Longest:
    """Tokens of the longest prompt (image included) and of the longest answer."""

    prompt: int
    answer: int

    @property
    def max_new_tokens(self) -> int:
        """Bound on a generated answer: the longest one to learn and a quarter, at least 16 more."""
        return self.answer + max(16, self.answer // 4)


def fit_samples(dataset: Dataset, encoder: Encoder, max_positions: int) -> tuple[Dataset, Longest]:
    """The data set without the training samples that are longer than the model's positions, and the longest ones.

    Also left out are images that the family's resize rule refuses. Raises DataError if that is more than 1 % of the
    training samples, or any of another split.
    """
    kept: dict[str, list[Sample]] = {}
    findings = []
    prompt = answer = 0
    for split, samples in dataset.splits.items():
        kept[split], refused = [], []
        for sample in samples:
            try:
                lengths = encoder.measure(sample)
            except ValueError as error:
                refused.append(f"{sample.image} ({error})")
                continue
            if sum(lengths) > max_positions:
                refused.append(f"{sample.image} ({sum(lengths)} tokens of {max_positions})")
                continue
            kept[split].append(sample)
            prompt, answer = max(prompt, lengths[0]), max(answer, lengths[1])
        if not refused:
            continue
        seen = f"{len(refused)} of {len(samples)} samples of {split} do not fit the model"
        if split != "train" or len(refused) > MAX_LEFT_OUT * len(samples):
            raise DataError(
                seen,
                where=name_some(refused),
                fix="lower image.max_pixels, or split the images into tiles with fewer boxes each",
            )
        findings.append(
            Finding(check="lengths.left_out", level="warn", seen=f"{seen} and are left out", where=name_some(refused))
        )
    return dataset.with_splits(kept, *findings), Longest(prompt=prompt, answer=answer)
