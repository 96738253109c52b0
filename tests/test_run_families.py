"""The main path with other families and recipes than the embedded model's: preflight, training, reload, prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from architectures import write_architecture

import boxtune
from boxtune.families import FAMILIES
from boxtune.finetune.weights import WEIGHTS

pytestmark = pytest.mark.slow

QUICK = {"r": 4, "epochs": 1, "micro_batch": 2, "effective_batch": 4, "learning_rate": 1e-3, "max_new_tokens": 6}


@pytest.mark.parametrize(
    ("family", "recipe"),
    [("kosmos2", "joint"), ("minicpm_v", "two_stage"), ("paligemma", "full_vision"), ("json1000", "language")],
)
def test_a_run(family: str, recipe: str, squares: Path, tmp_path: Path) -> None:
    model = write_architecture(family, tmp_path / "model")
    asked = {} if FAMILIES[family].knows_processor else {"family": family}
    # As on a GPU, where Kosmos-2 once failed: it writes into what checkpointing lets require a gradient.
    asked["checkpointing"] = "on" if family == "kosmos2" else "off"
    places = {"model": str(model), "data": str(squares), "runs": str(tmp_path / "runs"), "adapter.recipe": recipe}
    run = boxtune.train(**places, **QUICK, **asked)
    findings = {finding["check"]: finding for finding in json.loads((run.folder.path / "findings.json").read_text())}
    assert [name for name, finding in findings.items() if finding["level"] in ("warn", "fail")] == []
    assert findings["reload.logits"]["level"] == "ok" and "load.quantised" in findings
    assert (run.adapter / WEIGHTS).is_file() == (recipe == "full_vision")
    assert json.loads((run.adapter / "boxtune.json").read_text())["family"] == family
    rows = [json.loads(line) for line in (run.folder.path / "metrics.jsonl").read_text().splitlines()]
    rates = {key for row in rows for key in row if key.startswith("learning_rate_")}
    towers = FAMILIES[family].towers if recipe == "two_stage" else ()
    assert rates == {f"learning_rate_{tower}" for tower in towers}
    said = json.loads((run.folder.predictions / "tuned.json").read_text())["answers"]
    first = next(answer["text"] for answer in said if answer["image_id"] == 1)
    assert boxtune.load(run.folder.path).answer([squares / "valid" / "001.png"])[0].text == first
