"""What the optimizer steps of our trainer have of their own: the model's loss, a rate for each tower, two stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from trl import SFTTrainer

from boxtune.families import Family
from boxtune.finetune.quantization import tower_of
from boxtune.finetune.weights import read_weights, write_weights


class TowerTrainer(SFTTrainer):
    """TRL's trainer, with the optimizer's groups told apart by tower.

    `rates` are learning rates by tower, or None for one rate everywhere. With `two_stage` the schedule is run through
    twice, each time in half of the steps: first for vision and projector, then for the language tower; the rate of the
    others is 0 meanwhile. Weights of the base that are trained themselves are kept in checkpoints beside the adapter.
    """

    def __init__(
        self, *args: Any, family: Family, rates: Mapping[Any, float] | None, two_stage: bool, **more: Any
    ) -> None:
        self.family, self.rates, self.two_stage = family, rates, two_stage
        self.lr_scheduler: Any = None
        super().__init__(*args, **more)
        # Both losses are divided by the tokens of the whole optimizer step, whatever the model's own forward takes;
        # for Qwen3-VL or Gemma 3 transformers would otherwise average micro-batches, however long their answers are.
        self.model_accepts_loss_kwargs = True

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer of the arguments; each of its groups holds parameters of one tower, which it names."""
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and (self.rates is not None or self.two_stage):
            names = {id(parameter): name for name, parameter in self.model.named_parameters()}
            groups: dict[tuple[int, str], dict[str, Any]] = {}
            for number, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    tower = tower_of(names[id(parameter)], self.family)
                    assert tower is not None and (self.rates is None or tower in self.rates)  # `require_rates`
                    rate = group["lr"] if self.rates is None else self.rates[tower]
                    own = {**group, "params": [], "lr": rate, "tower": tower}
                    groups.setdefault((number, tower), own)["params"].append(parameter)
            optimizer.param_groups[:] = groups.values()
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of the arguments, once over all steps or, in two stages, once over each half of them."""
        if not self.two_stage or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        half = (num_training_steps + 1) // 2
        schedule = super().create_scheduler(half, optimizer)
        inner, optimizer = schedule.lr_lambdas[0], schedule.optimizer

        def first(step: int) -> float:
            return float(inner(step)) if step < half else 0.0

        def second(step: int) -> float:
            return float(inner(step - half)) if step >= half else 0.0

        stages: list[Callable[[int], float]] = [
            second if group["tower"] == "language" else first for group in optimizer.param_groups
        ]
        self.lr_scheduler = LambdaLR(optimizer, stages)
        return self.lr_scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rate of each tower to a row of the log; `learning_rate` is then the highest."""
        groups = self.optimizer.param_groups if self.optimizer is not None and "learning_rate" in logs else []
        towers = {group["tower"]: float(group["lr"]) for group in groups if "tower" in group}
        if towers:
            logs["learning_rate"] = max(towers.values())
            logs.update({f"learning_rate_{tower}": rate for tower, rate in towers.items()})
        super().log(logs, start_time)

    def write_weights(self, folder: str | Path) -> None:
        """Put the trained weights of the base beside an adapter in `folder`."""
        write_weights(self.model, Path(folder))

    def read_weights(self, folder: str | Path) -> None:
        """Take the trained weights of the base from `folder`."""
        read_weights(self.model, Path(folder))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        self.write_weights(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.read_weights(resume_from_checkpoint)


class ModelLossTrainer(TowerTrainer):
    """For models that TRL's own loss does not fit: the model computes it, and TRL's metrics are filled as TRL does."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's own loss, a mean over supervised tokens; over those of the whole step when they accumulate."""
        mode = "train" if self.model.training else "eval"
        outputs = model(**inputs, use_cache=False)
        shift = 0 if self.family.encoder_decoder else 1
        labels = inputs["labels"][:, shift:]
        logits = outputs.logits[:, : outputs.logits.shape[1] - shift]
        there = labels != -100
        loss = outputs.loss
        if num_items_in_batch is not None:
            loss = loss * there.sum() / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        with torch.no_grad():
            right = ((logits.argmax(dim=-1) == labels) & there).sum()
            entropy = torch.distributions.Categorical(logits=logits[there].float()).entropy().sum()
            num, right, entropy, seen = (
                self.accelerator.gather_for_metrics(value).sum().item()
                for value in (there.sum(), right, entropy, inputs["attention_mask"].sum())
            )
        self._metrics[mode]["entropy"].append(entropy / max(1, num))
        self._metrics[mode]["mean_token_accuracy"].append(right / max(1, num))
        if mode == "train":
            self._total_train_tokens += seen
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return (loss, outputs) if return_outputs else loss
