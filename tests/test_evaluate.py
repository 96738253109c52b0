"""`boxtune eval`: a run again, another system's file, and both in one table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from models import QUICK
from squares import CLASSES, write_squares

import boxtune
from boxtune.cli import main
from boxtune.errors import ConfigError, DataError
from boxtune.evaluate import evaluate


def theirs(data: Path, to: Path, *, split: str = "valid", shift: int = 0, move: int = 1, stems: bool = False) -> Path:
    """Another system's results: every box of the truth moved by some pixels, and one that is invented."""
    truth = json.loads((data / split / "_annotations.coco.json").read_text())
    image_of = {image["id"]: image for image in truth["images"]}
    rows = [
        {
            "image_id": Path(image_of[row["image_id"]]["file_name"]).stem if stems else row["image_id"],
            "category_id": row["category_id"] - shift,
            "bbox": [row["bbox"][0] + move, *row["bbox"][1:]],
            "score": 0.9,
        }
        for row in truth["annotations"]
    ]
    rows.append({**rows[0], "bbox": [90, 90, 20, 20], "score": 0.2})
    to.write_text(json.dumps(rows))
    return to


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("data") / "squares", train=6, valid=6)


def test_another_systems_file_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = theirs(data, tmp_path / "yolo.json", shift=1, stems=True)
    assert main(["eval", str(file), f"data={data}"]) == 0
    shown = capsys.readouterr().out
    for words in ("file names without suffix", "counted from 0", "6 images of valid", "AP50", "yolo"):
        assert words in shown
    folder = tmp_path / "eval" / "yolo-squares-valid"
    assert {path.name for path in folder.iterdir()} == {"scores.json", "findings.json", "predictions"}
    scores = json.loads((folder / "scores.json").read_text())
    assert (scores["split"], scores["num_images"], scores["paired"]) == ("valid", 6, {})
    assert scores["systems"]["yolo"]["map50"] == 1 and scores["systems"]["yolo"]["parse_failure_rate"] is None
    # What was made of it is written in our form, scores as it did, and is never overwritten.
    again = evaluate(folder / "predictions" / "yolo.json", data=data)
    assert again["systems"]["yolo"] == scores["systems"]["yolo"]
    evaluate(file, data=data)
    assert (tmp_path / "eval" / "yolo-squares-valid-3").is_dir()


def test_two_files_in_one_table(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "val").mkdir()
    good, bad = theirs(data, tmp_path / "good.json"), theirs(data, tmp_path / "val" / "predictions.json", move=12)
    scores = evaluate(good, bad, data=data, out=tmp_path / "out", split="val")
    assert list(scores["systems"]) == ["good", "val"] and list(scores["paired"]) == ["val"]
    assert scores["paired"]["val"]["verdict"] in ("worse", "cannot tell")
    assert scores["systems"]["good"]["map"] > scores["systems"]["val"]["map"]
    shown = capsys.readouterr().out
    assert "val against good: " in shown and "     good      val" in shown
    assert {path.name for path in (tmp_path / "out" / "predictions").iterdir()} == {"good.json", "val.json"}
    with pytest.raises(ConfigError, match="is there already"):
        evaluate(good, data=data, out=tmp_path / "out")


def test_a_threshold_says_what_counts_as_found(data: Path, tmp_path: Path) -> None:
    file = theirs(data, tmp_path / "yolo.json")
    every, sure = (
        evaluate(file, data=data, out=tmp_path / f"{t}", threshold=t)["systems"]["yolo"] for t in (None, 0.5)
    )
    assert every["precision"] < 1 == sure["precision"]
    assert every["map"] == sure["map"]


