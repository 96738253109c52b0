"""What a model said of each image of a split, as it is scored, and as it is written to a run's folder and read back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boxtune.artifacts import read_json
from boxtune.boxes import Boxes, join_boxes
from boxtune.data.sample import Sample
from boxtune.errors import DataError, name_some
from boxtune.families.family import Problem, Said


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model said about one image.

    `boxes` are in pixels of the upright original image, in the order of the answer; `text` is the raw answer,
    `problems` what was wrong with it; `truncated` says that it hit the length limit. `further` boxes count for average
    precision alone: those that the model holds for possible, and did not say. `freely` is what the same image was
    answered without a guide, where it was asked so. Raises ValueError for a score that is not finite.
    """

    image_id: int
    boxes: Boxes
    text: str
    problems: tuple[Problem, ...]
    truncated: bool
    further: Boxes = field(default_factory=Boxes.none)
    freely: Said | None = None

    def __post_init__(self) -> None:
        for boxes in (self.boxes, self.further):
            if boxes.scores is not None and not np.isfinite(boxes.scores).all():
                raise ValueError(f"image {self.image_id}: a box has a score that is not finite")

    @property
    def ranked(self) -> Boxes:
        """All boxes, for average precision: further ones only beside boxes with scores."""
        if not len(self.further) or (len(self.boxes) and self.boxes.scores is None):
            return self.boxes
        return join_boxes([self.boxes, self.further])

    def as_json(self) -> dict[str, Any]:
        """The prediction as plain values; `from_json` gives it back exactly."""
        return {**self.answer(), "boxes": _boxes_json(self.boxes), "further": _boxes_json(self.further)}

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Prediction:
        """The prediction that `as_json` wrote. Raises KeyError for a missing key, ValueError for unsound boxes."""
        freely = row["freely"]
        return Prediction(
            image_id=row["image_id"],
            boxes=_read_boxes(row["boxes"]),
            further=_read_boxes(row["further"]),
            text=row["text"],
            problems=_read_problems(row["problems"]),
            truncated=row["truncated"],
            freely=None
            if freely is None
            else Said(text=freely["text"], problems=_read_problems(freely["problems"]), truncated=freely["truncated"]),
        )

    def answer(self) -> dict[str, Any]:
        """Everything but the boxes, as plain values."""
        said = self.freely
        return {
            "image_id": self.image_id,
            "text": self.text,
            "problems": _problems_json(self.problems),
            "truncated": self.truncated,
            "freely": None
            if said is None
            else {"text": said.text, "problems": _problems_json(said.problems), "truncated": said.truncated},
        }


SCORED = ("boxes", "further", "text", "problems", "truncated", "freely")
"""What an answer is scored by: fields that `Prediction` and `infer.Answer` both have."""


def _boxes_json(boxes: Boxes) -> dict[str, Any]:
    scores = None if boxes.scores is None else boxes.scores.tolist()
    return {"xyxy_px": boxes.xyxy_px.tolist(), "labels": list(boxes.labels), "scores": scores}


def _read_boxes(row: Mapping[str, Any]) -> Boxes:
    scores = row["scores"]
    return Boxes(
        xyxy_px=np.array(row["xyxy_px"], dtype=np.float64).reshape(-1, 4),
        labels=tuple(row["labels"]),
        scores=None if scores is None else np.array(scores, dtype=np.float64),
    )


def _problems_json(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"kind": problem.kind, "text": problem.text} for problem in problems]


def _read_problems(rows: Sequence[Mapping[str, str]]) -> tuple[Problem, ...]:
    return tuple(Problem(kind=row["kind"], text=row["text"]) for row in rows)


