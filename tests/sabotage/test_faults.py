"""Every way of breaking a run is caught before its twentieth step, and by a check that names the cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_all import FAULTS, break_run


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 46


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_it_is_caught_and_its_cause_named(name: str, tmp_path: Path) -> None:
    first, _ = break_run(FAULTS[name], tmp_path)
    steps = [step for check, step in first.items() if check in FAULTS[name][1]]
    assert steps, f"fired: {first}"
    assert min(steps) < 20
