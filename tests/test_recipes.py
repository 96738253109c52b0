"""Every recipe is read without complaint; its header says how to run it, on what, how long, and what comes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from boxtune.config import read_settings
from boxtune.errors import ConfigError

RECIPES = sorted((Path(__file__).resolve().parent.parent / "recipes").glob("*.yaml"))


def faults(path: Path) -> list[str]:
    """What is missing in a recipe's header."""
    header = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    wanted = {
        "the command": rf"boxtune train recipes/{path.name} data=\S+",
        "the hardware": r"CPU cores?|GPU|H100|H200",
        "the minutes": r"\d+ minutes",
        "a score": r"(IoU|AP50|AP) 0\.\d+",
    }
    return [what for what, pattern in wanted.items() if not re.search(pattern, header)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_and_says_what_it_is(path: Path, tmp_path: Path) -> None:
    assert faults(path) == []
    settings = read_settings(path, {"data": str(tmp_path)}).settings
    assert settings.model == "tiny"


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 3


def test_a_recipe_without_a_header_or_with_a_misspelt_key_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("model: tiny\ntrain:\n  epoch: 3\n")
    assert len(faults(path)) == 4
    with pytest.raises(ConfigError, match="epochs"):
        read_settings(path, {"data": str(tmp_path)})
