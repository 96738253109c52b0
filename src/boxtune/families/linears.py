"""Patterns of linear layers' whole names, from the shapes that transformers' models are made of."""

from __future__ import annotations

LLAMA_ATTENTION = r"self_attn\.[qkvo]_proj"
LLAMA_MLP = r"mlp\.(?:gate|up|down)_proj"
ENCODER_ATTENTION = r"self_attn\.(?:[qkv]|out)_proj"
ENCODER_MLP = r"mlp\.fc[12]"


def under(tower: str, leaf: str) -> str:
    """The pattern of `leaf` below `tower`, whatever stands before (peft's own wrappers, `model.`)."""
    return rf"(?:.*\.)?{tower}\.{leaf}"


def llama_layers(tower: str) -> dict[str, str]:
    """Attention and mlp of a decoder such as Llama, Qwen or Gemma."""
    return {
        "attention": under(tower, rf"layers\.\d+\.{LLAMA_ATTENTION}"),
        "mlp": under(tower, rf"layers\.\d+\.{LLAMA_MLP}"),
    }


def encoder_layers(tower: str) -> dict[str, str]:
    """Attention and mlp of an image encoder such as SigLIP or CLIP, with or without a `vision_model` in between."""
    inside = r"(?:vision_model\.)?encoder\.layers\.\d+\."
    return {"attention": under(tower, inside + ENCODER_ATTENTION), "mlp": under(tower, inside + ENCODER_MLP)}
