"""`boxtune families` and the page made from it: every family is told of, in the width of a terminal, up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.cli import main
from boxtune.families import FAMILIES
from boxtune.families.listing import families_page, list_families

ROOT = Path(__file__).resolve().parents[2]


def test_every_family_is_told_of_within_the_width() -> None:
    lines = list_families().splitlines()
    assert max(map(len, lines)) <= 120
    paragraphs = [line for line in lines if line.startswith(tuple(f"{name}: " for name in FAMILIES))]
    assert len(paragraphs) == len(FAMILIES)
    for what in ("prompt", "answer", "nothing", "numbers", "image", "defaults", "from", "source"):
        assert sum(line.startswith(f"  {what} ") for line in lines) == len(FAMILIES), what
    for family in FAMILIES.values():
        assert all(vars(family.about).values())


def test_the_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "families.md").read_text(encoding="utf-8") == families_page()


def test_the_verb_prints_the_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["families"]) == 0
    assert capsys.readouterr().out.strip() == list_families().strip()
    assert main(["families", "more"]) == 2
    assert main(["families", "limit=3"]) == 2
