"""Splits of random boxes, and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np

from boxtune.boxes import Boxes, box_areas
from boxtune.data.sample import Sample

CLASSES = ["cell", "plate", "dot", "never"]
PRECISIONS = ["map", "map50", "map75", "map_small", "map_medium", "map_large"]
RECALLS = ["ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"]
OVERALL = [*PRECISIONS, *RECALLS]


def boxes(*rows: tuple[str, float, float, float, float], scores: list[float] | None = None) -> Boxes:
    xyxy = np.array([row[1:] for row in rows], dtype=float).reshape(-1, 4)
    return Boxes(xyxy_px=xyxy, labels=tuple(r[0] for r in rows), scores=None if scores is None else np.array(scores))


def sample(image_id: int, truth: Boxes, crowd: object = None, ignore: object = None) -> Sample:
    none = np.zeros(len(truth), dtype=bool)
    return Sample(
        image=Path(f"{image_id}.jpg"),
        image_id=image_id,
        size_wh=(400, 300),
        boxes=truth,
        crowd=none if crowd is None else np.array(crowd, dtype=bool),
        ignore=none if ignore is None else np.array(ignore, dtype=bool),
    )


def random_boxes(random: np.random.Generator, num: int) -> Boxes:
    wh = np.exp(random.uniform(np.log(6), np.log(250), (num, 2)))
    xy = random.uniform(0, 1, (num, 2)) * [300, 200]
    labels = tuple(CLASSES[k] for k in random.integers(0, 3, num))
    return Boxes(xyxy_px=np.concatenate([xy, xy + wh], axis=1), labels=labels)


def random_split(seed: int, num_images: int = 12) -> tuple[list[Sample], dict[int, Boxes]]:
    random = np.random.default_rng(seed)
    samples: list[Sample] = []
    predicted: dict[int, Boxes] = {}
    for image_id in random.permutation(1000)[:num_images].tolist():
        num = int(random.integers(0, 6))
        truth = random_boxes(random, num)
        samples.append(sample(image_id, truth, random.random(num) < 0.15, random.random(num) < 0.1))
        near, invented = truth.xyxy_px + random.normal(0, 2, (num, 4)), random_boxes(random, int(random.integers(0, 4)))
        xyxy = np.concatenate([near, invented.xyxy_px])
        scores = [np.ones(len(xyxy)), random.random(len(xyxy)), np.round(random.random(len(xyxy)) * 3) / 3][seed % 3]
        upright = np.sort(xyxy.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        predicted[image_id] = Boxes(xyxy_px=upright, labels=truth.labels + invented.labels, scores=scores)
    return samples, predicted


def by_pycocotools(samples: list[Sample], predicted: dict[int, Boxes]) -> dict[str, object]:
    """Its twelve numbers, and for each class its tables of precision and recall; -1 where there is no truth."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {name: i + 1 for i, name in enumerate(CLASSES)}
    truth = COCO()
    rows = [
        {**row, "area": float(area), "iscrowd": int(aside)}
        for s in samples
        for row, area, aside in zip(
            s.boxes.to_coco(s.image_id, ids), box_areas(s.boxes.xyxy_px), s.crowd | s.ignore, strict=True
        )
    ]
    truth.dataset = {
        "images": [{"id": s.image_id} for s in samples],
        "annotations": [{**row, "id": i + 1} for i, row in enumerate(rows)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([row for image_id, b in predicted.items() for row in b.to_coco(image_id, ids)])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision, recall = evaluation.eval["precision"][..., 0, -1], evaluation.eval["recall"][..., 0, -1]
    per_class = {name: (precision[:, :, k], recall[:, k]) for k, name in enumerate(CLASSES)}
    return {**dict(zip(OVERALL, evaluation.stats, strict=True)), "per_class": per_class}
