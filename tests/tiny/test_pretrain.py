"""The pre-training loop on a CPU: it learns, resumes where it stopped, and leaves a folder that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from boxtune.tiny.pool import Pool
from boxtune.tiny.pretrain import Plan, Pretraining
from boxtune.tiny.replay import Replay
from boxtune.tiny.scenes import SceneMaker


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(SceneMaker(side=Pool.SIDE), 16, seed=5)


def _plan(out: Path, **more: object) -> Plan:
    settings = {"batch": 2, "pool": 16, "steps": 8, "warmup": 1, "device": "cpu", "compiled": False}
    return Plan(out=str(out), **{**settings, **more})  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_rate_warms_up_stays_and_falls_to_nothing(tmp_path: Path) -> None:
    training = Pretraining(_plan(tmp_path, warmup=4, decay=0.25))
    assert training.height(0.0) == 0.25
    training.done = 10
    assert [training.height(progress) for progress in (0.1, 0.75, 0.875, 1.0, 1.1)] == [1, 1, 0.5, 0, 0]


@pytest.mark.slow
def test_a_strange_name_means_either_all_there_is_or_nothing(tmp_path: Path) -> None:
    training = Pretraining(_plan(tmp_path))
    labels = torch.tensor([[4, 4, -1], [4, 5, -1], [-1, -1, -1], [4, 4, -1]])
    asked = torch.tensor([[4, -1], [4, -1], [7, -1], [7, -1]])
    renamed = torch.zeros(4)
    for seed in range(300):
        tokens, mask = training._alias(labels, asked, torch.Generator().manual_seed(seed))
        assert tokens.shape == mask.shape == (4, 10) and bool((mask.cummin(1).values == mask).all())
        renamed += mask.any(1)
    assert 70 < renamed[0] < 130 and renamed[1] == 0
    assert 110 < renamed[2] < 190 and 110 < renamed[3] < 190


@pytest.mark.slow
def test_it_learns_and_goes_on_from_its_state(tmp_path: Path, pool: Pool) -> None:
    training = Pretraining(_plan(tmp_path))
    start = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    losses = []
    for step in range(6):
        training.step(pool, torch.Generator().manual_seed(step), step / 8)
        losses.append(training.totals[0].item())
        training.totals.zero_()
    assert losses[-1] < losses[0] - 1
    # The time axis of the patches sees two equal frames, so its two halves move alike; everything else moves too.
    still = [name for name, tensor in training.model.state_dict().items() if torch.equal(tensor, start[name])]
    assert still == []
    training.save()
    again = Pretraining(_plan(tmp_path))
    again.resume()
    assert again.done == 6
    for one in (training, again):
        one.step(pool, torch.Generator().manual_seed(9), 0.75)
    for name, tensor in training.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name


@pytest.mark.slow
def test_it_trains_to_its_end_and_leaves_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = Pretraining(_plan(tmp_path, steps=2, fresh=1))
    training.train()
    assert training.done == 2 and "16 scenes drawn" in capsys.readouterr().out
    from boxtune.finetune import find_model

    assert find_model(tmp_path / "tiny").family.name == "qwen2_vl"


def test_on_a_cpu_nothing_is_recorded() -> None:
    called = []
    replay = Replay(lambda key, x: called.append((key, x)), torch.device("cpu"))
    for value in (1.0, 2.0):
        replay("all", (torch.tensor(value),))
    assert [(key, x.item()) for key, x in called] == [("all", 1.0), ("all", 2.0)]


@pytest.mark.gpu
def test_a_recording_follows_its_inputs() -> None:
    device = torch.device("cuda")
    total = torch.zeros((), device=device)
    replay = Replay(lambda key, x: total.add_(x.sum() * key), device)
    for value in range(5):
        replay(2, (torch.full((3,), float(value), device=device),))
    assert total.item() == 2 * 3 * sum(range(5))
