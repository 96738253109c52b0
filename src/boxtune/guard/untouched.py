"""A trainer as it was: whatever is tried inside leaves no trace in weights, optimizer, random state or data order."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import torch

_PLAIN = (int, float, str, bool, bytes, type(None))
_HOLDERS = (dict, list, tuple, set, defaultdict, deque, Counter)
MOST_KEPT = 100_000
"""Plain values of one attribute of the trainer beyond which it is taken to be data, and left alone."""


def random_state() -> dict[str, Any]:
    """The state of every global generator: python, numpy where it is used, torch on the CPU and on each GPU."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put every generator back."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        sys.modules["numpy"].random.set_state(state["numpy"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


class Aside:
    """What even an evaluation changes: modes, the random state, the trainer's counters; `put_back` restores it."""

    def __init__(self, trainer: Any, model: torch.nn.Module) -> None:
        self.trainer = trainer
        self.modes = [(module, module.training) for module in model.modules()]
        self.random = random_state()
        self.counters = {
            name: copy.deepcopy(value) for name, value in vars(trainer).items() if _is_plain(value, [MOST_KEPT])
        }
        self.state = copy.deepcopy(vars(trainer.state))
        self.control = copy.copy(vars(trainer.control))

    def put_back(self) -> None:
        """Everything as it was."""
        for module, training in self.modes:
            module.training = training
        for name, value in self.counters.items():
            setattr(self.trainer, name, value)
        vars(self.trainer.state).update(self.state)
        vars(self.trainer.control).update(self.control)
        set_random_state(self.random)


class Kept:
    """Copies of everything that training steps change, taken now; `put_back` is exact to the bit.

    Copied are the parameters that are trainable or held by the optimizer, all buffers, the optimizer's state, the
    gradient scaler, modes, gradients, the random state, and the trainer's own counters. Frozen weights are not copied
    (they may fill the card): `frozen_moved` compares their sums instead.
    """

    def __init__(self, trainer: Any, model: torch.nn.Module) -> None:
        self.trainer = trainer
        self.optimizer = bare_optimizer(trainer.optimizer)
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]} if self.optimizer else set()
        self.weights: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.sums: dict[str, tuple[torch.Tensor, int]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad or id(parameter) in held:
                self.weights[name] = (parameter, parameter.detach().clone())
            else:
                self.sums[name] = (parameter, weight_sum(parameter))
        self.buffers = {name: (b, b.detach().clone()) for name, b in model.named_buffers() if b is not None}
        self.aside = Aside(trainer, model)
        self.grads = [(p, p.grad) for p in model.parameters()]
        if self.optimizer is not None:
            self.fresh = not self.optimizer.state
            self.optimizer_state = None if self.fresh else copy.deepcopy(self.optimizer.state_dict())
            self.groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
            self.groups = [{k: v.clone() if torch.is_tensor(v) else v for k, v in g.items()} for g in self.groups]
            self.opt_called = getattr(self.optimizer, "_opt_called", None)
        scaler = getattr(trainer.accelerator, "scaler", None)
        self.scaler = None if scaler is None else (scaler, copy.deepcopy(vars(scaler)))
        self.sync = trainer.accelerator.gradient_state.sync_gradients

    def frozen_moved(self) -> list[str]:
        """Names of frozen weights that are not what they were."""
        return [name for name, (parameter, total) in self.sums.items() if weight_sum(parameter) != total]

    def put_back(self) -> None:
        """Everything as it was."""
        with torch.no_grad():
            for parameter, value in (*self.weights.values(), *self.buffers.values()):
                parameter.data.copy_(value)
        for parameter, grad in self.grads:
            parameter.grad = grad
        if self.optimizer is not None:
            if self.fresh:
                self.optimizer.state.clear()
            else:
                self.optimizer.load_state_dict(self.optimizer_state)
            for group, values in zip(self.optimizer.param_groups, self.groups, strict=True):
                group.update(values)
            if self.opt_called is not None:
                self.optimizer._opt_called = self.opt_called
        if self.scaler is not None:
            vars(self.scaler[0]).update(self.scaler[1])
        self.trainer.accelerator.gradient_state._set_sync_gradients(self.sync)
        self.aside.put_back()


def bare_optimizer(optimizer: Any) -> Any:
    """torch's own optimizer inside what accelerate wraps round it."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


_AS_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weight_sum(parameter: torch.Tensor) -> int:
    """The sum of a tensor's bits read as whole numbers: exact, so that no single change is rounded away."""
    data = parameter.detach()
    if data.device.type == "meta" or not data.numel():
        return 0
    return int(data.contiguous().view(_AS_WHOLE[data.element_size()]).sum(dtype=torch.int64))


def _is_plain(value: Any, room: list[int]) -> bool:
    room[0] -= 1
    if room[0] < 0:
        return False
    if isinstance(value, _PLAIN):
        return True
    if type(value) not in _HOLDERS:
        return False
    if isinstance(value, dict):
        return all(_is_plain(k, room) and _is_plain(v, room) for k, v in value.items())
    return all(_is_plain(item, room) for item in value)


@contextlib.contextmanager
def unpacked(model: torch.nn.Module) -> Iterator[None]:
    """bitsandbytes' 4-bit layers without their inference layout, which on some CPUs has no backward and is not undone
    exactly (MEASURED: bitsandbytes 0.49 and 0.50 on CPUs with AVX512-BF16)."""
    layers = [module for module in model.modules() if getattr(module, "support_avx512bf16_for_cpu", False)]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    try:
        yield
    finally:
        for layer in layers:
            layer.support_avx512bf16_for_cpu = True