def coco_results(
    predictions: Sequence[Prediction], samples: Sequence[Sample], classes: Sequence[str]
) -> dict[str, Any]:
    """What goes into `predictions/*.json`: images, categories, COCO result rows, and the raw answers.

    Rows have COCO's keys (bbox is x, y, width, height in pixels; score 1 where the model gave none) and `xyxy_px`,
    which is read back exactly, as x + width is not always x2 in floating point; `further` marks boxes that the model
    did not say (see `Prediction`). `scored` of an answer says whether its scores came from the model. Category ids
    count from 1 in the order of `classes`.
    Raises ValueError where the predictions do not cover exactly the samples, or a label is not in `classes`.
    """
    pairs = require_pairs(samples, predictions)
    category_ids = {name: i + 1 for i, name in enumerate(classes)}
    used = {label for _, said in pairs for boxes in (said.boxes, said.further) for label in boxes.labels}
    if strange := sorted(used - set(classes)):
        raise ValueError(f"predictions with labels that are not among the classes: {name_some(strange)}")
    return {
        "images": [
            {"id": s.image_id, "file_name": s.image.name, "width": s.size_wh[0], "height": s.size_wh[1]}
            for s in samples
        ],
        "categories": [{"id": number, "name": name} for name, number in category_ids.items()],
        "results": [
            {**row, "xyxy_px": xyxy.tolist(), **({"further": True} if further else {})}
            for _, said in pairs
            for boxes, further in ((said.boxes, False), (said.further, True))
            for row, xyxy in zip(boxes.to_coco(said.image_id, category_ids), boxes.xyxy_px, strict=True)
        ],
        "answers": [{**said.answer(), "scored": said.boxes.scores is not None} for _, said in pairs],
    }


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file that holds `coco_results`, one for each answer, in the order of the answers.

    Raises DataError if the file is missing, is not JSON, or holds anything unsound.
    """
    record = read_json(path)
    try:
        names = {category["id"]: category["name"] for category in record["categories"]}
        rows: dict[int, list[Mapping[str, Any]]] = {answer["image_id"]: [] for answer in record["answers"]}
        for row in record["results"]:
            rows[row["image_id"]].append(row)

        def boxes_of(answer: Mapping[str, Any], *, further: bool) -> dict[str, Any]:
            own = [row for row in rows[answer["image_id"]] if row.get("further", False) is further]
            return {
                "xyxy_px": [row["xyxy_px"] for row in own],
                "labels": [names[row["category_id"]] for row in own],
                "scores": [row["score"] for row in own] if answer["scored"] and (own or not further) else None,
            }

        return [
            Prediction.from_json(
                {**answer, "boxes": boxes_of(answer, further=False), "further": boxes_of(answer, further=True)}
            )
            for answer in record["answers"]
        ]
    except KeyError as error:
        raise DataError(f"predictions lack the key or id {error}", where=str(path), fix=_EVALUATE) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"predictions do not hold together: {error}", where=str(path), fix=_EVALUATE) from error


_EVALUATE = "write them again: boxtune eval RUN"


def has_scores(predictions: Sequence[Prediction]) -> bool:
    """Whether there are boxes, and all of them have scores."""
    boxes = [said.ranked for said in predictions if len(said.ranked)]
    return bool(boxes) and all(found.scores is not None for found in boxes)


def require_pairs(samples: Sequence[Sample], predictions: Sequence[Prediction]) -> list[tuple[Sample, Prediction]]:
    """Each sample with its prediction, in the order of the samples; ValueError unless it is exactly one each."""
    wanted, given = Counter(s.image_id for s in samples), Counter(p.image_id for p in predictions)
    faults = {
        "two samples have the same image id": [i for i, count in wanted.items() if count > 1],
        "more than one prediction for image id": [i for i, count in given.items() if count > 1],
        "no prediction for image id": sorted(set(wanted) - set(given)),
        "predictions for image ids that no sample has": sorted(set(given) - set(wanted)),
    }
    if any(faults.values()):
        raise ValueError("; ".join(f"{what}: {name_some(ids)}" for what, ids in faults.items() if ids))
    by_id = {prediction.image_id: prediction for prediction in predictions}
    return [(sample, by_id[sample.image_id]) for sample in samples]
