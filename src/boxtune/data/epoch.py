"""One epoch of training: which sample, or which other conversation, stands in each of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from boxtune.data.ask import epoch_places, has_targets
from boxtune.data.mix import Conversation, mixed, num_mixed
from boxtune.data.sample import Sample

if TYPE_CHECKING:
    from boxtune.settings import DataSettings  # pydantic, which `inspect` need not wait for


@dataclass(frozen=True, kw_only=True, eq=False)
class Epochs:
    """The rows of every epoch: training images, thinned or repeated as `negatives` asks, and a `mix_share` of
    `conversations` between them. All of it is drawn from (seed, epoch) alone."""

    samples: Sequence[Sample]
    negatives: float | None = None
    conversations: Sequence[Conversation] = ()
    mix_share: float = 0.0
    seed: int = 0

    def __len__(self) -> int:
        """Rows of one epoch; every epoch has as many."""
        num = len(self._places(0))
        return num + (num_mixed(num, self.mix_share) if self.conversations else 0)

    def find(self, row: int, epoch: int) -> tuple[Literal["train", "mix"], int]:
        """What stands in a row: ("train", place of the sample) or ("mix", place of the conversation)."""
        places = self._places(epoch)
        if not self.conversations:
            return "train", int(places[row])
        kind, at = mixed(
            row,
            num_samples=len(places),
            num_conversations=len(self.conversations),
            share=self.mix_share,
            seed=self.seed,
            epoch=epoch,
        )
        return (kind, int(places[at])) if kind == "train" else (kind, at)

    def _places(self, epoch: int) -> np.ndarray:
        return _epoch_places(self, epoch)


def build_epochs(
    samples: Sequence[Sample], data: DataSettings, conversations: Sequence[Conversation], *, seed: int
) -> Epochs:
    """The epochs that the settings ask for."""
    return Epochs(
        samples=samples,
        negatives=data.negatives,
        conversations=conversations,
        mix_share=data.mix_share,
        seed=seed,
    )


@lru_cache(maxsize=4)
def _epoch_places(epochs: Epochs, epoch: int) -> np.ndarray:
    if epochs.negatives is None:
        return np.arange(len(epochs.samples))
    return epoch_places(has_targets(epochs.samples), epochs.negatives, seed=epochs.seed, epoch=epoch)
