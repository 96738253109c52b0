"""TRL's trainer, given our data, our collator and the plan: the one place where LoRA is attached."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig

from boxtune.finetune.adapters import Plan, free_weights, keep_fp32
from boxtune.finetune.collator import TrainingCollator
from boxtune.finetune.dealing import Dealing
from boxtune.finetune.device import small_step
from boxtune.finetune.features import Features, choose_features
from boxtune.finetune.load import Loaded
from boxtune.finetune.packing import build_packer
from boxtune.finetune.planner import StepPlan
from boxtune.finetune.quicken import checkpoint_layers, quicken
from boxtune.finetune.ranks import num_ranks, share_batch
from boxtune.finetune.sharding import choose_sharding, sharding_arguments
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
    step: StepPlan | None = None,
) -> TowerTrainer:
    """The trainer, with the adapter attached by TRL, the plan's own weights set free, and all of it in fp32.

    The model must be the bare base: TRL attaches the adapter itself, and a model that already carries one is how the
    project's first run came to train nothing. Whoever looks at the model right when the adapter is attached calls
    `free_weights` there; here it is called once TRL is done. `step` says how steps are cut up; None: a small one.
    """
    step = small_step(loaded, settings) if step is None else step
    family, rate = loaded.source.family, settings.train.learning_rate
    sharding = choose_sharding(settings, loaded.placement.device.type, num_ranks())
    # TRL 1.16 reads a head that FSDP2 has spread past its module: what that learns is not summed over the ranks.
    trls = family.loss == "language" and sharding != "fsdp"
    trainer_class = TowerTrainer if trls else ModelLossTrainer
    free = frozenset(plan.weights)
    weights = {name: parameter.data for name, parameter in loaded.model.named_parameters() if name in free}
    if settings.train.packing == "auto" and sharding != "fsdp":
        token, config = collator.encoder.layout.image_token_id, loaded.model.config
        collator.packer = build_packer(family, config, token, longest=step.longest, max_pixels=loaded.max_pixels)
    rows = {name: _rows(name, collator.num_rows(name)) for name in ("train", "valid")}
    with warnings.catch_warnings():
        # TRL 1.16 still sets what transformers 5.23 has renamed; to go with the first TRL that does not.
        warnings.filterwarnings("ignore", r".*gradient_checkpointing\w*` is deprecated", FutureWarning)
        trainer = trainer_class(
            model=loaded.model,
            args=build_arguments(
                loaded, settings, step, len(rows["train"]), checkpoints=checkpoints, resuming=resuming
            ),
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
    trainer.dealing = _dealing(collator, trainer.args, step)
    # Ours shows the same with less noise.
    for noisy in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(noisy)
    free_weights(trainer.model, plan)
    for name, parameter in trainer.model.get_base_model().named_parameters():
        if name in weights:
            # As they were loaded: TRL has rounded to bf16 whatever was trainable by then.
            parameter.data = weights[name].float()
    keep_fp32(trainer.model)
    checkpoint_layers(trainer.model.get_base_model(), family, step.checkpointed)
    on_gpu = loaded.placement.device.type == "cuda"
    compiled = settings.train.compile == "on" or (settings.train.compile == "auto" and on_gpu)
    # What FSDP2 spreads over the ranks is whole only inside its own modules.
    trainer.quickened = quicken(
        trainer.model,
        packs=collator.packer is not None,
        compiled=compiled,
        linears=sharding != "fsdp",
        features=_features(trainer.model.get_base_model(), collator, settings, step),
    )
    return trainer


def _features(base: Any, collator: TrainingCollator, settings: Settings, step: StepPlan) -> Features | None:
    """Where the features of images are kept, if they are; says so where it could be."""
    known, packer = len(step.lengths) == collator.num_rows("train"), collator.packer
    if settings.train.features == "off" or settings.data.augment or not known or packer is None or not packer.on_host:
        return None
    assert settings.train.epochs
    # Nearly all of a sample is its image; those of validation are taken to be as long as those of training.
    num_tokens = sum(step.lengths) * (len(step.lengths) + collator.num_rows("valid")) // len(step.lengths)
    kept, line = choose_features(base.base_model, num_tokens, num_ranks=num_ranks(), epochs=settings.train.epochs)
    print(line, end="\n\n" if line else "", flush=True)
    return kept


def _dealing(collator: TrainingCollator, arguments: SFTConfig, step: StepPlan) -> Dealing | None:
    """How the images of a step are dealt; None where a step is one micro-batch, or the lengths of rows are not known:
    of sets too large to be measured one by one, and where `data.negatives` or `data.mix` fill the rows anew each epoch.
    """
    num_batches = arguments.gradient_accumulation_steps * num_ranks()
    known = len(step.lengths) == collator.num_rows("train")
    if num_batches == 1 or not known or collator.epochs.negatives is not None or collator.epochs.conversations:
        return None
    return Dealing(
        lengths=step.lengths,
        micro=arguments.per_device_train_batch_size,
        num_batches=num_batches,
        packed=collator.packer is not None,
    )


def _rows(split: str, num: int) -> Any:
    """A datasets.Dataset that only names samples: TRL insists on the type, and the collator opens the images."""
    from datasets import Dataset

    return Dataset.from_dict({"split": [split] * num, "i": list(range(num))})


def build_arguments(
    loaded: Loaded, settings: Settings, step: StepPlan, num_train: int, *, checkpoints: Path, resuming: bool
) -> SFTConfig:
    """SFTConfig for these settings; evaluation and checkpoint fall on the same steps, `eval.per_epoch` an epoch."""
    train = settings.train
    assert train.effective_batch and train.learning_rate and train.epochs
    micro, accumulation = share_batch(train.effective_batch, step.micro_batch, num_ranks())
    steps_per_epoch = math.ceil(math.ceil(num_train / (micro * num_ranks())) / accumulation)
    every = math.ceil(steps_per_epoch / settings.eval.per_epoch)
    rate = max(train.learning_rate.values()) if isinstance(train.learning_rate, Mapping) else train.learning_rate
    device, precision = loaded.placement.device.type, loaded.placement.precision
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        learning_rate=rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup_share,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        # DDP's search for tensors without a gradient is a walk over the graph in each step. Only conversations without
        # an image leave out whole towers.
        ddp_find_unused_parameters=settings.data.mix is not None,
        **sharding_arguments(loaded.model, choose_sharding(settings, device, num_ranks())),
        # Ours chooses the layers; see `checkpoint_layers`.
        gradient_checkpointing=False,
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
        dataloader_num_workers=_num_workers(device) if train.workers is None else train.workers,
        dataloader_pin_memory=device == "cuda",
        # From pinned memory, so that the host never waits for the copy.
        accelerator_config={"non_blocking": device == "cuda"},
    )
    # One process has one GPU here, however many are visible: never torch.nn.DataParallel.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _num_workers(device: str) -> int:
    """Processes that prepare images: up to eight of the cores that this process may use, one left for itself.

    A core prepares some ten photographs a second (bench/preparation.py) and a card takes about as many of a 7B model.
    On a CPU they would take the cores from the training itself.
    """
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, len(os.sched_getaffinity(0)) // ranks - 1)) if device == "cuda" else 0
