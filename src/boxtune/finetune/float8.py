"""Frozen linear layers whose weights are float8, multiplied in float8: up to twice the rate of bf16 on Ada and Hopper.

Weights are scaled by row when the model is loaded; what comes in is scaled by row at each call (Micikevicius
et al., arXiv 2209.05433). Adapters on such a layer compute in the model's own precision.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from boxtune.errors import ConfigError
from boxtune.finetune.lora_linear import FLOAT8, frozen_linear, to_float8


class Float8Linear(torch.nn.Linear):
    """A linear layer (out, in) that is not trained; made from one, with its bias.

    The weight is kept as bytes: PEFT gives an adapter the dtype of a floating weight, and float8 would round it away.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        small, scale = to_float8(layer.weight.detach())
        self.weight = torch.nn.Parameter(small.view(torch.uint8), requires_grad=False)
        self.bias = layer.bias
        self.register_buffer("scale", scale, persistent=False)
        self.compute_dtype = layer.weight.dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out) in autocast's dtype, else the model's own."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.compute_dtype
        out: torch.Tensor = frozen_linear(
            x.to(dtype), self.weight.view(FLOAT8), [self.scale], self.bias, self.out_features
        )
        return out


STEP = 16
"""What both sides of a float8 matrix must be a multiple of on a GPU (torch._scaled_mm)."""


def fitting(model: Any, names: Collection[str]) -> list[str]:
    """Those of the layers that a GPU can multiply in float8; Qwen2.5-VL's vision tower has others, 3420 wide."""
    layers = {name: model.get_submodule(name) for name in names}
    return [name for name, m in layers.items() if m.in_features % STEP == 0 and m.out_features % STEP == 0]


def to_float8_layers(model: Any, names: Collection[str]) -> None:
    """Replace the linear layers of these names, one after the other, so that few are in memory twice."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        parent = model.get_submodule(owner)
        setattr(parent, leaf, Float8Linear(getattr(parent, leaf)))


def require_float8(device: torch.device) -> None:
    """Raises ConfigError where a GPU cannot multiply in float8; a CPU does it by way of fp32, for tests."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise ConfigError(
            f"quantization=fp8 needs a GPU of compute capability 8.9 or more, not {torch.cuda.get_device_name(device)}",
            where="quantization",
            fix="quantization=nf4",
        )
