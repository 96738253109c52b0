"""Losses of the same few samples before and after the run: what tells learning from noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from boxtune.guard.batches import Batches, collate_rows, num_supervised, spread_rows
from boxtune.guard.probe import loss_of
from boxtune.guard.untouched import Aside, random_state, set_random_state, unpacked

NUM, FEWEST = 16, 7
"""Samples that are looked at, spread evenly over the split; a validation split of fewer than the second decides
nothing, so training samples are looked at instead."""


class Paired:
    """`before` the losses of single samples as the run begins, dropout off, of the split named `what`; none where the
    samples cannot be asked for one by one or the trainer's loss does not take them, and `why` says which."""

    def __init__(self, trainer: Any) -> None:
        self.what, self.why = "validation", ""
        self.batches: Batches | None = None
        # Both readings begin with this state: the same augmentation, the same masks.
        self.random = random_state()
        aside = Aside(trainer, trainer.model)
        try:
            if trainer.eval_dataset is not None:
                split = trainer.eval_dataset
                named = next(iter(split)) if isinstance(split, Mapping) else None
                loader = trainer.get_eval_dataloader(named) if named else trainer.get_eval_dataloader()
                self.batches = self._few(loader)
            if self.batches is None or len(self.batches.rows or ()) < FEWEST:
                self.what = "training"
                self.batches = self._few(trainer.get_train_dataloader())
        except Exception as error:
            # Data that cannot be asked for a row leave the verdict to the other evidence, which says so.
            self.batches, self.why = None, f"{type(error).__name__}: {error}"
        finally:
            aside.put_back()
        self.before = self._losses(trainer)

    def pairs(self, trainer: Any) -> list[tuple[float, float]]:
        """Each sample's loss before and now; samples whose loss was not finite before are left out."""
        after = self._losses(trainer) if self.before else []
        if len(after) != len(self.before):
            return []
        return [(one, other) for one, other in zip(self.before, after, strict=True) if math.isfinite(one)]

    def _few(self, loader: Any) -> Batches:
        rows, why = spread_rows(loader.dataset, NUM)
        return Batches(train=(), rows=rows, collate=loader.collate_fn, why=why)

    def _losses(self, trainer: Any) -> list[float]:
        if self.batches is None or not self.batches.rows:
            self.why = self.why or (self.batches.why if self.batches else "")
            return []
        aside = Aside(trainer, trainer.model)
        losses = []
        try:
            with warnings.catch_warnings(), unpacked(trainer.model):
                warnings.simplefilter("ignore")
                set_random_state(self.random)
                for row in self.batches.rows:
                    batch = collate_rows(self.batches, [row], trainer)
                    if num_supervised(batch):
                        losses.append(loss_of(trainer, batch))
        except Exception as error:
            # A loss that cannot be had of one row leaves the verdict to the other evidence, which says so.
            self.why = f"{type(error).__name__}: {error}"
            return []
        finally:
            aside.put_back()
        if not losses:
            self.why = "no single sample has supervised tokens (preferences, rewards)"
        return losses
