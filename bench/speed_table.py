"""All of docs/speed.md's comparisons in one sitting, each in a process of its own; one GPU or more, no download.

    python bench/step_time.py make FOLDER                                 the checkpoint, 16.6 GB
    python bench/speed_table.py FOLDER [peers=SCRIPT] [only=WORDS,...]    prints each row as it comes, ratios last

`peers` is shared/bench/step_time_peers.py; without it the rows of TRL as it comes and of Unsloth are left out. `only`
keeps the rows whose names hold one of the words. Rows for two and four GPUs are made where there are so many. A card at
its power limit changes such numbers by some per cent: rows that are compared stand beside each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from step_time import LIMIT_TFLOPS

ALONE = "batch=8 micro_batch=8"
FOUR = "batch=4 micro_batch=4 dropout=0 steps=50"
MIXED = f"{ALONE} dropout=0 images=mixed"
ROWS = {
    "dropout 0": f"{ALONE} dropout=0",
    "Unsloth": "unsloth-stock",
    "dropout 0, again": f"{ALONE} dropout=0",
    "TRL": "trl-stock",
    "dropout 0.05": ALONE,
    "fp8 base": f"{ALONE} dropout=0 quantization=fp8",
    "for 24 GB": "batch=8 memory_gb=24 dropout=0",
    "for 16 GB": "batch=8 memory_gb=16 dropout=0",
    "TRL, mixed sizes": f"{MIXED} system=stock checkpointing=on",
    "mixed sizes": MIXED,
    "TRL, fp32 adapters": f"{FOUR} system=trl checkpointing=off",
    "TRL, fp32 adapters, again": f"{FOUR} system=trl checkpointing=off",
    "fp32 adapters": FOUR,
    "2 GPUs": "batch=16 micro_batch=8 dropout=0",
    "4 GPUs": "batch=32 micro_batch=8 dropout=0",
}
"""What is run, by name: a variant of the peers' script, or the words of `step_time.py run`."""
RATIOS = (
    ("dropout 0.05", "TRL", 3.0), ("dropout 0", "Unsloth", 2.0), ("for 24 GB", "Unsloth", 1.25),
    ("mixed sizes", "TRL, mixed sizes", 4.0), ("2 GPUs", "dropout 0", 1.95), ("4 GPUs", "dropout 0", 3.8),
)  # fmt: skip
"""Samples a second of the first over those of the second, and the aim."""
STEPS = (1, 3, 5, 9, 14, 50)
"""Steps whose losses stand side by side."""


def command(name: str, folder: str, peers: str | None) -> list[str] | None:
    """What is started for a row; None where it cannot be."""
    words = ROWS[name].split()
    if len(words) == 1 and "=" not in words[0]:
        return None if peers is None else [sys.executable, peers, "run", folder, words[0], "8"]
    script = [str(Path(__file__).with_name("step_time.py")), "run", folder, *words]
    if not name.endswith("GPUs"):
        return [sys.executable, *script]
    num = name.split()[0]
    if torch.cuda.device_count() < int(num):
        return None
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", num, *script]


def measure(words: list[str]) -> dict[str, Any]:
    """The line of JSON that the process prints; what it said where it printed none."""
    done = subprocess.run(words, capture_output=True, text=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith('{"variant"')]
    return json.loads(rows[-1]) if rows else {"failed": (done.stderr or done.stdout).strip().splitlines()[-1:]}


def main() -> None:
    """As the module says."""
    folder, asked = sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])
    only = asked.get("only", "").split(",")
    found: dict[str, dict[str, Any]] = {}
    print(f"{'':28}{'s a step':>10}{'samples/s':>11}{'share':>8}{'peak GB':>9}{'planned':>9}  last loss", flush=True)
    for name in ROWS:
        words = command(name, folder, asked.get("peers"))
        if words is None or not any(word in name for word in only):
            continue
        row = measure(words)
        if "failed" in row:
            print(f"{name:28}failed: {row['failed']}", flush=True)
            continue
        found[name] = row
        losses, planned = row.get("losses", []), row.get("planned_gb", 0.0)
        share = row.get("share_of_limit") or row.get("min_tflops", 0.0) / LIMIT_TFLOPS
        print(
            f"{name:28}{row['step_s']:10.3f}{row['samples_s']:11.2f}{share:8.3f}{row['peak_gb'] or 0:9.1f}"
            f"{planned:9.1f}  {losses[-1] if losses else ''}",
            flush=True,
        )
    print()
    for one, other, aim in RATIOS:
        if one in found and other in found:
            ratio = found[one]["samples_s"] / found[other]["samples_s"]
            print(f"{one} over {other}: {ratio:.2f} (aim {aim})")
    for name in found:
        if "fp32" in name:
            losses = found[name]["losses"]
            print(f"{name:28}" + "".join(f"{losses[step - 1]:10.5f}" for step in STEPS if step <= len(losses)))


if __name__ == "__main__":
    main()
