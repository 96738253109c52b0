"""The kernels for CUDA cards do what their counterparts for a CPU do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boxtune.finetune.lora_linear import stored, to_float8

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(96, 256), (64, 64), (1000, 1088)])
def test_nf4_becomes_what_bitsandbytes_makes_of_it(shape: tuple[int, int], nested: bool, dtype: torch.dtype) -> None:
    import bitsandbytes as bnb

    from boxtune.finetune.kernels import nf4_to_dense

    torch.manual_seed(0)
    layer: Any = torch.nn.Module()
    weight = bnb.nn.Params4bit(
        torch.randn(shape) * 0.1, requires_grad=False, quant_type="nf4", compress_statistics=nested
    )
    layer.weight = weight.to("cuda")
    packed, state = stored(layer)
    got = nf4_to_dense(packed, state, shape, dtype)
    wanted = bnb.functional.dequantize_4bit(packed.data, packed.quant_state)
    assert got.shape == shape and got.dtype == dtype
    step = {torch.float32: 2**-20, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]
    assert bool(((got.float() - wanted.float()).abs() <= step * wanted.float().abs() + 1e-8).all())


@pytest.mark.parametrize("width", [64, 3000, 4096])
@pytest.mark.parametrize("scaled", [False, True])
def test_rows_become_float8(width: int, scaled: bool) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs a GPU that knows float8")
    from boxtune.finetune.kernels import rows_to_float8

    torch.manual_seed(0)
    rows = torch.randn(7, width, device="cuda").bfloat16()
    rows[3] = 0
    columns = torch.rand(width, device="cuda") + 0.1 if scaled else None
    small, scale = rows_to_float8(rows, columns)
    wanted, right = to_float8(rows.float() if columns is None else rows.float() * columns)
    assert small.dtype == torch.float8_e4m3fn and scale.shape == (7, 1)
    assert torch.allclose(scale, right, rtol=1e-6) and not bool(small[3].float().any())
    # A number in the middle between two may go either way.
    apart = (small.float() != wanted.float()).float().mean()
    assert float(apart) < 0.01
    assert bool(((small.float() - wanted.float()).abs() <= wanted.float().abs() / 8 + 2**-9).all())


def test_dropping_comes_from_its_seed() -> None:
    from boxtune.finetune.kernels import drop

    rows, share = torch.ones(300, 1111, device="cuda", dtype=torch.bfloat16), 0.3
    first, again, other = (drop(rows, torch.tensor([n], device="cuda"), share) for n in (1 << 40, 1 << 40, 3))
    assert torch.equal(first, again) and not torch.equal(first, other)
    kept = first != 0
    assert abs(float(kept.float().mean()) - (1 - share)) < 0.005
    assert bool((first[kept] == torch.tensor(1 / (1 - share)).bfloat16().item()).all())
    assert torch.equal(drop(rows * 2, torch.tensor([3], device="cuda"), share) != 0, other != 0)


def test_dropping_onto_something_adds() -> None:
    from boxtune.finetune.kernels import drop

    torch.manual_seed(0)
    rows, onto = torch.randn(2, 100, 999, device="cuda").unbind()
    seed = torch.tensor([5], device="cuda")
    wanted = onto + drop(rows, seed, 0.05)
    assert drop(rows, seed, 0.05, onto) is onto
    assert torch.allclose(onto, wanted, atol=1e-6)


def test_what_is_dropped_has_no_pattern() -> None:
    from boxtune.finetune.kernels import drop

    kept = drop(torch.ones(1 << 22, device="cuda"), torch.tensor([1 << 61], device="cuda"), 0.5) != 0
    signs = kept.float() * 2 - 1
    for apart in (1, 2, 3, 4, 5, 6, 7, 8, 16, 256, 2048, 3584):
        # Of 4 million coins the mean product is below 0.0025 but once in a few million times.
        assert abs(float((signs[apart:] * signs[:-apart]).mean())) < 0.0025
    by_place = kept.view(-1, 8).float().mean(dim=0)
    assert bool(((by_place - 0.5).abs() < 0.0035).all())
