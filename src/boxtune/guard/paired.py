"""Losses of the same few samples before and after the run: what tells learning from noise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from boxtune.guard.batches import num_supervised, spread_rows
from boxtune.guard.probe import loss_of
from boxtune.guard.untouched import Aside, unpacked

NUM, FEWEST = 16, 7
"""Samples that are looked at, spread evenly over the split; a validation split of fewer than the second decides
nothing, so training samples are looked at instead."""


class Paired:
    """`before` the losses of single samples as the run begins, dropout off, of the split named `what`; none where the
    samples cannot be asked for one by one or the trainer's loss does not take them."""

    def __init__(self, trainer: Any) -> None:
        split = trainer.eval_dataset
        if isinstance(split, Mapping):
            split = next(iter(split.values()), None)
        rows, _ = spread_rows(split, NUM) if split is not None else (None, "")
        self.what = "validation"
        if rows is None or len(rows) < FEWEST:
            self.what = "training"
            rows, _ = spread_rows(trainer.train_dataset, NUM)
        self.rows: Sequence[Any] = rows or ()
        self.before = self._losses(trainer)

    def pairs(self, trainer: Any) -> list[tuple[float, float]]:
        """Each sample's loss before and now."""
        after = self._losses(trainer) if self.before else []
        return list(zip(self.before, after, strict=True)) if len(after) == len(self.before) else []

    def _losses(self, trainer: Any) -> list[float]:
        aside = Aside(trainer, trainer.model)
        losses = []
        try:
            with warnings.catch_warnings(), unpacked(trainer.model):
                warnings.simplefilter("ignore")
                for row in self.rows:
                    batch = trainer._prepare_inputs(trainer.data_collator([row]))
                    if num_supervised(batch):
                        losses.append(loss_of(trainer, batch))
        except Exception:
            # A loss that cannot be had of one row (preferences, rewards) leaves the verdict to the other evidence.
            return []
        finally:
            aside.put_back()
        return losses
