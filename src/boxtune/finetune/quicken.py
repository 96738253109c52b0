"""The fast step, put on a trainer's model in pieces, and taken off again.

1. linear layers with LoRA, and frozen quantised ones, go through one operator each (`lora_linear`), and patches of
   images are embedded by a matrix product;
2. attention keeps samples apart in one row without padding (`attention`);
3. while training the layers of both towers are compiled, one graph for all layers of a kind and all lengths
   (`torch.compile`); evaluations, whose graphs would be others, go without;
4. the forward scores packed batches (`scoring`), and the last layer works only where that looks.

Every piece leaves names, parameters and what is saved as they are. What they bring stands in docs/speed.md.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
import torch.nn.functional as F
from torch._dynamo import maybe_mark_dynamic
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from boxtune.families import Family
from boxtune.finetune import lora_linear as lora_linear_module
from boxtune.finetune.attention import NAME, register_attention
from boxtune.finetune.features import Features
from boxtune.finetune.float8 import Float8Linear
from boxtune.finetune.lora_linear import BLOCK, OUTER_BLOCK, frozen_linear, lora_linear, stored
from boxtune.finetune.quantization import tower_of
from boxtune.finetune.scoring import install_scoring

ADAPTER = "default"
"""PEFT's name for the one adapter that TRL attaches."""


@dataclass(frozen=True, kw_only=True)
class Quickened:
    """What was put on a model: how many layers of which kind, and how all of it is taken off.

    `adapters` are A and B of the `lora_layers`, which a trainer may have rounded together (`lora_linear.Rounded`).
    """

    lora_layers: int
    adapters: tuple[torch.nn.Parameter, ...]
    frozen_layers: int
    compiled_layers: int
    packs: bool
    undo: Callable[[], None]


def quicken(
    model: Any, *, packs: bool, compiled: bool, linears: bool = True, features: Features | None = None
) -> Quickened:
    """Put the fast step on a PeftModel. `packs`: its family can lay samples in one row; only then are layers compiled.

    Without `linears` the linear layers stay PEFT's. `features` keep what a frozen vision tower makes of images.

    Layers that the operators do not know (8 bits, other adapters than plain LoRA) stay as they are.
    """
    undos: list[Callable[[], None]] = []
    lora, frozen = _quicken_linears(model, undos) if linears else ([], 0)
    base, num = model.get_base_model(), 0
    _quicken_patches(base, undos)
    undos.append(install_scoring(base, features))
    if packs:
        undos.append(_set_attention(base))
        last = _last_layer(base)
        _override(last, _last_forward, undos)
        num = _compile_layers(base, last, undos) if compiled else 0

    def undo() -> None:
        for take_back in reversed(undos):
            take_back()

    weights = tuple(part[ADAPTER].weight for layer in lora for part in (layer.lora_A, layer.lora_B))
    return Quickened(
        lora_layers=len(lora),
        adapters=weights,
        frozen_layers=frozen,
        compiled_layers=num,
        packs=packs,
        undo=undo,
    )


def _override(module: Any, forward: Callable[..., Any], undos: list[Callable[[], None]]) -> None:
    """Give one module another forward. The function is shared, so that one compiled graph fits all layers of a kind."""
    assert "forward" not in vars(module), "this module has been given another forward already"
    module.forward = types.MethodType(forward, module)
    undos.append(lambda: delattr(module, "forward"))


def _quicken_linears(model: Any, undos: list[Callable[[], None]]) -> tuple[list[Any], int]:
    """The layers with LoRA, and the number of frozen ones."""
    from peft.tuners.lora import LoraLayer

    lora: list[Any] = []
    frozen = 0
    under: set[Any] = set()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            under |= {module, module.base_layer}
            if _is_plain_lora(module):
                _override(module, _lora_forward, undos)
                lora.append(module)
    for module in model.modules():
        if module not in under and _is_nf4(module):
            _override(module, _frozen_forward, undos)
            frozen += 1
    return lora, frozen


def _quicken_patches(base: Any, undos: list[Callable[[], None]]) -> None:
    for module in base.modules():
        whole = isinstance(module, torch.nn.Conv3d) and module.kernel_size == module.stride
        if whole and module.groups == 1 and module.padding == (0, 0, 0) and module.dilation == (1, 1, 1):
            _override(module, _patches_forward, undos)


