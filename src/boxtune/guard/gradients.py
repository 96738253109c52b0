"""Whether the gradient of each step is finite, without the host waiting for the device to say so.

A step that is not must be left out, and to ask whether it is drains the device's queue in every step. torch's fused
optimizers leave a step out by themselves where a number on the device says so (`found_inf`, made for fp16's gradient
scaler), so that it is enough to hear of it a step later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Late:
    """The norm of the gradient of optimizer step `step` (the first is 1), on its way to the host."""

    step: int
    norm: torch.Tensor
    arrived: torch.cuda.Event | None

    def read(self) -> float:
        """The norm; waits for that step alone, not for what the device was given since."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return float(self.norm)


class Gradients:
    """The norm over all gradients of a step: at once, or with the next step where the optimizer can wait."""

    def __init__(self) -> None:
        self.late: Late | None = None
        self._told: Any = None

    def measure(self, trainable: Mapping[str, torch.nn.Parameter], optimizer: Any, step: int, late: bool) -> float:
        """The norm of the gradients of `trainable`, 0 where there are none.

        If it may be `late` and can be, it is NaN until `self.late` is read, and the optimizer is told to leave the
        step out if it must; `stepped` is to be called behind the optimizer's step.
        """
        self.stepped()  # of a step that was broken off
        total = _norm([parameter.grad.detach() for parameter in trainable.values() if parameter.grad is not None])
        inner = getattr(optimizer, "optimizer", optimizer)
        if total is None or not (late and _drains(total.device) and _leaves_out(inner)):
            return 0.0 if total is None else float(total)
        inner.found_inf, self._told = (~total.isfinite()).float(), inner
        arrived = None
        norm = total.to("cpu", non_blocking=True)
        if total.is_cuda:
            arrived = torch.cuda.Event()
            arrived.record()
        self.late = Late(step=step, norm=norm, arrived=arrived)
        return float("nan")

    def stepped(self) -> None:
        """The optimizer has stepped: it is as it was before."""
        if self._told is not None:
            del self._told.found_inf
            self._told = None


def _norm(grads: list[torch.Tensor]) -> torch.Tensor | None:
    """The norm in fp32, on the device of the first: a model may be spread over several."""
    if not grads:
        return None
    each = [norm.float() for norm in torch._foreach_norm(grads)]
    return torch.stack([norm.to(each[0].device) for norm in each]).norm()


def _drains(device: torch.device) -> bool:
    """Whether reading a number waits for a queue."""
    return device.type == "cuda"


def _leaves_out(optimizer: Any) -> bool:
    """Whether it is one of torch's that read `found_inf`, and no gradient scaler has told it one."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and not hasattr(optimizer, "found_inf")
