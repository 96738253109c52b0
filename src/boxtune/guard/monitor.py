"""What is measured while a run trains: a small sample of its weights, and what lies between two steps.

Everything is kept on the device; a step that is looked at closely waits for one number a tensor of the sample.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import torch

from boxtune.guard.towers import Towers
from boxtune.guard.untouched import weight_sum

TENSORS_PER_TOWER, ELEMENTS = 6, 2048
"""The sample: so many tensors of each tower, spread over its depth, so many elements of each."""


class Sample:
    """A few elements of some trainable tensors of each tower; `now` copies them."""

    def __init__(self, trainable: Mapping[str, torch.nn.Parameter], towers: Towers) -> None:
        by_tower: dict[str, list[str]] = defaultdict(list)
        for name in trainable:
            by_tower[towers.of(name)].append(name)
        self.parts: list[tuple[str, str, torch.nn.Parameter, int]] = []
        for tower, names in by_tower.items():
            step = max(1, len(names) // TENSORS_PER_TOWER)
            # An odd step, so that LoRA's A and B, which take turns, are both in it.
            for name in names[:: step + 1 - step % 2][: TENSORS_PER_TOWER + 1]:
                parameter = trainable[name]
                self.parts.append((tower, name, parameter, max(1, parameter.numel() // ELEMENTS)))

    def now(self) -> list[torch.Tensor]:
        """The elements as they are, copied."""
        return [p.detach().reshape(-1)[::every][:ELEMENTS].clone() for _, _, p, every in self.parts]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Whether two samples are equal to the bit (NaN equals itself)."""
    return all(
        torch.equal(a, b) or bool((a.isnan() & b.isnan() | (a == b)).all()) for a, b in zip(one, other, strict=True)
    )


def all_sums(trainable: Mapping[str, torch.nn.Parameter]) -> dict[str, int]:
    """A sum of each trainable tensor, to tell whether any element of any of them has changed."""
    return {name: weight_sum(parameter) for name, parameter in trainable.items()}


MOST = 500
"""Losses that the trend test looks at, spread evenly over the run."""


def rising(losses: list[float]) -> float:
    """The one-sided p value of Mann and Kendall's test that the losses rise (normal approximation, ties counted).

    Source: Kendall, Rank Correlation Methods, 1975.
    """
    if len(losses) < 10:
        return 1.0
    # Each is compared with each.
    losses = losses[:: -(-len(losses) // MOST)]
    num = len(losses)
    rises = sum((b > a) - (b < a) for i, a in enumerate(losses) for b in losses[i + 1 :])
    ties = Counter(losses)
    variance = num * (num - 1) * (2 * num + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())
    if variance <= 0:
        return 1.0
    score = (rises - 1 if rises > 0 else rises + 1 if rises < 0 else 0) / math.sqrt(variance / 18)
    return 0.5 * math.erfc(score / math.sqrt(2))
