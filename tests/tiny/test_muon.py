"""Muon: updates have singular values near one, matrices of one shape go together, a fused one falls into its parts."""

from __future__ import annotations

import torch

from boxtune.tiny.muon import Muon, orthogonalise


def test_singular_values_come_near_to_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 80, 40), (2, 64, 16), (2, 16, 64)):
        made = orthogonalise(torch.randn(shape, generator=generator)).float()
        assert made.shape == shape
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.6 and values.max() < 1.3


def _matrix(rows: int, columns: int, seed: int) -> torch.nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.randn(rows, columns, generator=generator))
    parameter.grad = torch.randn(rows, columns, generator=generator)
    return parameter


def test_a_fused_matrix_moves_as_its_parts_would_alone() -> None:
    fused = _matrix(48, 16, 1)
    alone = [torch.nn.Parameter(part.clone()) for part in fused.data.chunk(3)]
    assert fused.grad is not None
    for part, grad in zip(alone, fused.grad.chunk(3), strict=True):
        part.grad = grad.clone()
    rate = torch.tensor(0.01)
    Muon({fused: 3}, rate, momentum=0.9, weight_decay=0.0).step()
    Muon(dict.fromkeys(alone, 1), rate, momentum=0.9, weight_decay=0.0).step()
    assert torch.equal(fused.data, torch.cat([part.data for part in alone]))


def test_the_step_has_the_size_that_its_rate_says_and_follows_the_rate() -> None:
    matrix = _matrix(32, 64, 2)
    rate = torch.tensor(0.01)
    muon = Muon({matrix: 1}, rate, momentum=0.9, weight_decay=0.0)
    before = matrix.data.clone()
    muon.step()
    size = (matrix.data - before).square().mean().sqrt()
    # Singular values of about 1, times 0.2 sqrt(64): a root mean square of about 0.2 an element.
    assert 0.12 < size / 0.01 < 0.28
    rate.zero_()
    before = matrix.data.clone()
    muon.step()
    assert torch.equal(matrix.data, before)


def test_it_goes_down_hill() -> None:
    goal = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    matrix = torch.nn.Parameter(torch.zeros(8, 16))
    matrix.grad = torch.zeros(8, 16)
    rate = torch.tensor(0.05)
    muon = Muon({matrix: 1}, rate, momentum=0.9, weight_decay=0.0)
    for step in range(300):
        matrix.grad.zero_()
        (matrix - goal).square().sum().backward()
        rate.fill_(0.05 * (1 - step / 300))
        muon.step()
    assert (matrix - goal).square().mean() < 0.01
