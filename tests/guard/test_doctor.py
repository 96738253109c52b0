"""`boxtune doctor` on scripts that were written without it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from boxtune.cli import main

SCRIPT = """
import sys
from toys import build, healthy

parts = healthy(sys.argv[1])
if "freeze" in sys.argv:
    parts.model.requires_grad_(False)
if "break" in sys.argv:
    raise KeyError("the script's own")
trainer = build(parts)
trainer.train()
"""
TWICE = """
from peft import get_peft_model, prepare_model_for_kbit_training
from toys import build, healthy

parts = healthy("OUT")
model = parts.model
model = prepare_model_for_kbit_training(
    model, use_gradient_checkpointing=False
)
parts.model = model
build(parts).train()
"""


@pytest.fixture()
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.slow
def test_a_healthy_script_is_well(script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (sys.argv, list(sys.path))
    assert main(["doctor", str(script), str(tmp_path), "--lr=5"]) == 0
    shown = capsys.readouterr().out
    assert "0 findings" in shown and "verdict: learning" in shown and "training begins" in shown
    assert (sys.argv, sys.path) == before


def test_a_frozen_adapter_is_named_with_its_line(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(script), str(tmp_path), "freeze"]) == 3
    shown = capsys.readouterr().out
    line = 1 + SCRIPT.splitlines().index("    parts.model.requires_grad_(False)")
    assert f"train.py:{line}" in shown and "parts.model.requires_grad_(False)" in shown
    assert '24 LoRA tensors (7,680 parameters) were frozen between "adapted" and "given to the trainer"' in shown
    assert "verdict: not learning" in shown
    assert "test_doctor.py" not in shown and "cli.py" not in shown


def test_a_second_preparation_is_shown_with_its_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "twice.py"
    path.write_text(TWICE.replace("OUT", str(tmp_path)))
    assert main(["doctor", str(path)]) == 3
    shown = capsys.readouterr().out
    assert "by peft/utils/other.py:" in shown and "prepare_model_for_kbit_training" in shown
    removed = [line.strip() for line in shown.splitlines() if line.strip().startswith("-")]
    assert "-model = prepare_model_for_kbit_training(" in removed and "-)" in removed
    assert not [line for line in shown.splitlines() if line.strip().startswith("+model")]


FROZEN_LATE = """
from toys import build, healthy
from transformers import TrainerCallback

class Freeze(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 3:
            model.requires_grad_(False)

parts = healthy("OUT")
parts.callbacks.append(Freeze())
build(parts).train()
"""


@pytest.mark.slow
@pytest.mark.parametrize("trace", [False, True])
def test_what_is_frozen_in_training_is_named_on_a_traced_replay(
    trace: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "late.py"
    path.write_text(FROZEN_LATE.replace("OUT", str(tmp_path)))
    assert main(["doctor", *(["--trace"] if trace else []), str(path)]) == 3
    shown = capsys.readouterr().out
    assert "run.frozen: 24 of 24 tensors were frozen before step 4" in shown
    line = 1 + FROZEN_LATE.splitlines().index("            model.requires_grad_(False)")
    assert (f"late.py:{line}" in shown) == trace
    assert "boxtune doctor --trace" in shown


def test_a_notebook_runs_cell_by_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["words"]},
        {"cell_type": "code", "source": ["%pip install nothing\n", "from toys import build, healthy\n"]},
        {"cell_type": "code", "source": f"parts = healthy({str(tmp_path)!r})\nparts.model.requires_grad_(False)\n"},
        {"cell_type": "code", "source": ["!ls\n", "build(parts).train()"]},
    ]
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert main(["doctor", str(path)]) == 3
    shown = capsys.readouterr().out
    assert "train.ipynb[cell 3]:2" in shown and "parts.model.requires_grad_(False)" in shown


def test_what_is_no_fault_of_learning(script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(script), str(tmp_path), "break"]) == 1
    told = capsys.readouterr()
    assert "KeyError" in told.err and "built no transformers Trainer" in told.out
    assert main(["doctor", str(tmp_path / "nothing.py")]) == 2
    assert "there is no script" in capsys.readouterr().err
    assert main(["doctor", "-m"]) == 2
    assert main(["doctor", "--help"]) == 0
    assert "boxtune doctor" in capsys.readouterr().out


@pytest.mark.slow
def test_alone_it_tells_versions_traps_and_a_self_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "transformers 5." in shown and "[known] trl" in shown
    assert "self-test: NF4 LoRA, 12 steps" in shown and "verdict: learning" in shown
