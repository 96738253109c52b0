"""Runs every fault under the guard and prints what fired: `python tests/sabotage/run_all.py`."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import faults_of_labels  # noqa: E402, F401
import faults_of_pictures  # noqa: E402, F401
from faults import FAULTS, Fault  # noqa: E402

from boxtune import guard  # noqa: E402


def break_run(fault: Fault, folder: Path) -> tuple[dict[str, int], list[guard.Finding]]:
    """Optimizer steps done when each check fired first, and what was found."""
    with guard.watch() as stages:
        parts = fault.healthy(folder)
        fault.change(parts)
        trainer = parts.build(parts)
        with contextlib.suppress(guard.NotLearning):
            trainer.train()
    callback = stages.callbacks[0]
    return callback.first_seen, [finding for finding in callback.findings if finding.level in ("warn", "fail")]


def main() -> None:
    """The whole table."""
    right = caught = 0
    for name, fault in FAULTS.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            first, findings = break_run(fault, Path(folder))
        named = {check: step for check, step in first.items() if check in fault.checks}
        step = min((named or first).values(), default=-1)
        right, caught = right + bool(named), caught + (0 <= step < 20)
        print(f"{'ok  ' if named else 'MISS'} {name:<48} step {step:>2}  {', '.join(first)}", flush=True)
        if len(sys.argv) > 1:
            print(*(finding.as_text() for finding in findings), sep="\n")
    print(f"{caught} of {len(FAULTS)} caught before step 20, {right} with the right cause")


if __name__ == "__main__":
    main()
