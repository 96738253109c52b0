"""Only a complete checkpoint is resumed from; a half-written one is named and put aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boxtune.finetune.checkpoints import NEEDED, cut_metrics, faults, last_complete, read_metrics, seal


def write_checkpoint(folder: Path, step: int, *, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in (*NEEDED, "rng_state.pth"):
        (path / name).write_text(f"{name} of step {step}")
    if sealed:
        seal(path)
    return path


def test_the_newest_complete_one_is_taken(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 9)
    newest = write_checkpoint(tmp_path, 10)
    assert last_complete(tmp_path) == (newest, ())


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "trainer_state.json", "complete.json"])
def test_one_that_lacks_a_file_is_passed_over_by_name(tmp_path: Path, name: str) -> None:
    good = write_checkpoint(tmp_path, 4)
    bad = write_checkpoint(tmp_path, 8)
    (bad / name).unlink()
    found, findings = last_complete(tmp_path)
    assert found == good
    assert len(findings) == 1 and "checkpoint-8" in findings[0].seen
    assert name in findings[0].seen or name == "complete.json"
    assert not bad.exists() and (tmp_path / "broken-checkpoint-8").is_dir()


def test_one_with_a_cut_file_is_passed_over(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path, 4)
    bad = write_checkpoint(tmp_path, 8)
    (bad / "optimizer.pt").write_text("opt")
    assert faults(bad) == ["optimizer.pt has 3 bytes of 22"]
    assert last_complete(tmp_path)[0] == good


def test_none_complete(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 4, sealed=False)
    found, findings = last_complete(tmp_path)
    assert found is None and len(findings) == 1
    assert last_complete(tmp_path / "missing") == (None, ())


def test_put_aside_twice(tmp_path: Path) -> None:
    for _ in range(2):
        write_checkpoint(tmp_path, 4, sealed=False)
        assert last_complete(tmp_path)[0] is None
    assert (tmp_path / "broken-checkpoint-4").is_dir() and (tmp_path / "broken-checkpoint-4-2").is_dir()


def test_metrics_are_cut_to_the_resumed_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"kind": "eval", "step": 0}, *({"kind": "train", "step": step} for step in (1, 2, 3))]
    rows.append({"kind": "summary", "step": 2})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "train", "st')
    cut_metrics(path, 2)
    assert [(row["kind"], row["step"]) for row in read_metrics(path)] == [("eval", 0), ("train", 1), ("train", 2)]
    cut_metrics(tmp_path / "none.jsonl", 2)
    assert read_metrics(tmp_path / "none.jsonl") == []
