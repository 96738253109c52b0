"""Another system's predictions file -> its images, boxes and scores, in its own words.

Four forms are read: COCO results (a list of image_id, category_id, bbox and score, as pycocotools takes it and
Ultralytics writes it), a COCO file whose annotations have scores, boxtune's own `predictions/*.json`, and the
`predictions.json` of `boxtune predict`. What ids and numbers mean is told by `foreign`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.boxes import Boxes
from boxtune.data.formats.coco_document import Id
from boxtune.data.formats.json_files import MOST_SIDE, as_size, is_finite, load_json
from boxtune.errors import DataError, name_some
from boxtune.measure.predictions import Prediction, read_predictions

EXPECTED = "COCO results, a list of {image_id, category_id, bbox: [x, y, width, height], score}, or what boxtune wrote"


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """What a predictions file holds, in its own words.

    `refs` are the images it speaks of, each once, `names` and `sizes_wh` what it says of them beside the id. Box `i`
    is of image `refs[owners[i]]`, has the class `categories[i]` (a name if `named`, else an id), the four `numbers[i]`
    (by `reading`, None where that is open), a score (nan: none), and stands in row `rows[i]` of the file. `further`
    and `answers` are those of boxtune's own files.
    """

    path: Path
    refs: Sequence[Id]
    names: Mapping[Id, str]
    sizes_wh: Mapping[Id, tuple[int, int]]
    owners: Int[np.ndarray, " m"]
    categories: Sequence[Id]
    named: bool
    numbers: Float[np.ndarray, "m 4"]
    scores: Float[np.ndarray, " m"]
    rows: Int[np.ndarray, " m"]
    reading: str | None = None
    further: Bool[np.ndarray, " m"] | None = None
    answers: Mapping[Id, Prediction] = field(default_factory=dict)
    own: bool = False


def read_foreign(path: Path) -> Foreign:
    """The predictions in a file. Raises DataError, naming rows, for what is no form of predictions or unsound."""
    content = load_json(path, EXPECTED)
    if isinstance(content, dict) and {"results", "answers"} <= content.keys():
        return _read_own(path, content)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        if not any(isinstance(row, dict) and row.get("score") is not None for row in content["annotations"]):
            what = f"{path.name} is a COCO file of annotations, and none of them has a score: that may be the truth"
            raise DataError(what, where=str(path), fix=f"give {EXPECTED}")
        return _read_results(path, content["annotations"], content.get("images"), content.get("categories"))
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError(f"{path.name} holds no predictions", where=str(path), fix=f"expected is {EXPECTED}")
    if not content:
        raise DataError(f"{path.name} holds no prediction at all", where=str(path), fix=f"expected is {EXPECTED}")
    if all("file" in row and ("boxes" in row or "error" in row) for row in content):
        return _read_predicted(path, content)
    return _read_results(path, content, None, None)


def _read_results(path: Path, rows: Sequence[Any], images: Any, categories: Any) -> Foreign:
    """COCO's rows; `images` and `categories` are lists that say what ids stand for, where the file has them."""
    scored = sum(isinstance(row, dict) and row.get("score") is not None for row in rows)
    named = bool(rows) and all(isinstance(row, dict) and isinstance(row.get("category_name"), str) for row in rows)
    wrong = [f"row {i} {fault}" for i, row in enumerate(rows) if (fault := _fault(row, scored=scored > 0, named=named))]
    if wrong:
        what = f"rows of {path.name} that cannot be read: {len(wrong)} of {len(rows)} ({name_some(wrong)})"
        fix = f"expected is {EXPECTED}"
        if scored and wrong[0].endswith("no score"):
            fix = "give every row a score, or none: a row without one cannot be ranked among others"
        raise DataError(what, where=str(path), fix=fix)
    of_row = [_id(row["image_id"]) for row in rows]
    refs = list(dict.fromkeys(of_row))
    place = {ref: i for i, ref in enumerate(refs)}
    names = {_id(row["image_id"]): row["file_name"] for row in rows if isinstance(row.get("file_name"), str)}
    listed = _entries(images)
    names |= {_id(image["id"]): image["file_name"] for image in listed if isinstance(image.get("file_name"), str)}
    # Images that are listed and have no row were answered with nothing.
    refs += [i for image in listed if (i := _id(image["id"])) not in place]
    sizes = {_id(image["id"]): as_size(image.get("width"), image.get("height")) for image in listed}
    of_id = {
        _id(one["id"]): one["name"] for one in categories or [] if isinstance(one, dict) and {"id", "name"} <= set(one)
    }
    ids = [row["category_name"] if named else _id(row["category_id"]) for row in rows]
    if not named and of_id and all(i in of_id for i in ids):
        named, ids = True, [of_id[i] for i in ids]
    # Some write the name of the class where its id belongs.
    named = named or (bool(ids) and all(isinstance(i, str) and not i.strip("-").isdecimal() for i in ids))
    return Foreign(
        path=path,
        refs=refs,
        names=names,
        sizes_wh={i: size for i, size in sizes.items() if size is not None},
        owners=np.array([place[ref] for ref in of_row], dtype=np.int64),
        categories=ids,
        named=named,
        numbers=np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4),
        scores=np.array([row["score"] if scored else np.nan for row in rows], dtype=np.float64),
        rows=np.arange(len(rows)),
    )


