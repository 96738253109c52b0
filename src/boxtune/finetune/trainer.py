"""TRL's trainer, given our data, our collator and the plan: the one place where LoRA is attached."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig

from boxtune.errors import ConfigError
from boxtune.finetune.adapters import Plan, free_weights, keep_fp32
from boxtune.finetune.collator import TrainingCollator
from boxtune.finetune.load import Loaded
from boxtune.finetune.steps import ModelLossTrainer, TowerTrainer
from boxtune.settings import Settings


def build_trainer(
    loaded: Loaded,
    plan: Plan,
    settings: Settings,
    collator: TrainingCollator,
    callbacks: Sequence[TrainerCallback],
    *,
    checkpoints: Path,
    resuming: bool,
) -> TowerTrainer:
    """The trainer, with the adapter attached by TRL, the plan's own weights set free, and all of it in fp32.

    The model must be the bare base: TRL attaches the adapter itself, and a model that already carries one is how the
    project's first run came to train nothing. Whoever looks at the model right when the adapter is attached calls
    `free_weights` there; here it is called once TRL is done.
    """
    family, rate = loaded.source.family, settings.train.learning_rate
    trainer_class = TowerTrainer if family.loss == "language" else ModelLossTrainer
    free = frozenset(plan.weights)
    weights = {name: parameter.data for name, parameter in loaded.model.named_parameters() if name in free}
    rows = {name: _rows(name, collator.num_rows(name)) for name in ("train", "valid")}
    with warnings.catch_warnings():
        # TRL 1.16 still sets what transformers 5.23 has renamed; to go with the first TRL that does not.
        warnings.filterwarnings("ignore", r".*gradient_checkpointing\w*` is deprecated", FutureWarning)
        trainer = trainer_class(
            model=loaded.model,
            args=build_arguments(loaded, settings, len(rows["train"]), checkpoints=checkpoints, resuming=resuming),
            train_dataset=rows["train"],
            eval_dataset=rows["valid"],
            data_collator=collator,
            processing_class=loaded.tokenizer,
            peft_config=plan.config,
            callbacks=list(callbacks),
            family=family,
            rates=rate if isinstance(rate, Mapping) else None,
            two_stage=settings.adapter.recipe == "two_stage",
        )
    # Ours shows the same with less noise.
    for noisy in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(noisy)
    if trainer.args.gradient_checkpointing:
        # PEFT and TRL let the embeddings' output require a gradient, for re-entrant checkpoints alone: ours are not.
        # It would run a frozen vision tower backward for nothing, and Kosmos-2 writes into that output in place.
        trainer.model.get_base_model().disable_input_require_grads()
    free_weights(trainer.model, plan)
    for name, parameter in trainer.model.get_base_model().named_parameters():
        if name in weights:
            # As they were loaded: TRL has rounded to bf16 whatever was trainable by then.
            parameter.data = weights[name].float()
    keep_fp32(trainer.model)
    return trainer


def _rows(split: str, num: int) -> Any:
    """A datasets.Dataset that only names samples: TRL insists on the type, and the collator opens the images."""
    from datasets import Dataset

    return Dataset.from_dict({"split": [split] * num, "i": list(range(num))})


def build_arguments(
    loaded: Loaded, settings: Settings, num_train: int, *, checkpoints: Path, resuming: bool
) -> SFTConfig:
    """SFTConfig for these settings; evaluation and checkpoint fall on the same steps, `eval.per_epoch` an epoch."""
    train = settings.train
    assert train.effective_batch and train.micro_batch and train.learning_rate and train.epochs
    micro = min(train.micro_batch, train.effective_batch)
    if train.effective_batch % micro:
        raise ConfigError(
            f"effective_batch={train.effective_batch} is no multiple of micro_batch={micro}",
            where="train",
            fix="make one a multiple of the other: gradients are accumulated over whole micro-batches",
        )
    steps_per_epoch = math.ceil(math.ceil(num_train / micro) / (train.effective_batch // micro))
    every = math.ceil(steps_per_epoch / settings.eval.per_epoch)
    rate = max(train.learning_rate.values()) if isinstance(train.learning_rate, Mapping) else train.learning_rate
    device, precision = loaded.placement.device.type, loaded.placement.precision
    checkpointing = device == "cuda" if train.checkpointing == "auto" else train.checkpointing == "on"
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=train.effective_batch // micro,
        learning_rate=rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_share,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        gradient_checkpointing=checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if checkpointing else None,
        # Nothing is ever cut: TRL's default of 1024 tokens cuts image tokens, boxes and the end of turn.
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=not resuming,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=train.keep_checkpoints,
        logging_steps=train.logging_steps,
        # A loss that is not finite must be seen, not replaced by an average.
        logging_nan_inf_filter=False,
        report_to=list(settings.track.report_to),
        seed=settings.seed,
        data_seed=settings.seed,
        dataloader_num_workers=train.workers,
        dataloader_pin_memory=device == "cuda",
    )