def _patches_forward(self: Any, patches: torch.Tensor) -> torch.Tensor:
    """A convolution over patches of just its own size, as the matrix product that it is (H200, eight images of 5,040
    patches: 0.24 ms, torch's convolution 4.9)."""
    if patches.shape[2:] != self.kernel_size:
        return type(self).forward(self, patches)
    return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def _is_plain_lora(module: Any) -> bool:
    """Whether a layer of PEFT's is W x + scale B A x and nothing else, with a W that the operator knows."""
    base = module.base_layer
    dense = type(base) in (torch.nn.Linear, Float8Linear) and not base.weight.requires_grad
    return (
        list(module.lora_A) == [ADAPTER]
        and not module.lora_variant
        and not module.lora_bias[ADAPTER]
        and (dense or _is_nf4(base))
    )


def _is_nf4(module: Any) -> bool:
    state = getattr(getattr(module, "weight", None), "quant_state", None)
    if state is None or state.quant_type != "nf4":
        return False
    # With blocks of another size the operator would read other weights.
    return state.blocksize == BLOCK and (not state.nested or state.state2.blocksize == OUTER_BLOCK)


def _lora_forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if self.disable_adapters or self.merged or args or kwargs or self.active_adapters != [ADAPTER]:
        return type(self).forward(self, x, *args, **kwargs)
    weight, state = stored(self.base_layer)
    dropout, seed, share = self.lora_dropout[ADAPTER], None, 0.0
    if self.training and isinstance(dropout, torch.nn.Dropout) and dropout.p > 0:
        seed, share = torch.randint(1 << 62, (1,), device=x.device), dropout.p
    x = x.to(_compute_dtype(x, weight, self.base_layer))
    a, b = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
    return lora_linear(x, weight, state, self.base_layer.bias, a, b, self.scaling[ADAPTER], seed, share)[0]


def _frozen_forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    weight, state = stored(self)
    return frozen_linear(x.to(_compute_dtype(x, weight, self)), weight, state, self.bias, self.out_features)


def _compute_dtype(x: torch.Tensor, weight: torch.Tensor, layer: Any) -> torch.dtype:
    """What a layer computes in: autocast's choice, else the weight's, which for packed ones is that of its layer."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    if type(layer) is torch.nn.Linear:
        return weight.dtype
    return getattr(layer, "compute_dtype", None) or x.dtype


def _set_attention(base: Any) -> Callable[[], None]:
    """Our attention in both towers."""
    register_attention()
    configs = {id(config): config for config in _configs(base)}.values()
    before = [(config, config._attn_implementation) for config in configs]
    for config in configs:
        config._attn_implementation = NAME

    def take_back() -> None:
        for config, name in before:
            config._attn_implementation = name

    return take_back


def _configs(base: Any) -> Iterator[Any]:
    for module in base.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            yield config


def _last_layer(base: Any) -> Any:
    """The layer of the language tower that the output layer reads."""
    return base.get_decoder().layers[-1]


def _last_forward(self: Any, hidden: torch.Tensor, *args: Any, scored: Any = None, **kwargs: Any) -> Any:
    """The last layer, of which only places `scored` in the one row are read: all but keys and values is computed there
    alone, and is zero elsewhere. Of 28 layers with 40 of 1,342 tokens read that is 3 % of the language tower's work.
    """
    if scored is None:
        return type(self).forward(self, hidden, *args, **kwargs)
    if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
        return checkpoint(_scored_forward, self, scored, hidden, *args, use_reentrant=False, **kwargs)
    return _scored_forward(self, scored, hidden, *args, **kwargs)


def _scored_forward(layer: Any, scored: torch.Tensor, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    attention = layer.self_attn
    parts = [layer.mlp, *(getattr(attention, name) for name in ("q_proj", "o_proj") if hasattr(attention, name))]
    before = [vars(part).get("forward") for part in parts]
    for part in parts:
        part.forward = partial(_at, scored, part.forward)
    try:
        # Below the wrapper that checkpoints, which would know nothing of these places.
        return type(layer).forward.__wrapped__(layer, hidden, *args, **kwargs)
    finally:
        for part, forward in zip(parts, before, strict=True):
            del part.forward
            if forward is not None:
                part.forward = forward


def _at(places: torch.Tensor, forward: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What a forward that knows no neighbours makes of x (1, n, in) at those places, and zeros."""
    made = forward(x.index_select(1, places))
    return made.new_zeros(1, x.shape[1], made.shape[-1]).index_copy(1, places, made)


