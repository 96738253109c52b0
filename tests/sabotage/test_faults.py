"""Every way of breaking a run is caught before its twentieth step, and by a check that names the cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_all import FAULTS, break_run
from toys_of_pictures import healthy_pictures

NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if fault.healthy is healthy_pictures else name
    for name, fault in sorted(FAULTS.items())
]


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 60


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_it_is_caught_and_its_cause_named(name: str, tmp_path: Path) -> None:
    first, _ = break_run(FAULTS[name], tmp_path)
    steps = [step for check, step in first.items() if check in FAULTS[name].checks]
    assert steps, f"fired: {first}"
    assert min(steps) < 20
