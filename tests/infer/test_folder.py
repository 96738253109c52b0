"""A folder of images -> boxes on disk: what one image spoils, what a crash leaves, where the drawings lie."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxtune.artifacts import write_json
from boxtune.boxes import Boxes
from boxtune.errors import ConfigError, DataError
from boxtune.infer import LocalEngine, Predictor, find_images, predict_folder
from boxtune.infer import folder as folder_of
from boxtune.infer import written as written_of

from .canned_engine import CannedEngine, write_images


@pytest.fixture()
def predictor(tiny: Any, encoder: Any) -> Predictor:
    return Predictor(engine=LocalEngine(loaded=tiny, encoder=encoder, max_new_tokens=3, at_once=2))


@pytest.fixture()
def canned() -> Predictor:
    """A predictor that says one box without looking, so that a folder takes no time."""
    box = Boxes(xyxy_px=np.array([[1.0, 2.0, 30.0, 40.0]]), labels=("red",))
    return Predictor(engine=CannedEngine(said=box))


def rows_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text())


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The rows of all parts, without what made them."""
    files = sorted((out / "answers").glob("part-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()[1:]]


def test_a_model_answers_a_folder(predictor: Predictor, tmp_path: Path) -> None:
    written = predict_folder(predictor, write_images(tmp_path / "in", 3), tmp_path / "out")
    rows = json.loads(written.read_text())
    assert [(row["width"], row["height"]) for row in rows] == [(60, 50), (61, 50), (62, 50)]
    assert all(row["answer"] and "error" not in row for row in rows)


def test_long_and_broken_images_are_rows_of_their_own(
    canned: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_images(tmp_path / "in", 4)
    Image.new("RGB", (3, 900)).save(source / "001a.png")
    (source / "002a.png").write_text("no image")
    whole = (source / "003.png").read_bytes()
    (source / "003a.png").write_bytes(whole[: len(whole) - 30])  # a sound header over cut pixels
    opened: Counter[str] = Counter()
    original = folder_of.open_image

    def counting(path: str) -> Image.Image:
        opened[Path(path).name] += 1
        return original(path)

    monkeypatch.setattr(folder_of, "open_image", counting)
    with pytest.raises(DataError, match="3 of 7 images have no answer") as raised:
        predict_folder(canned, source, tmp_path / "out")
    assert "001a.png" in str(raised.value)
    rows = rows_of(tmp_path / "out")
    assert [Path(row["file"]).name for row in rows] == sorted(path.name for path in source.iterdir())
    assert [Path(row["file"]).name for row in rows if "error" in row] == ["001a.png", "002a.png", "003a.png"]
    assert "200 times" in rows[2]["error"]
    assert len(list((tmp_path / "out" / "drawn").glob("*.jpg"))) == 4
    assert set(opened.values()) == {1} and len(opened) == 5


def test_what_could_not_be_opened_is_asked_again(canned: Predictor, tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in", 4), tmp_path / "out"
    (source / "001.png").write_text("no image")
    for _ in range(2):
        with pytest.raises(DataError, match="1 of 4 images have no answer"):
            predict_folder(canned, source, out)
    Image.new("RGB", (61, 50)).save(source / "001.png")
    predict_folder(canned, source, out)
    assert [row["width"] for row in rows_of(out)] == [60, 61, 62, 63]
    said = [("error" in row, Path(row["file"]).name) for row in lines_of(out)]
    assert [name for failed, name in said if failed] == ["001.png"] * 2 and len(said) == 6
    (source / "002.png").unlink()
    Image.new("RGB", (90, 50)).save(source / "003.png")  # another picture under the name of one that was answered
    write_images(tmp_path / "more", 1)
    (tmp_path / "more" / "000.png").rename(source / "009.png")
    predict_folder(canned, source, out)
    assert [row["width"] for row in rows_of(out)] == [60, 61, 90, 60]
    assert len(lines_of(out)) == 8


def test_drawings_are_made_when_they_are_wanted(
    canned: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    monkeypatch.setattr(folder_of, "MOST_DRAWN", 2)
    predict_folder(canned, source, out)
    assert not (out / "drawn").exists()
    assert "none of 3 images is drawn, as they are more than 2; draw=true draws all" in capsys.readouterr().out
    predict_folder(canned, source, out, draw=True)
    assert sorted(path.name for path in (out / "drawn").iterdir()) == ["000.png.jpg", "001.png.jpg", "002.png.jpg"]
    assert len(lines_of(out)) == 3
    predict_folder(canned, source, tmp_path / "none", draw=False)
    assert not (tmp_path / "none" / "drawn").exists()


def test_drawings_are_no_images_to_predict(canned: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the output lies in the folder that is predicted."""
    monkeypatch.chdir(write_images(tmp_path / "in", 2))
    for source in (".", "**/*.*", "."):
        predict_folder(canned, source, Path("predictions"), format="json,yolo")
        assert len(rows_of(tmp_path / "in" / "predictions")) == 2


def test_the_threshold_of_the_run(canned: Predictor, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 1)
    with pytest.raises(ConfigError, match="no threshold was chosen"):
        predict_folder(canned, source, tmp_path / "out", threshold="best")
    card, adapter = {"classes": ["red"]}, tmp_path / "run" / "adapter"
    write_json(adapter / "boxtune.json", {**card, "threshold": {"value": 0.25}})
    canned = replace(canned, best=0.25)
    for run in (tmp_path / "run", adapter):  # the threshold is bound by itself: not by the card, which gets it late
        predict_folder(canned, source, tmp_path / "out", threshold="best", run=run)
        write_json(adapter / "boxtune.json", {**card, "threshold": {"value": 0.25, "more": 1}})
    predict_folder(canned, source, tmp_path / "out", threshold=0.25, run=tmp_path / "run")
    assert len(lines_of(tmp_path / "out")) == 1
    (adapter / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(ConfigError, match="something else made: adapter was"):
        predict_folder(canned, source, tmp_path / "out", threshold=0.25, run=tmp_path / "run")


def test_answers_of_other_settings_are_refused(canned: Predictor, tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    predict_folder(canned, source, out, threshold=0.5)
    with pytest.raises(ConfigError, match=r"threshold was 0\.5, is 0\.6[\s\S]*another folder as out="):
        predict_folder(canned, source, out, threshold=0.6)
    with pytest.raises(ConfigError, match=r"cannot write voc[\s\S]*json, coco, yolo, labelstudio"):
        predict_folder(canned, source, tmp_path / "b", format=["voc"])
    assert not (tmp_path / "b").exists()


def test_other_images_go_into_the_same_folder(
    canned: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_images(tmp_path / "in", 2), tmp_path / "out"
    for name in ("000.png", "001.png"):
        predict_folder(canned, source / name, out)
        assert [Path(row["file"]).name for row in rows_of(out)] == [name]
    assert "1 answers in" in capsys.readouterr().out
    predict_folder(canned, source, out)
    assert len(rows_of(out)) == 2 == len(lines_of(out))


def test_a_crash_leaves_what_was_answered(canned: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, also when somebody looks in the middle; the same call then asks for nothing but the rest."""
    source, out = write_images(tmp_path / "in", 7), tmp_path / "out"
    monkeypatch.setattr(folder_of, "SLICE", 1)
    seen_on_disk: list[int] = []
    drawn: list[str] = []
    original = written_of.draw_boxes

    def drawing(image: Any, truth: Any, predicted: Any, *, caption: str) -> Image.Image:
        seen_on_disk.append(len(lines_of(out)))
        if caption == "006.png" and len(seen_on_disk) == 7:
            raise RuntimeError("out of memory")
        drawn.append(caption)
        return original(image, truth, predicted, caption=caption)

    monkeypatch.setattr(written_of, "draw_boxes", drawing)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_folder(canned, source, out)
    assert seen_on_disk == list(range(7))
    assert not (out / "predictions.json").exists()
    drawn.clear()
    predict_folder(canned, source, out)
    assert drawn == ["006.png"]
    assert [Path(row["file"]).name for row in rows_of(out)] == [f"{number:03d}.png" for number in range(7)]


def test_a_pattern_keeps_drawings_apart(canned: Predictor, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "sq" / name, 1)
    predict_folder(canned, str(tmp_path / "sq" / "*" / "000.png"), tmp_path / "out")
    drawn = tmp_path / "out" / "drawn"
    assert sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.jpg")) == [
        "a/000.png.jpg",
        "b/000.png.jpg",
    ]
    predict_folder(canned, tmp_path / "sq" / "a" / "000.png", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one" / "drawn").iterdir()] == ["000.png.jpg"]


def test_a_relative_pattern_stays_inside_the_output(
    canned: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in" / "a", 1)
    write_images(tmp_path / "in" / "b", 1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    predict_folder(canned, "../in/*/../*/*.png", Path("out"))
    assert {path.parent.name for path in (tmp_path / "here" / "out" / "drawn").rglob("*.jpg")} == {"a", "b"}
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


def test_a_threshold_without_scores_is_said_once(
    canned: Predictor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_images(tmp_path / "in", 3)
    predict_folder(canned, source, tmp_path / "a", threshold=0.5)
    assert capsys.readouterr().out.count("carry no scores yet") == 1
    assert all(len(row["boxes"]) == 1 for row in rows_of(tmp_path / "a"))
    predict_folder(canned, source, tmp_path / "b")
    assert "scores" not in capsys.readouterr().out


def test_an_output_that_is_a_file_is_one_clear_error(canned: Predictor, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 1)
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="file in the way"):
        predict_folder(canned, source, tmp_path / "out")


def test_nothing_to_predict_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image to predict"):
        find_images(tmp_path)
