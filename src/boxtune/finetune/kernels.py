"""Three kernels for CUDA cards: NF4 weights to dense ones, rows of activations to float8, dropout from a seed.

All only move bytes, and do it in one pass. bitsandbytes first writes the block maxima out and then the weights, at a
quarter of the card's bandwidth; torch goes over a row several times to make it float8 (H200, docs/speed.md).
Triton comes with torch wherever there is CUDA.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""What the sixteen codes stand for (QLoRA, arXiv 2305.14314, appendix E), as bitsandbytes has them."""
BYTES = 1024
"""Packed bytes that one program reads; it writes twice as many numbers."""
COLUMNS = 2048
"""Numbers of a row that one program holds at a time."""
_codes: dict[Any, torch.Tensor] = {}


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _nf4_kernel(packed, absmax, outer, code, offset, nf4, out, num, NESTED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = at < num
    byte = tl.load(packed + at, mask=there, other=0).to(tl.int32)
    group = at // 32  # 64 numbers in 32 bytes share a maximum
    if NESTED:
        short = tl.load(absmax + group, mask=there, other=0).to(tl.int32)
        scale = tl.load(code + short) * tl.load(outer + group // 256, mask=there, other=0.0) + tl.load(offset)
    else:
        scale = tl.load(absmax + group, mask=there, other=0.0)
    both = tl.interleave(tl.load(nf4 + (byte >> 4)) * scale, tl.load(nf4 + (byte & 15)) * scale)
    place = tl.program_id(0) * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
    tl.store(out + place, both.to(out.dtype.element_ty), mask=place < 2 * num)


def nf4_to_dense(
    packed: torch.Tensor, state: list[torch.Tensor], shape: tuple[int, int], dtype: torch.dtype
) -> torch.Tensor:
    """The weight (out, in) of packed NF4; `state` as `lora_linear.stored` gives it."""
    device = packed.device
    if device not in _codes:
        _codes[device] = torch.tensor(NF4, device=device)
    out = torch.empty(shape, device=device, dtype=dtype)
    num = packed.numel()
    nested = len(state) > 1
    absmax, outer, code, offset = state if nested else (state[0],) * 4
    with torch.cuda.device(device):
        _nf4_kernel[(triton.cdiv(num, BYTES),)](
            packed, absmax, outer, code, offset, _codes[device], out, num, NESTED=nested, BLOCK=BYTES
        )
    return out


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _float8_kernel(x, columns, out, scales, width, SCALED: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * width
    largest = tl.zeros((BLOCK,), dtype=tl.float32)
    for begin in range(0, width, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        value = tl.load(x + row + at, mask=at < width, other=0.0).to(tl.float32)
        if SCALED:
            value *= tl.load(columns + at, mask=at < width, other=0.0)
        largest = tl.maximum(largest, tl.abs(value))
    scale = tl.maximum(tl.max(largest, axis=0) / 448.0, 1e-12)
    tl.store(scales + tl.program_id(0), scale)
    for begin in range(0, width, BLOCK):
        at = begin + tl.arange(0, BLOCK)
        value = tl.load(x + row + at, mask=at < width, other=0.0).to(tl.float32)
        if SCALED:
            value *= tl.load(columns + at, mask=at < width, other=0.0)
        value = tl.minimum(tl.maximum(value / scale, -448.0), 448.0)
        tl.store(out + row + at, value.to(out.dtype.element_ty), mask=at < width)


def rows_to_float8(rows: torch.Tensor, columns: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (n, width), each column times its own of `columns` (width), as float8_e4m3fn; and their scales (n, 1)."""
    rows = rows.contiguous()
    out = torch.empty(rows.shape, device=rows.device, dtype=torch.float8_e4m3fn)
    scales = torch.empty(rows.shape[0], 1, device=rows.device)
    with torch.cuda.device(rows.device):
        _float8_kernel[(rows.shape[0],)](
            rows,
            rows if columns is None else columns,
            out,
            scales,
            rows.shape[1],
            SCALED=columns is not None,
            BLOCK=COLUMNS,
        )
    return out, scales


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _drop_kernel(x, seed, out, num, threshold, grow, ADD: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    # One draw of Philox is four numbers of 32 bits: enough for eight places at 16 bits each.
    draw = tl.program_id(0) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    a, b, c, d = tl.randint4x(tl.load(seed), draw)
    first = tl.interleave(tl.interleave(a & 0xFFFF, c & 0xFFFF), tl.interleave(b & 0xFFFF, d & 0xFFFF))
    second = tl.interleave(
        tl.interleave((a >> 16) & 0xFFFF, (c >> 16) & 0xFFFF), tl.interleave((b >> 16) & 0xFFFF, (d >> 16) & 0xFFFF)
    )
    kept = tl.interleave(first, second) >= threshold
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.where(kept, tl.load(x + at, mask=at < num, other=0.0).to(tl.float32) * grow, 0.0)
    if ADD:
        value += tl.load(out + at, mask=at < num, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=at < num)


STEPS_OF_SHARE = 1 << 16
"""The share that is dropped is rounded to a multiple of one in so many."""


def drop(rows: torch.Tensor, seed: torch.Tensor, share: float, onto: torch.Tensor | None = None) -> torch.Tensor:
    """rows with that share of its numbers 0, chosen by `seed` (1, int64) and place; the others grow by what is lost.

    With `onto` (contiguous, of the same shape) it is added to that, in place.
    """
    rows = rows.contiguous()
    out = torch.empty_like(rows) if onto is None else onto
    assert out.is_contiguous()
    threshold = min(round(share * STEPS_OF_SHARE), STEPS_OF_SHARE - 1)
    with torch.cuda.device(rows.device):
        _drop_kernel[(triton.cdiv(rows.numel(), COLUMNS),)](
            rows,
            seed,
            out,
            rows.numel(),
            threshold,
            STEPS_OF_SHARE / (STEPS_OF_SHARE - threshold),
            ADD=onto is not None,
            BLOCK=COLUMNS,
        )
    return out
