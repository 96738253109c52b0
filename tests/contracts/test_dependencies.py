"""What src imports is declared in pyproject.toml, what is declared is imported, and the tests' versions fit."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_layers import find_imports

# Distribution -> module, where their names differ.
MODULES = {"faster-coco-eval": "faster_coco_eval", "pillow": "PIL", "pyyaml": "yaml"}

NEVER_IMPORTED = {
    "accelerate": "transformers' Trainer runs on it",
    "bitsandbytes": "transformers quantizes with it",
}
OPTIONAL = {
    "supervision": "only Boxes.to_supervision() needs it, which says so",
    "torchvision": "never needed; only asked whether it is there",
    "triton": "comes with torch wherever it has CUDA; imported where it is there",
}


def read_requirements(root: Path) -> dict[str, list[Requirement]]:
    """The requirements of pyproject.toml by extra; those of the package itself stand under ""."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}


def check_dependencies(names: set[str], imported: set[str]) -> list[str]:
    """Modules imported and not declared, and distributions declared and not imported, but for the named ones."""
    modules = {MODULES.get(name, name): name for name in names}
    faults = [f"{module} is imported and not declared" for module in imported - set(modules) - set(OPTIONAL)]
    faults += [f"{name} is declared and not imported" for module, name in modules.items() if module not in imported]
    return sorted(fault for fault in faults if fault.split()[0] not in NEVER_IMPORTED)


def check_constraints(requirements: list[Requirement], lines: list[str]) -> list[str]:
    """Requirements that the pinned versions leave open or do not meet, and lines that are no exact pin."""
    pins = dict(line.split("==") for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line))
    pins = {_normal(name): version for name, version in pins.items()}
    faults = [f"not an exact version: {line}" for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    for requirement in requirements:
        version = pins.get(_normal(requirement.name))
        if version is None:
            faults.append(f"{requirement.name} is not pinned")
        elif version not in requirement.specifier:
            faults.append(f"{requirement.name}=={version} is outside {requirement.specifier}")
    return faults


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.slow
def test_dependencies_are_what_is_imported(root: Path) -> None:
    paths = sorted((root / "src" / "boxtune").rglob("*.py"))
    assert len(paths) >= 10
    found = {
        item.name.split(".")[0]
        for path in paths
        for item in find_imports(path.relative_to(root / "src"), path.read_text(encoding="utf-8"))
    }
    names = {requirement.name for requirement in read_requirements(root)[""]}
    faults = check_dependencies(names, found - set(sys.stdlib_module_names) - {"boxtune"})
    assert not faults, "\n".join(faults)


def test_constraints_meet_the_ranges(root: Path) -> None:
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    requirements = [requirement for group in read_requirements(root).values() for requirement in group]
    assert len(lines) > len(requirements) > 10
    assert check_constraints(requirements, lines) == []


@pytest.mark.parametrize(
    ("names", "imported", "faults"),
    [
        ({"numpy", "pillow"}, {"numpy", "PIL"}, []),
        ({"numpy", "bitsandbytes"}, {"numpy", "supervision"}, []),
        ({"numpy"}, {"numpy", "scipy"}, ["scipy is imported and not declared"]),
        ({"numpy", "pyyaml"}, {"numpy"}, ["pyyaml is declared and not imported"]),
    ],
)
def test_check_dependencies(names: set[str], imported: set[str], faults: list[str]) -> None:
    assert check_dependencies(names, imported) == faults


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        (["trl==1.16.0", "types_PyYAML==6.0.12.20261113"], []),
        (["trl==1.16.0"], ["types-PyYAML is not pinned"]),
        (["trl==2.0.0", "types-PyYAML==6.1"], ["trl==2.0.0 is outside <2,>=1.15"]),
        (["trl==1.16.0", "types-PyYAML==6.1", "x @ file:x.whl"], ["not an exact version: x @ file:x.whl"]),
        (["trl==1.16.0", "types-PyYAML==6.1", "--no-index"], ["not an exact version: --no-index"]),
    ],
)
def test_check_constraints(lines: list[str], faults: list[str]) -> None:
    assert check_constraints([Requirement("trl>=1.15,<2"), Requirement("types-PyYAML>=6")], lines) == faults
