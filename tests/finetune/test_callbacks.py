"""Which adapter is kept, and when training ends early."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, SeedableRandomSampler, SkipBatchSampler
from torch.utils.data import BatchSampler

from boxtune.artifacts import RunFolder
from boxtune.finetune.callbacks import KeepBest, StopEarly, TellEpoch


class Evaluations:
    """Evaluations of a run, one by one; `kept` are the steps whose adapter was saved."""

    def __init__(self, path: Path, patience: int | None = None) -> None:
        self.folder, self.kept = RunFolder(path=path), list[int]()
        self.state = SimpleNamespace(global_step=0, log_history=[], is_world_process_zero=True)
        self.control = SimpleNamespace(should_training_stop=False)
        self.best = KeepBest(self.folder, lambda to: self.kept.append(self.state.global_step))
        self.early = None if patience is None else StopEarly(patience, self.folder)

    def add(self, step: int, loss: float, ap: float | None = None) -> bool:
        """Whether it is the last one."""
        metrics = {"eval_loss": loss, **({} if ap is None else {"eval_ap": ap})}
        self.state.global_step = step
        self.state.log_history.append({**metrics, "step": step})
        self.best.on_evaluate(None, self.state, self.control, metrics=metrics)
        if self.early is not None:
            self.early.on_evaluate(None, self.state, self.control)
        return bool(self.control.should_training_stop)


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(1, 3.0, None), (2, 2.0, None), (3, 2.5, None), (4, 1.0, None)], [1, 2, 4]),  # by loss alone
        ([(1, 2.0, 0.1), (2, 3.0, 0.4), (3, 1.0, 0.3)], [1, 2]),  # by AP, whatever the loss
        ([(1, 2.0, 0.0), (2, 1.5, 0.0), (3, 1.7, 0.0)], [1, 2]),  # of equal AP the lower loss
        ([(0, 1.0, None), (1, 2.0, 0.2)], [1]),  # nothing was learned before the first step
        ([(1, math.nan, 0.9), (2, 2.0, 0.1)], [2]),
        ([(1, 2.0, 0.3), (2, 1.0, None)], [1]),  # stopped in a hurry: not asked
        ([(1, 2.0, None), (2, 3.0, 0.0)], [1, 2]),
    ],
)
def test_the_best_is_kept(tmp_path: Path, rows: list[Any], kept: list[int]) -> None:
    run = Evaluations(tmp_path)
    for row in rows:
        run.add(*row)
    assert run.kept == kept and json.loads(run.folder.best.read_text())["step"] == kept[-1]


def test_training_ends_once_nothing_better_comes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Evaluations(tmp_path, patience=2)
    ended = [run.add(step, 1.0, ap) for step, ap in ((0, None), (1, 0.1), (2, 0.3), (3, 0.2), (4, 0.4), (5, 0.4))]
    assert not any(ended) and run.kept == [1, 2, 4]
    assert run.add(6, 2.0, 0.39) and "stopped at step 6: 2 evaluations without a better one" in capsys.readouterr().out


def test_patience_is_counted_from_the_history_of_a_checkpoint(tmp_path: Path) -> None:
    first = Evaluations(tmp_path, patience=3)
    for step, ap in ((1, 0.5), (2, 0.4), (2, 0.4)):
        assert not first.add(step, 1.0, ap)
    resumed = Evaluations(tmp_path, patience=3)
    resumed.state.log_history = [*first.state.log_history]
    assert not resumed.add(3, 1.0, 0.3) and resumed.add(4, 1.0, 0.3)


def resumed_in_the_middle() -> tuple[Any, SeedableRandomSampler]:
    """What a rank of two draws from in an epoch of which one batch is skipped, as accelerate wraps it."""
    sampler = SeedableRandomSampler(list(range(16)), data_seed=0)
    shard = BatchSamplerShard(BatchSampler(sampler, 2, False), num_processes=2, process_index=0)
    return DataLoaderShard(list(range(16)), batch_sampler=SkipBatchSampler(shard, skip_batches=1)), sampler


def test_a_resumed_epoch_has_its_own_order_on_several_ranks() -> None:
    (loader, sampler), collator = resumed_in_the_middle(), SimpleNamespace(epoch=0)
    tell = TellEpoch(collator)
    tell.on_epoch_begin(None, SimpleNamespace(epoch=1.5), None, train_dataloader=loader)
    assert sampler.epoch == 1 and collator.epoch == 1
    tell.on_epoch_begin(None, SimpleNamespace(epoch=2.0), None, train_dataloader=None)  # no loader, no sampler
    assert collator.epoch == 2


def test_accelerate_still_does_not_reach_it() -> None:
    """Once this fails, `TellEpoch` need not look for the sampler any more."""
    loader, sampler = resumed_in_the_middle()
    loader.set_epoch(1)
    assert sampler.epoch == 0
