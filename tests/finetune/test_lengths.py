"""Which samples are measured: all of a small set, of a large one the longest by every sign."""

from __future__ import annotations

import numpy as np

from boxtune.data import SampleTable
from boxtune.finetune.lengths import choose_measured


def table(counts: list[int], sizes: list[tuple[int, int]]) -> SampleTable:
    num = sum(counts)
    return SampleTable(
        files=[f"{i}.png" for i in range(len(counts))],
        image_ids=np.arange(len(counts)),
        sizes_wh=np.array(sizes),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        xyxy_px=np.zeros((num, 4)),
        codes=np.zeros(num, dtype=np.int64),
        names=("a",),
        crowd=np.zeros(num, dtype=bool),
        ignore=np.zeros(num, dtype=bool),
    )


def test_a_small_set_is_measured_whole() -> None:
    samples = table([1] * 10, [(10, 10)] * 10)
    assert choose_measured(samples, most=10).tolist() == list(range(10))


def test_of_a_large_set_the_most_crowded_and_every_size_are_measured() -> None:
    counts = [1] * 100
    counts[37] = 50
    sizes = [(10, 10)] * 100
    sizes[61] = (999, 10)
    measured = choose_measured(table(counts, sizes), most=12).tolist()
    assert {37, 61} <= set(measured) and len(measured) <= 14 and measured == sorted(measured)
