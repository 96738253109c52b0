"""The pins are complete and are what the kept results were measured with; an environment is made once for its pins."""

from __future__ import annotations

import json
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from compat import environments
from compat.environments import Environment, check_installed, read_environment, read_environments, require_environment
from compat.probe import LIBRARIES
from compat.table import RESULTS

TRL = "0.8 0.12 0.15 0.18 0.22 0.23 0.29 1.16".split()

PINS = "".join(f"{name}==1.{number}\n" for number, name in enumerate(LIBRARIES))


@pytest.fixture
def write_pins(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "trl-1.0.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_version_has_its_pins() -> None:
    found = read_environments()
    assert [environment.name for environment in found] == [f"trl-{version}" for version in TRL]
    for environment in found:
        minor = ".".join(environment.pins["trl"].split(".")[:2])
        assert environment.name == f"trl-{minor}"
        assert len(environment.pins) > 30  # what came with the libraries stands there too


def test_results_were_measured_with_the_pins() -> None:
    found = read_environments()
    assert found
    for environment in found:
        record = json.loads((RESULTS / f"cpu-{environment.name}.json").read_text(encoding="utf-8"))
        assert check_installed(environment, record["libraries"]) == []


def test_other_version_is_reported() -> None:
    environment = read_environments()[-1]
    libraries = {**environment.pins, "torch": f"{environment.pins['torch']}+cpu"}
    assert check_installed(environment, libraries) == []
    libraries["peft"] = "0.1.0"
    del libraries["datasets"]
    faults = check_installed(environment, libraries)
    assert len(faults) == 2 and "peft 0.1.0" in faults[0] and "datasets None" in faults[1]


def test_read_pins(write_pins: Callable[[str], Path]) -> None:
    environment = read_environment(write_pins(f"# first note\n# second note\n{PINS}# not a note\nnumpy==2.0\n"))
    assert environment.name == "trl-1.0"
    assert environment.notes == ("first note", "second note")
    assert environment.pins["trl"] == "1.0" and environment.pins["numpy"] == "2.0"
    assert len(environment.pins) == len(LIBRARIES) + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PINS + "numpy>=2.0\n", "numpy>=2.0"),
        (PINS + "numpy\n", "no exact pin"),
        (PINS + "numpy==2.*\n", "no exact pin"),
        (PINS + "trl==1.0\n", "pinned before"),
        (PINS.replace("peft==1.2\n", ""), "does not pin peft"),
    ],
)
def test_incomplete_pins_are_refused(write_pins: Callable[[str], Path], text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("*", r"\*")):
        read_environment(write_pins(text))


def test_folder_without_pins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of pins"):
        read_environments(tmp_path)


def test_environment_is_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BOXTUNE_CACHE", str(tmp_path))
    created: list[Path] = []
    installed: list[list[str]] = []
    fail = False

    def create(folder: Path, **_: object) -> None:
        assert not folder.exists()  # what a stopped run left is taken away first
        folder.mkdir(parents=True)
        created.append(folder)

    def install(python: Path, what: list[str]) -> None:
        if fail:
            raise RuntimeError("pip could not make it")
        installed.append(what)

    monkeypatch.setattr(venv, "create", create)
    monkeypatch.setattr(environments, "_install", install)
    first = Environment(name="trl-1.0", pins={"trl": "1.0", "torch": "2.0"}, notes=())
    other = Environment(name="trl-1.0", pins={"trl": "1.0", "torch": "2.1"}, notes=())

    python = require_environment(first)
    assert python.is_relative_to(tmp_path / "compat" / "trl-1.0")
    assert installed == [["torch==2.0"], ["--no-deps", "trl==1.0"]]
    require_environment(first)
    assert len(created) == 1

    fail = True
    with pytest.raises(RuntimeError, match="pip could not"):
        require_environment(other)
    fail = False
    require_environment(other)  # the half-made one is not taken for whole
    require_environment(other)
    assert len(created) == 3
    assert installed[2:] == [["torch==2.1"], ["--no-deps", "trl==1.0"]]
