"""Seconds from `boxtune train` to its first optimizer step, by what was done until then.

    python bench/seven_b.py FOLDER                       the shape of Qwen2-VL-7B, 16.6 GB
    python bench/start_time.py FOLDER [key=value ...]    any settings, by full path

The column `first` compiles with an empty cache, `again` with what the one before has left. The data are 64 drawn
packages, enlarged to 1,280 visual tokens; the base is not scored first (eval.base=false), since that is work of its
own, as long as the data set. The process is ended after its first step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from boxtune.tiny.packages import write_packages

SAID = {
    "settings and data read": "\nmodel:",
    "base loaded": "longest sample",
    "step planned": "run folder:",
    "trial steps of the guard, first validation": "step 0: validation loss",
}
"""What is done when the run has said something."""
SETTINGS = {
    "data.limit": "64",
    "train.effective_batch": "8",
    "train.epochs": "1",
    "eval.images": "8",
    "eval.base": "false",
    "image.min_pixels": "1000000",
}


def start(folder: str, data: Path, runs: Path, words: list[str]) -> dict[str, float]:
    """Seconds from the command on, by what was done then."""
    command = [sys.executable, "-u", "-m", "boxtune", "train", f"model={folder}", f"data={data}", f"runs={runs}"]
    began = time.perf_counter()
    settings = [f"{key}={value}" for key, value in {**SETTINGS, **dict(word.split("=", 1) for word in words)}.items()]
    process = subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, found = "\n", {}

    def listen() -> None:
        nonlocal said
        assert process.stdout is not None
        while piece := process.stdout.read1():  # type: ignore[attr-defined]
            said += piece.decode(errors="replace").replace("\r", "\n")
            for what, sign in SAID.items():
                if what not in found and sign in said:
                    found[what] = time.perf_counter() - began

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    while process.poll() is None:
        rows = [json.loads(row) for path in runs.glob("*/metrics.jsonl") for row in path.read_text().splitlines()]
        if any("loss" in row for row in rows):
            found["first optimizer step"] = time.perf_counter() - began
            process.kill()
            return found
        time.sleep(0.05)
    raise SystemExit(f"the run ended before its first step:\n{said[-3000:]}")


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = write_packages(place / "packages")
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": str(place / "inductor"), "TRITON_CACHE_DIR": str(place / "triton")}
        columns = {way: start(sys.argv[1], data, place / way, sys.argv[2:]) for way in ("first", "again")}
    print(f"{'seconds from the command on':46}" + "".join(f"{way:>9}" for way in columns))
    for what in [*SAID, "first optimizer step"]:
        print(f"{what:46}" + "".join(f"{column.get(what, float('nan')):9.1f}" for column in columns.values()))


if __name__ == "__main__":
    main()
