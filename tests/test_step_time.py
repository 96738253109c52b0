"""The bench of the step itself: ours and TRL's do the same work, to the same losses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

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
