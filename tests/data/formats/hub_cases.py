"""Data sets in the layouts of the Hugging Face hub, written with pyarrow and by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..cases import picture, save
from .tf_records import jpeg

# Boxes in a picture of 64 x 48 that can be x, y, width, height in pixels and nothing else.
XYWH = [[2.0, 3.0, 10.0, 20.0], [30.0, 8.0, 34.0, 40.0], [40.0, 20.0, 20.0, 28.0]]
XYXY = [[2, 3, 12, 23], [30, 8, 64, 48], [40, 20, 60, 48]]


def image(seed: int, name: str | None = None, size_wh: tuple[int, int] = (64, 48)) -> dict[str, Any]:
    """A picture as the datasets library keeps it."""
    return {"bytes": jpeg(seed, size_wh), "path": name}


def row(seed: int, bbox: Sequence[Sequence[float]], category: Sequence[Any], **more: Any) -> dict[str, Any]:
    return {"image": image(seed, f"{seed}.jpg"), "objects": {"bbox": list(bbox), "category": list(category)}, **more}


def rows() -> list[dict[str, Any]]:
    """Three pictures, the last of them a negative."""
    return [row(1, XYWH[:2], [0, 1]), row(2, XYWH[2:], [1]), row(3, [], [])]


def features(names: Sequence[str], key: str = "category") -> dict[str, Any]:
    label = {"feature": {"names": list(names), "_type": "ClassLabel"}, "_type": "List"}
    return {"image": {"_type": "Image"}, "objects": {"bbox": {"_type": "List"}, key: label}}


def write_parquet(
    file: Path, content: Sequence[Mapping[str, Any]], said: Mapping[str, Any] | None = None, schema: Any = None
) -> Path:
    """`said` are the features that the file tells of itself."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(one) for one in content], schema=schema)
    if said is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": said}})})
    pq.write_table(table, file)
    return file


def write_metadata(folder: Path, content: Sequence[Mapping[str, Any]], name: str = "metadata.jsonl") -> Path:
    """A metadata file and the pictures that it names."""
    for seed, one in enumerate(content):
        save(picture(seed), folder / str(one["file_name"]))
    file = folder / name
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in content), encoding="utf-8")
    return file


def entry(name: str, bbox: Any, category: Any, **more: Any) -> dict[str, Any]:
    return {"file_name": name, "objects": {"bbox": bbox, "categories": category, **more}}
