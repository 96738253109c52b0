"""Muon for the matrices of a small transformer: momentum, orthogonalised, for all matrices of one shape at once.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), the quintic Newton-Schulz
iteration and its coefficients; the scale that lets it share AdamW's learning rate is that of Liu et al., "Muon is
scalable for LLM training" (arXiv 2502.16982). PyTorch's own goes matrix by matrix: over a thousand launches a step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (n, rows, columns) with their singular values brought near to 1, on a GPU computed in bf16."""
    a, b, c = COEFFICIENTS
    # Many CPUs have no bf16, and take ten times as long for it.
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.mT


class Muon:
    """Steps matrices by their orthogonalised momentum; a parameter's gradient must stay the same tensor throughout.

    `parts` says into how many matrices, one over the other, a parameter falls (3 for a fused q, k and v).
    """

    def __init__(
        self, parts: Mapping[torch.nn.Parameter, int], rate: torch.Tensor, *, momentum: float, weight_decay: float
    ) -> None:
        """`rate` is a scalar tensor on the device that is read at each step."""
        self.rate, self.beta, self.weight_decay = rate, momentum, weight_decay
        self.groups: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for parameter, num in parts.items():
            assert parameter.grad is not None
            for value, grad in zip(parameter.data.chunk(num), parameter.grad.chunk(num), strict=True):
                self.groups.setdefault((value.shape[0], value.shape[1]), []).append((value, grad))
        self.momenta = {
            shape: torch.zeros(len(group), *shape, device=rate.device) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix."""
        for shape, group in self.groups.items():
            momentum = self.momenta[shape]
            grads = torch.stack([grad for _, grad in group])
            momentum.lerp_(grads, 1 - self.beta)
            update = orthogonalise(grads.lerp(momentum, self.beta)).float()
            update *= -0.2 * max(shape) ** 0.5 * self.rate
            values = [value for value, _ in group]
            torch._foreach_mul_(values, 1 - self.weight_decay * self.rate)
            torch._foreach_add_(values, list(update.unbind()))
