"""What a recipe trains of which tower: LoRA on its linear layers, or its weights themselves; counted before it is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from boxtune.errors import ConfigError, ModelError
from boxtune.families import Family
from boxtune.finetune.quantization import tower_of
from boxtune.settings import AdapterSettings, Tower

Way = Literal["lora", "full"]

RECIPES: Mapping[str, Mapping[str, Way]] = {
    "language": {"language": "lora"},
    "vision": {"vision": "lora", "projector": "lora"},
    "joint": {"vision": "lora", "projector": "lora", "language": "lora"},
    "two_stage": {"vision": "lora", "projector": "lora", "language": "lora"},
    "full_vision": {"vision": "full", "projector": "full"},
    "full": {"vision": "full", "projector": "full", "language": "full"},
}
"""Adapter recipe -> what is trained of each tower; the others are frozen.

`two_stage` has the adapter of `joint`: in the first half of the optimizer steps that of vision and projector moves, in
the second half that of the language tower, each half with a schedule of its own.
"""


def full_towers(recipe: str | None) -> tuple[str, ...]:
    """The towers whose weights themselves are trained; these are kept out of the quantisation."""
    return tuple(tower for tower, way in RECIPES[recipe or "language"].items() if way == "full")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One row of what is trained: layers, or weights themselves, of one kind in one tower.

    `names` are linear layers for LoRA, parameters for weights; `quantised` is how many of the layers are in 4 or 8
    bits.
    """

    tower: str
    kind: str
    way: Way
    names: tuple[str, ...]
    num_parameters: int
    quantised: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained: PEFT's config for the LoRA part, and every target with its names and counts."""

    config: Any
    targets: tuple[Target, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The linear layers that LoRA sits on."""
        return tuple(name for target in self.targets if target.way == "lora" for name in target.names)

    @property
    def weights(self) -> tuple[str, ...]:
        """The parameters of the base that are trained themselves, by their names in the base."""
        return tuple(name for target in self.targets if target.way == "full" for name in target.names)

    @property
    def num_parameters(self) -> int:
        """How many parameters are trained in all."""
        return sum(target.num_parameters for target in self.targets)

    @property
    def tensor_names(self) -> frozenset[str]:
        """Names of the tensors in a PeftModel that are to be trained; exactly these."""
        adapter = {f"{PEFT}{layer}.lora_{side}.default.weight" for layer in self.layers for side in "AB"}
        return frozenset(adapter | {f"{PEFT}{name}" for name in self.weights})


PEFT = "base_model.model."
"""What a PeftModel puts before the names of its base."""


def plan_adapter(model: Any, family: Family, settings: AdapterSettings) -> Plan:
    """What the recipe trains of this base model, counted from the model and not from PEFT.

    Raises ModelError where a tower or kind of layer that the recipe wants matches nothing, or matches a layer of
    another tower: patterns that miss or reach too far are how adapters silently end up on the wrong part of a model.
    """
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    assert settings.recipe and settings.r and settings.alpha is not None and settings.dropout is not None
    targets: list[Target] = []
    patterns: list[str] = []
    for tower, way in RECIPES[settings.recipe].items():
        if way == "full":
            targets += _weights_of(model, family, tower, settings.recipe)
            continue
        kinds = ("attention", "mlp") if settings.target == "all" else (settings.target,)
        # A tower may have no linear layer at all, as Gemma 3's projector.
        here = {kind: pattern for kind, pattern in family.adapted.get(tower, {}).items() if kind in kinds}
        targets += [_layers_of(model, family, tower, kind, here[kind], settings.r) for kind in here]
        patterns += here.values()
    if not targets:
        raise ModelError(
            f"there is no linear layer that adapter.recipe={settings.recipe} with target={settings.target} would adapt",
            where=f"families/{family.name}",
            fix="take another recipe, or leave adapter.target away",
        )
    towers = {target.tower for target in targets}
    if settings.recipe == "two_stage" and ("language" not in towers or len(towers) < 2):
        raise ModelError(
            f"adapter.recipe=two_stage has one stage only: it would adapt nothing but {', '.join(towers)}",
            where=f"families/{family.name}",
            fix="take adapter.recipe=language or vision",
        )
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # PEFT's own word for an adapter without layers: then only weights of the base are trained.
        target_modules="|".join(patterns) or DUMMY_TARGET_MODULES,
        bias="none",
        task_type="SEQ_2_SEQ_LM" if family.encoder_decoder else "CAUSAL_LM",
    )
    return Plan(config=config, targets=tuple(targets))


def _layers_of(model: Any, family: Family, tower: str, kind: str, pattern: str, r: int) -> Target:
    layers = {name: layer for name, layer in _linear_layers(model) if re.fullmatch(pattern, name)}
    where = f"families/{family.name}"
    if not layers:
        raise ModelError(
            f"no linear layer of this model matches {pattern!r}, the {kind} layers of the {tower} tower",
            where=where,
            fix="the model's modules are named otherwise in this transformers; report the two versions",
        )
    for name in layers:
        if (other := tower_of(f"{name}.weight", family)) != tower:
            raise ModelError(
                f"{pattern!r}, the {kind} layers of the {tower} tower, also matches {name} of the {other} tower",
                where=where,
                fix="make the pattern narrower",
            )
    return Target(
        tower=tower,
        kind=kind,
        way="lora",
        names=tuple(layers),
        num_parameters=sum(r * (layer.in_features + layer.out_features) for layer in layers.values()),
        quantised=sum(_is_quantised(layer.weight) for layer in layers.values()),
    )


def _weights_of(model: Any, family: Family, tower: str, recipe: str) -> list[Target]:
    """The tower's parameters in three rows: of its attention, of its other linear layers, all others."""
    linear = {f"{name}.weight": layer for name, layer in _linear_layers(model)}
    rows: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, parameter in model.named_parameters():
        if tower_of(name, family) == tower:
            kind = "other" if name not in linear else "attention" if "attn" in name or "attention" in name else "mlp"
            rows[kind][name] = parameter
    if not rows:
        raise ModelError(f"no parameter of this model belongs to the {tower} tower", where=f"families/{family.name}")
    packed = [name for row in rows.values() for name, parameter in row.items() if _is_quantised(parameter)]
    if packed:
        raise ModelError(
            f"{len(packed)} weights of the {tower} tower are quantised and cannot be trained themselves",
            where=packed[0],
            fix="quantization=none" if recipe == "full" else "load the model with this tower kept out of it",
        )
    return [
        Target(
            tower=tower,
            kind=kind,
            way="full",
            names=tuple(row),
            num_parameters=sum(parameter.numel() for parameter in row.values()),
            quantised=0,
        )
        for kind, row in rows.items()
    ]


def _is_quantised(parameter: Any) -> bool:
    return not parameter.dtype.is_floating_point


def _linear_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Every layer with in_features and out_features; bitsandbytes' quantised ones keep both."""
    for name, module in model.named_modules():
        if hasattr(module, "in_features") and hasattr(module, "out_features"):
            yield name, module


def require_rates(plan: Plan, rate: float | Mapping[Tower, float] | None) -> None:
    """Raises ConfigError unless learning rates by tower are those of the towers that are trained."""
    trained = sorted({target.tower for target in plan.targets})
    if isinstance(rate, Mapping) and sorted(rate) != trained:
        raise ConfigError(
            f"there are learning rates for {', '.join(sorted(rate))}; trained are {', '.join(trained)}",
            where="train.learning_rate",
            fix=f"give one for each of: {', '.join(trained)}; or another adapter.recipe",
        )


def targets_table(plan: Plan) -> str:
    """What is trained, as a table: tower, kind, way, number of layers or tensors, one of them, parameters, 4 bits."""
    rows = [["tower", "layers", "trained", "how many", "for example", "parameters", "base in 4 or 8 bits"]]
    for target in plan.targets:
        held = "-" if target.way == "full" else f"{target.quantised} of {len(target.names)}"
        way = "LoRA" if target.way == "lora" else "weights in fp32"
        count = f"{target.num_parameters:,}"
        rows.append([target.tower, target.kind, way, str(len(target.names)), target.names[0], count, held])
    rows.append(["all", "", "", "", "", f"{plan.num_parameters:,}", ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = (3, 5)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def free_weights(model: Any, plan: Plan) -> None:
    """Make the plan's weights of the base trainable on a PeftModel, which freezes all of its base when it is made."""
    parameters = dict(model.named_parameters())
    for name in plan.weights:
        parameters[f"{PEFT}{name}"].requires_grad_(True)


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
