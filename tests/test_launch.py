"""How many ranks are started, what is refused, and what the launcher is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from boxtune import launch
from boxtune.config import read_settings
from boxtune.errors import BoxtuneError, ConfigError, DataError, NotLearningError

RANK = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*RANK, launch.LAUNCH, launch.LAUNCHER, "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def set_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in RANK.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("devices", "visible", "expected"), [("auto", 1, 1), ("auto", 4, 4), (1, 4, 1), (2, 4, 2), (2, 1, 2)]
)
def test_as_many_ranks_as_asked_for(devices: Any, visible: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "count_devices", lambda: visible)
    assert launch.ranks_to_start(devices) == expected
    launch.require_size(devices)


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "count_devices", lambda: 4)
    with pytest.raises(ConfigError, match="devices=5, and 4 GPUs are visible"):
        launch.ranks_to_start(5)


def test_a_rank_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "count_devices", lambda: 4)
    set_rank(monkeypatch)
    assert launch.is_rank() and (launch.world_size(), launch.local_rank()) == (2, 1)
    assert launch.ranks_to_start("auto") == launch.ranks_to_start(2) == 1
    launch.require_size("auto")
    launch.require_size(2)
    with pytest.raises(ConfigError, match="devices=4, and torchrun or accelerate has started 2"):
        launch.require_size(4)


def test_accelerate_that_started_one_process_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "count_devices", lambda: 4)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert launch.ranks_to_start("auto") == 1
    launch.require_size("auto")
    with pytest.raises(ConfigError, match="devices=2, and accelerate has started 1"):
        launch.require_size(2)


@pytest.mark.parametrize(
    "error", [DataError("a", where="b", fix="c"), NotLearningError("it did not learn"), BoxtuneError("x")]
)
def test_an_error_of_ours_comes_over_as_it_was(error: BoxtuneError) -> None:
    again = launch.build_error(launch.describe_error(error, 1))
    assert type(again) is type(error) and str(again) == str(error) and again.exit_code == error.exit_code


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("Finding")])
def test_another_error_is_named(error: Exception) -> None:
    again = launch.build_error(launch.describe_error(error, 1))
    assert type(again) is BoxtuneError and again.exit_code == 1
    assert str(again).startswith(f"rank 1 ended with {type(error).__name__}: {error}")


class Started:
    """What stands in for the processes: leaves a word as the ranks would, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **word: Any) -> None:
        self.word, self.patch, self.popen = word, monkeypatch, subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", self)

    def __call__(self, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        self.command, self.env = command, env
        self.recipe = Path(command[-1])
        with self.patch.context() as inside:
            for name, value in {**RANK, **env}.items():
                inside.setenv(name, value)
            self.read = launch.with_sources(read_settings(self.recipe, {}))
            self.orphan = launch.is_orphan()
            if self.word:
                launch.leave_word(**self.word)
        return self.popen([sys.executable, "-c", "raise SystemExit(1)"])


def test_ranks_get_the_settings_with_their_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = read_settings(None, {"model": "tiny", "data": str(tmp_path), "name": "1.10", "augment": "flip,turn"})
    asked = asked.with_values({"train.epochs": 3.0}, "family: x")
    with monkeypatch.context() as inside:
        started = Started(inside, folder=tmp_path / "run")
        assert launch.start(asked, 2) == tmp_path / "run"
    assert started.read == asked and not started.orphan
    assert started.command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert int(started.env["OMP_NUM_THREADS"]) >= 1
    assert not started.recipe.exists()


def test_the_error_of_a_rank_is_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = read_settings(None, {"model": "tiny", "data": str(tmp_path)})
    with monkeypatch.context() as inside, pytest.raises(DataError, match="no such image"):
        Started(inside, error=launch.describe_error(DataError("no such image"), 0))
        launch.start(asked, 2)
    with monkeypatch.context() as inside, pytest.raises(BoxtuneError, match="have ended with code 1 and left no word"):
        Started(inside)
        launch.start(asked, 2)


def test_a_rank_whose_launcher_is_gone_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    set_rank(monkeypatch)
    assert not launch.has_launcher() and not launch.is_orphan()
    launch.leave_word(folder=tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv(launch.LAUNCH, str(tmp_path))
    monkeypatch.setenv(launch.LAUNCHER, str(gone.pid))
    assert launch.has_launcher() and launch.is_orphan()
    monkeypatch.setenv(launch.LAUNCHER, str(os.getpid()))
    assert not launch.is_orphan()


@pytest.mark.parametrize("known", [True, False])
def test_torchrun_is_told_only_what_it_knows(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of torch 2.11 refuses to start with `--shutdown_timeout`."""
    import argparse

    from boxtune.launch import _shutdown_words

    parser = argparse.ArgumentParser()
    if known:
        parser.add_argument("--shutdown_timeout")
    monkeypatch.setattr("torch.distributed.run.get_args_parser", lambda: parser)
    assert (_shutdown_words()[:1] == ["--shutdown_timeout"]) == known == bool(_shutdown_words())
