"""Ways to break a healthy run silently, each a few lines on the parts of a trainer (see tests/toys.py).

`FAULTS` maps a name to what is done and to the checks that may name it: the cause is right where one of them fires.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from toys import Parts, build_model, healthy, with_lora
from transformers import TrainerCallback


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`change` breaks the parts that `healthy` makes; the firing of any of `checks` names the cause."""

    change: Callable[[Parts], None]
    checks: frozenset[str]
    healthy: Callable[[Path], Parts]


FAULTS: dict[str, Fault] = {}


def fault(
    *checks: str, of: Callable[..., Parts] = healthy
) -> Callable[[Callable[[Parts], None]], Callable[[Parts], None]]:
    """Register a way to break a run, with the checks whose firing names its cause."""

    def register(change: Callable[[Parts], None]) -> Callable[[Parts], None]:
        name = change.__name__.strip("_").replace("_", " ")
        FAULTS[name] = Fault(change=change, checks=frozenset(checks), healthy=of)
        return change

    return register


def lora(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


class At(TrainerCallback):
    """Does something at an event of the run: `At(on_step_end=lambda trainer_state, model: ...)`."""

    def __init__(self, **events: Callable[[Any, Any], None]) -> None:
        for name, what in events.items():
            setattr(self, name, self._bound(what))

    @staticmethod
    def _bound(what: Callable[[Any, Any], None]) -> Callable[..., None]:
        def call(args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            what(state, model)

        return call


# Nothing is trainable, or not what should be.


@fault("ledger.frozen")
def adapter_frozen_after_it_was_attached(parts: Parts) -> None:
    for parameter in parts.model.parameters():
        parameter.requires_grad = False


@fault("ledger.frozen")
def adapter_frozen_by_requires_grad_(parts: Parts) -> None:
    parts.model.requires_grad_(False)


@fault("ledger.frozen")
def prepared_a_second_time(parts: Parts) -> None:
    from peft import prepare_model_for_kbit_training

    parts.model = prepare_model_for_kbit_training(parts.model, use_gradient_checkpointing=False)


@fault("ledger.frozen")
def frozen_after_the_trainer_was_built(parts: Parts) -> None:
    parts.after.append(lambda trainer: trainer.model.requires_grad_(False))


@fault("ledger.frozen")
def adapter_loaded_for_inference(parts: Parts) -> None:
    from peft import PeftModel

    folder = f"{parts.arguments['output_dir']}/loaded"
    parts.model.save_pretrained(folder)
    parts.model = PeftModel.from_pretrained(build_model(), folder)


@fault("ledger.frozen")
def half_of_the_adapter_frozen(parts: Parts) -> None:
    for name, parameter in parts.model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad = False


@fault("ledger.frozen")
def one_layer_frozen(parts: Parts) -> None:
    for name, parameter in parts.model.named_parameters():
        if "layers.1." in name and "lora_" in name:
            parameter.requires_grad = False


@fault("ledger.unfrozen")
def base_unfrozen_too(parts: Parts) -> None:
    parts.model.get_base_model().lm_head.requires_grad_(True)


@fault("trainable.none")
def no_adapter_at_all(parts: Parts) -> None:
    parts.model = build_model().requires_grad_(False)


@fault("ledger.frozen", "adapter.used", "trainable.none")
def adapter_layers_disabled(parts: Parts) -> None:
    parts.model.base_model.disable_adapter_layers()


@fault("run.frozen")
def frozen_after_the_third_step(parts: Parts) -> None:
    def freeze(state: Any, model: Any) -> None:
        if state.global_step == 3:
            model.requires_grad_(False)

    parts.callbacks.append(At(on_step_end=freeze))


# The optimizer.


@fault("optimizer.missing", "optimizer.strange")
def optimizer_built_before_the_adapter(parts: Parts) -> None:
    base = build_model()
    optimizer = torch.optim.AdamW(base.parameters(), lr=5e-3)
    parts.model = with_lora(base)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


@fault("optimizer.missing")
def optimizer_without_half_of_it(parts: Parts) -> None:
    mine = [parameter for name, parameter in parts.model.named_parameters() if "lora_A" in name]
    optimizer = torch.optim.AdamW(mine, lr=5e-3)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


@fault("optimizer.missing", "optimizer.strange")
def parameters_replaced_after_the_optimizer(parts: Parts) -> None:
    mine = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(mine, lr=5e-3)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))

    def replace(trainer: Any) -> None:
        for module in trainer.model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and parameter.requires_grad:
                    module._parameters[name] = torch.nn.Parameter(parameter.detach().clone())

    parts.after.append(replace)


@fault("move.none", "move.size")
def optimizer_does_not_step(parts: Parts) -> None:
    class Idle(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:
            """Nothing."""

    mine = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    optimizer = Idle(mine, lr=5e-3)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


@fault("rate.zero")
def learning_rate_of_zero(parts: Parts) -> None:
    parts.arguments["learning_rate"] = 0.0


@fault("rate.zero", "rate.low")
def warm_up_longer_than_the_run(parts: Parts) -> None:
    parts.arguments["warmup_steps"] = 5000


@fault("rate.low")
def schedule_over_long_before_the_end(parts: Parts) -> None:
    mine = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(mine, lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 2))
    parts.optimizers = (optimizer, schedule)
    parts.arguments["max_steps"] = 40


