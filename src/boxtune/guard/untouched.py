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
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put every generator back."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        sys.modules["numpy"].random.set_state(state["numpy"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


class Aside:
    """What even an evaluation changes: modes, what is trainable, the random state, the trainer's counters.

    `put_back` restores it in place, so that whoever holds one of the trainer's lists still holds it.
    """

    def __init__(self, trainer: Any, model: torch.nn.Module) -> None:
        self.trainer = trainer
        self.modes = [(module, module.training) for module in model.modules()]
        # PEFT makes every adapter trainable when it is switched on again.
        self.flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self.random = random_state()
        self.generators = _generators(trainer.data_collator, trainer.train_dataset, trainer.eval_dataset)
        self.counters = {
            name: (value, copy.deepcopy(value))
            for name, value in vars(trainer).items()
            if name not in ("train_dataset", "eval_dataset") and _is_plain(value, [MOST_KEPT])
        }
        self.state = copy.deepcopy(vars(trainer.state))
        self.control = copy.copy(vars(trainer.control))
        self.loaders = list(getattr(trainer.accelerator, "_dataloaders", ()))

    def put_back(self) -> None:
        """Everything as it was."""
        for module, training in self.modes:
            module.training = training
        for parameter, trainable in self.flags:
            if parameter.requires_grad != trainable:
                parameter.requires_grad_(trainable)
        for name, (value, kept) in self.counters.items():
            if getattr(self.trainer, name, None) is value and isinstance(value, (dict, list, set, deque)):
                value.clear()
                value.update(kept) if isinstance(value, (dict, set)) else value.extend(kept)
            else:
                setattr(self.trainer, name, kept)
        vars(self.trainer.state).update(self.state)
        vars(self.trainer.control).update(self.control)
        if hasattr(self.trainer.accelerator, "_dataloaders"):
            # Loaders of the guard's own would keep their worker processes for the whole run.
            self.trainer.accelerator._dataloaders[:] = self.loaders
        for generator, state in self.generators:
            _set_generator(generator, state)
        set_random_state(self.random)


def _generators(*holders: Any) -> list[tuple[Any, Any]]:
    """Random generators of their own that a collator or a data set holds, with their states."""
    found = []
    for holder in holders:
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            if isinstance(value, torch.Generator):
                found.append((value, value.get_state()))
            elif isinstance(value, random.Random):
                found.append((value, value.getstate()))
            elif type(value).__module__.startswith("numpy.random") and hasattr(value, "bit_generator"):
                found.append((value, copy.deepcopy(value.bit_generator.state)))
    return found


def _set_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


class Kept:
    """Copies of everything that training steps change, taken now; `put_back` is exact to the bit.

    Copied are the parameters that are trainable or held by the optimizer, all buffers, the optimizer's state, the
    gradient scaler, gradients, and what `Aside` keeps. Frozen weights are not copied (they may fill the card):
    `frozen_moved` compares their sums instead. Not seen is what an optimizer keeps outside of its `state` (others that
    it is made of, hooks).
    """

    def __init__(self, trainer: Any, model: torch.nn.Module) -> None:
        self.trainer = trainer
        self.optimizer = bare_optimizer(trainer.optimizer)
        held = [p for group in self.optimizer.param_groups for p in group["params"]] if self.optimizer else []
        mine = {id(parameter) for parameter in held}
        self.weights: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.sums: dict[str, tuple[torch.Tensor, int]] = {}
        known = set()
        for name, parameter in model.named_parameters():
            known.add(id(parameter))
            if parameter.requires_grad or id(parameter) in mine:
                self.weights.append((parameter, parameter.detach().clone()))
            else:
                self.sums[name] = (parameter, weight_sum(parameter))
        # A loss with weights of its own, say.
        self.weights += [(p, p.detach().clone()) for p in held if id(p) not in known]
        self.buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self.aside = Aside(trainer, model)
        self.grads = [(p, p.grad) for p in [*model.parameters(), *held]]
        if self.optimizer is not None:
            # The very tensors go on being used, with what they held.
            self.optimizer_state = {
                parameter: (state, {key: (value, copy.deepcopy(value)) for key, value in state.items()})
                for parameter, state in self.optimizer.state.items()
            }
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
            for parameter, value in self.weights:
                parameter.data.copy_(value)
            for module, name, buffer, value in self.buffers:
                buffer.data.copy_(value)
                module._buffers[name] = buffer
        for parameter, grad in self.grads:
            parameter.grad = grad
        if self.optimizer is not None:
            for parameter in [key for key in self.optimizer.state if key not in self.optimizer_state]:
                del self.optimizer.state[parameter]
            for state, kept in self.optimizer_state.values():
                state.clear()
                for key, (value, copied) in kept.items():
                    state[key] = value.copy_(copied) if torch.is_tensor(value) else copied
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
CHUNK = 1 << 20
"""Whole numbers that are summed at a time: eight bytes each lie beside the weights meanwhile."""


def weight_sum(parameter: torch.Tensor) -> int:
    """The sum of a tensor's bits read as whole numbers, each times an odd number of its place, modulo 2^64.

    Exact, so that no single change is rounded away, and opposite changes do not cancel.
    """
    data = parameter.detach()
    if data.device.type == "meta" or not data.numel():
        return 0
    flat = data.contiguous().reshape(-1)
    wide = flat.numel() * flat.element_size() % 8 == 0
    bits = flat.view(torch.int64) if wide else flat.view(_AS_WHOLE[flat.element_size()])
    places = 2 * torch.arange(min(CHUNK, bits.numel()), device=bits.device) + 1
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for number, chunk in enumerate(bits.split(CHUNK)):
        total += (2 * number + 1) * (chunk.to(torch.int64) * places[: chunk.numel()]).sum()
    return int(total)


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