def _compile_layers(base: Any, last: Any, undos: list[Callable[[], None]]) -> int:
    """Compile the layers that transformers marks as repeated, for calls with packed samples; other calls run as before.

    So does the `last` layer, which would be a graph of its own: some seconds of the compiler for one layer of 28.
    """
    num = 0
    made: dict[Any, Callable[..., Any]] = {}
    _let_graphs_be_kept()
    for layer in base.modules():
        if not isinstance(layer, GradientCheckpointingLayer) or layer is last:
            continue
        kind: Any = type(layer)
        if kind not in made:
            made[kind] = _compiled_forward(kind)
            if any(parameter.requires_grad for parameter in layer.parameters()):
                undos.append(layer.register_forward_pre_hook(_with_gradient).remove)
        _override(layer, made[kind], undos)
        num += 1
    return num


def _with_gradient(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The first layer gets an input with a gradient, as the others do: one graph then fits it too."""
    hidden, *others = inputs
    if not torch.is_grad_enabled() or hidden.requires_grad:
        return None
    return (hidden.detach().requires_grad_(), *others)


def _let_graphs_be_kept() -> None:
    """Let torch keep what it makes of a layer on disk, for the next run: a choice of attention kernels forbids it.

    `sdpa_kernel` only reads its arguments, which are part of the graph. What is kept holds the operators' backward as
    it was traced, so their source is part of its key.
    """
    source = hashlib.sha256(Path(lora_linear_module.__file__).read_bytes()).hexdigest()
    known = torch._inductor.config.unsafe_marked_cacheable_functions
    for name in ("_sdpa_kernel", "_backend_from_string"):
        known[f"torch.nn.attention.{name}"] = source


def _compiled_forward(kind: Any) -> Callable[..., Any]:
    """The forward of a kind of layer, compiled once for every number of tokens and all layers of the kind."""
    # Below the wrapper that checkpoints: a checkpoint goes round the compiled layer, not into it.
    compiled = torch.compile(kind.forward.__wrapped__)

    def forward(self: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.training or (kwargs.get("cu_seq_lens_q") is None and kwargs.get("cu_seqlens") is None):
            return kind.forward(self, hidden, *args, **kwargs)
        # What is meant for the other tower would be traced, and guarded, for nothing.
        kwargs = {name: value for name, value in kwargs.items() if not name.startswith(("image_", "scored"))}
        _mark_lengths(hidden, kwargs)
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(compiled, self, hidden, *args, use_reentrant=False, **kwargs)
        return compiled(self, hidden, *args, **kwargs)

    return forward


def _mark_lengths(hidden: torch.Tensor, kwargs: dict[str, Any]) -> None:
    """Tell the compiler which dimensions change from batch to batch: numbers of tokens, and of samples.

    Left to find out by itself it compiles for the first length alone, and told that everything may change it takes
    three times as long.
    """
    length = hidden.shape[-2]
    for value in (hidden, *kwargs.get("position_embeddings", ())):
        maybe_mark_dynamic(value, [dim for dim, size in enumerate(value.shape[:-1]) if size == length])
    for name in ("cu_seqlens", "cu_seq_lens_q", "cu_seq_lens_k"):
        if kwargs.get(name) is not None:
            maybe_mark_dynamic(kwargs[name], 0)


def language_layers(base: Any, family: Family) -> list[Any]:
    """The layers of the language tower that transformers can compute twice."""
    return [layer for layer, tower in _layers(base, family) if tower == "language"]


def _layers(base: Any, family: Family) -> list[tuple[Any, str | None]]:
    named = base.named_modules()
    return [(m, tower_of(f"{name}.weight", family)) for name, m in named if isinstance(m, GradientCheckpointingLayer)]


def checkpoint_layers(base: Any, family: Family, num: int) -> None:
    """Of the language tower's layers compute the first `num` twice, and of other towers all that are trained.

    The first, since they are run backward last: by then what the others kept is gone, and there is room for one more.
    And the last layer, which keeps the least, is computed twice last of all.

    transformers turns checkpoints on for every layer of every tower, also of frozen ones, which keep nothing anyway,
    and lets embeddings require a gradient, so that a frozen vision tower is run backward for nothing.
    """
    language = language_layers(base, family)
    for place, layer in enumerate(language):
        layer.gradient_checkpointing = place < num
    for layer, tower in _layers(base, family):
        if tower != "language":
            layer.gradient_checkpointing = num > 0 and any(p.requires_grad for p in layer.parameters())
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
