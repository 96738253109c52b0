"""The images of a step are dealt evenly, and no step gets others than it would have had."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler
from trained import build_squares_trainer

from boxtune.finetune.dealing import Dealing, DealtSampler
from boxtune.finetune.device import small_step
from boxtune.finetune.trainer import build_trainer


@given(st.data(), st.integers(1, 5), st.integers(1, 6), st.booleans())
def test_a_step_keeps_its_rows(data: Any, micro: int, num_batches: int, packed: bool) -> None:
    size = micro * num_batches
    lengths = data.draw(st.lists(st.integers(1, 2000), min_size=size, max_size=size + 5))
    rows = data.draw(st.permutations(range(len(lengths))))[:size]
    dealing = Dealing(lengths=lengths, micro=micro, num_batches=num_batches, packed=packed)
    dealt = dealing.deal(rows)
    assert sorted(dealt) == sorted(rows)
    totals = [sum(lengths[row] for row in dealt[at : at + micro]) for at in range(0, size, micro)]
    assert totals == sorted(totals, reverse=True)


def test_micro_batches_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(256, 1400, 4096).tolist()
    dealing = Dealing(lengths=lengths, micro=4, num_batches=4, packed=True)
    spreads = []
    for deal in (dealing.deal, list):
        apart = []
        for begin in range(0, 4096, 16):
            rows = deal(range(begin, begin + 16))
            totals = [sum(lengths[row] for row in rows[at : at + 4]) for at in range(0, 16, 4)]
            apart.append(max(totals) / np.mean(totals) - 1)
        spreads.append(float(np.mean(apart)))
    dealt, drawn = spreads
    # Of four processes three wait for the slowest.
    assert dealt < 0.03 < 0.15 < drawn


def test_where_samples_are_padded_the_like_ones_are_together() -> None:
    lengths = [10, 900, 20, 800, 15, 850, 30, 1000]
    dealt = Dealing(lengths=lengths, micro=4, num_batches=2, packed=False).deal(range(8))
    assert [lengths[row] for row in dealt] == sorted(lengths, reverse=True)


def test_every_process_gets_as_much_in_the_same_turn() -> None:
    lengths = [*range(100, 900, 100), *range(150, 950, 100)]
    dealing = Dealing(lengths=lengths, micro=2, num_batches=4, packed=True)
    sampler = DealtSampler(range(16), dealing, seed=3)
    batches = BatchSampler(sampler, 2, drop_last=False)
    shards = [list(BatchSamplerShard(batches, 2, rank)) for rank in (0, 1) if sampler.set_epoch(0) is None]
    assert sorted(row for shard in shards for batch in shard for row in batch) == list(range(16))
    for mine, others in zip(*shards, strict=True):
        totals = [sum(lengths[row] for row in batch) for batch in (mine, others)]
        assert abs(totals[0] - totals[1]) <= 200


def steps_of(trainer: Any, epochs: tuple[int, ...]) -> list[list[list[int]]]:
    """The rows of every micro-batch, by epoch, as the trainer's own loader names them."""
    named: list[list[list[int]]] = []
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: {"i": [row["i"] for row in rows]}
    loader = trainer.get_train_dataloader()
    trainer.data_collator = collate
    for epoch in epochs:
        loader.set_epoch(epoch)
        named.append([batch["i"] for batch in loader])
    return named


@pytest.fixture()
def build(load_tiny: Any, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def build(lengths: tuple[int, ...]) -> Any:
        def step(*args: Any) -> Any:
            return dataclasses.replace(small_step(*args), lengths=lengths)

        monkeypatch.setattr("boxtune.finetune.trainer.small_step", step)
        assert build_trainer.__module__ == "boxtune.finetune.trainer"
        return build_squares_trainer(load_tiny(), squares, tmp_path, micro_batch=2, effective_batch=4)

    return build


@pytest.mark.slow
def test_steps_hold_the_same_images_as_without(build: Any) -> None:
    plain, dealt = build(()), build((70, 10, 60, 20, 50, 30, 40, 80))
    assert plain.dealing is None and dealt.dealing is not None
    found, wanted = (steps_of(trainer, (0, 1, 1)) for trainer in (dealt, plain))
    assert found != wanted and found[1] == found[2] != found[0]
    for epoch, other in zip(found, wanted, strict=True):
        assert [len(batch) for batch in epoch] == [2, 2, 2, 2]
        for at in (0, 2):
            assert sorted(epoch[at] + epoch[at + 1]) == sorted(other[at] + other[at + 1])


@pytest.mark.slow
def test_nothing_is_dealt_where_lengths_are_not_known(build: Any) -> None:
    assert build((1, 2, 3)).dealing is None
