"""The samples that the checks look at: the first batches as the trainer will see them, and their raw rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Batches:
    """`train` are collated batches of the trainer's own loader, on the device; `rows` the raw rows behind them and
    `collate` what made the batches of them, both None where the data set cannot be indexed; `why` says why not.
    """

    train: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any] | None = None
    rows: Sequence[Any] | None = None
    collate: Any = None
    why: str = ""
    positions: Sequence[int] = field(default=())


def take_batches(trainer: Any, num: int) -> Batches:
    """The first `num` micro-batches of a fresh loader, and one of the evaluation set.

    The random state is the caller's to put back. Nothing is taken from a stream that could not be read again.
    """
    dataset = trainer.train_dataset
    if hasattr(dataset, "__next__"):
        return Batches(train=(), why="the training data is a stream that can be read only once")
    loader = trainer.get_train_dataloader()
    train = []
    for batch in loader:
        train.append(trainer._prepare_inputs(batch) if isinstance(batch, Mapping) else batch)
        if len(train) == num:
            break
    del loader
    evaluation = None
    if getattr(trainer, "eval_dataset", None) is not None and not isinstance(trainer.eval_dataset, dict):
        try:
            first = next(iter(trainer.get_eval_dataloader()), None)
        except TypeError:
            first = None
        evaluation = None if first is None else trainer._prepare_inputs(first)
    rows, collate, why = _raw_rows(trainer)
    return Batches(train=train, evaluation=evaluation, rows=rows, collate=collate, why=why)


def _raw_rows(trainer: Any, num: int = 4) -> tuple[Sequence[Any] | None, Any, str]:
    """A few rows of the data set as the collator gets them, evenly spread, and the collator."""
    loader = trainer.get_train_dataloader()
    dataset, collate = loader.dataset, loader.collate_fn
    try:
        total = len(dataset)
        places = sorted({round(i * (total - 1) / max(1, num - 1)) for i in range(min(num, total))})
        return [dataset[place] for place in places], collate, ""
    except (TypeError, NotImplementedError, KeyError) as error:
        return None, collate, f"the data set cannot be indexed ({type(error).__name__}: {error})"


def collate_rows(batches: Batches, rows: Sequence[Any], trainer: Any) -> Any:
    """Rows through the trainer's own collator, on its device; the rows themselves stay as they are."""
    return trainer._prepare_inputs(batches.collate([copy.deepcopy(row) for row in rows]))


def copy_of(batch: Any) -> Any:
    """The same batch in new containers: a trainer may take keys out of what it is given."""
    if isinstance(batch, Mapping):
        return type(batch)({key: copy_of(value) for key, value in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, (list, tuple)):
        return type(batch)(copy_of(value) for value in batch)
    return batch


def tensor_of(batch: Mapping[str, Any], name: str) -> torch.Tensor | None:
    """The tensor of that name, None where the batch has none."""
    value = batch.get(name)
    return value if isinstance(value, torch.Tensor) else None


def num_supervised(batch: Mapping[str, Any]) -> int:
    """Places of the batch that the loss counts."""
    labels = tensor_of(batch, "labels")
    return 0 if labels is None else int((labels[..., 1:] != -100).sum())
