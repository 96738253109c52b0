"""The samples that the checks look at: the first batches as the trainer will see them, and their raw rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Batches:
    """`train` are collated batches of the trainer's own loader, on the device (mappings, but for trainers that make
    their batches in the step); `rows` a few raw rows of the data set, None where it cannot be indexed (`why` says why
    not), and `collate` what makes batches of them.
    """

    train: Sequence[Any]
    rows: Sequence[Any] | None = None
    collate: Any = None
    why: str = ""


def take_batches(trainer: Any, num: int) -> Batches:
    """The first `num` micro-batches of a fresh loader, and a few rows.

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
    rows, why = spread_rows(loader.dataset)
    return Batches(train=train, rows=rows, collate=loader.collate_fn, why=why)


def take_eval_batch(trainer: Any) -> Any:
    """The first batch of the trainer's evaluation, None where it is no mapping or there is none."""
    split = trainer.eval_dataset
    if split is None or hasattr(split, "__next__"):
        return None
    name = next(iter(split)) if isinstance(split, Mapping) else None
    loader = trainer.get_eval_dataloader(name) if name else trainer.get_eval_dataloader()
    batch = next(iter(loader), None)
    return trainer._prepare_inputs(batch) if isinstance(batch, Mapping) else None


def spread_rows(dataset: Any, num: int = 4) -> tuple[Sequence[Any] | None, str]:
    """A few rows of the data set as the collator gets them, evenly spread; None, and why, for a stream."""
    if isinstance(dataset, torch.utils.data.IterableDataset) or not hasattr(dataset, "__len__"):
        return None, "the data set is a stream: its rows cannot be asked for one by one"
    total = len(dataset)
    num = min(num, total)
    places = sorted({round(i * (total - 1) / max(1, num - 1)) for i in range(num)})
    return [dataset[place] for place in places], ""


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


def tensor_of(batch: Any, name: str) -> torch.Tensor | None:
    """The tensor of that name, None where the batch has none, or is no mapping."""
    value = batch.get(name) if isinstance(batch, Mapping) else None
    return value if isinstance(value, torch.Tensor) else None


def num_supervised(batch: Any) -> int:
    """Places of the batch that the loss counts."""
    labels = tensor_of(batch, "labels")
    if labels is None:
        return 0
    return int(((labels if labels.ndim < 2 else labels[..., 1:]) != -100).sum())


def answers_in_order(trainer: Any) -> bool:
    """Whether the model says one token after the other, each from those before: a decoder that can generate."""
    model = trainer.model
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    can = getattr(model, "can_generate", None)
    return bool(can is not None and can()) and not getattr(getattr(model, "config", None), "is_encoder_decoder", False)
