"""An isolated environment for each file in pins/: a virtual environment in the user's cache, kept while its pins are.

A file of pins begins with the libraries that the table compares; under them stands what came with them, so that the
environment can be made again later. Comments above the first pin are notes for the reader of the table. A new version
is a new file; the lines below may be left out of it at first and filled from `pip freeze`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

from compat.probe import LIBRARIES

PINS = Path(__file__).parent / "pins"
MADE_FROM = "boxtune-made-from.txt"  # written last: an environment without it was never finished
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A file of pins as it was read; `pins` by distribution, in the order of the file."""

    name: str
    pins: dict[str, str]
    notes: tuple[str, ...]


def read_environment(path: Path) -> Environment:
    """The environment of a file of pins.

    Raises ValueError on a line that is no exact pin, on a name pinned twice, and if one of the compared libraries is
    missing.
    """
    pins: dict[str, str] = {}
    notes = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#"):
            notes.extend([] if pins else [line.removeprefix("#").strip()])
            continue
        found = _PIN.fullmatch(line)
        if found is None or found["name"] in pins:
            raise ValueError(f"{path.name}:{number}: no exact pin, or pinned before: {line!r}")
        pins[found["name"]] = found["version"]
    missing = [name for name in LIBRARIES if name not in pins]
    if missing:
        raise ValueError(f"{path.name}: does not pin {', '.join(missing)}")
    return Environment(name=path.stem, pins=pins, notes=tuple(notes))


def read_environments(folder: Path = PINS) -> list[Environment]:
    """Every environment of the folder, older TRL first."""
    found = [read_environment(path) for path in sorted(folder.glob("*.txt"))]
    if not found:
        raise ValueError(f"no file of pins in {folder}")
    return sorted(found, key=lambda environment: sort_key(environment.pins["trl"]))


def sort_key(version: str) -> tuple[int, ...]:
    """A version as numbers, for sorting: 0.8 stands before 0.12."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def cache_folder() -> Path:
    """Where the environments are kept: in `BOXTUNE_CACHE`, else in the user's cache folder, as boxtune does."""
    named = os.environ.get("BOXTUNE_CACHE")
    above = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "boxtune"
    return above / "compat"


def require_environment(environment: Environment) -> Path:
    """The interpreter of the environment, which is made first unless it was made from the same pins.

    Raises RuntimeError with pip's own words if pip fails. Where wheels come from is pip's own configuration.
    """
    folder = cache_folder() / environment.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made_from = f"python {sys.version}\n" + "".join(f"{name}=={pin}\n" for name, pin in environment.pins.items())
    marker = folder / MADE_FROM
    if marker.is_file() and marker.read_text(encoding="utf-8") == made_from:
        return python
    if folder.exists():
        shutil.rmtree(folder)
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    others = [f"{name}=={pin}" for name, pin in environment.pins.items() if name != "trl"]
    _install(python, others)
    # TRL comes alone, since 0.12 refuses every transformers that can hold 4-bit weights on a CPU. What it needs
    # stands among the others.
    _install(python, ["--no-deps", f"trl=={environment.pins['trl']}"])
    marker.write_text(made_from, encoding="utf-8")
    return python


def _install(python: Path, what: list[str]) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip could not make {python.parent.parent.name}:\n{done.stdout}")


def check_installed(environment: Environment, libraries: dict[str, str]) -> list[str]:
    """Each compared library whose version is not the pinned one; `2.13.0+cpu` is a build of 2.13.0."""
    return [
        f"{environment.name}: {name} {libraries.get(name)} is installed instead of {environment.pins[name]}"
        for name in LIBRARIES
        if libraries.get(name, "").partition("+")[0] != environment.pins[name]
    ]
