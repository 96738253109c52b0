"""Samples in one row: what `sdpa` makes of each alone, and nothing of one in another."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from boxtune.finetune.attention import NAME, packed_attention, register_attention

RAGGED, EVEN = (5, 1, 12, 7), (6, 6, 6)
WIDTH = 16


def make_row(lengths: tuple[int, ...], heads: int, groups: int, dtype: torch.dtype = torch.float32) -> list[Any]:
    torch.manual_seed(0)
    num = sum(lengths)
    return [torch.randn(1, n, num, WIDTH, dtype=dtype) for n in (heads, groups, groups)]


class Layer(torch.nn.Module):
    """What attention asks of the layer that it is in."""

    def __init__(self, is_causal: bool, num_key_value_groups: int = 1) -> None:
        super().__init__()
        self.is_causal, self.num_key_value_groups = is_causal, num_key_value_groups


def attend(row: list[Any], lengths: tuple[int, ...], *, causal: bool | None, **more: Any) -> torch.Tensor:
    borders = torch.tensor(list(accumulate(lengths, initial=0)), dtype=torch.int32, device=row[0].device)
    longest = more.pop("max_length_q", max(lengths) + 3)  # a bound, and not the length itself
    module = more.pop("module", Layer(is_causal=True))
    out, weights = packed_attention(
        module, *row, None, is_causal=causal, cu_seq_lens_q=borders, max_length_q=longest, **more
    )
    assert weights is None
    return out


def one_by_one(
    row: list[Any], lengths: tuple[int, ...], *, causal: bool, window: int | None = None, scaling: float | None = None
) -> torch.Tensor:
    """Written out: scores, a mask, a softmax."""
    parts = []
    for begin, end in pairwise(accumulate(lengths, initial=0)):
        q, k, v = (part[:, :, begin:end].double() for part in row)
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
        scores = q @ k.transpose(-1, -2) * (WIDTH**-0.5 if scaling is None else scaling)
        behind = torch.arange(end - begin)[:, None] - torch.arange(end - begin)[None]
        if causal:
            sees = (behind >= 0) & (behind < (end - begin if window is None else window))
            scores = scores.masked_fill(~sees.to(scores.device), float("-inf"))
        parts.append((scores.softmax(dim=-1) @ v).transpose(1, 2))
    return torch.cat(parts, dim=1).to(row[0].dtype)


@pytest.mark.parametrize("scaling", [None, 0.5])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("lengths", "evenly"), [(RAGGED, False), (EVEN, False), (EVEN, True), ((9,), True)])
def test_each_sample_is_attended_alone(
    lengths: tuple[int, ...], evenly: bool, causal: bool, groups: int, scaling: float | None
) -> None:
    row = make_row(lengths, 4, groups)
    wanted = one_by_one(row, lengths, causal=causal, scaling=scaling)
    for said in ({"evenly": evenly}, {"text_evenly": evenly}, {"evenly": evenly, "text_evenly": not evenly}):
        got = attend(row, lengths, causal=causal, scaling=scaling, **said)
        assert got.shape == (1, sum(lengths), 4, WIDTH)
        assert torch.allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(("lengths", "evenly"), [(RAGGED, False), (EVEN, True)])
@pytest.mark.parametrize("window", [1, 3, 6, 100])
def test_a_sliding_window(lengths: tuple[int, ...], evenly: bool, window: int) -> None:
    row = make_row(lengths, 4, 2)
    got = attend(row, lengths, causal=True, sliding_window=window, text_evenly=evenly)
    assert torch.allclose(got, one_by_one(row, lengths, causal=True, window=window), atol=1e-6)
    everything = one_by_one(row, lengths, causal=True)
    assert torch.allclose(got, everything, atol=1e-6) == (window >= max(lengths))


@pytest.mark.parametrize("module_is", [True, False])
def test_the_module_says_whether_it_is_causal(module_is: bool) -> None:
    row, module = make_row(RAGGED, 4, 4), Layer(is_causal=module_is)
    got = attend(row, RAGGED, causal=None, module=module)
    assert torch.allclose(got, one_by_one(row, RAGGED, causal=module_is), atol=1e-6)
    assert torch.equal(
        attend(row, RAGGED, causal=not module_is, module=module), attend(row, RAGGED, causal=not module_is)
    )


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("lengths", "evenly"), [(RAGGED, False), (EVEN, True)])
def test_nothing_of_a_sample_is_in_another(
    lengths: tuple[int, ...], evenly: bool, causal: bool, window: int | None
) -> None:
    """Not one bit changes when all others do, forward or backward; not even by what is not finite."""
    window = window if causal else None
    borders = list(accumulate(lengths, initial=0))
    row = [part.requires_grad_() for part in make_row(lengths, 4, 2)]
    torch.manual_seed(9)
    toward = torch.randn(1, sum(lengths), 4, WIDTH)
    before = attend(row, lengths, causal=causal, evenly=evenly, sliding_window=window)
    slopes = torch.autograd.grad(before, row, toward)
    for begin, end in pairwise(borders):
        mine = torch.zeros(sum(lengths), dtype=torch.bool)
        mine[begin:end] = True
        for other in (1e3, float("nan")):
            changed = [
                torch.where(mine[:, None], part.detach(), part.detach() * -7 + other).requires_grad_() for part in row
            ]
            after = attend(changed, lengths, causal=causal, evenly=evenly, sliding_window=window)
            assert torch.equal(after[:, begin:end], before[:, begin:end])
            again = torch.autograd.grad(after, changed, toward)
            assert all(
                torch.equal(new[:, :, begin:end], old[:, :, begin:end]) for new, old in zip(again, slopes, strict=True)
            )
            if len(lengths) > 1:
                assert not torch.equal(after, before)


def test_gradients_are_those_of_each_alone() -> None:
    for lengths, evenly in ((RAGGED, False), (EVEN, True)):
        row = [part.requires_grad_() for part in make_row(lengths, 4, 2)]
        toward = torch.randn(1, sum(lengths), 4, WIDTH)
        got = torch.autograd.grad(attend(row, lengths, causal=True, text_evenly=evenly), row, toward)
        wanted = torch.autograd.grad(one_by_one(row, lengths, causal=True), row, toward)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(got, wanted, strict=True))


def test_without_borders_it_is_sdpa() -> None:
    row = make_row((8,), 4, 2)
    module = Layer(is_causal=True, num_key_value_groups=2)
    mask = torch.zeros(1, 1, 8, 8).masked_fill(torch.rand(1, 1, 8, 8) < 0.3, -1e9)
    for given in (None, mask):
        got, _ = packed_attention(module, *row, given, scaling=0.3, dropout=0.0)
        wanted, _ = sdpa_attention_forward(module, *row, given, scaling=0.3, dropout=0.0)
        assert torch.equal(got, wanted)
    again, _ = packed_attention(module, *row, None, is_causal=False, text_evenly=True, evenly=True)
    assert torch.equal(again, sdpa_attention_forward(module, *row, None, is_causal=False)[0])


def test_transformers_knows_it() -> None:
    register_attention()
    register_attention()
    assert AttentionInterface()[NAME] is packed_attention
    mask = AttentionMaskInterface()[NAME]
    sizes: dict[str, Any] = {"batch_size": 2, "q_length": 4, "kv_length": 4}
    padding = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    assert mask(attention_mask=None, **sizes) is None
    assert torch.equal(mask(attention_mask=padding, **sizes), sdpa_mask(attention_mask=padding, **sizes))


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 33])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("lengths", "evenly"), [((5, 260, 1, 77), False), ((96, 96, 96), True)])
def test_the_kernels_do_the_same(lengths: tuple[int, ...], evenly: bool, causal: bool, window: int | None) -> None:
    register_attention()
    window = window if causal else None
    row = [part.to("cuda", torch.bfloat16).requires_grad_() for part in make_row(lengths, 8, 2)]
    toward = torch.randn(1, sum(lengths), 8, WIDTH, device="cuda").bfloat16()
    got = attend(row, lengths, causal=causal, evenly=evenly, sliding_window=window)
    wanted = one_by_one([part.float() for part in row], lengths, causal=causal, window=window)
    assert got.dtype == torch.bfloat16
    assert F.cosine_similarity(got.float().flatten(), wanted.flatten(), dim=0) > 0.9999
    assert float((got.float() - wanted).detach().abs().max()) < 0.03
    slopes = torch.autograd.grad(got, row, toward)
    right = torch.autograd.grad(wanted, row, toward.float())
    for one, other in zip(slopes, right, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02