def test_every_split_can_be_scored(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = theirs(data, tmp_path / "train.json", split="train")
    scores = evaluate(file, data=data, split="train", out=tmp_path / "out")
    assert scores["split"] == "train" and scores["systems"]["train"]["map50"] == 1
    assert main(["eval", str(file), f"data={data}", "split=test"]) == 2
    assert "no split 'test'" in capsys.readouterr().err
    alone = data / "train" / "_annotations.coco.json"
    assert evaluate(file, data=alone, out=tmp_path / "alone")["split"] == "train"


def test_the_only_way_of_reading_is_not_chosen_by_the_score(data: Path, tmp_path: Path) -> None:
    """Classes that are swapped stay swapped, and the score of nothing comes with a word."""
    file = theirs(data, tmp_path / "yolo.json")
    rows = [{**row, "category_id": 3 - row["category_id"]} for row in json.loads(file.read_text())]
    file.write_text(json.dumps(rows))
    scores = evaluate(file, data=data, out=tmp_path / "out")
    assert scores["systems"]["yolo"]["map50"] < 0.01
    findings = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert "eval.hardly_any_right" in {finding["check"] for finding in findings}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["FILE"], ["on which data?", "data=DATA"]),
        (["FILE", "data=/no/such/folder"], ["/no/such/folder"]),
        (["/no/such.json", "data=DATA"], ["/no/such.json does not exist"]),
        (["DATA", "data=DATA"], ["boxtune.json is missing"]),
        (["FILE", "FILE", "data=DATA"], ["given twice"]),
        (["FILE", "data=DATA", "split=holdout"], ["no split called 'holdout'", "train, valid, test"]),
        (["FILE", "data=DATA", "ids=number"], ["ids cannot be 'number'", "own, name, stem"]),
        (["FILE", "data=DATA", "categories=alphabet"], ["categories cannot be 'alphabet'", "from_zero"]),
        (["FILE", "data=DATA", "predicted_boxes=ltrb"], ["'ltrb' is no way to read a box", "xyxy_px"]),
        (["FILE", "data=DATA", "threshold=best"], ["threshold cannot be 'best'", "from 0 to 1"]),
        (["FILE", "data=DATA", "categoris=own"], ["no option 'categoris'"]),
        ([], ["0 words"]),
    ],
)
def test_bad_words_are_one_readable_error(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    named = {"FILE": str(theirs(data, tmp_path / "yolo.json")), "DATA": str(data)}
    for word, meant in named.items():
        words = [one.replace(word, meant) for one in words]
    assert main(["eval", *words]) == 2
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and "do:" in shown.err
    for text in expected:
        assert text in shown.err


UNWATCHED = {**QUICK, "guard.mode": "off"}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> boxtune.Run:
    return boxtune.train(model="tiny", data=str(data), runs=str(tmp_path_factory.mktemp("runs")), **UNWATCHED)


@pytest.mark.slow
def test_a_run_scores_as_it_did(finished: boxtune.Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished.folder.path
    assert main(["eval", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "base    tuned" in shown and "6 images of valid" in shown
    scores = json.loads((run / "eval" / "valid" / "scores.json").read_text())
    assert set(scores) == set(finished.scores)
    for side in ("base", "tuned"):
        for key in ("map", "map50", "mean_iou", "precision", "num_predictions", "parse_failure_rate"):
            assert scores[side][key] == pytest.approx(finished.scores[side][key], abs=1e-6), (side, key)
    assert {path.name for path in (run / "eval" / "valid" / "predictions").iterdir()} == {"base.json", "tuned.json"}


@pytest.mark.slow
def test_a_run_beside_another_system(finished: boxtune.Run, data: Path, tmp_path: Path) -> None:
    run = finished.folder.path
    scores = evaluate(run, theirs(data, tmp_path / "yolo.json", shift=1), out=tmp_path / "out")
    assert list(scores["systems"]) == [run.name, "yolo"]
    assert scores["systems"][run.name]["map"] == pytest.approx(finished.scores["tuned"]["map"], abs=1e-6)
    assert scores["systems"]["yolo"]["map50"] == 1 and set(scores["paired"]) == {"yolo"}
    # Our own file of the run stands for the run.
    tuned = run / "predictions" / "tuned.json"
    alone = evaluate(tuned, data=data, out=tmp_path / "own")["systems"]["tuned"]
    assert alone["map"] == pytest.approx(finished.scores["tuned"]["map"], abs=1e-12)


@pytest.mark.slow
def test_a_run_on_other_data(finished: boxtune.Run, data: Path, tmp_path: Path) -> None:
    run = finished.folder.path
    other = write_squares(tmp_path / "other", train=0, valid=3, seed=9)
    scores = evaluate(run, data=other)
    assert (scores["split"], scores["num_images"]) == ("valid", 3) and "base" not in scores
    assert (run / "eval" / "other-valid" / "scores.json").is_file()
    path = other / "valid" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "green"
    content["annotations"][0]["category_id"], content["annotations"][1]["category_id"] = 1, 2
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was not trained to find: green") as error:
        evaluate(run, data=other)
    assert "it finds red, blue" in error.value.fix
    for row in content["annotations"]:
        row["category_id"] = 1
    path.write_text(json.dumps(content))
    scores = evaluate(run, data=other)
    assert list(scores["tuned"]["per_class"]) == [CLASSES[0]]


@pytest.mark.slow
def test_a_run_on_its_training_images_and_its_last_adapter(
    finished: boxtune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluate(finished.folder.path, split="train", out=tmp_path / "train")
    assert scores["num_images"] == 6 and "base" not in scores
    assert "trained on" in capsys.readouterr().out
    evaluate(finished.folder.adapter_last, out=tmp_path / "last")
    lone = Path(shutil.copytree(finished.folder.adapter, tmp_path / "lone"))
    with pytest.raises(ConfigError, match="lies in no run"):
        evaluate(lone)


@pytest.mark.slow
def test_a_split_that_was_set_apart_is_scored_again(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "alone", train=20, valid=0)
    settings = {**UNWATCHED, "epochs": 1, "base": False, "classes": "{red: crimson}"}
    run = boxtune.train(model="tiny", data=str(data), runs=str(tmp_path / "runs"), **settings).folder.path
    named = json.loads((run / "split.json").read_text())
    file = theirs(data, tmp_path / "yolo.json", split="train", shift=1, stems=True)
    scores = evaluate(run, file, out=tmp_path / "out")
    assert scores["num_images"] == len(named["valid"]) == 2
    assert list(scores["systems"]["yolo"]["per_class"]) == ["crimson"]
    findings = {one["check"]: one["seen"] for one in json.loads((tmp_path / "out" / "findings.json").read_text())}
    assert "left out: blue" in findings["eval.classes_dropped"]
    (data / "train" / Path(named["valid"][0]).name).rename(tmp_path / "away.png")
    content = json.loads((data / "train" / "_annotations.coco.json").read_text())
    content["images"] = [one for one in content["images"] if one["file_name"] != Path(named["valid"][0]).name]
    (data / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="1 of 2 images of valid are not in the data any more"):
        evaluate(run)


def test_options_reach_the_function(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    monkeypatch.setattr("boxtune.evaluate.evaluate", lambda *words, **options: told.append((words, options)))
    assert main(["eval", "runs/1", "2024.json", "data=2024", "out=5", "threshold=0.5", "frame=stored"]) == 0
    assert told == [(("runs/1", "2024.json"), {"data": "2024", "out": "5", "threshold": 0.5, "frame": "stored"})]
