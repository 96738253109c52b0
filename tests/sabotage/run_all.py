"""Runs every fault under the guard and prints what fired: `python tests/sabotage/run_all.py`."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import faults_of_labels  # noqa: E402, F401
from faults import FAULTS, Fault  # noqa: E402
from toys import build, healthy  # noqa: E402

from boxtune import guard  # noqa: E402


def break_run(fault: Fault, folder: Path) -> tuple[list[guard.Finding], int, str]:
    """Findings that are not well, the step at which the run was stopped or ended, and how it ended."""
    how = "went to its end"
    with guard.watch() as stages:
        parts = healthy(folder)
        fault[0](parts)
        trainer = build(parts)
        try:
            trainer.train()
        except guard.NotLearning:
            how = "stopped"
    findings = [finding for finding in stages.callbacks[0].findings if finding.level in ("warn", "fail")]
    return findings, trainer.state.global_step, how


def main() -> None:
    """The whole table."""
    right = caught = 0
    for name, fault in FAULTS.items():
        if len(sys.argv) > 1 and sys.argv[1] not in name:
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            try:
                findings, step, how = break_run(fault, Path(folder))
            except Exception as error:
                findings, step, how = [], -1, f"RAISED {type(error).__name__}: {str(error)[:90]}"
        fired = list(dict.fromkeys(finding.check for finding in findings))
        hit = bool(set(fired) & fault[1])
        right, caught = right + hit, caught + bool(fired)
        print(f"{'ok  ' if hit else 'MISS'} {name:<48} step {step:>2} {how:<16} {', '.join(fired)}", flush=True)
        if len(sys.argv) > 1:
            print(*(finding.as_text() for finding in findings), sep="\n")
    print(f"{caught} of {len(FAULTS)} caught, {right} with the right cause")


if __name__ == "__main__":
    main()
