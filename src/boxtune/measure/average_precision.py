"""Average precision and recall by COCO's rules over a whole split, through faster-coco-eval.

Two things to know before two numbers are compared:

- Order. Predictions of equal score are ranked by (image id, place in the answer). AP depends on that ranking: with one
  constant score, as for answers without confidences, other image ids give another AP. Here the order in which samples
  and predictions are handed over does not matter, so that the same set with the same ids gives the same number.
- Size. `small` is below 32 * 32, `large` above 96 * 96 pixels of box area in the upright original image. COCO's own
  table takes the area of the mask instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from jaxtyping import Float

from boxtune.boxes import Boxes, box_areas
from boxtune.data.sample import Sample
from boxtune.errors import name_some


def average_precision(
    samples: Sequence[Sample], predicted: Mapping[int, Boxes], classes: Sequence[str]
) -> dict[str, Any]:
    """COCO's table, and `per_class`: name -> ap, ap50, ar, num_truth.

    `map`, `map50`, `map75`, `map_small`, `map_medium`, `map_large` are average precision. `ar_1`, `ar_10`, `ar_100`
    are average recall (the recall of the last box, over IoU 0.50:0.95 and all classes) with so many boxes an image
    and class, `ar_small`, `ar_medium`, `ar_large` and `ar` of a class with 100.

    `predicted` holds the boxes by image id; an image that is not in it has none, and a box without a score has 1.
    Values are in 0..1, and None where there is no truth to be found; `num_truth` counts neither crowd nor ignored
    boxes. Both count as COCO's crowd: not missed, and a prediction that lies at least half inside is not false.
    At most 100 predictions an image and class count, those of the highest score. Raises ValueError for an image id
    that no sample has or that two have, a label that is not in `classes`, or a score that is not finite.
    """
    _require_known(samples, predicted, classes)
    category_ids = {name: i + 1 for i, name in enumerate(classes)}
    num_truth = dict.fromkeys(classes, 0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    # Numbered from 1 in the order of the ids: COCO evaluates images in that order, whatever their own ids are.
    for number, sample in enumerate(sorted(samples, key=lambda sample: sample.image_id), start=1):
        images.append({"id": number, "width": sample.size_wh[0], "height": sample.size_wh[1]})
        # Only `iscrowd` sets a box aside: evaluators after pycocotools overwrite an `ignore` key with it.
        aside = sample.crowd | sample.ignore
        rows = zip(sample.boxes.to_coco(number, category_ids), box_areas(sample.boxes.xyxy_px), aside, strict=True)
        for row, area, is_aside in rows:
            # Ids start at 1: the evaluator reads a match with id 0 as no match.
            extra = {"id": len(annotations) + 1, "area": float(area), "iscrowd": int(is_aside)}
            annotations.append({**row, **extra})
        for label in sample.targets.labels:
            num_truth[label] += 1
        if sample.image_id in predicted:
            results.extend(predicted[sample.image_id].to_coco(number, category_ids))
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    precision, recall = _tables({"images": images, "annotations": annotations, "categories": categories}, results)
    per_class = {
        name: {
            "ap": _mean(precision[:, :, k, 0]),
            "ap50": _mean(precision[_AT_50, :, k, 0]),
            "ar": _mean(recall[:, k, 0, -1]),
            "num_truth": num_truth[name],
        }
        for k, name in enumerate(classes)
    }
    return {
        "map": _mean(precision[:, :, :, 0]),
        "map50": _mean(precision[_AT_50, :, :, 0]),
        "map75": _mean(precision[_AT_75, :, :, 0]),
        "map_small": _mean(precision[:, :, :, 1]),
        "map_medium": _mean(precision[:, :, :, 2]),
        "map_large": _mean(precision[:, :, :, 3]),
        "ar_1": _mean(recall[:, :, 0, 0]),
        "ar_10": _mean(recall[:, :, 0, 1]),
        "ar_100": _mean(recall[:, :, 0, 2]),
        "ar_small": _mean(recall[:, :, 1, 2]),
        "ar_medium": _mean(recall[:, :, 2, 2]),
        "ar_large": _mean(recall[:, :, 3, 2]),
        "per_class": per_class,
    }


_NUM_IOUS, _AT_50, _AT_75 = 10, 0, 5
"""COCO's IoU thresholds run from 0.50 to 0.95 in steps of 0.05."""


def _tables(
    truth: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[Float[np.ndarray, "iou recall class area"], Float[np.ndarray, "iou class area most"]]:
    """COCO's tables of precision and recall; -1 where a class has no truth; areas are all, small, medium, large.

    Recall is that of the first 1, 10 and 100 boxes of an image and class, precision that of 100.
    """
    if not truth["images"] or not truth["categories"]:
        num_classes = len(truth["categories"])
        return np.full((_NUM_IOUS, 101, num_classes, 4), -1.0), np.full((_NUM_IOUS, num_classes, 4, 3), -1.0)
    found = COCO(truth, print_function=_silent)
    evaluation = COCOeval_faster(found, found.loadRes(results), iouType="bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = (np.asarray(evaluation.eval[name], dtype=np.float64) for name in ("precision", "recall"))
    return precision[..., -1], recall


def _mean(table: Float[np.ndarray, "*any"]) -> float | None:
    """The mean over everything that has truth; None where nothing has."""
    valid = table[table > -1]
    return float(valid.mean()) if valid.size else None


def _silent(*_: object) -> None:
    """Takes the evaluator's progress lines, which else go to the log of whoever called."""


def _require_known(samples: Sequence[Sample], predicted: Mapping[int, Boxes], classes: Sequence[str]) -> None:
    """Raises ValueError for ids, labels and scores that would be dropped or counted wrongly without a word."""
    ids = [sample.image_id for sample in samples]
    if len(set(ids)) != len(ids):
        raise ValueError(f"two samples have the same image id: {name_some(_doubled(ids))}")
    if len(set(classes)) != len(classes):
        raise ValueError(f"a class name stands twice in the list of classes: {name_some(_doubled(classes))}")
    if unknown := sorted(set(predicted) - set(ids)):
        raise ValueError(f"predictions for image ids that no sample has: {name_some(unknown)}")
    for what, rows in (("truth", {s.image_id: s.boxes for s in samples}), ("predictions", predicted)):
        labels = {label for boxes in rows.values() for label in boxes.labels}
        if strange := sorted(labels - set(classes)):
            raise ValueError(f"{what} with labels that are not among the classes: {name_some(strange)}")
    for image_id, boxes in predicted.items():
        if boxes.scores is not None and not np.isfinite(boxes.scores).all():
            raise ValueError(f"predictions of image {image_id} have a score that is not finite")


def _doubled(names: Sequence[object]) -> list[object]:
    """The names that stand more than once, in order of appearance."""
    return [name for name, count in Counter(names).items() if count > 1]
