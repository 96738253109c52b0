"""One operator for a frozen layer with LoRA: what plain autograd makes of the same, in every format of the weight."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from boxtune.finetune import lora_linear as lora_linear_
from boxtune.finetune.lora_linear import (
    FLOAT8_MAX,
    Rounded,
    frozen_linear,
    frozen_linear_backward,
    lora_linear,
    lora_linear_backward,
    stored,
    to_float8,
)

NUM_OUT, NUM_IN, RANK, SCALE, SHARE = 256, 128, 8, 2.0, 0.3
EXACT = ("dense", "nf4", "nested")
FLOAT8_ERROR = 0.05
"""Of a product of two float8 matrices, as a share of its norm: three bits of mantissa on either side."""


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """A frozen weight as the operators take it, and what it stands for (out, in)."""

    weight: torch.Tensor
    state: list[torch.Tensor]
    dense: torch.Tensor


def make_frozen(kind: str) -> Frozen:
    import bitsandbytes as bnb

    torch.manual_seed(1)
    dense = torch.randn(NUM_OUT, NUM_IN) * 0.1
    if kind == "dense":
        layer = torch.nn.Linear(NUM_IN, NUM_OUT)
        layer.weight.data.copy_(dense)
        weight, state = stored(layer)
        return Frozen(weight=weight.detach(), state=state, dense=dense)
    if kind == "fp8":
        small, scale = to_float8(dense)
        return Frozen(weight=small, state=[scale], dense=small.float() * scale)
    nested = kind == "nested"
    packed = bnb.nn.Params4bit(dense, requires_grad=False, quant_type="nf4", compress_statistics=nested).to("cpu")
    weight, state = stored(SimpleNamespace(weight=packed))
    assert packed.dtype == torch.uint8 and packed.quant_state.nested == nested and len(state) == (4 if nested else 1)
    return Frozen(weight=weight, state=state, dense=bnb.functional.dequantize_4bit(packed.data, packed.quant_state))


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (3, 5, in), A and B."""
    torch.manual_seed(2)
    x, a, b = torch.randn(3, 5, NUM_IN), torch.randn(RANK, NUM_IN) * 0.1, torch.randn(NUM_OUT, RANK) * 0.1
    return x.to(dtype).requires_grad_(), a.requires_grad_(), b.requires_grad_()


def kept_of(seed: torch.Tensor, width: int = NUM_IN, share: float = SHARE) -> torch.Tensor:
    """What the operator multiplies a row of `x` (3, 5, width) with before A: asked of itself, with A = B = 1."""
    one = torch.eye(width)
    return lora_linear(torch.ones(3, 5, width), torch.zeros(width, width), [], None, one, one, 1.0, seed, share)[0]


