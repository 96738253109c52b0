"""The repository as the contract tests read it."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder that holds pyproject.toml."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def checkout(root: Path) -> tuple[Path, ...]:
    """Every file that belongs to the repository, relative to its root: all on disk but .git and what git ignores.

    Read from the disk, since a copy of the tree need not be a git repository.
    """
    lines = (root / ".gitignore").read_text(encoding="utf-8").split()
    found = sorted(path.relative_to(root) for path in _files(root, root, (*lines, "/.git/", "/.git")))
    assert Path("pyproject.toml") in found and len(found) > 10
    return tuple(found)


def _files(folder: Path, root: Path, ignored: tuple[str, ...]) -> list[Path]:
    found = []
    for path in folder.iterdir():
        name = "/" + path.relative_to(root).as_posix() + ("/" if path.is_dir() else "")
        if any(fnmatch(name, line if line.startswith("/") else f"*/{line}") for line in ignored):
            continue
        found.extend(_files(path, root, ignored) if path.is_dir() else [path])
    return found


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """A small sound COCO data set: four images to train on and two to validate, one box in each."""
    folder = tmp_path / "photos"
    for split, count in (("train", 4), ("valid", 2)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (64, 48), (40 * number, 90, 120)).save(folder / split / f"{number}.png")
        ids = range(count)
        truth = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in ids],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [8 + i, 6, 30, 20], "area": 600, "iscrowd": 0}
                for i in ids
            ],
            "categories": [{"id": 1, "name": "label"}],
        }
        (folder / split / "_annotations.coco.json").write_text(json.dumps(truth), encoding="utf-8")
    return folder
