"""What the optimizer steps of our trainer have of their own: the loss of packed batches or the model's own, no waiting
for the device between two logs, halved batches where memory runs out, a rate for each tower, two stages."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from trl import SFTTrainer

from boxtune.errors import ModelError
from boxtune.families import Family
from boxtune.finetune.dealing import Dealing, DealtSampler
from boxtune.finetune.lora_linear import Rounded
from boxtune.finetune.packing import PACKING
from boxtune.finetune.quantization import tower_of
from boxtune.finetune.quicken import Quickened
from boxtune.finetune.reload import put_back
from boxtune.finetune.sharding import whole_adapter
from boxtune.finetune.split import split_batch
from boxtune.finetune.weights import read_adapter, read_weights, write_weights


class TowerTrainer(SFTTrainer):
    """TRL's trainer, with the optimizer's groups told apart by tower.

    `rates` are learning rates by tower, or None for one rate everywhere. With `two_stage` the schedule is run through
    twice, each time in half of the steps: first for vision and projector, then for the language tower; the rate of the
    others is 0 meanwhile. Weights of the base that are trained themselves are kept in checkpoints beside the adapter.
    """

    _total_train_tokens: int

    def __init__(
        self, *args: Any, family: Family, rates: Mapping[Any, float] | None, two_stage: bool, **more: Any
    ) -> None:
        self.family, self.rates, self.two_stage = family, rates, two_stage
        self.lr_scheduler: Any = None
        self.parts = 1
        """In how many parts a micro-batch is computed; more than one since memory ran out."""
        self.quickened: Quickened | None = None
        self.dealing: Dealing | None = None
        self.ask: Callable[[Any], dict[str, float]] | None = None
        """Asks the model of this trainer for answers, and gives what they are worth, for an evaluation's row."""
        self.waited_s, self.logged_at = 0.0, time.perf_counter()
        self._spared: Any = None
        self._modules: list[Any] | None = None
        self._copies: Rounded | None = None
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

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if self.dealing is None:
            return sampler
        return DealtSampler(self.train_dataset, self.dealing, self.args.data_seed)

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

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a packed batch as its forward scores it, without waiting for the device; of others TRL's."""
        packing = inputs.get(PACKING, {})
        if "keep" not in packing:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mode = "train" if self.model.training else "eval"
        said = model(**inputs, score=True)
        loss = said["loss"] / (said["num"] if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # It counts the tokens of all ranks, and DDP takes the mean of their gradients.
            loss = loss * self.accelerator.num_processes
        # Numbers on the device: they are read when they are logged.
        self._metrics[mode]["entropy"].append(said["entropy"] / said["num"])
        self._metrics[mode]["mean_token_accuracy"].append(said["right"] / said["num"])
        if mode == "train":
            # As if every rank had as many: to add them up would make each wait for the others.
            self._total_train_tokens += packing["keep"].shape[0] * self.accelerator.num_processes
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return (loss, said) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One micro-batch forward and backward; where memory runs out, again in halves, to the same gradients.

        Gradients of the micro-batches before are kept apart meanwhile, so that a half-done backward leaves nothing. Of
        several processes none can go back alone, since the others wait for its gradients: there it raises ModelError,
        as it does where a single sample is too large.
        """
        size = inputs["input_ids"].shape[0]
        self._spare(model)
        while True:
            kept = _take_gradients(self._trained()) if self.accelerator.num_processes == 1 else {}
            tokens = self._total_train_tokens
            said_before = {name: list(said) for name, said in self._metrics["train"].items()}
            try:
                loss = self._step_in_parts(model, inputs, num_items_in_batch)
            except torch.OutOfMemoryError as error:
                _put_gradients(self._trained(), kept)
                # What was broken off may have been counted already.
                self._total_train_tokens = tokens
                self._metrics["train"].clear()
                self._metrics["train"].update(said_before)
                if self.accelerator.num_processes > 1 or self.parts >= size:
                    raise _out_of_memory(size, self.accelerator.num_processes) from error
            else:
                _add_gradients(self.model, kept)
                return loss
            self.parts *= 2
            gc.collect()
            torch.cuda.empty_cache()
            fewer = math.ceil(size / self.parts)
            self.tell(
                f"out of memory at step {self.state.global_step + 1} with {size} images at once: the step is done "
                f"again {fewer} at a time, and so are all after it; effective batch and gradients stay "
                f"(train.micro_batch={fewer} spares the second try)"
            )

    def _step_in_parts(self, model: Any, inputs: Any, num_items_in_batch: Any) -> torch.Tensor:
        with self._in_training(model), self._rounded():
            if self.parts == 1:
                return super().training_step(model, inputs, num_items_in_batch)
            total: Any = 0.0
            for part in split_batch(inputs, self.parts):
                total = total + super().training_step(model, part, num_items_in_batch)
            return total

    @contextlib.contextmanager
    def _rounded(self) -> Iterator[None]:
        """Inside, the adapter is rounded once to what it is computed in, as it is now."""
        dtype = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else None
        if self.quickened is None or dtype is None:
            yield
            return
        if self._copies is None:
            self._copies = Rounded(self.quickened.adapters, dtype)
        self._copies.now()
        try:
            yield
        finally:
            self._copies.forget()

    # transformers walks through all modules of the model five times in a micro-batch and its step. With as many
    # layers as a 7B model has, narrow ones, that was a quarter of a step's time on a CPU, under a profiler.

    def _trained(self) -> list[torch.nn.Parameter]:
        """All parameters that may have a gradient."""
        if self.optimizer is None:
            return [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _spare(self, model: Any) -> None:
        """Let the model's `zero_grad` visit what is trained alone, until `put_back`."""
        if "zero_grad" not in vars(model):
            vars(model)["zero_grad"] = self._drop_gradients
            self._spared = model

    @contextlib.contextmanager
    def _in_training(self, model: Any) -> Iterator[None]:
        """Inside, a model all of whose modules are in training mode is not put there again, one by one."""
        if self._modules is None or self._modules[0] is not model:
            self._modules = list(model.modules())
        # Each is looked at: a base model comes in evaluation mode under an adapter in training mode.
        if not all(module.training for module in self._modules):
            yield
            return
        vars(model)["train"] = lambda mode=True: model
        try:
            yield
        finally:
            del model.train

    def _drop_gradients(self, set_to_none: bool = True) -> None:
        for parameter in self._trained():
            parameter.grad = None

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._clip_grad_norm(model)
        return self.accelerator.clip_grad_norm_(self._trained(), self.args.max_grad_norm)

    @functools.cached_property
    def _num_counted(self) -> int:
        return int(self.model.num_parameters(exclude_embeddings=True))

    def floating_point_ops(self, inputs: Any) -> int:
        """transformers' estimate, with the parameters counted once."""
        return 6 * int(inputs["input_ids"].numel()) * self._num_counted

    def tell(self, line: str) -> None:
        """Say something to whoever watches the run."""
        print(line, flush=True)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of a step; the time that it takes to get them is kept."""
        began = time.perf_counter()
        found = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.waited_s += time.perf_counter() - began
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the rate of each tower to a row of the log; `learning_rate` is then the highest.

        `wait_share` is the part of the time since the row before in which the next images were waited for. What steps
        have left on the device is read here, as the mean over all processes.
        """
        for mode in self._metrics.values():
            for name, values in mode.items():
                if any(isinstance(value, torch.Tensor) for value in values):
                    mean = torch.stack([torch.as_tensor(value).float() for value in values]).mean()
                    mode[name] = [float(self.accelerator.reduce(mean, "mean"))]
        groups = self.optimizer.param_groups if self.optimizer is not None and "learning_rate" in logs else []
        towers = {group["tower"]: float(group["lr"]) for group in groups if "tower" in group}
        if "loss" in logs:
            now = time.perf_counter()
            logs["wait_share"] = round(self.waited_s / (now - self.logged_at), 4)
            self.waited_s, self.logged_at = 0.0, now
        if towers:
            logs["learning_rate"] = max(towers.values())
            logs.update({f"learning_rate_{tower}": rate for tower, rate in towers.items()})
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **more: Any) -> Any:
        """The losses of the validation samples, and behind the first step what `ask` makes of answers."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **more)
        if self.ask is not None and self.state.global_step:
            output.metrics.update({f"{metric_key_prefix}_{name}": one for name, one in self.ask(self).items()})
        return output

    def put_back(self, folder: str | Path) -> None:
        """The model with the weights saved in `folder`, and without the fast step: as it will be loaded."""
        if self.quickened is not None:
            self.quickened.undo()
            self.quickened = self._copies = None
        if self._spared is not None:
            del self._spared.zero_grad
            self._spared = self._modules = None
        put_back(self.model, Path(folder))

    def write_weights(self, folder: str | Path) -> None:
        """Put the trained weights of the base beside an adapter in `folder`."""
        write_weights(self.model, Path(folder))

    def read_weights(self, folder: str | Path) -> None:
        """Take the trained weights of the base from `folder`."""
        read_weights(self.model, Path(folder))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained; the trainer's own would first collect the whole base where FSDP2 has spread it."""
        if self.is_fsdp_enabled:
            self._save(output_dir, whole_adapter(self.model))
        else:
            super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        self.write_weights(output_dir or self.args.output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            # Of an adapter rank 0 alone would go into accelerate's broadcast, and wait there.
            read_adapter(self.model, Path(resume_from_checkpoint))
        else:
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


def _take_gradients(parameters: Sequence[Any]) -> dict[Any, torch.Tensor]:
    """The gradients so far, taken off the parameters."""
    kept = {p: p.grad for p in parameters if p.grad is not None}
    for parameter in kept:
        parameter.grad = None
    return kept


def _put_gradients(parameters: Sequence[Any], kept: Mapping[Any, torch.Tensor]) -> None:
    """Exactly those gradients, whatever a backward that was broken off has left."""
    for parameter in parameters:
        parameter.grad = kept.get(parameter)


def _add_gradients(model: Any, kept: Mapping[Any, torch.Tensor]) -> None:
    for parameter, before in kept.items():
        parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)


def _out_of_memory(size: int, num_ranks: int) -> ModelError:
    if num_ranks > 1:
        what = f"out of memory with {size} images at once, and one of {num_ranks} processes cannot go back alone"
        return ModelError(what, where="train.micro_batch", fix=f"train.micro_batch={max(1, size // 2)}, or memory_gb=")
    what = "out of memory with a single image"
    fix = "lower image.max_pixels, checkpointing=on, or split the images into tiles (data.tile)"
    return ModelError(what, where="train.micro_batch", fix=fix)
