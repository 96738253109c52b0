"""What one check of the guard saw; its JSON is the same as that of boxtune's own findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


def name_some(names: Sequence[str], limit: int = 2) -> str:
    """The first names and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`check` is a stable id, `seen` what was found, `where` in which tensor or stage, `fix` what to do."""

    check: str
    level: Literal["ok", "warn", "fail", "cannot_tell"]
    seen: str
    where: str = ""
    fix: str = ""

    def as_text(self) -> str:
        """The finding as lines for a terminal: what was seen, where, and what to do."""
        lines = [f"[{self.level}] {self.check}: {self.seen}"]
        for name, text in (("where:", self.where), ("do:   ", self.fix)):
            if text:
                first, *rest = text.splitlines()
                lines += [f"  {name} {first}", *(f"         {line}" for line in rest)]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The finding as plain JSON."""
        return asdict(self)
