"""y = x W^T + bias + scale (z A^T) B^T as one operator, with W dense, in NF4 or in float8, and a backward of its own.

PEFT and bitsandbytes do the same in several operators, and keep what the backward does not need. Here

- the product with W adds itself to the adapter's (`addmm_`), so that the output is read once, and not on its own;
- A and B are rounded to the dtype of x once in a micro-batch (`Rounded`), and their gradients leave the product in
  their own dtype;
- W is dequantised once for the forward and once for the backward, and neither copy is kept;
- dropout keeps neither what it leaves of x nor what it dropped: both come again from a seed;
- for torch.compile the whole is one opaque node, so that it cannot decide to keep a dequantised W.

Only A and B get gradients; W and bias are frozen. On an H200 (10,736 rows, bf16, rank 64) forward products with layers
of 18944 x 3584 and 3584 x 3584 take 2.15 and 0.40 ms where the base's comes second and 2.27 and 0.42 where it comes
first; backward, of 3584 x 18944, 2.14 and 2.45.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.library import Library, register_autograd, register_fake

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
"""Largest finite number of float8_e4m3fn."""
TINY = 1e-12
"""Smallest scale of a float8 row, so that a row of zeros stays zero."""

TRITON = importlib.util.find_spec("triton") is not None
"""Whether torch brought it: with CUDA on Linux it does."""

_library = Library("boxtune", "FRAGMENT")


def _operator(schema: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function an operator of torch's, `boxtune::NAME`, and call it by that.

    torch's `custom_op` does the same with more around each call: some 20 microseconds of the host's time on a
    CPU, 500 times in a micro-batch of a 7B model.
    """
    name = schema.partition("(")[0]

    def make(function: Callable[..., Any]) -> Any:
        _library.define(schema)
        _library.impl(name, function, "CompositeExplicitAutograd")
        return getattr(torch.ops.boxtune, name).default

    return make


# Schemas are written out, since torch cannot read annotations through what checks them in the tests.


@_operator("frozen_linear(Tensor x, Tensor weight, Tensor[] state, Tensor? bias, int num_out) -> Tensor")
def frozen_linear(
    x: torch.Tensor, weight: torch.Tensor, state: list[torch.Tensor], bias: torch.Tensor | None, num_out: int
) -> torch.Tensor:
    """x (..., in) -> x W^T + bias (..., out) in the dtype of x; `weight` and `state` as `stored` gives them."""
    return _product(x.reshape(-1, x.shape[-1]), weight, state, bias, num_out).view(*x.shape[:-1], num_out)


@register_fake("boxtune::frozen_linear")
def _(
    x: torch.Tensor, weight: torch.Tensor, state: list[torch.Tensor], bias: torch.Tensor | None, num_out: int
) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], num_out)


@_operator("frozen_linear_backward(Tensor grad, Tensor weight, Tensor[] state, int num_in) -> Tensor")
def frozen_linear_backward(
    grad: torch.Tensor, weight: torch.Tensor, state: list[torch.Tensor], num_in: int
) -> torch.Tensor:
    """The gradient (..., in) of x, from that of the output (..., out)."""
    rows = grad.reshape(-1, grad.shape[-1])
    return _product_back(rows, weight, state, num_in).view(*grad.shape[:-1], num_in)


@register_fake("boxtune::frozen_linear_backward")
def _(grad: torch.Tensor, weight: torch.Tensor, state: list[torch.Tensor], num_in: int) -> torch.Tensor:
    return grad.new_empty(*grad.shape[:-1], num_in)


