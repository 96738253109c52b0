"""Other systems' files: what is sound scores the same however it is written; what is unsound is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxtune.errors import DataError
from boxtune.measure import coco_results, score_predictions

from .foreign_sets import (
    SIZE,
    fit,
    open_set,
    predictions_of,
    rows_of,
    scores,
    stem,
    told,
    write_coco,
)


@pytest.fixture()
def coco(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "set")


SAME: dict[str, dict[str, Any]] = {
    "ids of the annotations": {},
    "ids as text": {"image": lambda image: str(image["id"])},
    "file names": {"image": lambda image: image["file_name"]},
    "paths": {"image": lambda image: f"/elsewhere/valid/{image['file_name']}"},
    "stems": {"image": stem},
    "classes from zero": {"category": lambda i: i - 1},
    "stems, classes from zero": {"image": stem, "category": lambda i: i - 1},
}


@pytest.mark.parametrize("how", SAME.values(), ids=SAME.keys())
def test_what_is_mapped_scores_the_same(coco: Path, how: dict[str, Any]) -> None:
    expected = scores(coco, rows_of(coco))
    assert 0.5 < expected["map"] < 1 and expected["num_predictions"] == 8
    assert scores(coco, rows_of(coco, **how)) == expected


def test_equal_to_pycocotools(coco: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = rows_of(coco)
    rows += [{**row, "category_id": row["category_id"] % 3 + 1, "score": row["score"] / 2} for row in rows]
    truth = COCO()
    truth.dataset = json.loads((coco / "valid" / "_annotations.coco.json").read_text())
    for row in truth.dataset["annotations"]:
        row |= {"area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
    truth.createIndex()
    theirs = COCOeval(truth, truth.loadRes([dict(row) for row in rows]), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = scores(coco, rows)
    for name, value in zip(("map", "map50", "map75"), theirs.stats[:3], strict=True):
        assert ours[name] == pytest.approx(value, abs=1e-9), name
    assert 0.05 < ours["map"] < 1


def test_what_was_made_of_it_is_said(coco: Path) -> None:
    fitted, _ = fit(coco, rows_of(coco, image=stem, category=lambda i: i - 1)[:6])
    lines = told(fitted)
    assert "file names without suffix: 3 of 3 ('sun' is sun.jpg)" in lines["eval.images"]
    assert "counted from 0, the one way that fits: 0 is cat, 1 is dog, 2 is cow" in lines["eval.categories"]
    assert "1 of 4 (sky.jpg)" in lines["eval.images_silent"]
    assert set(lines) == {"eval.images", "eval.categories", "eval.images_silent"}


def shares(bbox: list[float]) -> list[float]:
    return [bbox[0] / SIZE[0], bbox[1] / SIZE[1], bbox[2] / SIZE[0], bbox[3] / SIZE[1]]


def corners(bbox: list[float]) -> list[float]:
    return [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]]


def centre(bbox: list[float]) -> list[float]:
    return [bbox[0] + bbox[2] / 2, bbox[1] + bbox[3] / 2, bbox[2], bbox[3]]


@pytest.mark.parametrize(
    ("form", "option", "words"),
    [
        (shares, "xywh_unit", "lie within 0..1"),
        (corners, "xyxy_px", "as x1, y1, x2, y2 in pixels they lie inside"),
        (centre, "cxcywh_px", "centre x, centre y, width, height in pixels they lie inside"),
        (lambda bbox: [5 * v for v in bbox], None, "they are not in pixels of these images"),
    ],
)
def test_boxes_in_another_form_are_asked_about(tmp_path: Path, form: Any, option: str | None, words: str) -> None:
    folder = write_coco(tmp_path / "set", [f"{i}.jpg" for i in range(30)])
    rows = rows_of(folder, bbox=lambda bbox: form([min(bbox[0] + 60, 150), min(bbox[1] + 30, 50), 50, 50]))
    with pytest.raises(DataError, match=words) as error:
        fit(folder, rows)
    if option is None:
        assert "EXIF" in error.value.fix
        fitted, _ = fit(folder, rows, boxes="xywh_px")
        assert told(fitted)["eval.boxes_outside"].startswith("warn ")
        return
    assert f"predicted_boxes={option}" in error.value.fix
    fitted, _ = fit(folder, rows, boxes=option)
    x, y, *_ = fitted.predictions[0].boxes.xyxy_px[0].tolist()
    original = rows_of(folder)[0]["bbox"]
    assert (x, y) == pytest.approx((min(original[0] + 60, 150), min(original[1] + 30, 50)))


def test_boxes_of_smaller_copies_are_warned_about(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "set", [f"{i}.jpg" for i in range(30)])
    fitted, _ = fit(folder, rows_of(folder, bbox=lambda bbox: [v / 4 for v in bbox]))
    assert "smaller copies" in told(fitted)["eval.boxes_cramped"]
    large = rows_of(folder, bbox=lambda bbox: [1, 2, 190, 95])
    fitted, _ = fit(folder, large)
    assert "say predicted_boxes=xyxy_px" in told(fitted)["eval.boxes_either"]


def change(row: int, **values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    def spoil(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[row] = {key: value for key, value in (rows[row] | values).items() if value != "gone"}
        return rows

    return spoil


BROKEN: list[tuple[Callable[[list[dict[str, Any]]], Any], str]] = [
    (change(2, bbox=[1, 2, float("nan"), 4]), r"1 of 8 \(row 2 has the bbox \[1, 2, nan, 4\]\)"),
    (change(2, bbox=[1, 2, float("inf"), 4]), "row 2 has the bbox"),
    (change(2, bbox=[1, 2, 3]), "row 2 has the bbox"),
    (change(2, bbox=[1e308, 2, 1e308, 4]), "row 2 has the bbox"),
    (change(2, bbox=["1", "2", "3", "4"]), "row 2 has the bbox"),
    (change(5, bbox=[10, 10, -5, 4]), r"width or height below 0: 1 of 8 \(row 5: \[10\.0, 10\.0, -5\.0, 4\.0\]\)"),
    (change(3, bbox="gone"), "row 3 has no bbox"),
    (change(3, bbox="gone", segmentation={}), "row 3 has a mask and no bbox"),
    (change(3, image_id="gone"), "row 3 has no image_id"),
    (change(3, image_id=True), "row 3 has the image_id True"),
    (change(3, category_id=None), "row 3 has no category_id"),
    (change(3, score=float("nan")), "row 3 has the score nan"),
    (change(3, score="high"), "row 3 has the score 'high'"),
    (change(3, score="gone"), "row 3 has no score"),
    (lambda rows: [], "holds no prediction at all"),
    (lambda rows: {"predictions": rows}, "holds no predictions"),
    (lambda rows: ["a", *rows], "holds no predictions"),
    (lambda rows: {"images": [], "annotations": [{**rows[0], "score": None}], "categories": []}, "may be the truth"),
]


@pytest.mark.parametrize(("spoil", "words"), BROKEN)
def test_broken_rows_are_named(coco: Path, spoil: Callable[[list[dict[str, Any]]], Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        fit(coco, spoil(rows_of(coco)))
    assert "theirs.json" in error.value.where and error.value.fix


def test_a_file_of_annotations_may_be_the_truth(coco: Path) -> None:
    truth = json.loads((coco / "valid" / "_annotations.coco.json").read_text())
    with pytest.raises(DataError, match="that may be the truth"):
        fit(coco, truth)
    for row in truth["annotations"]:
        row["score"] = 0.5
    # Its own names for images and categories decide, whatever the ids.
    for row in truth["annotations"]:
        row |= {"image_id": row["image_id"] + 1, "category_id": row["category_id"] + 50}
    for row in truth["images"]:
        row["id"] += 1
    for row in truth["categories"]:
        row["id"] += 50
    assert scores(coco, truth)["map"] == 1
    truth["images"][0]["width"] = 640
    with pytest.raises(DataError, match=r"another size: 1 of 4 \(sun\.jpg is 200 x 100, there 640 x 100\)"):
        fit(coco, truth)


def test_boxes_without_scores_are_said(coco: Path) -> None:
    fitted, _ = fit(coco, [{key: value for key, value in row.items() if key != "score"} for row in rows_of(coco)])
    assert all(said.boxes.scores is None for said in fitted.predictions)
    assert "all rank alike" in told(fitted)["eval.no_scores"]
    fitted, _ = fit(coco, [{**row, "score": 100 * row["score"]} for row in rows_of(coco)])
    assert "scores from 55 to 90, and not 0..1" in told(fitted)["eval.scores"]


def test_our_own_files_score_as_what_was_written(coco: Path) -> None:
    dataset = open_set(coco)
    said, samples = predictions_of(dataset), dataset.splits["valid"]
    expected = score_predictions(samples, said, dataset.classes)
    written = coco_results(said, samples, dataset.classes)
    fitted, _ = fit(coco, written)
    assert [one.as_json() for one in fitted.predictions] == [one.as_json() for one in said]
    # The same images under other ids are known by their names.
    moved = json.loads(json.dumps(written))
    for key, name in (("images", "id"), ("results", "image_id"), ("answers", "image_id")):
        for row in moved[key]:
            row[name] += 500
    assert scores(coco, moved) == expected
    # Their results alone, by anybody's ids.
    image_of = {image["id"]: image for image in written["images"]}
    for image in (lambda i: i, lambda i: stem(image_of[i])):
        for shift in (0, 1):
            rows = [
                {**row, "image_id": image(row["image_id"]), "category_id": row["category_id"] - shift}
                for row in written["results"]
            ]
            theirs = scores(coco, rows)
            for key in ("map", "map50", "map75", "num_truth"):
                assert theirs[key] == pytest.approx(expected[key], abs=1e-12)


def test_rows_of_predict_are_known_by_their_files(coco: Path) -> None:
    dataset = open_set(coco)
    said = predictions_of(dataset)
    rows: list[dict[str, Any]] = [
        {
            "file": f"somewhere/valid/{sample.image.name}",
            "width": SIZE[0],
            "height": SIZE[1],
            "boxes": [
                {"label": label, "xyxy_px": xyxy.tolist(), "score": score}
                for label, xyxy, score in zip(one.boxes.labels, one.boxes.xyxy_px, one.boxes.scores, strict=True)  # type: ignore[arg-type]
            ],
        }
        for sample, one in zip(dataset.splits["valid"], said, strict=True)
    ]
    fitted, _ = fit(coco, rows)
    assert all(
        (ours.boxes.xyxy_px == theirs.boxes.xyxy_px).all() and ours.boxes.labels == theirs.boxes.labels
        for ours, theirs in zip(said, fitted.predictions, strict=True)
    )
    fitted, _ = fit(coco, [*rows[:3], {"file": "somewhere/valid/sky.jpg", "error": "broken"}])
    assert "1 of 4 (sky.jpg)" in told(fitted)["eval.images_silent"]
    rows[0]["boxes"][0]["xyxy_px"] = [1, 2, 3]
    with pytest.raises(DataError, match=r"valid/sun\.jpg: a box has the corners"):
        fit(coco, rows)
