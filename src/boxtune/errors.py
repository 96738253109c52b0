"""What can go wrong, and what a check can find.

    BoxtuneError                 exit code 1
    ├── UserError                exit code 2: the user's input is wrong; printed without a traceback
    │   ├── ConfigError          a setting: unknown, of the wrong type, or at odds with another
    │   ├── DataError            an annotation file, an image, a folder
    │   └── ModelError           a model that is not there, or that boxtune does not know
    ├── NotLearningError         exit code 3: the run was stopped, or has been shown not to learn
    └── UndecidedError           exit code 4: it cannot be told, and guard.strict asks for more

A `Finding` is what a check saw. Checks return findings and never raise; whoever calls them decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail", "cannot_tell"]


class BoxtuneError(Exception):
    """Something went wrong inside boxtune."""

    exit_code = 1


class UserError(BoxtuneError):
    """The user's input is wrong. Says what was found, where, and what to do.

    The three parts stay apart so that a page or a notebook can lay them out; `str()` joins them.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__("\n".join(line for line in self.lines()))

    def lines(self) -> Iterable[str]:
        """The message as lines: what, then where, then what to do; empty parts are left out."""
        yield self.what
        if self.where:
            yield f"  where: {self.where}"
        if self.fix:
            yield f"  do:    {self.fix}"


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or at odds with another one."""


class DataError(UserError):
    """An annotation file, an image or a folder cannot be used as it is."""


class ModelError(UserError):
    """A model is not there, or boxtune does not know its family."""


class NotLearningError(BoxtuneError):
    """The run was stopped because it is proved that it does not learn what it should."""

    exit_code = 3


class UndecidedError(BoxtuneError):
    """It cannot be told whether the run learned, and it was asked to be (guard.strict)."""

    exit_code = 4


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check saw.

    `check` is a stable id such as `coco.box_outside`, `seen` what was found (with counts and first names),
    `where` the file, line, key or image, `fix` what to do about it.
    """

    check: str
    level: Level
    seen: str
    where: str = ""
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as it stands in `findings.json`."""
        return asdict(self)

    def __str__(self) -> str:
        mark = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "cannot_tell": "?   "}[self.level]
        where = f" [{self.where}]" if self.where else ""
        fix = f" -> {self.fix}" if self.fix else ""
        return f"{mark} {self.check}: {self.seen}{where}{fix}"


def name_some(names: Iterable[object], limit: int = 3) -> str:
    """The first `limit` names and how many more there are: "a, b, c and 4 more"."""
    rows = [str(name) for name in names]
    more = f" and {len(rows) - limit} more" if len(rows) > limit else ""
    return ", ".join(rows[:limit]) + more
