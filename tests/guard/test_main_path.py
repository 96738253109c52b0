"""The guard in `boxtune train`: its settings, and what they do to the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from models import QUICK

import boxtune


@pytest.mark.slow
def test_strict_asks_for_a_verdict(squares: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "runs": str(tmp_path), "base": False, "hours": 1e-6, "guard": {"strict": True}}
    with pytest.raises(boxtune.UndecidedError, match="cannot be told whether the run learned") as caught:
        boxtune.train(model="tiny", data=str(squares), **settings)
    assert caught.value.exit_code == 4
    assert json.loads((tmp_path / "squares-tiny" / "verdict.json").read_text())["word"] == "cannot tell"
