"""`boxtune check`: the plan and the preflight of a run, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models import QUICK

from boxtune.check import check
from boxtune.errors import NotLearningError, UserError

pytestmark = pytest.mark.slow


def settings(squares: Path, **more: Any) -> dict[str, Any]:
    return {**QUICK, "model": "tiny", "data": str(squares), **more}


def test_a_sound_run_passes_and_leaves_nothing(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    findings = check(None, **settings(squares))
    assert len(findings) >= 10 and not [finding for finding in findings if finding.level == "fail"]
    assert list(tmp_path.iterdir()) == []
    told = capsys.readouterr().out
    for words in ("effective_batch: 4", "plan: up to 4 images at once, 4 a step", "move.none", "preflight passed"):
        assert words in told


def test_a_run_that_would_learn_nothing_is_refused(
    squares: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def freeze(model: Any) -> int:
        return sum(parameter.requires_grad_(False).numel() for parameter in model.parameters())

    monkeypatch.setattr("boxtune.finetune.trainer.keep_fp32", freeze)
    with pytest.raises(NotLearningError, match="trainable"):
        check(None, **settings(squares))
    assert "preflight passed" not in capsys.readouterr().out


def test_wrong_input_is_told_as_train_tells_it(squares: Path) -> None:
    with pytest.raises(UserError, match="epoch"):
        check(None, **settings(squares, epoch=1))
