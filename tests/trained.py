"""A trainer as a run builds it, on the embedded model and a few squares."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from models import make_settings, refuse
from squares import CLASSES


def build_squares_trainer(
    loaded: Any,
    squares: Path,
    folder: Path,
    *,
    num: int = 8,
    recipe: str = "language",
    measured: bool = False,
    **train: Any,
) -> Any:
    """With `num` training images; `train` are settings over those of `make_settings`.

    Where it was `measured`, the lengths of all training samples are known, as in a run.
    """
    from boxtune.data import read_dataset
    from boxtune.finetune import TrainingCollator, build_encoder, build_trainer, plan_adapter
    from boxtune.finetune.device import small_step

    settings = make_settings(recipe)
    train = settings.train.model_dump() | {"logging_steps": 1} | train
    settings = settings.model_copy(update={"train": type(settings.train)(**train)})
    splits = read_dataset(squares).splits
    chosen = {"train": splits["train"][:num], "valid": splits["valid"][:2]}
    plan = plan_adapter(loaded.model, loaded.source.family, settings.adapter)
    collator = TrainingCollator(build_encoder(loaded, CLASSES), chosen, refuse)
    step = dataclasses.replace(small_step(loaded, settings), lengths=(300,) * num) if measured else None
    trainer = build_trainer(loaded, plan, settings, collator, [], checkpoints=folder, resuming=False, step=step)
    trainer.args.eval_strategy, trainer.args.eval_on_start, trainer.args.save_strategy = "no", False, "no"
    return trainer


def make_batch(trainer: Any, places: range | list[int], split: str = "train") -> dict[str, Any]:
    """The batch of these samples, where the model is."""
    return trainer._prepare_inputs(trainer.data_collator([{"split": split, "i": place} for place in places]))
