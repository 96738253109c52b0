"""A few real training steps on fixed batches: which tensors get a gradient, which move, and by how much.

The steps are the trainer's own `training_step`, its own clipping threshold and its own optimizer, at the highest
learning rate that its schedule reaches (the first step of a warm-up is made at 0). Whoever calls this has taken a
`Kept` before and puts it back after.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from boxtune.guard.batches import copy_of, num_supervised
from boxtune.guard.towers import Towers
from boxtune.guard.untouched import bare_optimizer

RATE_WITHOUT = 1e-4
"""Learning rate of the steps where the schedule has none: that is a finding of its own, and hides no other."""
LARGEST_SAMPLE = 1 << 22
"""Elements of one tensor that are compared; of a larger one an evenly spread part."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """One trainable tensor after the steps.

    `grad_norms` by step, None where there was no gradient; `with_grad` the share of its elements that had one in any
    step; `moved` the share of those that are not what they were; `update` the root mean square of the change, and
    `size` that of the tensor before.
    """

    name: str
    tower: str
    num: int
    dtype: str
    grad_norms: tuple[float | None, ...]
    with_grad: float
    moved: float
    update: float
    size: float

    @property
    def has_grad(self) -> bool:
        """Whether any step gave it a gradient that is not zero throughout."""
        return any(norm is not None and norm != 0 for norm in self.grad_norms)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the steps showed.

    `losses_*` are of the fixed batches with dropout off, before and after; `evaluated_*` what the trainer's evaluation
    says of its own first batch, None where it says no loss, and `direct_*` what the model's own loss of that batch is;
    `noise` is how much two readings of the first batch, with the same weights, differ.
    """

    tensors: Sequence[Moved]
    losses_before: Sequence[float]
    losses_after: Sequence[float]
    evaluated_before: float | None
    evaluated_after: float | None
    direct_before: float
    direct_after: float
    noise: float
    train_losses: Sequence[float]
    peak_rates: Sequence[float]
    num_steps: int
    evaluation_raises: str = ""


def peak_rates(optimizer: Any, scheduler: Any, num_steps: int) -> tuple[list[float], list[float]]:
    """For each group of the optimizer the highest learning rate of the whole run, and the mean.

    From the schedule's own function where it has one (all of transformers' have); else the rate that is set now, or
    what the group began with.
    """
    groups = bare_optimizer(optimizer).param_groups
    while hasattr(scheduler, "scheduler"):
        scheduler = scheduler.scheduler
    lambdas = getattr(scheduler, "lr_lambdas", None)
    if not lambdas:
        rates = [max(float(group["lr"]), float(group.get("initial_lr", 0.0))) for group in groups]
        return rates, rates
    every = max(1, num_steps // 2000)
    steps = sorted({*range(0, max(1, num_steps), every), max(0, num_steps - 1)})
    factors = [[function(step) for step in steps] for function in lambdas]
    base = [float(rate) for rate in scheduler.base_lrs]
    highest = [rate * max(factor) for rate, factor in zip(base, factors, strict=True)]
    return highest, [rate * sum(factor) / len(factor) for rate, factor in zip(base, factors, strict=True)]


def loss_of(trainer: Any, batch: Mapping[str, Any]) -> float:
    """The trainer's own loss of a batch, dropout off, no gradient kept."""
    # The bare model: a wrapper round it would wait for the other processes.
    model = trainer.model
    model.eval()
    counts = {}
    if getattr(trainer, "compute_loss_func", None) is not None:
        # A loss of the user's own may divide by it.
        counts["num_items_in_batch"] = torch.tensor(num_supervised(batch), device=trainer.args.device)
    with torch.no_grad(), trainer.compute_loss_context_manager(), autocast_of(trainer):
        return float(trainer.compute_loss(model, copy_of(batch), **counts).detach().float().mean())


class StepRaised(Exception):
    """A training step itself raised, as the run's own first step would; `error` is what it raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def autocast_of(trainer: Any) -> Any:
    """The mixed precision of the run, for calls of the bare model."""
    return trainer.accelerator.autocast()


def evaluated_loss(trainer: Any, batch: Mapping[str, Any]) -> tuple[float | None, str]:
    """The loss that the trainer's evaluation finds for a batch, and what it raises, if it does."""
    trainer.model_wrapped.eval()
    try:
        loss = trainer.prediction_step(trainer.model_wrapped, copy_of(batch), True)[0]
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    return None if loss is None else float(loss.detach().float().mean()), ""


def run_probe(
    trainer: Any,
    batches: Sequence[Mapping[str, Any]],
    towers: Towers,
    *,
    eval_batch: Mapping[str, Any] | None = None,
    num_steps: int = 2,
) -> Probed:
    """`num_steps` steps on all the batches each; the weights stay where they lead. `eval_batch` is the trainer's own
    first batch of its evaluation, where it has one.

    Raises StepRaised where a training step does.
    """
    held_out = batches[0] if eval_batch is None else eval_batch
    model = trainer.model_wrapped
    optimizer = bare_optimizer(trainer.optimizer)
    trainable = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    start = {name: _sample(p.detach()).clone() for name, p in trainable.items()}
    had = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in start.items()}
    norms: dict[str, list[float | None]] = {name: [] for name in trainable}
    highest, _ = peak_rates(trainer.optimizer, trainer.lr_scheduler, trainer.state.max_steps)
    if not any(highest):
        highest = [RATE_WITHOUT] * len(highest)

    before = [loss_of(trainer, batch) for batch in batches]
    noise = abs(loss_of(trainer, batches[0]) - before[0])
    direct = loss_of(trainer, held_out)
    evaluated, raises = evaluated_loss(trainer, held_out)
    train_losses = []
    for _ in range(num_steps):
        train_losses.append(sum(_backward(trainer, model, batches, trainable.values())))
        for name, parameter in trainable.items():
            grad = parameter.grad
            norms[name].append(None if grad is None else float(grad.detach().float().norm()))
            if grad is not None:
                had[name] |= _sample(grad.detach()) != 0
        limit = trainer.args.max_grad_norm
        if limit and limit > 0:
            torch.nn.utils.clip_grad_norm_(list(trainable.values()), limit)
        for group, rate in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = rate if not torch.is_tensor(group["lr"]) else group["lr"].fill_(rate)
        if all(math.isfinite(norm) for each in norms.values() for norm in each if norm is not None):
            optimizer.step()
        model.zero_grad()
    tensors = []
    for name, parameter in trainable.items():
        now, then = _sample(parameter.detach()), start[name]
        difference = now.float() - then.float()
        num_had = int(had[name].sum())
        tensors.append(
            Moved(
                name=name,
                tower=towers.of(name),
                num=parameter.numel(),
                dtype=str(parameter.dtype).removeprefix("torch."),
                grad_norms=tuple(norms[name]),
                with_grad=num_had / max(1, then.numel()),
                moved=int(((now != then) & had[name]).sum()) / max(1, num_had),
                update=float(difference.square().mean().sqrt()),
                size=float(then.float().square().mean().sqrt()),
            )
        )
    return Probed(
        tensors=tensors,
        losses_before=before,
        losses_after=[loss_of(trainer, batch) for batch in batches],
        evaluated_before=evaluated,
        evaluated_after=evaluated_loss(trainer, held_out)[0],
        direct_before=direct,
        direct_after=loss_of(trainer, held_out),
        noise=noise,
        train_losses=train_losses,
        peak_rates=highest,
        num_steps=num_steps,
        evaluation_raises=raises,
    )


