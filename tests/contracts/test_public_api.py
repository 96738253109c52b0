"""What `import boxtune` promises: every public name is there and says what it does."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import boxtune

VERBS = "demo inspect train predict".split()


def check_api(module: ModuleType) -> list[str]:
    """Names in `__all__` that do not resolve, and public functions and classes without a docstring.

    A public module of boxtune is looked into as well.
    """
    faults = []
    for name in module.__all__:
        value = getattr(module, name, None)
        if value is None:
            faults.append(f"{module.__name__}.{name} does not resolve")
        elif inspect.ismodule(value):
            faults += check_api(value)
        elif callable(value) and not inspect.getdoc(value):
            faults.append(f"{module.__name__}.{name} has no docstring")
    return faults


@pytest.mark.slow  # resolving everything imports torch and trl
def test_public_names() -> None:
    assert {"train", "load"} <= set(boxtune.__all__)
    assert check_api(boxtune) == []


def test_public_names_are_listed() -> None:
    assert len(set(boxtune.__all__)) == len(boxtune.__all__)
    assert set(boxtune.__all__) <= set(dir(boxtune)), "names that are loaded late must show in dir() too"


def test_version_is_the_one_of_the_distribution(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert boxtune.__version__ == project["version"]


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = boxtune.no_such_name


def test_python_m_boxtune_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "boxtune", "--help"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [verb for verb in VERBS if verb not in done.stdout] == []


def build_module(**names: object) -> ModuleType:
    """A module that exports these names, and in `__all__` also those given as None."""
    module = ModuleType("made")
    vars(module).update({name: value for name, value in names.items() if value is not None}, __all__=list(names))
    return module


def test_check_api_reports() -> None:
    def bare() -> None: ...

    def told() -> None:
        """None."""

    assert check_api(build_module(told=told, number=3)) == []
    assert check_api(build_module(bare=bare, told=told)) == ["made.bare has no docstring"]
    assert check_api(build_module(gone=None)) == ["made.gone does not resolve"]
    assert check_api(build_module(inner=build_module(bare=bare))) == ["made.bare has no docstring"]
