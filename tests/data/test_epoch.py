"""Rows of an epoch: every sample once, negatives and conversations at their shares, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data.epoch import Epochs
from boxtune.data.mix import Conversation
from boxtune.data.sample import Sample


def sample(number: int, *, empty: bool) -> Sample:
    boxes = Boxes.none() if empty else Boxes(xyxy_px=np.array([[1.0, 1.0, 5.0, 5.0]]), labels=("cat",))
    none = np.zeros(len(boxes), dtype=bool)
    image = Path(f"{number}.png")
    return Sample(image=image, image_id=number, size_wh=(10, 10), boxes=boxes, crowd=none, ignore=none)


SAMPLES = [sample(i, empty=i % 2 == 1) for i in range(40)]
TALK = [Conversation(images=(), turns=(("user", f"{i}?"), ("assistant", "yes"))) for i in range(3)]


def rows(epochs: Epochs, epoch: int) -> Counter[tuple[str, int]]:
    return Counter(epochs.find(row, epoch) for row in range(len(epochs)))


def test_without_settings_every_sample_stands_in_its_own_row() -> None:
    epochs = Epochs(samples=SAMPLES)
    assert [epochs.find(row, 3) for row in range(len(epochs))] == [("train", i) for i in range(40)]


def test_negatives_are_thinned_to_their_share_and_differ_by_epoch() -> None:
    epochs = Epochs(samples=SAMPLES, negatives=0.2, seed=1)
    first, second = rows(epochs, 0), rows(epochs, 1)
    assert len(epochs) == 25 == sum(first.values()) == sum(second.values())
    assert {i for _, i in first if i % 2 == 0} == set(range(0, 40, 2))
    assert first != second and rows(Epochs(samples=SAMPLES, negatives=0.2, seed=1), 0) == first


@pytest.mark.parametrize("negatives", [None, 0.2])
def test_conversations_stand_between_at_their_share(negatives: float | None) -> None:
    epochs = Epochs(samples=SAMPLES, negatives=negatives, conversations=TALK, mix_share=0.2, seed=1)
    found = rows(epochs, 0)
    num_mix = sum(count for (kind, _), count in found.items() if kind == "mix")
    assert num_mix == round(0.2 * len(epochs)) and {i for kind, i in found if kind == "mix"} == {0, 1, 2}
    assert {i for kind, i in found if kind == "train" and i % 2 == 0} == set(range(0, 40, 2))
