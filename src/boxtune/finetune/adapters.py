"""LoRA on the towers that a recipe names: what PEFT is asked for, and how many parameters must come of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from boxtune.errors import ModelError
from boxtune.families import Family
from boxtune.settings import AdapterSettings

RECIPES = {
    "language": ("language",),
    "vision": ("vision", "projector"),
    "joint": ("vision", "projector", "language"),
}
"""Adapter recipe -> the towers whose linear layers get an adapter."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the adapter must be: PEFT's config, the layers it sits on, and its number of parameters."""

    config: Any
    layers: tuple[str, ...]
    num_parameters: int

    @property
    def tensor_names(self) -> frozenset[str]:
        """Names of the adapter's tensors in a PeftModel; exactly these are to be trained."""
        return frozenset(
            f"base_model.model.{layer}.lora_{side}.default.weight" for layer in self.layers for side in "AB"
        )


def plan_adapter(model: Any, family: Family, settings: AdapterSettings) -> Plan:
    """The LoRA config for a base model, with the layers it must match, counted from the model and not from PEFT.

    Raises ModelError where a tower or kind of layer that the recipe wants matches nothing: a pattern that misses is
    how adapters silently end up on half of a model.
    """
    from peft import LoraConfig

    assert settings.recipe and settings.r and settings.alpha is not None and settings.dropout is not None
    kinds = ("attention", "mlp") if settings.target == "all" else (settings.target,)
    patterns = []
    for tower in RECIPES[settings.recipe]:
        for kind, pattern in family.adapted[tower].items():
            if kind not in kinds:
                continue
            if not any(re.fullmatch(pattern, name) for name, _ in _linear_layers(model)):
                raise ModelError(
                    f"no linear layer of this model matches {pattern!r}, the {kind} layers of the {tower} tower",
                    where=f"families/{family.name}",
                    fix="the model's modules are named otherwise in this transformers; report the two versions",
                )
            patterns.append(pattern)
    wanted = "|".join(patterns)
    layers = [(name, layer) for name, layer in _linear_layers(model) if re.fullmatch(wanted, name)]
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=wanted,
        bias="none",
        task_type="CAUSAL_LM",
    )
    sizes = sum(settings.r * (layer.in_features + layer.out_features) for _, layer in layers)
    return Plan(config=config, layers=tuple(name for name, _ in layers), num_parameters=sizes)


def _linear_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Every layer with in_features and out_features; bitsandbytes' quantised ones keep both."""
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            yield name, module


def keep_fp32(model: Any) -> int:
    """Cast every trainable parameter to fp32 and say how many tensors needed it.

    TRL 1.16 casts the adapter of a quantised model to bf16, where AdamW loses small updates: at a learning rate of
    1e-5 only a quarter of the elements moves in a step. `.data` keeps each Parameter what it is, so this may run
    after the trainer is built. To go when TRL has a way to ask for fp32 (huggingface/peft#2889).
    """
    import torch

    cast = 0
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
            cast += 1
    return cast
