"""The images of an optimizer step dealt to its micro-batches so that none is much longer than another.

A step holds the same images as without, in the order that the seed gives; only who computes which is changed. Of
several processes each then has as much to do as the others, which wait for it at the end of the step; of several
micro-batches one after the other none needs much more memory than the rest, and where samples are padded, those of
like length are padded together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler


@dataclass(frozen=True, kw_only=True)
class Dealing:
    """`lengths` are tokens of every row; a step is `num_batches` micro-batches of `micro` rows, over all processes.

    `packed`: samples lie in one row, so a micro-batch is as long as all of them together; else as its longest, times
    their number.
    """

    lengths: Sequence[int]
    micro: int
    num_batches: int
    packed: bool

    def deal(self, rows: Sequence[int]) -> list[int]:
        """The rows of a whole step, micro-batch after micro-batch, the longest first.

        accelerate gives them to the processes by turns, so that those of one turn are the most alike.
        """
        by_length = sorted(rows, key=lambda row: -self.lengths[row])
        if not self.packed:
            return by_length
        batches: list[list[int]] = [[] for _ in range(self.num_batches)]
        totals = [0] * self.num_batches
        for row in by_length:
            # The next longest to whoever has least so far (Graham, 1969), while there is room.
            place = min((n for n, batch in enumerate(batches) if len(batch) < self.micro), key=totals.__getitem__)
            batches[place].append(row)
            totals[place] += self.lengths[row]
        order = sorted(range(self.num_batches), key=lambda place: -totals[place])
        return [row for place in order for row in batches[place]]


class DealtSampler(Sampler[int]):
    """The rows of an epoch as accelerate shuffles them, dealt within each step; those of a last part of one are not."""

    def __init__(self, rows: Any, dealing: Dealing, seed: int) -> None:
        self.shuffled = SeedableRandomSampler(rows, data_seed=seed)
        self.dealing = dealing

    def __len__(self) -> int:
        return len(self.shuffled)

    def set_epoch(self, epoch: int) -> None:
        """Epochs differ in their order."""
        self.shuffled.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        size = self.dealing.micro * self.dealing.num_batches
        rows = list(self.shuffled)
        for begin in range(0, len(rows), size):
            step = rows[begin : begin + size]
            yield from self.dealing.deal(step) if len(step) == size else step
