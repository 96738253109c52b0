"""Diagnose a training script that somebody else wrote: run it unchanged under the guard, and say what was found."""

from __future__ import annotations

import json
import linecache
import runpy
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boxtune.guard.callback import LearningCallback
from boxtune.guard.finding import Finding
from boxtune.guard.proofs import NotLearning
from boxtune.guard.ranks import rank
from boxtune.guard.stages import Stages
from boxtune.guard.watch import watch

FINISHED, SCRIPT_FAILED, NOT_LEARNING = 0, 1, 3


def diagnose(
    script: str,
    arguments: Sequence[str] = (),
    *,
    module: bool = False,
    trace_training: bool = False,
    out: str | None = None,
) -> int:
    """Run a script, a notebook (its code cells in order) or, with `module`, what `python -m` would, and diagnose it.

    Gives the exit code: 0 finished and not shown to be at fault, 1 the script's own error, 3 not learning. Whatever
    the script does to the world it does here too: it is the script that runs.
    """
    held = sys.argv, list(sys.path)
    sys.argv = [script, *arguments]
    if not module:
        sys.path.insert(0, str(Path(script).resolve().parent))
    code = FINISHED
    with watch(out=out, trace_training=trace_training, tell=_tell_warnings) as stages:
        try:
            if module:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
            elif script.endswith(".ipynb"):
                run_notebook(Path(script))
            else:
                runpy.run_path(script, run_name="__main__")
        except NotLearning:
            code = NOT_LEARNING
        except SystemExit as stop:
            code = FINISHED if stop.code in (None, 0) else SCRIPT_FAILED
        except Exception as error:
            # Told like Python tells it, without the frames of the runner.
            code = SCRIPT_FAILED
            own = error.__traceback__
            while own is not None and Path(own.tb_frame.f_code.co_filename).name in ("doctor.py", "<frozen runpy>"):
                own = own.tb_next
            traceback.print_exception(type(error), error, own)
        finally:
            sys.argv, sys.path[:] = held[0], held[1]
    callbacks = stages.callbacks
    if rank():
        # The others found the same, or have told the first.
        return NOT_LEARNING if any(c.verdict.word == "not learning" for c in callbacks) else code
    if not callbacks:
        print("\ndoctor: the script built no transformers Trainer, so there was nothing to watch", flush=True)
        return code
    print("\n" + report(stages, callbacks), flush=True)
    if any(callback.verdict.word == "not learning" for callback in callbacks):
        return NOT_LEARNING
    return code


def _tell_warnings(finding: Finding) -> None:
    """While a script runs: what does not stop it. The rest stands in the diagnosis that follows at once."""
    if finding.level == "warn" and not rank():
        print(finding.as_text(), flush=True)


def run_notebook(path: Path) -> None:
    """The code cells of a notebook, in order, in one namespace; lines that begin with % or ! are left out."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    namespace: dict[str, Any] = {"__name__": "__main__", "__file__": str(path)}
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] != "code":
            continue
        text = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        lines = ["" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines()]
        source, name = "\n".join(lines) + "\n", f"{path}[cell {number}]"
        # So that tracebacks and the guard can show the line.
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), namespace)


def report(stages: Stages, callbacks: Sequence[LearningCallback]) -> str:
    """The diagnosis as text: the ledger, what each trainer's guard found, the verdict."""
    parts = [stages.ledger.as_text()]
    for number, callback in enumerate(callbacks, 1):
        head = f"trainer {number} of {len(callbacks)}" if len(callbacks) > 1 else "trainer"
        told = _once([finding for finding in callback.findings if finding.level != "ok"])
        quiet = len({finding.check for finding in callback.findings if finding.level == "ok"})
        seconds = "" if callback.preflight is None else f", preflight {callback.preflight.seconds:.1f} s"
        parts.append(f"{head}: {quiet} checks passed, {len(told)} finding{'' if len(told) == 1 else 's'}{seconds}")
        parts += [finding.as_text() for finding in told]
        stopped = callback.verdict.word == "not learning" and any(finding.level == "fail" for finding in told)
        # What stopped it stands right above.
        parts.append("verdict: not learning, for what is marked [fail]" if stopped else f"verdict: {callback.verdict}")
    return "\n\n".join(parts)


def _once(findings: Sequence[Finding]) -> list[Finding]:
    seen: dict[str, Finding] = {}
    for finding in findings:
        seen.setdefault(finding.as_text(), finding)
    return list(seen.values())
