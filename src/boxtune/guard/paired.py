"""Losses of the same few samples before and after the run: what tells learning from noise."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from boxtune.guard.batches import Batches, collate_rows, num_supervised, spread_rows
from boxtune.guard.probe import loss_of
from boxtune.guard.untouched import Aside, unpacked

NUM, FEWEST = 16, 7
"""Samples that are looked at, spread evenly over the split; a validation split of fewer than the second decides
nothing, so training samples are looked at instead."""


class Paired:
    """`before` the losses of single samples as the run begins, dropout off, of the split named `what`; none where the
    samples cannot be asked for one by one or the trainer's loss does not take them."""

    def __init__(self, trainer: Any) -> None:
        self.what = "validation"
        self.batches: Batches | None = None
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
        except Exception:
            # Data that cannot be asked for a row leave the verdict to the other evidence.
            self.batches = None
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
        if self.batches is None:
            return []
        aside = Aside(trainer, trainer.model)
        losses = []
        try:
            with warnings.catch_warnings(), unpacked(trainer.model):
                warnings.simplefilter("ignore")
                # The same augmentation before and after.
                random.seed(0)
                torch.manual_seed(0)
                for row in self.batches.rows or ():
                    batch = collate_rows(self.batches, [row], trainer)
                    if num_supervised(batch):
                        losses.append(loss_of(trainer, batch))
        except Exception:
            # A loss that cannot be had of one row (preferences, rewards) leaves the verdict to the other evidence.
            return []
        finally:
            aside.put_back()
        return losses
