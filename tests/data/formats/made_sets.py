"""Small data sets of the per-image formats, made on the spot, and what was read of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from boxtune.data import Dataset

from ..cases import SIZE_WH, picture, save

# 64 x 48: a box whose shares are exact in binary and in decimals.
ROW, XYXY = "0 0.5 0.5 0.25 0.5", [24.0, 12.0, 40.0, 36.0]


def image(path: Path, size_wh: tuple[int, int] = SIZE_WH) -> Path:
    """A picture at that place; no two of different paths look alike."""
    return save(picture(sum(str(path.name).encode()) + 1000 * len(path.parts), size_wh), path)


def write(path: Path, text: str | bytes) -> Path:
    """A text file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def labelled(folder: Path, names: Mapping[str, str], labels: str = "labels", images: str = "images") -> None:
    """An image in `images` and a label file in `labels` of the folder for each name."""
    for name, text in names.items():
        image(folder / images / name)
        write(folder / labels / Path(name).with_suffix(".txt"), text)


def boxes_of(dataset: Dataset) -> dict[str, list[tuple[str, list[float]]]]:
    """Label and corners of the boxes of each image, by its place below the data set's folder (or its name)."""
    root = dataset.path if dataset.path.is_dir() else dataset.path.parent
    found = {}
    for samples in dataset.splits.values():
        for sample in samples:
            file = sample.image
            called = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
            found[called] = list(zip(sample.boxes.labels, np.round(sample.boxes.xyxy_px, 6).tolist(), strict=True))
    return found


def counts_of(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Images and boxes of each split."""
    return {split: (len(rows), sum(len(one.boxes) for one in rows)) for split, rows in dataset.splits.items()}


def checks_of(dataset: Dataset) -> dict[str, str]:
    """The level of each finding, without those that are made for every format."""
    own = [finding for finding in dataset.findings if finding.check.split(".")[0] not in ("image", "class", "box")]
    return {finding.check: finding.level for finding in own}


def seen_of(dataset: Dataset, check: str) -> str:
    """What the one finding of a check says."""
    (seen,) = [finding.seen for finding in dataset.findings if finding.check == check]
    return seen
