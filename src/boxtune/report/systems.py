"""Scores of several systems as one table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from boxtune.report.table import score_table


def systems_table(scores: Mapping[str, Any]) -> str:
    """A column for each system, with the rows of `score_table`; those where no system has a number are left out."""
    systems: Mapping[str, Mapping[str, Any]] = scores["systems"]
    tables = [score_table({**scores, "tuned": own}).splitlines() for own in systems.values()]
    widths = [max(9, len(name) + 2) for name in systems]
    lines = []
    for number, rows in enumerate(zip(*tables, strict=True)):
        label = rows[0].rpartition(" ")[0].rstrip()
        values = list(systems) if number == 0 else [row.rpartition(" ")[2] for row in rows]
        if set(values) != {"-"}:
            told = "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
            lines.append(f"{label:<42}{told}")
    return "\n".join(lines)


def systems_sentences(scores: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each system but the first: whether it is better than that."""
    first = next(iter(scores["systems"]))
    for name, paired in scores["paired"].items():
        yield f"{name} against {first}: {paired['sentence']}"
