"""Every way of breaking a run is caught before its twentieth step, and by a check that names the cause."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_all import FAULTS, break_run

QUICK = (
    "adapter layers disabled", "end of turn masked", "forward under no grad", "frozen after the trainer was built",
    "gradients dropped before every step", "labels of other tokens", "learning rate of zero", "no adapter at all",
    "no label at all", "optimizer without half of it", "prepared a second time", "the prompt in the loss",
)  # fmt: skip
"""Those that `make test-fast` tries."""
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(FAULTS)]


def test_there_are_enough() -> None:
    assert len(FAULTS) >= 60 and FAULTS.keys() >= set(QUICK)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_it_is_caught_and_its_cause_named(name: str, tmp_path: Path) -> None:
    first, _ = break_run(FAULTS[name], tmp_path)
    steps = [step for check, step in first.items() if check in FAULTS[name].checks]
    assert steps, f"fired: {first}"
    assert min(steps) < 20
