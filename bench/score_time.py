"""Seconds that scoring takes: 5,000 images, 40,000 predictions with scores, 80 classes; pycocotools beside.

    python bench/score_time.py [images=5000] [boxes=40000] [repeats=3]

Truth and two models' predictions are drawn (seeded): half of the boxes moved truth, half invented. Every row is the
median of the repeats, taken by turns in one process. Seconds are those of the processor, so that other work on the
machine does not count; OMP_NUM_THREADS=1 keeps them on one core.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxtune.boxes import Boxes, box_areas
from boxtune.data.sample import Sample
from boxtune.measure import Prediction, average_precision, best_threshold, compare, score_predictions
from boxtune.measure.bootstrap import bootstrap_ap

CLASSES = tuple(f"thing {k}" for k in range(80))
SIZE_WH = (640, 480)


def draw(random: np.random.Generator, num: int) -> Boxes:
    """That many boxes of any class anywhere."""
    size = np.exp(random.uniform(np.log(8), np.log(300), (num, 2)))
    corner = random.random((num, 2)) * (np.array(SIZE_WH) - size)
    labels = tuple(CLASSES[k] for k in random.integers(0, len(CLASSES), num))
    return Boxes(xyxy_px=np.concatenate([corner, corner + size], axis=1), labels=labels, scores=random.random(num))


def answer(random: np.random.Generator, truth: Boxes, num: int) -> Boxes:
    """Half of the boxes near the truth, half invented, all with scores."""
    near = truth.take(random.permutation(len(truth))[: num // 2].tolist())
    side = near.xyxy_px[:, 2:] - near.xyxy_px[:, :2]
    moved = near.xyxy_px + random.normal(0, 0.06, (len(near), 4)) * np.tile(side, 2)
    invented = draw(random, num - len(near))
    xyxy = np.concatenate([np.sort(moved.reshape(-1, 2, 2), axis=1).reshape(-1, 4), invented.xyxy_px])
    scores = np.concatenate([random.beta(4, 2, len(near)), random.beta(2, 4, num - len(near))])
    return Boxes(xyxy_px=xyxy, labels=near.labels + invented.labels, scores=scores)


def build(num_images: int, num_boxes: int) -> tuple[list[Sample], list[list[Prediction]]]:
    """The split, and the predictions of two models."""
    random = np.random.default_rng(0)
    each = num_boxes // num_images
    samples: list[Sample] = []
    sides: list[list[Prediction]] = [[], []]
    for image_id in range(num_images):
        truth = draw(random, int(random.integers(1, 2 * each)))
        truth = Boxes(xyxy_px=truth.xyxy_px, labels=truth.labels)
        crowd = random.random(len(truth)) < 0.02
        none = np.zeros(len(truth), dtype=bool)
        image = Path(f"{image_id}.jpg")
        samples.append(Sample(image=image, image_id=image_id, size_wh=SIZE_WH, boxes=truth, crowd=crowd, ignore=none))
        for side in sides:
            said = answer(random, truth, each)
            side.append(Prediction(image_id=image_id, boxes=said, text="", problems=(), truncated=False))
    return samples, sides


def by_pycocotools(samples: list[Sample], predictions: list[Prediction]) -> float:
    """AP by pycocotools, from the same records."""
    ids = {name: k + 1 for k, name in enumerate(CLASSES)}
    rows: list[dict[str, Any]] = []
    for sample in samples:
        areas = box_areas(sample.boxes.xyxy_px)
        for row, area, crowd in zip(sample.boxes.to_coco(sample.image_id, ids), areas, sample.crowd, strict=True):
            rows.append({**row, "id": len(rows) + 1, "area": float(area), "iscrowd": int(crowd)})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": sample.image_id} for sample in samples],
            "annotations": rows,
            "categories": [{"id": number, "name": name} for name, number in ids.items()],
        }
        truth.createIndex()
        found = truth.loadRes([row for said in predictions for row in said.boxes.to_coco(said.image_id, ids)])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def main() -> None:
    """Print the table."""
    asked = dict(word.split("=", 1) for word in sys.argv[1:])
    repeats = int(asked.get("repeats", "3"))
    samples, (base, tuned) = build(int(asked.get("images", "5000")), int(asked.get("boxes", "40000")))
    boxes = [[said.ranked for said in side] for side in (base, tuned)]
    by_id = {said.image_id: said.boxes for said in tuned}
    ways: dict[str, Callable[[], Any]] = {
        "AP and AR, pycocotools": lambda: by_pycocotools(samples, tuned),
        "AP and AR, ours": lambda: average_precision(samples, by_id, CLASSES)["map"],
        "all scores of one model": lambda: score_predictions(samples, tuned, CLASSES)["map"],
        "the best threshold": lambda: best_threshold(samples, tuned),
        "AP of 1,000 resamples of two models": lambda: bootstrap_ap(samples, *boxes, seed=0, num_resamples=1000),
        "the whole comparison of two models": lambda: compare(base, tuned, samples, seed=0)["verdict"],
    }
    seconds: dict[str, list[float]] = {what: [] for what in ways}
    results: dict[str, Any] = {}
    for _ in range(repeats):
        for what, run in ways.items():
            began = time.process_time()
            results[what] = run()
            seconds[what].append(time.process_time() - began)
    num = sum(len(said.boxes) for said in tuned)
    print(f"{len(samples):,} images, {num:,} predictions, {len(CLASSES)} classes; seconds, median of {repeats}")
    for what, taken in seconds.items():
        print(f"{what:<40}{statistics.median(taken):>9.2f}   {min(taken):.2f} to {max(taken):.2f}")
    apart = abs(results["AP and AR, pycocotools"] - results["AP and AR, ours"])
    print(f"AP by pycocotools and by ours differ by {apart:.1e}")


if __name__ == "__main__":
    main()