@_operator(
    "lora_linear(Tensor x, Tensor weight, Tensor[] state, Tensor? bias, Tensor a, Tensor b, float scale, Tensor? seed, "
    "float share) -> (Tensor, Tensor)"
)
def lora_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    state: list[torch.Tensor],
    bias: torch.Tensor | None,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    seed: torch.Tensor | None,
    share: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (..., in) -> y (..., out) in the dtype of x, and what B is multiplied with, scale z A^T (rows, r).

    `weight` with its `state` is as `stored` gives them; `a` (r, in) and `b` (out, r) may be of any float dtype. The
    adapter sees x with a `share` of it dropped, chosen by `seed` (1, int64) and not kept: the backward drops the same
    again. Without a seed it sees all of x.
    """
    rows = x.reshape(-1, x.shape[-1])
    inner = _times(_drop(rows, seed, share), _rounded(a, x.dtype).t(), scale)
    back = _rounded(b, x.dtype).t()
    if weight.dtype == FLOAT8:
        # Its product cannot add itself to another.
        y = _product(rows, weight, state, bias, b.shape[0]).addmm_(inner, back)
    else:
        y = inner @ back if bias is None else torch.addmm(bias.to(x.dtype), inner, back)
        y.addmm_(rows, _dense(weight, state, b.shape[0], x.shape[-1], x.dtype).t())
    return y.view(*x.shape[:-1], b.shape[0]), inner


@register_fake("boxtune::lora_linear")
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    state: list[torch.Tensor],
    bias: torch.Tensor | None,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    seed: torch.Tensor | None,
    share: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(*x.shape[:-1], b.shape[0]), x.new_empty(x.numel() // x.shape[-1], a.shape[0])


@_operator(
    "lora_linear_backward(Tensor grad, Tensor x, Tensor inner, Tensor weight, Tensor[] state, Tensor a, Tensor b, "
    "float scale, Tensor? seed, float share, bool needs_x) -> (Tensor, Tensor, Tensor)"
)
def lora_linear_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    inner: torch.Tensor,
    weight: torch.Tensor,
    state: list[torch.Tensor],
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    seed: torch.Tensor | None,
    share: float,
    needs_x: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x (empty unless `needs_x`), of A and of B."""
    rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
    through = _times(rows, _rounded(b, grad.dtype), scale)
    grad_a = _product_as(a.dtype, through.t(), _drop(inputs, seed, share))
    grad_b = _product_as(b.dtype, rows.t(), inner)
    if not needs_x:
        return grad.new_empty(0), grad_a, grad_b
    first = _rounded(a, grad.dtype)
    if weight.dtype != FLOAT8:
        grad_x = _drop(through @ first, seed, share)
        grad_x.addmm_(rows, _dense(weight, state, rows.shape[-1], x.shape[-1], grad.dtype))
    else:
        grad_x = _product_back(rows, weight, state, x.shape[-1])
        if seed is None:
            grad_x.addmm_(through, first)
        else:
            _drop(through @ first, seed, share, onto=grad_x)
    return grad_x.view(x.shape), grad_a, grad_b


