"""Name and place of every file that a run writes."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.errors import ConfigError, DataError


class _Inside:
    """A path inside the folder, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: RunFolder, owner: object) -> Path:
        return folder.path / self.name


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """One run's folder; every path in it has a name here, and nobody else spells it."""

    path: Path

    recipe = _Inside("recipe.yaml")
    environment = _Inside("environment.json")
    ledger = _Inside("ledger.json")
    findings = _Inside("findings.json")
    verdict = _Inside("verdict.json")
    metrics = _Inside("metrics.jsonl")
    split = _Inside("split.json")
    left_out = _Inside("left_out.jsonl")
    adapter = _Inside("adapter")
    adapter_last = _Inside("adapter_last")
    checkpoints = _Inside("checkpoints")
    best = _Inside("best.json")
    bound = _Inside("bound.json")
    pictures = _Inside("pictures")
    samples = _Inside("samples")
    predictions = _Inside("predictions")
    scores = _Inside("scores.json")
    general = _Inside("general.json")

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return self.path.name


RUN_CARD = "boxtune.json"
"""The file inside an adapter folder that binds what prediction must repeat."""


def build_run_folder(parent: Path, name: str) -> RunFolder:
    """A fresh folder `parent/name`, or `name-2`, `name-3` where it exists: runs never overwrite each other.

    Raises ConfigError where no folder can be made in `parent`.
    """
    slug = slugify(name)
    require_folder(parent, fix="give a folder that can be written as runs=")
    for number in range(1, 100_000):
        path = parent / (slug if number == 1 else f"{slug}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return RunFolder(path=path)
    raise DataError(f"there are too many runs named {slug!r}", where=str(parent), fix="give another name=")


def find_runs(parent: Path, name: str) -> list[RunFolder]:
    """The runs of a name, numbered ones included, oldest first; a name with its number (`x-2`) means that one alone."""
    slug = slugify(name)
    if re.search(r"-\d+$", slug) and (parent / slug).is_dir():
        return [RunFolder(path=parent / slug)]
    if not parent.is_dir():
        return []
    numbered = re.compile(re.escape(slug) + r"(?:-(\d+))?$")
    found = [(int(m[1] or 1), p) for p in parent.iterdir() if p.is_dir() and (m := numbered.match(p.name))]
    return [RunFolder(path=path) for _, path in sorted(found)]


def cache_folder() -> Path:
    """Where boxtune keeps what it can make again: `BOXTUNE_CACHE`, else the user's cache folder; made if missing.

    Raises ConfigError where it cannot be written.
    """
    named = os.environ.get("BOXTUNE_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "boxtune"
    require_folder(folder, fix="set the environment variable BOXTUNE_CACHE to a folder that can be written")
    return folder


def require_folder(folder: Path, *, fix: str) -> None:
    """Make a folder, with those above it, where it is not there; ConfigError if it cannot be made or written in."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = "there is a file in the way" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(f"the folder cannot be made: {what}", where=str(folder), fix=fix) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("the folder cannot be written in", where=str(folder), fix=fix)


def slugify(name: str) -> str:
    """A name that is safe as a folder on every system; letters of any script stay.

    At most 100 characters and 200 bytes: file systems bound a name at 255 bytes, and siblings of it carry suffixes.
    """
    safe = re.sub(r"[^\w.\-]+", "-", name).strip("-.")[:100]
    return safe.encode()[:200].decode(errors="ignore").strip("-.") or "run"


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never half of it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text through a temporary sibling and a rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def read_json(path: Path) -> Any:
    """The JSON in a file a run wrote; DataError if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError("a file of the run is missing", where=str(path), fix="give the folder of a run") from error
    except json.JSONDecodeError as error:
        raise DataError(f"a file of the run is not JSON: {error}", where=str(path)) from error
