"""What a reader has to say about single entries, gathered: one finding for each kind, one error for all faults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from boxtune.errors import DataError, Finding, Level

_NAMED = 3


class Remarks:
    """Counts of what was noticed, each with the first three names.

    `table` maps a check id to its level, what the count counts, and what to do; its order is that of the findings.
    """

    def __init__(self, where: Path, table: Mapping[str, tuple[Level, str, str]]) -> None:
        self.where, self.table = where, table
        self._seen: dict[str, tuple[int, list[str]]] = {}
        self._faults: tuple[int, list[str]] = (0, [])

    def add(self, check: str, name: str) -> None:
        """Note a check once, for what is called `name`."""
        if check not in self.table:
            raise KeyError(check)
        self._seen[check] = _one_more(self._seen.get(check, (0, [])), name)

    def fault(self, entry: str) -> None:
        """Note an entry that cannot be used: its file, its place there, and what is wrong."""
        self._faults = _one_more(self._faults, entry)

    def require_sound(self, counted: str, fix: str) -> None:
        """Raises DataError with the number of faults and the first of them, if there are any."""
        count, names = self._faults
        if count:
            raise DataError(f"{counted}: {count:,} ({_told(count, names)})", where=str(self.where), fix=fix)

    def findings(self) -> list[Finding]:
        """One finding for each check that was noted."""
        return [
            Finding(
                check=check,
                level=level,
                seen=f"{counted}: {self._seen[check][0]:,} ({_told(*self._seen[check])})",
                where=str(self.where),
                fix=fix,
            )
            for check, (level, counted, fix) in self.table.items()
            if check in self._seen
        ]


def _one_more(noted: tuple[int, list[str]], name: str) -> tuple[int, list[str]]:
    count, names = noted
    return count + 1, [*names, name] if count < _NAMED else names


def _told(count: int, names: list[str]) -> str:
    return ", ".join(names) + (f" and {count - len(names):,} more" if count > len(names) else "")
