"""`--help` and `inspect` start without the libraries that take seconds to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = ["torch", "transformers", "trl", "peft", "datasets", "pandas"]

# Runs in a process of its own: pytest may hold any of these already. argv None: import only.
RUNNER = """
import json, sys
from pathlib import Path

report, heavy, argv = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
from boxtune.cli import main

code = 0
if argv is not None:
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code or 0
report.write_text(json.dumps({"code": code, "heavy": [name for name in heavy if name in sys.modules]}))
"""


def run_cli(argv: list[str] | None, folder: Path, *, first_on_path: Path | None = None) -> dict[str, Any]:
    """Exit code of `boxtune.cli.main(argv)`, and which heavy modules were loaded when it returned."""
    report = folder / "loaded.json"
    python_path = [str(first_on_path)] if first_on_path else []
    # Made absolute, since the process starts in another folder.
    python_path += [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(report), json.dumps(HEAVY), json.dumps(argv)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert report.is_file(), done.stderr
    result: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return {**result, "out": done.stdout + done.stderr}


@pytest.mark.parametrize("argv", [None, ["--help"]], ids=["import", "help"])
def test_cli_starts_light(argv: list[str] | None, tmp_path: Path) -> None:
    result = run_cli(argv, tmp_path)
    assert (result["code"], result["heavy"]) == (0, []), result["out"]


def test_inspect_runs_light(coco_folder: Path, tmp_path: Path) -> None:
    result = run_cli(["inspect", str(coco_folder)], tmp_path)
    assert (result["code"], result["heavy"]) == (0, []), result["out"]
    assert "coco" in result["out"].lower()


@pytest.mark.parametrize(
    ("body", "code", "heavy"),
    [("import pandas", 0, ["pandas"]), ("raise SystemExit(2)", 2, []), ("", 0, [])],
    ids=["loads", "fails", "sound"],
)
def test_runner_sees(body: str, code: int, heavy: list[str], tmp_path: Path) -> None:
    package = tmp_path / "boxtune"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(f"def main(argv):\n    {body}\n    return 0\n", encoding="utf-8")
    (tmp_path / "pandas.py").touch()
    result = run_cli([], tmp_path, first_on_path=tmp_path)
    assert (result["code"], result["heavy"]) == (code, heavy), result["out"]
