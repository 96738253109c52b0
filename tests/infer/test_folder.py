"""A folder of images -> boxes on disk: what one image spoils, what a crash leaves, where the drawings lie."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.errors import ConfigError, DataError
from boxtune.infer import Answer, LocalEngine, Predictor, find_images, generate, predict_folder
from boxtune.infer import folder as folder_of


@pytest.fixture()
def predictor(tiny: Any, encoder: Any) -> Predictor:
    return Predictor(engine=LocalEngine(loaded=tiny, encoder=encoder, max_new_tokens=3, at_once=2))


@pytest.fixture()
def canned(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A predictor that says one box without looking, so that a folder takes no time."""

    def answer(engine: LocalEngine, examples: list[Any]) -> list[Answer]:
        box = Boxes(xyxy_px=np.array([[1.0, 2.0, 30.0, 40.0]]), labels=("red",))
        return [Answer(text="said", boxes=box, problems=(), truncated=False) for _ in examples]

    monkeypatch.setattr(generate, "_answer", answer)
    return predictor


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (60 + number, 50), (number * 9, 80, 90)).save(folder / f"{number:03d}.png")
    return folder


def rows_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text())


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

    def counting(path: Path) -> Image.Image:
        opened[path.name] += 1
        return original(path)

    monkeypatch.setattr(folder_of, "open_image", counting)
    with pytest.raises(DataError, match="3 of 7 images cannot be opened or shown") as raised:
        predict_folder(canned, source, tmp_path / "out")
    assert "001a.png" in str(raised.value)
    rows = rows_of(tmp_path / "out")
    assert [Path(row["file"]).name for row in rows] == sorted(path.name for path in source.iterdir())
    assert [Path(row["file"]).name for row in rows if "error" in row] == ["001a.png", "002a.png", "003a.png"]
    assert "200 times" in rows[2]["error"]
    assert len(list((tmp_path / "out" / "drawn").glob("*.jpg"))) == 4
    assert set(opened.values()) == {1} and len(opened) == 5


def test_a_crash_leaves_what_was_answered(canned: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the last image; also what a killed process leaves is looked at, in the middle."""
    source, out = write_images(tmp_path / "in", 7), tmp_path / "out"
    monkeypatch.setattr(folder_of, "SLICE", 1)
    seen_on_disk: list[int] = []
    original = folder_of.draw_boxes

    def drawing(image: Any, truth: Any, predicted: Any, *, caption: str) -> Image.Image:
        seen_on_disk.append(len(rows_of(out)) if (out / "predictions.json").exists() else 0)
        if caption == "006.png":
            raise RuntimeError("out of memory")
        return original(image, truth, predicted, caption=caption)

    monkeypatch.setattr(folder_of, "draw_boxes", drawing)
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_folder(canned, source, out)
    assert seen_on_disk == [0, 0, 2, 2, 4, 4, 6]
    assert len(rows_of(out)) == 6


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
