"""Two processes that train together on a CPU: the same run as one process makes, and both end when one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from models import BUDGET
from safetensors.torch import load_file

import boxtune
from boxtune.finetune.checkpoints import read_metrics

pytestmark = pytest.mark.slow

SETTINGS = {
    **BUDGET, "model": "tiny", "epochs": 2, "micro_batch": 2, "effective_batch": 4, "max_new_tokens": 12,
    "at_once": 2, "quantization": "none", "precision": "fp32", "dropout": 0.0,
}  # fmt: skip
"""Without dropout, whose draws are each rank's own; three batches of answers, so that both ranks get some."""


def train(squares: Path, runs: Path, **more: Any) -> boxtune.Run:
    return boxtune.train(**{**SETTINGS, "data": str(squares), "runs": str(runs), **more})


def command(squares: Path, runs: Path, **more: Any) -> list[str]:
    settings = {**SETTINGS, "data": squares, "runs": runs, "devices": 2, **more}
    return [sys.executable, "-m", "boxtune", "train", *(f"{key}={value}" for key, value in settings.items())]


def losses(run: Path) -> dict[tuple[str, int], float]:
    rows = [row for row in read_metrics(run / "metrics.jsonl") if row["kind"] != "summary"]
    return {(row["kind"], row["step"]): row.get("loss", row.get("eval_loss")) for row in rows}


def require_same_adapter(one: Path, other: Path) -> None:
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (one, other))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5


@pytest.fixture(scope="module")
def one(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> boxtune.Run:
    """In a process of its own, as the ranks are; with a cache of its own, so that the others answer for themselves."""
    runs = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOXTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        subprocess.run(command(squares, runs, devices=1), check=True, capture_output=True)
    return boxtune.Run.read(runs / "squares-tiny")


@pytest.fixture(scope="module")
def two(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> boxtune.Run:
    return train(squares, tmp_path_factory.mktemp("two"), devices=2)


def test_two_ranks_make_the_run_of_one(one: boxtune.Run, two: boxtune.Run) -> None:
    ours, theirs = one.folder, two.folder
    assert [json.loads(folder.environment.read_text())["ranks"] for folder in (ours, theirs)] == [1, 2]
    assert len(losses(ours.path)) == 13
    assert losses(theirs.path) == pytest.approx(losses(ours.path), abs=1e-5)
    require_same_adapter(ours.adapter_last, theirs.adapter_last)
    require_same_adapter(ours.adapter, theirs.adapter)
    assert two.scores == one.scores
    for name in ("base.json", "tuned.json"):
        assert (theirs.predictions / name).read_text() == (ours.predictions / name).read_text()
    assert two.verdict["word"] == one.verdict["word"] == "learning"


def test_the_folder_is_one_and_complete(one: boxtune.Run, two: boxtune.Run) -> None:
    assert [path.name for path in two.folder.path.parent.iterdir()] == ["squares-tiny"]
    ours, theirs = ({p.name for p in run.folder.path.iterdir()} for run in (one, two))
    assert theirs == ours
    saved = two.folder.checkpoints / "checkpoint-8"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= json.loads((saved / "complete.json").read_text()).keys()
    # The sources that the launcher was given, not its temporary recipe.
    recipe = two.folder.recipe.read_text().splitlines()
    assert next(line for line in recipe if "epochs:" in line).endswith("# override")
    assert next(line for line in recipe if "workers:" in line).endswith("# default")


def test_every_rank_was_looked_at(one: boxtune.Run, two: boxtune.Run) -> None:
    found = [{f["check"]: f for f in json.loads(run.folder.findings.read_text())} for run in (one, two)]
    assert "ranks.same" not in found[0]
    assert found[1]["ranks.same"]["level"] == "ok" and "all 2 ranks" in found[1]["ranks.same"]["seen"]
    # One step of two ranks holds the batches of one process's accumulated step: there is nothing to compare them with.
    assert found[0].keys() - {"accumulation.same"} == found[1].keys() - {"ranks.same"}


def start(squares: Path, runs: Path, step: int, how: int, **more: Any) -> tuple[Path, subprocess.Popen[bytes]]:
    """A run in two ranks whose launcher gets a signal once that step has been logged; its folder and the launcher."""
    with (runs / "log.txt").open("wb") as log:
        process = subprocess.Popen(command(squares, runs, **more), stdout=log, stderr=subprocess.STDOUT)
    metrics = runs / "squares-tiny" / "metrics.jsonl"
    until = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < until:
        if metrics.is_file() and f'"train", "step": {step}' in metrics.read_text():
            process.send_signal(how)
            break
        time.sleep(0.01)
    process.wait(timeout=200)
    assert metrics.is_file(), (runs / "log.txt").read_text()
    return metrics.parent, process


def num_running(runs: Path) -> int:
    """Processes that were started with this folder for their runs, or for the recipe that names it."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += f"BOXTUNE_TEST={runs}".encode() in path.read_bytes()
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_process_and_goes_on(
    two: boxtune.Run, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOXTUNE_TEST", str(tmp_path))
    # In the middle of an epoch, which goes on with the images that were not shown yet.
    folder, process = start(squares, tmp_path, 7, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    until = time.monotonic() + 60
    while num_running(tmp_path) and time.monotonic() < until:
        time.sleep(0.2)
    assert num_running(tmp_path) == 0
    (folder / "scores.json").unlink(missing_ok=True)
    # What the ranks may have finished before they saw that nobody waits for them.
    shutil.rmtree(folder / "checkpoints" / "checkpoint-8", ignore_errors=True)
    assert (folder / "checkpoints" / "checkpoint-6" / "complete.json").is_file()
    resumed = train(squares, tmp_path, devices=2, resume=True)
    assert resumed.folder.path == folder and resumed.scores == two.scores
    assert losses(folder) == pytest.approx(losses(two.folder.path), abs=1e-6)
    require_same_adapter(two.folder.adapter_last, folder / "adapter_last")


def test_sigterm_ends_all_ranks_with_a_checkpoint_and_scores(squares: Path, tmp_path: Path) -> None:
    folder, process = start(squares, tmp_path, 2, signal.SIGTERM, base="false", guard="off")
    log = (tmp_path / "log.txt").read_text()
    assert process.returncode == 0, log
    last = max(step for kind, step in losses(folder) if kind == "train")
    assert 2 <= last < 8 and f"stopped at step {last}: SIGTERM" in log
    assert (folder / "checkpoints" / f"checkpoint-{last}" / "complete.json").is_file()
    assert (folder / "scores.json").is_file()


def test_a_users_error_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(boxtune.UserError, match="does not exist") as raised:
        train(tmp_path / "none", tmp_path, devices=2)
    assert type(raised.value).__name__ == "DataError" and raised.value.exit_code == 2
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = command(tmp_path / "none", tmp_path)[1:]
    done = subprocess.run(
        [*torchrun, *words], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 1 and done.stderr.count("boxtune: ") == 1
    assert "exitcode  : 2" in done.stderr
