"""What a user types and sees: exit codes, and one readable error for each kind of bad input."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from squares import write_squares

from boxtune.cli import VERBS, main


@pytest.fixture()
def data(tmp_path: Path) -> Path:
    return write_squares(tmp_path / "squares", train=6, valid=2)


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(f"boxtune {verb}" in shown for verb in VERBS)
    assert main(["train", "--help"]) == 0
    assert "train.epochs" in capsys.readouterr().out
    assert main(["--version"]) == 0


def test_inspect_prints_text_and_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(data)]) == 0
    assert "2 classes" in capsys.readouterr().out
    assert main(["inspect", str(data), "--json", "open=true"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "coco"


def test_inspect_sees_with_the_eyes_asked_for(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheets = data.parent / "sheets"
    words = ["family=paligemma", "max_pixels=200704", "frame=upright", "alike=false", f"out={sheets}"]
    assert main(["inspect", str(data), *words]) == 0
    shown = capsys.readouterr()
    assert "as seen by PaliGemma" in shown.out and "smallest.jpg" in shown.err
    assert (sheets / "smallest.jpg").is_file()
    assert main(["inspect", str(data), "headers=false", "--json"]) == 0
    assert "image.not_checked" in capsys.readouterr().out


def broken_json(data: Path) -> list[str]:
    (data / "train" / "_annotations.coco.json").write_text('{"images": [')
    return ["_annotations.coco.json", "JSON"]


def unknown_category(data: Path) -> list[str]:
    path = data / "train" / "_annotations.coco.json"
    document = json.loads(path.read_text())
    for annotation in document["annotations"]:
        annotation["category_id"] = 77
    path.write_text(json.dumps(document))
    return ["77", "_annotations.coco.json"]


def text_for_an_image(data: Path) -> list[str]:
    (data / "train" / "002.png").write_text("this is a text file")
    return ["002.png"]


@pytest.mark.parametrize("spoil", [broken_json, unknown_category, text_for_an_image])
def test_bad_data_is_one_readable_error(data: Path, capsys: pytest.CaptureFixture[str], spoil) -> None:  # type: ignore[no-untyped-def]
    words = spoil(data)
    for verb in (["inspect", str(data)], ["train", "model=tiny", f"data={data}", f"runs={data.parent / 'runs'}"]):
        assert main(verb) == 2
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err and "do:" in shown.err
        for word in words:
            assert word in shown.err
    assert not (data.parent / "runs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "model=tiny", "data=DATA", "epocs=1"], ["epocs", "train.epochs"]),
        (["train", "model=tiny", "data=DATA", "epochs=many"], ["train.epochs", "many"]),
        (["train", "model=tiny", "data=/no/such/folder"], ["/no/such/folder"]),
        (["train", "model=/no/such/model", "data=DATA"], ["/no/such/model", "model=tiny"]),
        (["train", "data=DATA"], ["model"]),
        (["train", "missing.yaml"], ["missing.yaml"]),
        (["inspect"], ["0 words"]),
        (["inspect", "DATA", "colour=red"], ["colour", "format"]),
        (["predict", "/no/run", "x.jpg"], ["boxtune.json", "/no/run"]),
        (["tune"], ["'tune'", "train"]),
        (["train", "DATA"], ["that is a folder", "did you mean data=DATA/?"]),
        (["train", "model=tiny", "data=DATA", "epochs=true"], ["train.epochs cannot be 'true'"]),
        (["train", "model=tiny", "data=2024_01"], ["2024_01"]),
        (["inspect", "DATA", "images=5"], ["image folder 5"]),
        (["inspect", "DATA", "open=perhaps"], ["open cannot be 'perhaps'", "true or false"]),
        (["inspect", "DATA", "format="], ["format cannot be ''"]),
        (["inspect", "DATA", "family=yolo"], ["no family 'yolo'", "qwen2_vl"]),
        (["inspect", "DATA", "model=/no/such/model"], ["/no/such/model", "config.json"]),
        (["inspect", "DATA", "frame=turned"], ["frame cannot be 'turned'", "upright"]),
        (["inspect", "DATA", "max_pixels=0"], ["max_pixels cannot be '0'", "from 1"]),
        (["predict", "RUN", "DATA", "threshold=high"], ["threshold cannot be 'high'", "from 0 to 1"]),
        (["predict", "RUN", "DATA", "threshold=nan"], ["threshold cannot be 'nan'", "from 0 to 1"]),
        (["predict", "RUN", "DATA", "threshold=1.5"], ["threshold cannot be '1.5'", "from 0 to 1"]),
        (
            ["predict", "RUN", "DATA", "resume=true"],
            ["no option 'resume'", "out, split, server, served, threshold, part"],
        ),
        (["predict", "RUN", "DATA", "format=coco,voc"], ["format cannot be 'coco,voc'", "json, coco, yolo, labelst"]),
        (["predict", "RUN", "DATA", "part=2"], ["part cannot be '2'", "such as 2/8"]),
        (["predict", "RUN", "DATA", "draw=some"], ["draw cannot be 'some'", "true, false or auto"]),
        (["demo", "out="], ["out cannot be ''"]),
    ],
)
def test_bad_words_are_one_readable_error(
    data: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: list[str]
) -> None:
    assert main([word.replace("DATA", str(data)) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("boxtune: ") and "Traceback" not in shown.err
    assert "do:" in shown.err
    for word in expected:
        assert word.replace("DATA", str(data)) in shown.err


def test_words_reach_the_stages_as_they_were_written(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    for verb in ("train", "predict", "demo"):
        monkeypatch.setattr(f"boxtune.run.{verb}", lambda *words, **options: told.append((words, options)))
    assert main(["train", "model=tiny", "data=2024_01", "name=1.10", "runs=007", "--resume", "epochs=2"]) == 0
    assert main(["predict", "2024", "12:30", "out=2024", "threshold=0.5", "draw=auto", "part=2/8"]) == 0
    assert main(["predict", "2024", "x", "threshold=best", "format=coco,yolo", "draw=no", "--confidence"]) == 0
    assert main(["demo", "out=5", "name=12:30"]) == 0
    assert told == [
        ((), {"model": "tiny", "data": "2024_01", "name": "1.10", "runs": "007", "resume": "true", "epochs": "2"}),
        (("2024", "12:30"), {"out": "2024", "threshold": 0.5, "draw": None, "part": (2, 8)}),
        (("2024", "x"), {"threshold": "best", "format": ["coco", "yolo"], "draw": False, "confidence": True}),
        ((), {"out": "5", "name": "12:30"}),
    ]
    assert main(["inspect", str(data), f"images={data}", "open=no", "--json"]) == 0


def test_predict_names_the_formats_that_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    from boxtune.infer.writers import FORMATS

    assert main(["predict", "RUN", "DATA", "format=none"]) == 2
    assert f"one or several of {', '.join(FORMATS)}, such as" in capsys.readouterr().err
    assert main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in FORMATS)


@pytest.mark.slow
def test_exit_codes_reach_the_shell(data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "boxtune", "inspect", str(data / "none")], capture_output=True, text=True
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert subprocess.run([sys.executable, "-m", "boxtune", "inspect", str(data)], capture_output=True).returncode == 0


def test_output_that_nobody_reads_to_its_end_is_no_error() -> None:
    ran = subprocess.run(
        f"{shlex.quote(sys.executable)} -m boxtune families | head -1", shell=True, capture_output=True, text=True
    )
    assert ran.stdout.startswith("family") and ran.stderr == ""
