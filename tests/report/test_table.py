"""The table on the terminal: what was measured, and a dash for what was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from boxtune.boxes import Boxes
from boxtune.data import Sample
from boxtune.measure import Prediction, score_run
from boxtune.report import score_table
from boxtune.report.table import ROWS


def run_scores(*, scored: bool = True, threshold: float | None = None) -> dict[str, Any]:
    """Six images with a box each; the base says nothing, the tuned model what is right."""
    samples, base, tuned = [], [], []
    for i in range(6):
        found = Boxes(xyxy_px=np.array([[15.0 * i, 0, 15.0 * i + 10, 10]]), labels=("cat",))
        flags = np.zeros(1, dtype=bool)
        image = Path(f"{i}.jpg")
        samples.append(Sample(image=image, image_id=i, size_wh=(100, 50), boxes=found, crowd=flags, ignore=flags))
        said = Prediction(image_id=i, boxes=found, text="", problems=(), truncated=False)
        tuned.append(replace(said, boxes=replace(found, scores=np.full(1, 0.75) if scored else None)))
        base.append(replace(said, boxes=Boxes.none()))
    return score_run(samples, base, tuned, ["cat"], split="valid", seed=0, threshold=threshold)


def rows_of(table: str) -> dict[str, list[str]]:
    return {line[:42].strip(): line[42:].split() for line in table.splitlines()}


def test_every_row_is_there_with_a_threshold() -> None:
    rows = rows_of(score_table(run_scores(threshold=0.5)))
    assert len(rows) == len(ROWS) + 1 <= 17
    assert rows["6 images of valid, 6 boxes"] == ["base", "tuned"]
    assert rows["AP50"] == ["0.000", "1.000"]
    assert rows["F1 from a score of 0.500 on"] == ["-", "1.000"]
    assert rows["calibration error of the scores (ECE)"] == ["-", "0.250"]
    assert rows["boxes said twice"] == rows["boxes off the image"] == ["-", "0.000"]
    assert rows["answers with names not asked for"] == ["0.000", "0.000"]
    assert all(len(label) < 42 for label in rows)


def test_without_a_threshold_there_are_no_rows_of_it() -> None:
    for scores in (run_scores(), run_scores(scored=False, threshold=0.5)):
        table = score_table(scores)
        assert "from a score" not in table and len(table.splitlines()) == len(ROWS) + 1 - 3
    assert rows_of(table)["calibration error of the scores (ECE)"] == ["-", "-"]


def test_scores_of_an_older_version_have_dashes() -> None:
    scores = run_scores(threshold=0.5)
    for key in ("calibration", "at_threshold", "off_image_rate"):
        del scores["tuned"][key], scores["base"][key]
    rows = rows_of(score_table(scores))
    assert rows["boxes off the image"] == rows["calibration error of the scores (ECE)"] == ["-", "-"]
    assert rows["AP50"] == ["0.000", "1.000"]
