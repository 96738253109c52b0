"""docs/checks.md names every check there is, docs/guard.md is what its generator makes of what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import guard_table
from healthy import VARIATIONS
from run_all import FAULTS

from boxtune import guard

ROOT = Path(__file__).resolve().parent.parent.parent
GROUPS = "ledger heard trainable optimizer rate device quantization labels step eval loss grad move image positions "
GROUPS += "batch accumulation adapter save run guard"
ID = re.compile(rf'"((?:{"|".join(GROUPS.split())})\.[a-z0-9_]+)"')


def test_every_check_is_documented_and_nothing_else() -> None:
    files = sorted((ROOT / "src" / "boxtune" / "guard").glob("*.py"))
    assert len(files) > 20
    made = {check for file in files for check in ID.findall(file.read_text(encoding="utf-8"))}
    told = set(re.findall(r"`([a-z]+\.[a-z0-9_]+)`", (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")))
    told = {check for check in told if check.split(".")[0] in GROUPS.split()}
    assert len(made) > 50
    assert told == made


def test_the_proofs_are_the_documented_ones() -> None:
    page = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8").split("## Proofs")[1].split("## The verdict")[0]
    assert set(re.findall(r"^\| `(run\.[a-z_]+)`", page, re.MULTILINE)) == set(guard.PROOFS) - {"preflight"}


def test_the_page_is_what_was_measured() -> None:
    kept = json.loads((ROOT / "docs" / "guard.json").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "guard.md").read_text(encoding="utf-8") == guard_table.as_page(kept)
    assert {row["fault"] for row in kept["faults"]} == set(FAULTS)
    assert {row["variation"] for row in kept["healthy"]} == set(VARIATIONS)
    assert sum(row["runs"] for row in kept["healthy"]) >= 300
