"""What the guard finds and what it leaves alone: every fault of tests/sabotage, and some 300 healthy runs.

    python bench/guard_table.py [rows=faults,healthy] [keep=true]

A healthy variation (tests/healthy.py) is trained twice from the same seed, without the guard and with it: it must not
be stopped, its weights and its log must be the same to the bit, and every warning counts. Ten minutes on two cores;
`keep=true` writes docs/guard.json and docs/guard.md.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "sabotage")]

from healthy import VARIATIONS, compare  # noqa: E402
from run_all import FAULTS, break_run  # noqa: E402

from boxtune.config import parse_pairs  # noqa: E402

KEPT = ROOT / "docs" / "guard.json"
SEEDS, SEEDS_OF_PICTURES = 8, 3


def measure_faults() -> list[dict[str, Any]]:
    """Each fault, the checks that fired with the step at which they did, and those that name the cause."""
    rows = []
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            first, _ = break_run(fault, Path(folder))
        pictures = fault.healthy.__name__ == "healthy_pictures"
        rows.append({"fault": name, "pictures": pictures, "fired": first, "causes": sorted(fault.checks)})
        print(f"{name}: {first}", flush=True)
    return rows


def measure_healthy() -> list[dict[str, Any]]:
    """Each variation: runs, those that were stopped, those that were changed, and the warnings by check."""
    rows = []
    for name, variation in VARIATIONS.items():
        row: dict[str, Any] = {
            "variation": name,
            "runs": 0,
            "stopped": 0,
            "changed": 0,
            "condemned": 0,
            "noisy": 0,
            "warned": {},
        }
        for seed in range(SEEDS_OF_PICTURES if name.startswith("pictures") else SEEDS):
            row["runs"] += 1
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                from boxtune.guard import NotLearning

                try:
                    found = compare(name, Path(folder), seed)
                except NotLearning as error:
                    row["stopped"] += 1
                    print(name, seed, error, file=sys.stderr)
                    continue
            row["changed"] += not (variation.mended or (found.same_weights and found.same_log))
            row["noisy"] += bool(found.warned)
            row["condemned"] += found.verdict == "not learning"
            for check in found.warned:
                row["warned"][check] = row["warned"].get(check, 0) + 1
        rows.append(row)
        print(f"{name}: {row}", flush=True)
    return rows


PAGE = """# What the guard finds, and what it leaves alone

Written by `python bench/guard_table.py keep=true`; do not edit. {machine}.

## {num_faults} ways to break a run silently

Each is a few lines on a healthy run (`tests/sabotage/`). With *pictures*: the embedded Qwen2-VL in NF4 under TRL's
SFTTrainer; else a text model of three layers with LoRA under transformers' Trainer. *Step*: optimizer steps done when
the first check that names the cause fired; 0 is the preflight. {caught} of {num_faults} were caught before step 20,
{right} by a check that names the cause.

| fault | pictures | names the cause | step | fired too |
|---|---|---|---|---|
{faults}

## {num_runs} healthy runs

{num_variations} variations, each from several seeds, each trained twice: without the guard and with it. {stopped} were
stopped, {changed} ended with other weights or another log, {condemned} were said not to learn. {warned} of {num_runs}
runs had a warning that was not called for.

| variation | runs | warnings not called for |
|---|---|---|
{healthy}
"""


def as_page(kept: dict[str, Any]) -> str:
    """docs/guard.md of docs/guard.json."""
    lines, right, caught = [], 0, 0
    for row in kept["faults"]:
        named = {check: step for check, step in row["fired"].items() if check in row["causes"]}
        others = [check for check in row["fired"] if check not in named]
        right += bool(named)
        caught += bool(row["fired"]) and min(row["fired"].values()) < 20
        step = str(min(named.values())) if named else "-"
        pictures = "yes" if row["pictures"] else ""
        lines.append(
            f"| {row['fault']} | {pictures} | {', '.join(named) or '**none**'} | {step} | {', '.join(others)} |"
        )
    healthy = kept["healthy"]
    told = [
        f"| {row['variation']} | {row['runs']} | "
        + ", ".join(f"{check} ({count})" for check, count in row["warned"].items())
        + " |"
        for row in healthy
    ]
    return PAGE.format(
        machine=kept["machine"],
        num_faults=len(kept["faults"]),
        caught=caught,
        right=right,
        faults="\n".join(lines),
        num_runs=sum(row["runs"] for row in healthy),
        num_variations=len(healthy),
        stopped=sum(row["stopped"] for row in healthy),
        changed=sum(row["changed"] for row in healthy),
        condemned=sum(row["condemned"] for row in healthy),
        warned=sum(row["noisy"] for row in healthy),
        healthy="\n".join(told),
    )


def main() -> None:
    """Measure, print, and keep what was measured if asked to."""
    _, options = parse_pairs(sys.argv[1:])
    asked = str(options.get("rows", "faults,healthy")).split(",")
    warnings.simplefilter("ignore")
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {"faults": [], "healthy": []}
    started = time.perf_counter()
    if "faults" in asked:
        kept["faults"] = measure_faults()
    if "healthy" in asked:
        kept["healthy"] = measure_healthy()
    kept["machine"] = f"Measured on {os.cpu_count()} cores with torch {torch.__version__}"
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes")
    if options.get("keep"):
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        KEPT.with_suffix(".md").write_text(as_page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
