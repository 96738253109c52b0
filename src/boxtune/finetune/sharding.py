"""Weights spread over the ranks (FSDP2): when, how accelerate is told, and how they are read and written whole.

With DDP every rank holds everything, and only gradients are exchanged: right for adapters. Where all weights are
trained, they, their gradients and AdamW's two moments are 16 bytes a parameter in fp32, more than a card holds: FSDP2
gives each rank its part of them. Source: torch.distributed.fsdp.fully_shard, through accelerate's plugin.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from boxtune.errors import ConfigError
from boxtune.settings import Settings

Sharding = Literal["none", "ddp", "fsdp"]


def choose_sharding(settings: Settings, device: str, num_ranks: int) -> Sharding:
    """What is spread over the ranks: nothing for one, gradients alone (ddp), or weights too (fsdp).

    auto takes fsdp where all weights are trained on GPUs; a base in NF4 is spread where that is asked for. Raises
    ConfigError where fsdp is asked for and cannot be.
    """
    asked = settings.train.sharding
    if asked == "fsdp":
        why, fix = "", "leave sharding away"
        if num_ranks == 1:
            why, fix = "there is one process", "take more devices, or leave sharding away"
        elif not can_shard(device):
            why = "accelerate spreads weights over GPUs alone (its state.py leaves MULTI_CPU out)"
        elif settings.quantization not in ("none", "nf4"):
            why, fix = f"weights in {settings.quantization} are not spread", "quantization=nf4, or sharding=ddp"
        if why:
            raise ConfigError(f"sharding=fsdp cannot be: {why}", where="train.sharding", fix=fix)
    if num_ranks == 1:
        return "none"
    if asked == "auto":
        return "fsdp" if settings.adapter.recipe == "full" and can_shard(device) else "ddp"
    return asked


def can_shard(device: str) -> bool:
    """Whether accelerate applies FSDP2 on such devices."""
    return device == "cuda"


def sharding_arguments(model: Any, sharding: Sharding) -> dict[str, Any]:
    """What SFTConfig is given for it; each decoder and vision layer is gathered when it computes, and let go after."""
    if sharding != "fsdp":
        return {}
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": sorted(model._no_split_modules),
            "reshard_after_forward": True,
            "state_dict_type": "FULL_STATE_DICT",
        },
    }


def is_sharded(model: Any) -> bool:
    """Whether the weights of a model are spread over the ranks."""
    return any(_is_part(parameter) for parameter in model.parameters())


def whole(tensor: Any) -> torch.Tensor:
    """The whole tensor in the machine's memory. All ranks must ask for one that is spread over them."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if _is_part(tensor) else tensor).cpu().contiguous()


def whole_adapter(model: Any) -> dict[str, torch.Tensor]:
    """The adapter's tensors of a PeftModel, whole, in the machine's memory, by their names. All ranks must ask."""
    return {name: whole(parameter) for name, parameter in model.named_parameters() if ".lora_" in name}


def put(parameter: Any, tensor: torch.Tensor) -> None:
    """Give a parameter the values of a whole tensor, whose type it takes; its own part where it is spread."""
    if not _is_part(parameter):
        parameter.data = tensor.to(parameter.device)
        return
    from torch.distributed.tensor import distribute_tensor

    spread = distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
    with torch.no_grad():
        parameter.copy_(spread)


def _is_part(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")
