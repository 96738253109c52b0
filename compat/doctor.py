"""The doctor in every environment of pins/: a script that is well, and the same with its adapter frozen on one line.

    python -m compat.doctor        prints a line for each, and ends with 1 where one is not as it should be

TRL 0.8 is left out: its SFTTrainer takes other arguments than the script gives.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from compat.environments import read_environments, require_environment

SCRIPT = Path(__file__).with_name("script.py")
SOURCE = Path(__file__).resolve().parent.parent / "src"
DIAGNOSE = "import sys; from boxtune.guard.doctor import diagnose; sys.exit(diagnose(sys.argv[1], sys.argv[2:]))"


def is_right(how: str, code: int, shown: str) -> bool:
    """Whether the diagnosis says that the script is well, or else names the line that froze it."""
    if how == "well":
        return code == 0 and "verdict: learning" in shown and ", 0 findings" in shown
    line = 1 + SCRIPT.read_text(encoding="utf-8").splitlines().index("    model.requires_grad_(False)")
    return code == 3 and "[fail] ledger.frozen" in shown and f"script.py:{line}" in shown


def main() -> int:
    """Run both in each environment."""
    wrong = 0
    for environment in read_environments():
        if environment.name == "trl-0.8":
            continue
        python = require_environment(environment)
        for how in ("well", "freeze"):
            command = [str(python), "-W", "ignore", "-c", DIAGNOSE, str(SCRIPT), *([] if how == "well" else [how])]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SOURCE)}
            )
            right = is_right(how, done.returncode, done.stdout)
            wrong += not right
            print(
                f"{environment.name:<10} {how:<8} exit code {done.returncode}  {'right' if right else 'WRONG'}",
                flush=True,
            )
            if not right:
                print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
