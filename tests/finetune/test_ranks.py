"""What ranks agree on, and that all of them end within seconds when one fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boxtune.errors import ConfigError
from boxtune.finetune import ranks

AGREE = """
import torch, torch.distributed as dist
from boxtune.errors import BoxtuneError
from boxtune.finetune import ranks
from boxtune.finetune.callbacks import StopInTime
from transformers import TrainerControl

with ranks.joined():
    mine = ranks.rank()
    assert ranks.num_ranks() == dist.get_world_size() == 2 and ranks.is_first() == (mine == 0)
    assert ranks.gather({"rank": mine}) == [{"rank": 0}, {"rank": 1}]
    assert ranks.any_rank(mine == 1) and not ranks.any_rank(False)
    assert ranks.highest(mine) == 1
    assert ranks.first_does(lambda: f"of {mine}") == "of 0"
    ranks.require_same({"settings": {"a": 1}, "data": [1, 2]})
    try:
        ranks.require_same({"settings": {"a": 1}, "data": [1, mine]})
    except BoxtuneError as error:
        assert "the 2 ranks do not have the same data" in str(error)
    else:
        raise AssertionError("nobody noticed")
    # SIGTERM on one rank ends training on both, and both know why.
    stop = StopInTime(None)
    control = TrainerControl()
    stop.on_step_end(None, None, control)
    assert not control.should_training_stop
    stop.reason = "SIGTERM" if mine == 1 else ""
    stop.on_step_end(None, None, control)
    assert control.should_training_stop and control.should_save and stop.reason == "SIGTERM"
    print(f"rank {mine} is well", flush=True)
with ranks.joined():
    assert ranks.gather(ranks.rank()) == [0, 1]
print(f"rank {mine} has left", flush=True)
"""

FAIL = """
import sys, time
from boxtune.errors import DataError
from boxtune.finetune import ranks

def fail():
    raise DataError("003.png is broken", where="003.png", fix="mend it")

try:
    with ranks.joined():
        if sys.argv[1] == "all":
            fail()
        elif sys.argv[1] == "first":
            ranks.first_does(fail)
        elif ranks.rank() == 1:
            fail()
        else:
            time.sleep(300)
except DataError as error:
    print(f"told: {error}", flush=True)
    sys.exit(error.exit_code)
"""


def run_two(tmp_path: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=200, env=environment)


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    done = run_two(tmp_path, AGREE)
    assert done.returncode == 0, done.stderr
    assert "rank 0 is well" in done.stdout and "rank 1 is well" not in done.stdout
    assert "rank 0 has left" in done.stdout and "rank 1 has left" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("who", ["all", "first", "second"])
def test_one_rank_tells_and_all_end(who: str, tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_two(tmp_path, FAIL, who)
    assert time.monotonic() - began < 150, "rank 0 would have slept for 300 seconds"
    assert done.returncode == 1 and "exitcode  : 2" in done.stderr
    assert done.stdout.count("told: 003.png is broken") == 1, done.stdout + done.stderr
    assert ("(on rank 1 of 2)" in done.stdout) == (who == "second")


def test_alone_everything_is_the_obvious_thing() -> None:
    with ranks.joined():
        assert (ranks.rank(), ranks.num_ranks(), ranks.is_first()) == (0, 1, True)
        assert ranks.gather("x") == ["x"] and ranks.highest(3) == 3 and ranks.any_rank(True)
        assert ranks.first_does(lambda: 5) == 5
        ranks.wait_for_all()
        ranks.require_same({"settings": 1})


@pytest.mark.parametrize(
    ("effective", "micro", "num", "expected"),
    [(16, 4, 1, (4, 4)), (16, 4, 2, (4, 2)), (16, 16, 4, (4, 1)), (12, 4, 2, (3, 2)), (6, 4, 2, (3, 1))],
)
def test_a_step_is_shared_evenly(effective: int, micro: int, num: int, expected: tuple[int, int]) -> None:
    assert ranks.share_batch(effective, micro, num) == expected


def test_a_step_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ConfigError, match="effective_batch=16 cannot be shared evenly by 3 processes"):
        ranks.share_batch(16, 4, 3)
