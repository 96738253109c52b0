"""Attention over samples that lie one behind the other in one row, without padding: none sees any other.

transformers' own way without flash-attention splits the vision tower's images with `lengths.tolist()`, a host-device
sync in each of its layers, and attends image by image; the language tower pads. Here both towers go through what torch
itself carries: the variable-length flash kernels, or where all samples are of one length the dense ones, which on a
Hopper card are cuDNN's. Measured on an H200 (Qwen2-VL-7B, 8 images of 70 x 72 patches): the vision tower's attention
takes 4.0 ms a layer with the variable-length kernel and 2.7 ms with cuDNN's; flash-attention 3 is used where installed.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "boxtune_flash"
"""The name in a config's `_attn_implementation`. transformers hands on the samples' borders to names with "flash"."""

HALVES = (torch.bfloat16, torch.float16)
_NAMES_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters  # from torch 2.12 on it must be said


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    evenly: bool | None = None,
    text_evenly: bool = False,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it: (1, heads, tokens, width) -> (1, tokens, heads, width).

    `cu_seq_lens_q` (samples + 1) are the borders of the samples in the row, `max_length_q` bounds the longest of them;
    without them it is transformers' own `sdpa`. Fewer heads of key and value than of query are taken as groups.
    `evenly`: all images are of one length; `text_evenly`: all samples are, where nothing is said of images.
    """
    if cu_seq_lens_q is None or max_length_q is None:
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            is_causal=is_causal,
            sliding_window=sliding_window,
            **others,
        )
    causal = bool(getattr(module, "is_causal", True)) if is_causal is None else is_causal
    if sliding_window is None and (text_evenly if evenly is None else evenly):
        mixed = _dense(query, key, value, cu_seq_lens_q.shape[0] - 1, scaling, causal)
    elif query.is_cuda and query.dtype in HALVES:
        mixed = _varlen(query, key, value, cu_seq_lens_q, max_length_q, scaling, causal, sliding_window)
    else:
        mixed = _one_by_one(query, key, value, cu_seq_lens_q, scaling, causal, sliding_window)
    return mixed, None


def _dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num: int, scaling: float | None, causal: bool
) -> torch.Tensor:
    """Samples of one length: a batch."""
    q, k, v = (
        part[0].unflatten(1, (num, -1)).transpose(0, 1)  # (samples, heads, length, width)
        for part in (query, key, value)
    )
    grouped = query.shape[1] != key.shape[1]
    with sdpa_kernel(_backends(query), set_priority=True):
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scaling, enable_gqa=grouped)
    return mixed.transpose(1, 2).flatten(0, 1)[None]


def _backends(query: torch.Tensor) -> list[SDPBackend]:
    """What may compute it, best first; cuDNN's kernels are the faster ones from Hopper on."""
    order = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    hopper = query.is_cuda and query.dtype in HALVES and torch.cuda.get_device_capability(query.device)[0] >= 9
    return [SDPBackend.CUDNN_ATTENTION, *order] if hopper else order


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor,
    longest: int,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))  # (tokens, heads, width)
    groups = {"enable_gqa": True} if _NAMES_GROUPS and q.shape[1] != k.shape[1] else {}
    sees = (-1 if window is None else window - 1, 0) if causal else (-1, -1)
    mixed = varlen_attn(q, k, v, borders, borders, longest, longest, scale=scaling, window_size=sees, **groups)
    assert isinstance(mixed, torch.Tensor)
    return mixed[None]


def _one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    borders: torch.Tensor,
    scaling: float | None,
    causal: bool,
    window: int | None,
) -> torch.Tensor:
    """Sample by sample, for what has no kernel: CPUs, and fp32."""
    ends = borders.tolist()
    grouped = query.shape[1] != key.shape[1]
    parts = []
    for begin, end in itertools.pairwise(ends):
        q, k, v = (part[:, :, begin:end] for part in (query, key, value))
        mask = None
        if causal and window is not None and window < end - begin:
            place = torch.arange(end - begin, device=query.device)
            behind = place[:, None] - place[None]
            mask = (behind >= 0) & (behind < window)
        parts.append(
            F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=causal and mask is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2)


def _mask(*, attention_mask: torch.Tensor | None = None, **others: Any) -> torch.Tensor | None:
    """No mask where samples lie in one row; what `sdpa` has where there is padding."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **others)


def register_attention() -> None:
    """Make `NAME` known to transformers."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)
    if importlib.util.find_spec("flash_attn_interface") is not None:
        from torch.nn.attention import activate_flash_attention_impl, current_flash_attention_impl

        if current_flash_attention_impl() is None:
            activate_flash_attention_impl("FA3")
