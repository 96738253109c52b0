"""Small COCO data sets made on the spot: pictures with texture, entries, files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxtune.data import read_dataset
from boxtune.data.sample import Dataset
from boxtune.errors import Finding

SIZE_WH = (64, 48)
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def picture(seed: int, size_wh: tuple[int, int] = SIZE_WH) -> Image.Image:
    """A mosaic of random colours: no two seeds look alike, and each has edges to hash."""
    tiles = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(tiles).resize(size_wh, Image.Resampling.NEAREST)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    """The image as a file; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def read_coco(path: Path, *, images: Path | None = None) -> Dataset:
    """The COCO data set at `path`, whatever else it could be."""
    return read_dataset(path, format="coco", images=images)


def image_entry(number: Any, name: str, size_wh: tuple[Any, Any] = SIZE_WH) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": size_wh[0], "height": size_wh[1]}


def box_entry(number: Any, image: Any, xywh: Any = (8, 6, 20, 16), category: Any = 1, **more: Any) -> dict[str, Any]:
    bbox = list(xywh) if isinstance(xywh, tuple) else xywh
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def write_json(
    file: Path,
    images: Sequence[Any],
    annotations: Sequence[Any],
    categories: Sequence[Any] | None = None,
) -> Path:
    """A COCO file; without `categories` it lists those of CATEGORIES that the annotations name."""
    if categories is None:
        used = [entry.get("category_id") for entry in annotations if isinstance(entry, dict)]
        categories = [category for category in CATEGORIES if category["id"] in used]
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


def write_one(folder: Path, annotations: Sequence[Any], **more: Any) -> Path:
    """A .json with the image 1, `a.png`, and these annotations; the picture lies beside it."""
    save(picture(1), folder / "a.png")
    return write_json(folder / "truth.json", [image_entry(1, "a.png")], annotations, **more)


def write_splits(folder: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """SPLIT/_annotations.coco.json beside `count` pictures 0.png, 1.png, ... with one box each."""
    seed = first_seed
    for split, count in counts.items():
        for number in range(count):
            save(picture(seed), folder / split / f"{number}.png")
            seed += 1
        images = [image_entry(number, f"{number}.png") for number in range(count)]
        boxes = [box_entry(number, number, category=1 + number % 2) for number in range(count)]
        write_json(folder / split / "_annotations.coco.json", images, boxes)
    return folder


def find(dataset: Dataset, check: str) -> Finding | None:
    """The one finding of that check, or None."""
    found = [finding for finding in dataset.findings if finding.check == check]
    assert len(found) <= 1
    return found[0] if found else None


def names(dataset: Dataset, split: str) -> list[str]:
    return [sample.image.name for sample in dataset.splits[split]]
