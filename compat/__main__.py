"""Measures every environment and writes docs/compat.md.

    python -m compat [only=trl-0.12,trl-1.16]    the environments of pins/, or those named, on the CPU
    python -m compat device=cuda                 the present environment, on its GPU

Run in the root of the repository. The first run makes the environments (some gigabytes in the user's cache folder,
`BOXTUNE_CACHE`), a later one finds them there. `python -m compat.table` writes the page from the kept results alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compat.environments import check_installed, read_environments, require_environment
from compat.table import RESULTS, write_page

PROBE = Path(__file__).with_name("probe.py")
LIMIT_S = 600  # a probe takes a minute at most; one that hangs must not hold up the others for ever


def run_probe(python: Path, flag: str, device: str) -> dict[str, Any]:
    """What the probe measured with this interpreter. A probe that raised says so in its record, which is kept.

    Raises RuntimeError if it left no record at all.
    """
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "record.json"
        command = [str(python), flag, str(PROBE), f"device={device}", f"out={out}"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=LIMIT_S
        )
        if not out.is_file():
            raise RuntimeError(f"the probe left no record (exit code {done.returncode}):\n{done.stdout}")
        record: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return record


def keep(name: str, record: dict[str, Any], started: float) -> None:
    """Write a result into results/ and say in one line how it went."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {record['raised'] or 'measured'}, {time.monotonic() - started:.0f} s", flush=True)


def main(arguments: list[str]) -> None:
    """Measure what is asked for, then write the page."""
    options = dict(argument.partition("=")[::2] for argument in arguments)
    device, only = options.pop("device", "cpu"), options.pop("only", "")
    environments = read_environments()
    names = only.split(",") if only else [environment.name for environment in environments]
    unknown = sorted(set(names) - {environment.name for environment in environments})
    if options or unknown or device not in ("cpu", "cuda") or (device == "cuda" and only):
        raise SystemExit(f"{__doc__}\nnot understood: {' '.join([*options, *unknown]) or ' '.join(arguments)}")
    if device == "cuda":
        started = time.monotonic()
        # -P: the folder of the probe does not stand before the installed packages.
        record = run_probe(Path(sys.executable), "-P", device)
        if "gpu" not in record["machine"]:
            raise SystemExit(f"no GPU was found, nothing is kept: {record['raised']}")
        keep(f"cuda-trl-{record['libraries']['trl']}", record, started)
    for environment in environments if device == "cpu" else []:
        if environment.name not in names:
            continue
        started = time.monotonic()
        python = require_environment(environment)
        print(f"{environment.name}: environment ready, {time.monotonic() - started:.0f} s", flush=True)
        started = time.monotonic()
        record = run_probe(python, "-I", device)  # -I: nothing of the user's reaches into it
        faults = check_installed(environment, record["libraries"])
        if faults:
            raise SystemExit("\n".join(faults))
        keep(f"cpu-{environment.name}", record, started)
    print(f"wrote {write_page()}")


if __name__ == "__main__":
    main(sys.argv[1:])
