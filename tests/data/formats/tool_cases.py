"""What the tests of readers of annotation tools share: pictures of 64 x 48 beside a file, and what was read of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from boxtune.data import Dataset, read_dataset
from boxtune.data.draft import Options, Raw
from boxtune.data.formats import read_raw
from boxtune.errors import Finding

from ..cases import SIZE_WH, picture, save


def pictures(folder: Path, *names: str, size_wh: tuple[int, int] = SIZE_WH) -> Path:
    """Pictures of those names in the folder, no two alike."""
    for name in names:
        save(picture(sum(name.encode()), size_wh), folder / name)
    return folder


def put(file: Path, content: Any) -> Path:
    """A text as it is, anything else as JSON; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    file.write_text(text, encoding="utf-8")
    return file


def raw_rows(path: Path, format: str, split: str = "train", **options: Any) -> list[tuple[str, str, list[float]]]:
    """File, label and corners, rounded, of each box of a split, as they were annotated; the format must be told."""
    name, raw = read_raw(path, options=Options(**options))
    assert name == format, raw.why
    draft = next(draft for draft in raw.drafts if draft.split == split)
    rows = zip(draft.owners, draft.labels, draft.xyxy.tolist(), strict=True)
    return [(draft.files[owner], label, [round(value, 6) for value in corners]) for owner, label, corners in rows]


def raw_of(path: Path, format: str, **options: Any) -> Raw:
    return read_raw(path, format=format, options=Options(**options))[1]


def finding(dataset: Dataset, check: str) -> Finding | None:
    """The one finding of that check in any split, or None."""
    found = [one for one in dataset.findings if one.check == check]
    assert len(found) <= 1
    return found[0] if found else None


def boxes(dataset: Dataset, split: str = "train") -> dict[str, list[tuple[str, list[float]]]]:
    """Label and corners in pixels of each image of a split, as they come out in the end."""
    return {
        sample.image.name: [
            (label, [round(value, 3) for value in corners])
            for label, corners in zip(sample.boxes.labels, sample.boxes.xyxy_px.tolist(), strict=True)
        ]
        for sample in dataset.splits[split]
    }


def read(path: Path, format: str, **options: Any) -> Dataset:
    """The data set, whose format must be told without help."""
    dataset = read_dataset(path, **options)
    assert dataset.format == format, dataset.why
    return dataset
