"""A small COCO set without its pictures, and what another system may say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxtune.boxes import Boxes
from boxtune.data import Dataset, read_dataset
from boxtune.data.draft import Options
from boxtune.data.formats.coco_document import Id
from boxtune.measure import Prediction, score_predictions
from boxtune.measure.foreign import Fitted, fit_foreign
from boxtune.measure.foreign_files import read_foreign
from boxtune.measure.foreign_images import read_known

SIZE = (200, 100)
CATEGORIES = {1: "cat", 2: "dog", 3: "cow"}
NAMES = ("sun.jpg", "moon.jpg", "star.jpg", "sky.jpg")


def write_coco(
    folder: Path,
    names: Sequence[str] = NAMES,
    *,
    split: str = "valid",
    categories: dict[int, str] | None = None,
    ids: Sequence[Id] = (),
    seed: int = 0,
    unused: Sequence[int] = (),
) -> Path:
    """A split without its pictures: two boxes an image, of the categories that are used in turn."""
    rng = np.random.default_rng(seed)
    categories = CATEGORIES if categories is None else categories
    ids = ids or range(101, 101 + len(names))
    used = [i for i in categories if i not in unused]
    images = [{"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} for i, n in zip(ids, names, strict=True)]
    annotations = []
    for image in images:
        for _ in range(2):
            number = len(annotations)
            bbox = [
                *rng.integers(0, 100, 1).tolist(),
                *rng.integers(0, 50, 1).tolist(),
                *rng.integers(20, 50, 2).tolist(),
            ]
            row = {"id": number + 1, "image_id": image["id"], "category_id": used[number % len(used)], "bbox": bbox}
            annotations.append(row)
    (folder / split).mkdir(parents=True)
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }
    (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def rows_of(
    folder: Path,
    *,
    image: Callable[[dict[str, Any]], Any] = lambda image: image["id"],
    category: Callable[[int], Any] = lambda i: i,
    bbox: Callable[[list[float]], list[float]] = lambda bbox: bbox,
    split: str = "valid",
) -> list[dict[str, Any]]:
    """Results that find the first box of every image exactly, and the second one shifted."""
    content = json.loads((folder / split / "_annotations.coco.json").read_text())
    image_of = {one["id"]: one for one in content["images"]}
    rows = []
    for number, row in enumerate(content["annotations"]):
        x, y, w, h = row["bbox"]
        rows.append(
            {
                "image_id": image(image_of[row["image_id"]]),
                "category_id": category(row["category_id"]),
                "bbox": bbox([x + 3 * (number % 2), y, w, h]),
                "score": round(0.9 - 0.05 * number, 3),
            }
        )
    return rows


def stem(image: dict[str, Any]) -> str:
    return Path(image["file_name"]).stem


def open_set(folder: Path) -> Dataset:
    return read_dataset(folder, need_images=False)


def fit(folder: Path, content: Any, *, split: str = "valid", **how: Any) -> tuple[Fitted, Dataset]:
    path = folder.parent / "theirs.json"
    path.write_text(json.dumps(content))
    dataset = open_set(folder)
    known = read_known(dataset, split, Options())
    return fit_foreign(read_foreign(path), dataset, split, dataset.splits[split], known, **how), dataset


def scores(folder: Path, content: Any, **how: Any) -> dict[str, Any]:
    fitted, dataset = fit(folder, content, **how)
    return score_predictions(dataset.splits["valid"], fitted.predictions, fitted.classes)


def told(fitted: Fitted) -> dict[str, str]:
    return {finding.check: f"{finding.level} {finding.seen} -> {finding.fix}" for finding in fitted.findings}


def predictions_of(dataset: Dataset) -> list[Prediction]:
    random = np.random.default_rng(3)
    made = []
    for sample in dataset.splits["valid"]:
        near = np.clip(sample.boxes.xyxy_px + random.normal(0, 2, (len(sample.boxes), 4)), 0, 200)
        near = np.sort(near.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        boxes = Boxes(xyxy_px=near, labels=sample.boxes.labels, scores=random.random(len(near)))
        further = Boxes(xyxy_px=near[:1] + 1, labels=boxes.labels[:1], scores=np.array([0.01]))
        said = Prediction(
            image_id=sample.image_id, boxes=boxes, text="so", problems=(), truncated=False, further=further
        )
        made.append(said)
    return made