def _fault(row: Any, *, scored: bool, named: bool) -> str:
    """What is wrong with a row of COCO results; "" if nothing is."""
    if not isinstance(row, dict):
        return "is no object"
    for key in ("image_id",) if named else ("image_id", "category_id"):
        value = row.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "" or value != value:
            return f"has no {key}" if value is None else f"has the {key} {value!r}"
    bbox = row.get("bbox")
    if bbox is None:
        return "has a mask and no bbox" if "segmentation" in row else "has no bbox"
    if not _are_four(bbox):
        return f"has the bbox {str(bbox)[:60]}"
    if scored and row.get("score") is None:
        return "has no score"
    return f"has the score {row['score']!r}" if scored and not is_finite(row["score"]) else ""


def _are_four(numbers: Any) -> bool:
    """Whether these are four numbers, none beyond what a picture can have."""
    four = numbers if isinstance(numbers, list) and len(numbers) == 4 else [None]
    return all(is_finite(value) and abs(value) <= MOST_SIDE for value in four)


def _id(value: Any) -> Id:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _entries(listed: Any) -> list[dict[str, Any]]:
    """Those of a list that have an id."""
    rows = listed if isinstance(listed, list) else []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), int | float | str)]


def _read_own(path: Path, content: Mapping[str, Any]) -> Foreign:
    predictions = read_predictions(path)
    images = _entries(content.get("images"))
    sizes = {image["id"]: as_size(image.get("width"), image.get("height")) for image in images}
    parts = [
        (i, boxes, kind) for i, p in enumerate(predictions) for boxes, kind in ((p.boxes, False), (p.further, True))
    ]
    lengths = [len(boxes) for _, boxes, _ in parts]
    return Foreign(
        path=path,
        refs=[prediction.image_id for prediction in predictions],
        names={image["id"]: image["file_name"] for image in images if isinstance(image.get("file_name"), str)},
        sizes_wh={i: size for i, size in sizes.items() if size is not None},
        owners=np.repeat(np.array([i for i, _, _ in parts], dtype=np.int64), lengths),
        categories=[label for _, boxes, _ in parts for label in boxes.labels],
        named=True,
        numbers=np.concatenate([np.zeros((0, 4)), *(boxes.xyxy_px for _, boxes, _ in parts)]),
        scores=np.concatenate([np.zeros(0), *(_scores(boxes) for _, boxes, _ in parts)]),
        rows=np.arange(sum(lengths)),
        reading="xyxy_px",
        further=np.repeat(np.array([kind for _, _, kind in parts], dtype=bool), lengths),
        answers={prediction.image_id: prediction for prediction in predictions},
        own=True,
    )


def _scores(boxes: Boxes) -> Float[np.ndarray, " n"]:
    return np.full(len(boxes), np.nan) if boxes.scores is None else boxes.scores


def _read_predicted(path: Path, content: Sequence[Mapping[str, Any]]) -> Foreign:
    """The rows of `boxtune predict`, one an image; those that could not be opened were not answered."""
    content = [row for row in content if "error" not in row]
    listed = {str(row["file"]): row["boxes"] if isinstance(row["boxes"], list) else [row["boxes"]] for row in content}
    faults = [(file, _fault_of_predicted(box)) for file, boxes in listed.items() for box in boxes]
    if wrong := [f"{file}: {fault}" for file, fault in faults if fault]:
        what = f"boxes of {path.name} that cannot be read: {len(wrong)} ({name_some(wrong)})"
        raise DataError(what, where=str(path), fix="write them again: boxtune predict RUN IMAGES")
    owned = [(i, box) for i, boxes in enumerate(listed.values()) for box in boxes]
    sizes = {str(row["file"]): as_size(row.get("width"), row.get("height")) for row in content}
    return Foreign(
        path=path,
        refs=list(listed),
        names={file: file for file in listed},
        sizes_wh={file: size for file, size in sizes.items() if size is not None},
        owners=np.array([i for i, _ in owned], dtype=np.int64),
        categories=[box["label"] for _, box in owned],
        named=True,
        numbers=np.array([box["xyxy_px"] for _, box in owned], dtype=np.float64).reshape(-1, 4),
        scores=np.array([np.nan if box.get("score") is None else box["score"] for _, box in owned], dtype=np.float64),
        rows=np.arange(len(owned)),
        reading="xyxy_px",
        own=True,
    )


def _fault_of_predicted(box: Any) -> str:
    if not isinstance(box, dict) or not isinstance(box.get("label"), str):
        return "a box has no label"
    xyxy, score = box.get("xyxy_px"), box.get("score")
    if not _are_four(xyxy):
        return f"a box has the corners {str(xyxy)[:60]}"
    return f"a box has the score {score!r}" if score is not None and not is_finite(score) else ""
