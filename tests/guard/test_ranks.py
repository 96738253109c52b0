"""Two processes that train together: one process's fault is one message that names it, and both end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
sys.path.insert(0, TESTS)
from toys import build, healthy

parts = healthy(FOLDER + os.environ["RANK"])
if sys.argv[1:] == ["break"] and os.environ["RANK"] == "1":
    for row in parts.rows:
        row["labels"] = [-100] * len(row["labels"])
trainer = build(parts)
assert trainer.args.world_size == 2
trainer.train()
"""


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_one_message_names_the_rank(broken: bool, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    tests = str(Path(__file__).parent.parent)
    script.write_text(SCRIPT.replace("TESTS", repr(tests)).replace("FOLDER", repr(str(tmp_path))))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29571"]
    command += ["-m", "boxtune", "doctor", str(script), *(["break"] if broken else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode != 0) == broken, done.stderr[-2000:]
    if broken:
        assert "on rank 1 of 2: " in done.stdout and "verdict: not learning" in done.stdout
        assert "labels.empty" in done.stdout
    else:
        assert done.stdout.count("verdict: learning: the loss of ") == 1
        assert "0 findings" in done.stdout