def plain(
    frozen: Frozen, bias: torch.Tensor | None, kept: torch.Tensor | float, given: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    x, a, b = given
    return F.linear(x, frozen.dense, bias) + SCALE * (x * kept) @ a.t() @ b.t()


def gradients(y: torch.Tensor, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    return torch.autograd.grad(y, given, torch.randn(y.shape).to(y.dtype))


def off(got: torch.Tensor, wanted: torch.Tensor) -> float:
    got, wanted = got.detach().float(), wanted.detach().float()
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("kind", EXACT)
def test_output_and_gradients_are_those_of_autograd(kind: str, has_bias: bool, drops: bool) -> None:
    frozen, bias = make_frozen(kind), torch.randn(NUM_OUT) if has_bias else None
    seed = torch.tensor([5]) if drops else None
    kept = 1.0 if seed is None else kept_of(seed)
    given = inputs()
    y, _ = lora_linear(given[0], frozen.weight, frozen.state, bias, *given[1:], SCALE, seed, SHARE)
    wanted = plain(frozen, bias, kept, given)
    assert y.shape == wanted.shape == (3, 5, NUM_OUT) and off(y, wanted) < 1e-6
    for got, right in zip(gradients(y, given), gradients(wanted, given), strict=True):
        assert got.shape == right.shape and off(got, right) < 1e-6


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("kind", EXACT)
def test_a_frozen_layer_without_an_adapter(kind: str, has_bias: bool) -> None:
    frozen, bias, x = make_frozen(kind), torch.randn(NUM_OUT) if has_bias else None, inputs()[0]
    y, wanted = frozen_linear(x, frozen.weight, frozen.state, bias, NUM_OUT), F.linear(x, frozen.dense, bias)
    assert off(y, wanted) < 1e-6 and off(gradients(y, (x,))[0], gradients(wanted, (x,))[0]) < 1e-6


def test_float8_rounds_the_base_alone() -> None:
    """The frozen product is float8's; what the adapter adds to it, and its gradients, are as exact as anywhere."""
    frozen, bias, given = make_frozen("fp8"), torch.randn(NUM_OUT), inputs()
    x, a, b = given
    y, _ = lora_linear(x, frozen.weight, frozen.state, bias, a, b, SCALE, None, SHARE)
    base = frozen_linear(x, frozen.weight, frozen.state, bias, NUM_OUT)
    product, added = F.linear(x, frozen.dense, bias), SCALE * x @ a.t() @ b.t()
    assert 1e-4 < off(base, product) < FLOAT8_ERROR
    assert off(y - base, added) < 1e-5
    grad_x, *of_adapter = gradients(y, given)
    right_x, *right = gradients(plain(frozen, bias, 1.0, given), given)
    assert 1e-4 < off(grad_x, right_x) < FLOAT8_ERROR
    assert off(grad_x - gradients(base, (x,))[0], gradients(added, (x,))[0]) < 1e-5
    for got, wanted in zip(of_adapter, right, strict=True):
        assert off(got, wanted) < 1e-6


@pytest.mark.parametrize("kind", [*EXACT, "fp8"])
def test_bf16_activations_with_an_adapter_in_fp32(kind: str) -> None:
    frozen, given, bias = make_frozen(kind), inputs(torch.bfloat16), torch.randn(NUM_OUT)
    y, _ = lora_linear(given[0], frozen.weight, frozen.state, bias, *given[1:], SCALE, None, SHARE)
    exact = (given[0].detach().float().requires_grad_(), *given[1:])
    wanted = plain(frozen, bias, 1.0, exact)
    found = gradients(y, given)
    assert y.dtype == torch.bfloat16
    assert [part.dtype for part in found] == [torch.bfloat16, torch.float32, torch.float32]
    assert off(y, wanted) < (FLOAT8_ERROR if kind == "fp8" else 0.01)
    torch.manual_seed(3)
    right = torch.autograd.grad(wanted, exact, torch.randn(y.shape).bfloat16().float())
    for place, (got, want) in enumerate(zip(found, right, strict=True)):
        assert off(got, want) < (FLOAT8_ERROR if kind == "fp8" and place == 0 else 0.01)


@pytest.mark.parametrize("kind", [*EXACT, "fp8"])
def test_weights_rounded_together_are_those_rounded_at_each_use(kind: str) -> None:
    frozen, given = make_frozen(kind), inputs(torch.bfloat16)

    def step() -> list[torch.Tensor]:
        y, _ = lora_linear(given[0], frozen.weight, frozen.state, None, *given[1:], SCALE, None, SHARE)
        return [y.detach(), *gradients(y, given)]

    rounded = Rounded(given[1:], torch.bfloat16)
    for factor in (1.0, -3.0):
        given[1].data.mul_(factor)
        wanted = step()
        rounded.now()
        given[1].data.zero_()  # it is the copy that is taken
        got = step()
        given[1].data.copy_(rounded.copies[0])
        rounded.forget()
        for one, other in zip(got, wanted, strict=True):
            assert torch.equal(one, other) and bool(one.any())
        given[1].data.copy_(inputs()[1])


def test_weights_in_the_same_dtype_are_not_copied() -> None:
    rounded = Rounded(inputs()[1:], torch.float32)
    rounded.now()
    assert rounded.copies == [] and not lora_linear_._copies


def test_inputs_without_a_gradient_are_given_none() -> None:
    frozen, (x, a, b) = make_frozen("nf4"), inputs()
    bare = x.detach()
    y, _ = lora_linear(bare, frozen.weight, frozen.state, None, a, b, SCALE, None, SHARE)
    wanted = lora_linear(x, frozen.weight, frozen.state, None, a, b, SCALE, None, SHARE)[0]
    y.sum().backward()
    assert bare.grad is None and torch.equal(y, wanted)
    right = torch.autograd.grad(wanted.sum(), (a, b))
    assert all(torch.equal(p.grad, want) for p, want in zip((a, b), right, strict=True))


def test_dropout_comes_from_its_seed() -> None:
    frozen, given = make_frozen("dense"), inputs()

    def call(number: int | None) -> torch.Tensor:
        seed = None if number is None else torch.tensor([number])
        return lora_linear(given[0], frozen.weight, [], None, *given[1:], SCALE, seed, SHARE)[0]

    assert torch.equal(call(7), call(7)) and not torch.equal(call(7), call(8))
    kept = torch.stack([kept_of(torch.tensor([number])) for number in range(200)])
    assert kept.unique().numel() == 2 and kept.min() == 0 and abs(float(kept.max()) - 1 / (1 - SHARE)) < 1e-6
    assert abs(float((kept == 0).float().mean()) - SHARE) < 0.005
    # Of no number always the same is made, and over many seeds nothing is lost.
    assert float((kept.mean(dim=0) - 1).abs().max()) < 0.3
    mean = torch.stack([call(number) for number in range(400)]).mean(dim=0)
    assert off(mean, call(None)) < 0.05 < off(call(7), call(None))


def test_the_backward_keeps_what_there_is_already() -> None:
    """Neither a dense weight nor what dropout left of x, nor what it dropped."""
    frozen, given, seed = make_frozen("nested"), inputs(), torch.tensor([1])
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _, inner = lora_linear(given[0], frozen.weight, frozen.state, None, *given[1:], SCALE, seed, SHARE)
    there = {tensor.data_ptr() for tensor in (*given, seed, frozen.weight, *frozen.state, inner)}
    assert len(there) == 10 and {tensor.data_ptr() for tensor in kept} == there


@pytest.mark.parametrize("kind", [*EXACT, "fp8"])
def test_compiled_it_is_one_node_and_says_the_same(kind: str) -> None:
    frozen, given, seed = make_frozen(kind), inputs(), torch.tensor([5])

    def call(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = lora_linear(x * 2, frozen.weight, frozen.state, None, a, b, SCALE, seed, SHARE)[0]
        return frozen_linear(y.relu()[..., :NUM_IN], frozen.weight, frozen.state, None, NUM_OUT)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    once, again = call(*given), compiled(*given)
    assert torch.equal(once, again)
    for got, wanted in zip(gradients(again, given), gradients(once, given), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "nested"])  # torch 2.13 cannot compare float8 tensors there
def test_the_operators_are_what_they_say(kind: str) -> None:
    """torch's own check: shapes without values, no aliasing, no change of an argument, gradients, dynamic shapes."""
    frozen, (x, a, b) = make_frozen(kind), inputs()
    bias, seed = torch.randn(NUM_OUT), torch.tensor([5])
    y, inner = lora_linear(x, frozen.weight, frozen.state, bias, a, b, SCALE, seed, SHARE)
    checked = 0
    for operator, arguments in (
        (frozen_linear, (x, frozen.weight, frozen.state, bias, NUM_OUT)),
        (frozen_linear_backward, (y.detach(), frozen.weight, frozen.state, NUM_IN)),
        (lora_linear, (x, frozen.weight, frozen.state, bias, a, b, SCALE, seed, SHARE)),
        (
            lora_linear_backward,
            [t.detach() for t in (y, x, inner)] + [frozen.weight, frozen.state, a.detach(), b.detach()]
            + [SCALE, seed, SHARE, True],
        ),
    ):  # fmt: skip
        found = torch.library.opcheck(operator, tuple(arguments))
        assert set(found.values()) == {"SUCCESS"}
        checked += 1
    assert checked == 4


def test_other_formats_are_refused() -> None:
    import bitsandbytes as bnb

    weight = torch.randn(NUM_OUT, NUM_IN)
    other = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="fp4").to("cpu")
    with pytest.raises(TypeError, match="fp4"):
        stored(SimpleNamespace(weight=other))
    packed = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4").to("cpu")
    assert stored(SimpleNamespace(weight=packed))[0] is packed
    packed.quant_state.packing_format_for_cpu = True
    with pytest.raises(TypeError):
        stored(SimpleNamespace(weight=packed))


def steps_of(values: torch.Tensor) -> Any:
    """The distance between neighbouring float8_e4m3fn numbers at each of these."""
    return 2.0 ** (values.abs().clamp(min=2**-6).log2().floor() - 3)


def test_rows_in_float8_are_within_half_a_step() -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 300) * torch.tensor([[1e-6], [1.0], [300.0], [1e4], [1.0], [1e-30]])
    rows[4] = 0
    small, scale = to_float8(rows)
    assert small.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32 and scale.shape == (6, 1)
    assert bool((small[4].float() == 0).all()) and bool(torch.isfinite(small.float()).all())
    some = [0, 1, 2, 3]
    largest = rows[some].abs().argmax(dim=1)
    assert bool((small[some, largest].float().abs() == FLOAT8_MAX).all())
    ratio = rows[some] / scale[some]
    assert bool(((small[some].float() - ratio).abs() <= steps_of(ratio) / 2 * (1 + 1e-5)).all())
    # Below what a scale may be, a row is rounded to zero and not to noise.
    assert bool((small[5].float() == 0).all())
    assert bool((to_float8(torch.zeros(2, 3))[0].float() == 0).all())
