"""A sample of the healthy runs of bench/guard_table.py: nothing said, nothing stopped, nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from healthy import VARIATIONS, compare

QUICK = ("two stages", "dora")
SLOW = (
    "steps skipped as a scaler does", "resumed at the end", "seven validation samples", "pictures, joint",
    "pictures, vision only", "pictures, full training",
)  # fmt: skip


def test_there_are_enough() -> None:
    assert len(VARIATIONS) >= 40


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_the_guard_changes_nothing(name: str, tmp_path: Path) -> None:
    found = compare(name, tmp_path)
    assert found.warned == () and found.same_weights and found.same_log


@pytest.mark.slow
def test_a_batch_that_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    found = compare("one batch that is not a number", tmp_path)
    assert found.warned == () and found.verdict == "learning" and not found.same_weights
