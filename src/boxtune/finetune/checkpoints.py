"""Which checkpoint is complete, and what a resumed run keeps of the log.

transformers writes a checkpoint in place and resumes from the highest number: a half-written one crashes, or goes on
with other weights. So each checkpoint gets a list of its files and their sizes once it stands, and only one that
still matches its list is resumed from.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from boxtune.artifacts import write_json, write_text
from boxtune.errors import Finding, name_some

COMPLETE = "complete.json"
NEEDED = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json")


def seal(checkpoint: Path) -> None:
    """Write the list of a finished checkpoint's files and sizes into it, after its bytes have reached the disk."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as handle:
            os.fsync(handle.fileno())
    write_json(checkpoint / COMPLETE, {str(path.relative_to(checkpoint)): path.stat().st_size for path in files})


def faults(checkpoint: Path) -> list[str]:
    """What a checkpoint lacks, in words; empty if it is complete."""
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        missing = [name for name in NEEDED if not (checkpoint / name).is_file()]
        return [f"no {name}" for name in missing] or ["not finished"]
    found = []
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            found.append(f"no {name}")
        elif path.stat().st_size != size:
            found.append(f"{name} has {path.stat().st_size} bytes of {size}")
    return found


def last_complete(folder: Path) -> tuple[Path | None, tuple[Finding, ...]]:
    """The newest complete checkpoint, and a finding for each newer one that was passed over.

    Those are renamed to `broken-...` so that the steps written again do not mix with what is left of them.
    """
    numbered = [
        (int(path.name.removeprefix("checkpoint-")), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()
    ]
    findings: list[Finding] = []
    for _, path in sorted(numbered, reverse=True):
        missing = faults(path)
        if not missing:
            return path, tuple(findings)
        aside = path.with_name(f"broken-{path.name}")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"broken-{path.name}-{number}")
        path.rename(aside)
        findings.append(
            Finding(
                check="resume.checkpoint_incomplete",
                level="warn",
                seen=f"{path.name} is not complete ({name_some(missing)}) and was passed over",
                where=str(aside),
                fix="nothing: the steps since the checkpoint before it are done again",
            )
        )
    return None, tuple(findings)


def cut_metrics(path: Path, step: int) -> None:
    """Drop the rows of metrics.jsonl after `step`, and a last line that a kill cut short: they are written again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["step"] <= step and row["kind"] != "summary":
            kept.append(line)
    write_text(path, "".join(f"{line}\n" for line in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl: kind (train, eval, summary), step, epoch, and what was logged."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
