"""The gallery draws the best and the worst, each image once; the table shows both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data import Sample, read_dataset
from boxtune.measure import Prediction, score_predictions
from boxtune.report import score_table, write_gallery
from boxtune.report.gallery import choose_images


def say(sample: Sample, boxes: Boxes) -> Prediction:
    return Prediction(image_id=sample.image_id, boxes=boxes, text="", problems=(), truncated=False)


def test_best_and_worst_are_apart(squares: Path, tmp_path: Path) -> None:
    samples = read_dataset(squares).splits["train"][:5]
    wrong = Boxes(xyxy_px=np.array([[0.0, 0.0, 2.0, 2.0]]), labels=("red",))
    # The first three are answered with the truth, the others with a box in a corner.
    predictions = [say(sample, sample.targets if place < 3 else wrong) for place, sample in enumerate(samples)]
    sheets = write_gallery(tmp_path, samples, predictions, num_each=10)
    assert [sheet.name for sheet in sheets] == ["best.jpg", "worst.jpg"]
    assert sorted(path.name for path in tmp_path.glob("*_*.jpg")) == [
        *(f"best_{place:02d}.jpg" for place in (1, 2, 3)),
        *(f"worst_{place:02d}.jpg" for place in (1, 2)),
    ]
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > sheet.height > 300


def test_the_best_show_boxes_where_there_are_hits(squares: Path) -> None:
    samples = read_dataset(squares).splits["train"]
    empty = [sample for sample in samples if not len(sample.targets)]
    full = [sample for sample in samples if len(sample.targets)]
    assert len(empty) >= 3 and len(full) >= 6
    chosen = [*empty[:3], *full[:6]]
    # The last three are missed, the empty ones are right.
    predictions = [say(sample, sample.targets if place < 6 else Boxes.none()) for place, sample in enumerate(chosen)]
    best, worst = choose_images(chosen, predictions, 4)
    assert [image for image, _ in best] == [*(sample.image_id for sample in full[:3]), empty[0].image_id]
    assert {image for image, _ in worst} == {*(s.image_id for s in full[3:6]), empty[2].image_id}
    nothing = [say(sample, Boxes.none()) for sample in chosen]
    assert [image for image, _ in choose_images(chosen, nothing, 3)[0]] == [sample.image_id for sample in empty[:3]]


def test_one_image_has_no_worst(squares: Path, tmp_path: Path) -> None:
    samples = read_dataset(squares).splits["train"][:1]
    assert [sheet.name for sheet in write_gallery(tmp_path, samples, [say(samples[0], Boxes.none())])] == ["best.jpg"]


def test_table_has_a_dash_where_nothing_is_to_measure(squares: Path) -> None:
    samples = read_dataset(squares).splits["train"][:4]
    scores = score_predictions(samples, [say(sample, Boxes.none()) for sample in samples], ("red", "blue"))
    table = score_table({"split": "valid", "num_images": 4, "num_truth": scores["num_truth"], "tuned": scores})
    rows = {line[:40].strip(): line[40:].split() for line in table.splitlines()}
    assert rows["precision at IoU 0.5"] == ["-"]
    assert rows["recall at IoU 0.5"] == ["0.000"]
    assert "base" not in table