@fault("move.none", "move.size")
def gradient_clipped_to_nothing(parts: Parts) -> None:
    parts.arguments["max_grad_norm"] = 1e-14


# The gradient.


def _loss(parts: Parts, make: Callable[[Any, Any], Any]) -> None:
    """Another compute_loss: `make(model, inputs)`."""

    def compute_loss(self: Any, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        loss = make(model, inputs)
        return (loss, {"loss": loss}) if return_outputs else loss

    parts.after.append(lambda trainer: setattr(trainer, "compute_loss", MethodType(compute_loss, trainer)))


def _on_forward(model: Any, change: Callable[[Any, Any, Any], Any], name: str) -> None:
    next(m for n, m in model.named_modules() if n.endswith(name)).register_forward_hook(change)


@fault("grad.layers")
def a_middle_layer_detached(parts: Parts) -> None:
    def detach(module: Any, given: Any, out: Any) -> Any:
        return tuple(part.detach() for part in out) if isinstance(out, tuple) else out.detach()

    _on_forward(parts.model, detach, "layers.1")


@fault("grad.none")
def forward_under_no_grad(parts: Parts) -> None:
    def without(model: Any, inputs: Any) -> Any:
        with torch.no_grad():
            return model(**inputs).loss.requires_grad_()

    _loss(parts, without)


@fault("grad.none")
def loss_made_anew_from_its_value(parts: Parts) -> None:
    _loss(parts, lambda model, inputs: torch.tensor(model(**inputs).loss.item(), requires_grad=True))


@fault("grad.zero")
def alpha_of_zero(parts: Parts) -> None:
    parts.model = with_lora(build_model(), lora_alpha=0)


@fault("grad.zero")
def loss_times_zero(parts: Parts) -> None:
    _loss(parts, lambda model, inputs: model(**inputs).loss * 0)


@fault("grad.zero", "grad.none", "grad.tensors")
def gradients_cleared_by_a_hook(parts: Parts) -> None:
    for parameter in lora(parts.model):
        parameter.register_hook(torch.zeros_like)


@fault("loss.finite", "grad.finite")
def loss_that_is_not_a_number(parts: Parts) -> None:
    _loss(parts, lambda model, inputs: model(**inputs).loss * float("nan"))


@fault("run.no_gradient")
def gradients_dropped_before_every_step(parts: Parts) -> None:
    def drop(state: Any, model: Any) -> None:
        for parameter in model.parameters():
            parameter.grad = None

    parts.callbacks.append(At(on_pre_optimizer_step=drop))


# Weights.


@fault("run.undone", "run.outside")
def weights_restored_after_each_step(parts: Parts) -> None:
    start = {name: p.detach().clone() for name, p in parts.model.named_parameters() if p.requires_grad}

    def restore(state: Any, model: Any) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in start:
                    parameter.copy_(start[name])

    parts.callbacks.append(At(on_step_end=restore))


@fault("move.lost")
def adapters_in_bf16_at_a_small_rate(parts: Parts) -> None:
    for parameter in lora(parts.model):
        parameter.data = parameter.data.bfloat16()
    parts.model.get_base_model().to(torch.bfloat16)
    parts.arguments["learning_rate"] = 1e-5


@fault("ledger.cast")
def adapters_cast_to_half(parts: Parts) -> None:
    parts.model = parts.model.to(torch.bfloat16)


@fault("move.frozen")
def base_weights_written_to_by_a_hook(parts: Parts) -> None:
    head = parts.model.get_base_model().lm_head.weight

    def write(module: Any, given: Any) -> None:
        if module.training:
            with torch.no_grad():
                head.mul_(0.999)

    parts.model.register_forward_pre_hook(write)


@fault("eval.raises")
def evaluation_that_raises_in_hours(parts: Parts) -> None:
    def compute_loss(self: Any, model: Any, inputs: Any, **_: Any) -> Any:
        return model(**inputs).loss

    parts.after.append(lambda trainer: setattr(trainer, "compute_loss", MethodType(compute_loss, trainer)))


@fault("loss.answers", "grad.none")
def another_model_makes_the_loss(parts: Parts) -> None:
    other = with_lora(build_model())
    _loss(parts, lambda model, inputs: other(**inputs).loss)


@fault("eval.blind", "run.eval_blind")
def adapter_disabled_in_evaluation(parts: Parts) -> None:
    def step(self: Any, model: Any, inputs: Any, only_loss: bool, *_: Any, **__: Any) -> Any:
        with torch.no_grad(), self.model.disable_adapter():
            return model(**inputs).loss, None, None

    parts.after.append(lambda trainer: setattr(trainer, "prediction_step", MethodType(step, trainer)))


@fault("save.same")
def trained_head_that_is_not_saved(parts: Parts) -> None:
    parts.model.get_base_model().lm_head.requires_grad_(True)