def _backward(trainer: Any, model: Any, batches: Sequence[Mapping[str, Any]], trainable: Any) -> list[float]:
    """A step's gradients, unscaled. In fp16 the scale is halved until they fit, as the scaler does over steps."""
    scaler = getattr(trainer.accelerator, "scaler", None)
    while True:
        model.zero_grad()
        losses = train_on(trainer, model, batches)
        if scaler is None or not scaler.is_enabled():
            return losses
        finite = all(bool(p.grad.isfinite().all()) for p in trainable if p.grad is not None)
        if finite or scaler.get_scale() <= 1:
            for parameter in trainable:
                if parameter.grad is not None:
                    parameter.grad.div_(scaler.get_scale())
            return losses
        scaler.update(scaler.get_scale() / 2)


def train_on(trainer: Any, model: Any, batches: Sequence[Mapping[str, Any]]) -> list[float]:
    """Forward and backward of each batch, as parts of one optimizer step; their losses."""
    trainer.current_gradient_accumulation_steps = len(batches)
    counts = {}
    # TRL's trainers hand on whatever they get.
    told = inspect.signature(trainer.training_step).parameters.values()
    if any(one.name == "num_items_in_batch" or one.kind is one.VAR_KEYWORD for one in told):
        number = count_items(trainer, batches)
        counts = {} if number is None else {"num_items_in_batch": number}
    losses = []
    for place, batch in enumerate(batches):
        trainer.accelerator.gradient_state._set_sync_gradients(place == len(batches) - 1)
        try:
            loss = trainer.training_step(model, copy_of(batch), **counts)
        except torch.OutOfMemoryError:
            # The copies of the probe may be what is too much.
            raise
        except Exception as error:
            raise StepRaised(error) from error
        losses.append(float(loss.detach().float().mean()))
    return losses


def count_items(trainer: Any, batches: Sequence[Mapping[str, Any]]) -> Any:
    """What the trainer divides the loss of these batches by, None where it does not."""
    get = getattr(trainer, "get_batch_samples", None)
    if get is None:
        return None
    more = (trainer.args.device,) if "device" in inspect.signature(get).parameters else ()
    return get(iter(batches), len(batches), *more)[1]


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.reshape(-1)
    return flat if flat.numel() <= LARGEST_SAMPLE else flat[:: -(-flat.numel() // LARGEST_SAMPLE)]