@register_fake("boxtune::lora_linear_backward")
def _(
    grad: torch.Tensor,
    x: torch.Tensor,
    inner: torch.Tensor,
    weight: torch.Tensor,
    state: list[torch.Tensor],
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    seed: torch.Tensor | None,
    share: float,
    needs_x: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return grad.new_empty(x.shape if needs_x else (0,)), torch.empty_like(a), torch.empty_like(b)


class Rounded:
    """Adapters' weights in the dtype that they are computed in, rounded together for a micro-batch.

    One by one, at each use, the 392 of a 7B model took an H200 3.6 ms forward and as much backward, and the host twice
    5 ms; together 0.3 ms. `now` is to be called after each change of the weights, and `forget` before the next.
    """

    def __init__(self, weights: Sequence[torch.Tensor], dtype: torch.dtype) -> None:
        self.weights = [weight for weight in weights if weight.dtype != dtype]
        self.copies = [torch.empty_like(weight, dtype=dtype, requires_grad=False) for weight in self.weights]

    def now(self) -> None:
        """From here the operators take copies of the weights as they are."""
        if self.weights:
            with torch.no_grad():
                torch._foreach_copy_(self.copies, self.weights)
        _copies.update((weight.data_ptr(), copy) for weight, copy in zip(self.weights, self.copies, strict=True))

    @staticmethod
    def forget() -> None:
        """From here the operators round for themselves."""
        _copies.clear()


_copies: dict[int, torch.Tensor] = {}
"""By the address of the weight: an operator is not handed the parameter itself where it is compiled."""


def _rounded(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if weight.dtype == dtype:
        return weight
    copy = _copies.get(weight.data_ptr())
    known = copy is not None and copy.dtype == dtype and copy.shape == weight.shape
    return copy if known else weight.to(dtype)


def _times(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """scale left right, scaled before it is rounded; what is in the tensor before is not read."""
    return left.new_empty(left.shape[0], right.shape[1]).addmm_(left, right, beta=0, alpha=scale)


def _product_as(dtype: torch.dtype, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left right in that dtype; in fp32 it is not rounded in between where the device can do so."""
    if left.is_cuda and dtype == torch.float32 and left.dtype != dtype:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def _drop(
    rows: torch.Tensor, seed: torch.Tensor | None, share: float, onto: torch.Tensor | None = None
) -> torch.Tensor:
    """rows (n, width) with that share of its numbers 0 and the others larger for it; the same for the same seed.

    With `onto` (n, width) it is added to that, in place.
    """
    if seed is None:
        return rows
    if rows.is_cuda and TRITON:
        from boxtune.finetune.kernels import drop

        return drop(rows, seed, share, onto)
    source = torch.Generator(rows.device).manual_seed(int(seed))
    kept = torch.rand(rows.shape, generator=source, device=rows.device) >= share
    dropped = rows * kept / (1 - share)
    return dropped if onto is None else onto.add_(dropped)


def _keep_frozen(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, state, _, _ = inputs
    ctx.save_for_backward(weight, *state)
    ctx.num_in = x.shape[-1]


def _frozen_back(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    weight, *state = ctx.saved_tensors
    grad_x = frozen_linear_backward(grad.contiguous(), weight, state, ctx.num_in)
    return grad_x, None, [None] * len(state), None, None


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, weight, state, _, a, b, scale, seed, share = inputs
    ctx.save_for_backward(x, output[1], weight, a, b, seed, *state)
    ctx.scale, ctx.share = scale, share
    ctx.set_materialize_grads(False)


def _back(ctx: Any, grad: torch.Tensor, _: torch.Tensor | None) -> tuple[Any, ...]:
    x, inner, weight, a, b, seed, *state = ctx.saved_tensors
    needs_x = ctx.needs_input_grad[0]
    grad_x, grad_a, grad_b = lora_linear_backward(
        grad.contiguous(), x, inner, weight, state, a, b, ctx.scale, seed, ctx.share, needs_x
    )
    none = [None] * len(state)
    return grad_x if needs_x else None, None, none, None, grad_a, grad_b, None, None, None


register_autograd("boxtune::frozen_linear", _frozen_back, setup_context=_keep_frozen)
register_autograd("boxtune::lora_linear", _back, setup_context=_keep)


def _product(
    rows: torch.Tensor, weight: torch.Tensor, state: list[torch.Tensor], bias: torch.Tensor | None, num_out: int
) -> torch.Tensor:
    """rows (n, in) W^T + bias, a tensor of its own."""
    if weight.dtype == FLOAT8:
        y = _times_float8(rows, weight, state[0])
        return y if bias is None else y.add_(bias.to(y.dtype))
    dense = _dense(weight, state, num_out, rows.shape[-1], rows.dtype)
    return rows @ dense.t() if bias is None else torch.addmm(bias.to(rows.dtype), rows, dense.t())


def _product_back(rows: torch.Tensor, weight: torch.Tensor, state: list[torch.Tensor], num_in: int) -> torch.Tensor:
    """rows (n, out) W, a tensor of its own."""
    if weight.dtype == FLOAT8:
        return _times_float8_transposed(rows, weight, state[0])
    return rows @ _dense(weight, state, rows.shape[-1], num_in, rows.dtype)


def stored(layer: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A layer's weight as the operators here take it: the bytes, and the tensors that say what they mean.

    Dense weights have no state; float8 ones a scale by row; NF4 ones of bitsandbytes the block maxima and, doubly
    quantised, their own maxima, code and offset behind them. Raises TypeError for other formats.
    """
    weight = layer.weight
    if hasattr(layer, "scale"):
        return weight.view(FLOAT8), [layer.scale]
    state = getattr(weight, "quant_state", None)
    if state is None:
        return weight, []
    if state.quant_type != "nf4" or getattr(state, "packing_format_for_cpu", False):
        raise TypeError(f"weights in {state.quant_type} are not known here")
    if not state.nested:
        return weight, [state.absmax]
    return weight, [state.absmax, state.state2.absmax, state.state2.code, state.offset]


BLOCK, OUTER_BLOCK = 64, 256
"""Elements that share a maximum, and maxima that share one of their own: what transformers' config always gives."""


def _dense(
    weight: torch.Tensor, state: list[torch.Tensor], num_out: int, num_in: int, dtype: torch.dtype
) -> torch.Tensor:
    """The weight (out, in) in that dtype."""
    if not state:
        return weight.to(dtype)
    if weight.is_cuda and TRITON:
        from boxtune.finetune.kernels import nf4_to_dense

        return nf4_to_dense(weight, state, (num_out, num_in), dtype)
    absmax = state[0]
    if len(state) > 1:
        absmax = torch.ops.bitsandbytes.dequantize_blockwise.default(
            absmax, state[1], state[2], OUTER_BLOCK, torch.float32
        )
        absmax = absmax.add_(state[3])
    return torch.ops.bitsandbytes.dequantize_4bit.default(weight, absmax, BLOCK, "nf4", [num_out, num_in], dtype)


def to_float8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a matrix as float8_e4m3fn, and the scale (rows, 1) in fp32 that each is to be multiplied by."""
    largest = weight.abs().amax(dim=-1, keepdim=True).float()
    scale = (largest / FLOAT8_MAX).clamp(min=TINY)
    return (weight.float() / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8), scale


def _times_float8(rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """rows (n, in) times W^T for W (out, in) in float8 with a scale (out, 1)."""
    small, own = _rows_to_float8(rows, None)
    if not rows.is_cuda:
        return (small.float() * own @ (weight.float() * scale).t()).to(rows.dtype)
    return _scaled(small, weight.t(), own, scale.t(), rows.dtype)


def _times_float8_transposed(rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """rows (n, out) times W (out, in): the scale of each row of W goes into the columns of `rows` first."""
    small, own = _rows_to_float8(rows, scale)
    if not rows.is_cuda:
        return (small.float() * own @ weight.float()).to(rows.dtype)
    # The kernel wants W with its columns together: a copy of one byte an element, small beside the product.
    columns = weight.t().contiguous().t()
    return _scaled(small, columns, own, torch.ones(1, weight.shape[1], device=rows.device), rows.dtype)


def _rows_to_float8(rows: torch.Tensor, columns: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, each column times its own of `columns` (width, 1), in float8, and the scale of each row."""
    if rows.is_cuda and TRITON:
        from boxtune.finetune.kernels import rows_to_float8

        return rows_to_float8(rows, columns)
    return to_float8(rows if columns is None else rows * columns.t().to(rows.dtype))


def _scaled(
    left: torch.Tensor, right: torch.Tensor, by_row: torch.Tensor, by_column: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    scales = {"scale_a": by_row, "scale_b": by_column}
    return torch._scaled_mm(left, right, **scales, out_dtype=dtype, use_fast_accum=True)
