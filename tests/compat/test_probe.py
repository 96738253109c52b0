"""The probe stands alone, refuses what it does not know, and measures here what the kept results say."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compat import __main__ as command
from compat import probe
from compat.table import RESULTS, describe_outcome

PRESENT = RESULTS / "cpu-trl-1.16.json"


def find_imports(source: str) -> set[str]:
    """The top packages that a script imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level or (node.module or "").split(".")[0])
    return names


def test_find_imports() -> None:
    assert find_imports("import a.b\ndef f():\n    from c.d import e\n    from . import g") == {"a", "c", "."}


def test_probe_stands_alone() -> None:
    found = find_imports(command.PROBE.read_text(encoding="utf-8"))
    assert {"torch", "trl", "peft"} <= found
    assert found - set(sys.stdlib_module_names) <= {*probe.LIBRARIES, "tokenizers"}


def test_packed_weight_counts_with_its_real_shape() -> None:
    packed = SimpleNamespace(shape=(8, 1), quant_state=SimpleNamespace(shape=(4, 4)))
    assert probe.num_parameters(packed) == 16
    assert probe.num_parameters(SimpleNamespace(shape=(8, 1))) == 8


def test_first_known() -> None:
    def old(*, max_seq_length: int) -> None: ...

    assert probe.first_known(old, "max_length", "max_seq_length") == "max_seq_length"
    assert probe.first_known(old, "max_length") is None


@pytest.mark.parametrize(
    "arguments", [[], ["device=cpu"], ["device=tpu", "out=x"], ["device=cpu", "out=x", "colour=red"], ["colour"]]
)
def test_probe_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="usage"):
        probe.main(arguments)


@pytest.mark.parametrize(
    "arguments", [["colour=red"], ["only=trl-9.9"], ["device=tpu"], ["device=cuda", "only=trl-1.16"]]
)
def test_command_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="not understood"):
        command.main(arguments)


def test_probe_without_a_record_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "probe.py"
    script.write_text("raise SystemExit('died early')\n", encoding="utf-8")
    monkeypatch.setattr(command, "PROBE", script)
    with pytest.raises(RuntimeError, match="died early"):
        command.run_probe(Path(sys.executable), "-P", "cpu")


def test_record_of_a_probe_that_raised_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "probe.py"
    script.write_text("import sys\nopen(sys.argv[2][4:], 'w').write('{\"runs\": []}')\nsys.exit(1)\n", encoding="utf-8")
    monkeypatch.setattr(command, "PROBE", script)
    assert command.run_probe(Path(sys.executable), "-P", "cpu") == {"runs": []}


def test_nothing_is_kept_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    record: dict[str, Any] = {
        "machine": {},
        "raised": "AssertionError: no CUDA",
        "libraries": {"trl": "1.0"},
        "runs": [],
    }
    monkeypatch.setattr(command, "run_probe", lambda *_: record)
    monkeypatch.setattr(command, "keep", lambda *_: pytest.fail("kept"))
    with pytest.raises(SystemExit, match="no GPU was found, nothing is kept: AssertionError"):
        command.main(["device=cuda"])


def test_result_of_a_gpu_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    record: dict[str, Any] = {"machine": {"gpu": "Card"}, "raised": None, "libraries": {"trl": "1.0"}, "runs": []}
    kept: list[str] = []
    monkeypatch.setattr(command, "run_probe", lambda *_: record)
    monkeypatch.setattr(command, "keep", lambda name, *_: kept.append(name))
    monkeypatch.setattr(command, "write_page", lambda: Path("compat.md"))
    command.main(["device=cuda"])
    assert kept == ["cuda-trl-1.0"]


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What the probe measures in the present environment."""
    return command.run_probe(Path(sys.executable), "-P", "cpu")


@pytest.mark.slow
def test_probe_runs_here(measured: dict[str, Any]) -> None:
    assert measured["raised"] is None
    assert [run["pattern"] for run in measured["runs"]] == list(probe.PATTERNS)
    for run in measured["runs"]:
        assert run["num_steps"] == probe.NUM_STEPS
        if run["pattern"] == "twice":
            assert run["stages"][-1]["trainable"] == 0
            assert run["loss_after"] == run["loss_before"]
            assert run["moved_in_run"]["all"] == run["moved_in_one_step"]["all"] == 0
        else:
            assert run["stages"][-1]["trainable"] == sum(run["stages"][-1]["adapter_dtypes"].values()) > 0
            assert run["loss_after"] < 0.8 * run["loss_before"]
            assert run["moved_in_run"]["all"] > 0.99


@pytest.mark.slow
def test_probe_measures_what_was_kept(measured: dict[str, Any]) -> None:
    kept = json.loads(PRESENT.read_text(encoding="utf-8"))
    if importlib.metadata.version("trl") != kept["libraries"]["trl"]:
        pytest.skip(f"the kept results are of TRL {kept['libraries']['trl']}")
    for here, there in zip(measured["runs"], kept["runs"], strict=True):
        assert here["stages"] == there["stages"]
        assert describe_outcome(here) == describe_outcome(there)
