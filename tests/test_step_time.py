"""The bench of the step itself: ours and TRL's do the same work, to the same losses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import speed_table
from step_time import run

from boxtune.tiny.model import model_folder

pytestmark = pytest.mark.slow
WORK = {"batch": "4", "micro_batch": "2", "images": "tiny", "steps": "6", "r": "8", "dropout": "0", "precision": "fp32"}


def test_ours_and_trls_step_have_the_same_losses() -> None:
    rows = [run(model_folder(), {**WORK, "system": system}) for system in ("boxtune", "trl")]
    ours, trls = (row["losses"] for row in rows)
    assert len(ours) == len(trls) == 6 and ours[-1] < ours[0] - 0.1
    assert ours == pytest.approx(trls, abs=2e-4)
    assert [row["variant"] for row in rows] == ["boxtune nf4", "trl nf4"]
    assert all(row["samples_s"] > 0 for row in rows)


def test_the_table_starts_what_it_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row once and in order, what failed said, ratios of what there is."""
    started: list[list[str]] = []

    def run(words: list[str]) -> dict[str, Any]:
        started.append(words[1:])
        if "quantization=fp8" in words:
            return {"failed": ["no such card"]}
        ours = any("step_time.py" in word for word in words)
        fast = ours and not any(word.startswith("system=") for word in words)
        return {"step_s": 1.0, "samples_s": 9.0 if fast else 3.0, "peak_gb": 20.0, "losses": [2.0, 1.5, 1.25]}

    monkeypatch.setattr(speed_table, "measure", run)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(sys, "argv", ["speed_table.py", "FOLDER", "peers=peers.py"])
    speed_table.main()
    told = capsys.readouterr().out
    assert len(started) == len(speed_table.ROWS) - 1 and "4 GPUs" not in told
    assert ["peers.py", "run", "FOLDER", "unsloth-stock", "8"] in started
    two = next(words for words in started if "torch.distributed.run" in words)
    assert two[-3:] == ["batch=16", "micro_batch=8", "dropout=0"]
    assert "failed: ['no such card']" in told and "dropout 0 over Unsloth: 3.00 (aim 2.0)" in told
    assert "2 GPUs over dropout 0: 1.00 (aim 1.95)" in told
    assert [line.split()[-1] for line in told.splitlines() if "fp32" in line][-3:] == ["1.25000"] * 3
    started.clear()
    monkeypatch.setattr(sys, "argv", ["speed_table.py", "FOLDER", "only=24,Unsloth"])
    speed_table.main()
    assert len(started) == 1 and "memory_gb=24" in started[0]


def test_what_a_row_says_is_its_last_line_of_json() -> None:
    code = "print('{\"variant\": 1}'); print('loading'); print('{\"variant\": 2}'); print('done')"
    assert speed_table.measure([sys.executable, "-c", code]) == {"variant": 2}
    assert speed_table.measure([sys.executable, "-c", "raise ValueError('none')"]) == {"failed": ["ValueError: none"]}
