"""Killed and started again, and many side by side: no image is lost, none has two answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boxtune.data.tiles import Tiling
from boxtune.errors import ConfigError, DataError
from boxtune.infer import Predictor, predict_folder
from boxtune.infer.shards import Part, PartFile, find_answers, share_out, stamp_of

from . import canned_engine
from .canned_engine import CannedEngine, write_images

MADE_BY = {"threshold": None}


def start(source: Path, out: Path, log: Path, number: int = 1, of: int = 1) -> subprocess.Popen[bytes]:
    """A process that predicts, which takes some time."""
    words = [sys.executable, canned_engine.__file__, source, out, log, str(number), str(of), "json,yolo"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def lines_of(out: Path) -> list[bytes]:
    """The lines of all parts, without what made them; half ones too."""
    return [line for file in sorted((out / "answers").glob("part-*")) for line in file.read_bytes().split(b"\n")[1:-1]]


def names_of(rows: list[dict[str, Any]]) -> list[str]:
    return [Path(row["file"]).name for row in rows]


def rows_of(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "predictions.json").read_text())


@pytest.mark.slow
def test_killed_more_than_once_is_as_unbroken(tmp_path: Path) -> None:
    source, out, log = write_images(tmp_path / "in", 60), tmp_path / "out", tmp_path / "log"
    had: list[bytes] = []
    for least in (5, 20, 40):
        process = start(source, out, log)
        deadline = time.monotonic() + 120
        while not (out / "answers").is_dir() or len(lines_of(out)) < least:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0].decode()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = lines_of(out)
        assert now[: len(had)] == had and len(had) < len(now) < 60, "what was there stays, and there is more"
        assert not (out / "predictions.json").exists()
        had = now
    last = start(source, out, log)
    assert last.wait(120) == 0, last.communicate()[0].decode()
    last.communicate()
    predict_folder(Predictor(engine=CannedEngine()), source, tmp_path / "whole", format="json,yolo", draw=False)
    assert (out / "predictions.json").read_bytes() == (tmp_path / "whole" / "predictions.json").read_bytes()
    assert len(lines_of(out)) == len(rows_of(out)) == 60
    # What was being answered at a kill is answered again, and nothing else.
    asked = Counter(log.read_text().split())
    assert len(asked) == 60 and sum(asked.values()) <= 60 + 3 * CannedEngine().at_once


@pytest.mark.slow
def test_parts_side_by_side(tmp_path: Path) -> None:
    """Three processes at once on one folder, one of which ends last and writes the files, whole."""
    source, out = write_images(tmp_path / "in", 40), tmp_path / "out"
    processes = [start(source, out, tmp_path / f"log{number}", number, 3) for number in (1, 2, 3)]
    told = [process.communicate(timeout=120)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    predict_folder(Predictor(engine=CannedEngine()), source, tmp_path / "whole", format="json,yolo", draw=False)
    assert rows_of(out) == rows_of(tmp_path / "whole")
    asked = [Counter((tmp_path / f"log{number}").read_text().split()) for number in (1, 2, 3)]
    assert sum(asked, Counter()) == Counter(str(60 + number) for number in range(40))
    assert sum("still to be answered" in text for text in told) <= 2
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_who_ends_last_writes_and_others_say_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_images(tmp_path / "in", 20), tmp_path / "out"
    engine = CannedEngine()
    for number in (3, 1):
        written = predict_folder(Predictor(engine=engine), source, out, part=(number, 3), format="coco")
        assert written == out / "answers" / f"part-{number}-of-3.jsonl"
    shown = capsys.readouterr().out
    assert "part 3/3 is done" in shown and "still to be answered: part 1/3 (" in shown
    assert "still to be answered: part 2/3 (" in shown and not (out / "coco").exists()
    assert predict_folder(Predictor(engine=engine), source, out, part=(2, 3), format="coco") == out / "coco"
    assert sorted(engine.seen) == [(60 + number, 50) for number in range(20)]
    # By calling again too, with any part, and for other formats.
    assert predict_folder(Predictor(engine=engine), source, out, part=(2, 3)) == out / "predictions.json"
    assert predict_folder(Predictor(engine=engine), source, out) == out / "predictions.json"
    assert len(engine.seen) == 20


def test_another_number_of_parts_goes_on_with_what_is_there(tmp_path: Path) -> None:
    source, out, engine = write_images(tmp_path / "in", 12), tmp_path / "out", CannedEngine()
    for part in ((1, 3), (2, 4), (1, 1)):
        predict_folder(Predictor(engine=engine), source, out, part=part)
    assert len(engine.seen) == 12 == len(lines_of(out)) and len(rows_of(out)) == 12


def test_a_part_without_images_and_parts_that_are_none(tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    (mine,) = share_out([str(source / "000.png")], 2).tolist()
    predict_folder(Predictor(engine=CannedEngine()), source, out, part=(3 - mine, 2))
    predict_folder(Predictor(engine=CannedEngine()), source, out, part=(mine, 2))
    assert len(rows_of(out)) == 1
    for number, of in ((0, 2), (3, 2), (1, 0), (1, 257)):
        with pytest.raises(ConfigError, match=rf"no part {number}/{of}[\s\S]*at most 256"):
            predict_folder(Predictor(engine=CannedEngine()), source, out, part=(number, of))


def test_shares_stay_when_images_come_and_go() -> None:
    files = [f"photos/{number}.jpg" for number in range(4000)]
    shares = dict(zip(files, share_out(files, 8).tolist(), strict=True))
    assert {shares[file] for file in files} == set(range(1, 9))
    assert min(Counter(shares.values()).values()) > 400
    for of in (2, 4, 8):  # names that count up, few of them
        counts = Counter(share_out([f"valid/{number:03d}.png" for number in range(1, 65)], of).tolist())
        assert len(counts) == of and max(counts.values()) <= 2 * 64 / of
    fewer = files[::3]
    assert share_out(fewer, 8).tolist() == [shares[file] for file in fewer]


def test_nobody_writes_the_same_part_or_parts_of_another_number(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", 2)
    with PartFile(tmp_path, Part(number=2, of=3), MADE_BY):
        with pytest.raises(ConfigError, match=r"part 2/3 is being answered by another process[\s\S]*part-2-of-3"):
            PartFile(tmp_path, Part(number=2, of=3), MADE_BY).__enter__()
        with pytest.raises(ConfigError, match=r"part 2 of 3 is being answered by another process"):
            PartFile(tmp_path, Part(), MADE_BY).__enter__()
        with PartFile(tmp_path, Part(number=1, of=3), MADE_BY):
            pass
    with PartFile(tmp_path, Part(), MADE_BY) as file:
        file.add({"file": str(source / "000.png")})
    assert find_answers(tmp_path, [str(source / "000.png")], MADE_BY).which.tolist() != [-1]


@pytest.mark.parametrize("left", [b'{"file": "b.pn', b"x" * 3_000_000])
def test_half_a_line_is_dropped(tmp_path: Path, left: bytes) -> None:
    with PartFile(tmp_path, Part(), MADE_BY) as file:
        file.add({"file": "a.png"})
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + left)
    assert find_answers(tmp_path, ["a.png", "b.png"], MADE_BY).which.tolist() == [0, -1]
    with PartFile(tmp_path, Part(), MADE_BY) as file:
        assert file.path.read_bytes() == whole
        file.add({"file": "b.png"})
    found = find_answers(tmp_path, ["a.png", "b.png"], MADE_BY)
    assert [row["file"] for row in found.rows([1, 0])] == ["b.png", "a.png"]
    file.path.write_bytes(whole[:9])  # killed before anything was said
    with PartFile(tmp_path, Part(), MADE_BY):
        assert file.path.read_bytes() == whole.split(b"\n")[0] + b"\n"


def test_broken_lines_are_named(tmp_path: Path) -> None:
    with PartFile(tmp_path, Part(), MADE_BY) as file:
        file.add({"file": "a.png"})
    sound = file.path.read_bytes()
    for text in (b"\0\0\0\n", b"[1]\n", b'{"name": 1}\n'):
        file.path.write_bytes(sound + text + b'{"file": "b.png"}\n')
        with pytest.raises(DataError, match=r"broken[\s\S]*jsonl, line 3[\s\S]*remove that line"):
            find_answers(tmp_path, ["a.png"], MADE_BY)
    file.path.write_bytes(b'{"file": "b.png"}\n')
    with pytest.raises(DataError, match="does not say what made"):
        find_answers(tmp_path, ["a.png"], MADE_BY)


def test_an_answer_wins_over_a_failure_and_the_present_file_over_a_former(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(image)
    name, now = str(image), stamp_of(str(image))
    assert stamp_of(str(tmp_path / "none.png")) == 0 != now

    def add(number: int, row: dict[str, Any], seconds: int) -> None:
        with PartFile(tmp_path, Part(number=number, of=2), MADE_BY) as file:
            file.add({"file": name, **row})
        os.utime(file.path, (seconds, seconds))

    def kept() -> dict[str, Any]:
        (row,) = find_answers(tmp_path, [name], MADE_BY).rows([0])
        return row

    add(1, {"error": "broken"}, 10)
    assert kept()["error"] == "broken"
    add(2, {"stamp": now, "answer": "new"}, 5)
    assert kept()["answer"] == "new"
    add(1, {"stamp": 7, "answer": "of a former file, in a file that was written later"}, 20)
    assert kept()["answer"] == "new"
    add(2, {"stamp": now, "answer": "newest"}, 30)
    assert kept()["answer"] == "newest"
    add(1, {"stamp": now, "error": "could not be opened for once"}, 40)
    assert kept()["answer"] == "newest"
    # The file has changed since: that it cannot be opened now is what counts.
    image.write_bytes(b"no image")
    add(1, {"stamp": stamp_of(name), "error": "broken"}, 50)
    assert kept()["error"] == "broken"


def test_the_same_again_writes_nothing_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_images(tmp_path / "in", 6), tmp_path / "out"
    for number in (1, 2, 1, 2, 1):
        predict_folder(Predictor(engine=CannedEngine()), source, out, part=(number, 2), format="coco", draw=False)
    assert capsys.readouterr().out.count("coco, as it was") == 3


def test_an_image_that_broke_since_is_no_longer_answered(tmp_path: Path) -> None:
    source, out = write_images(tmp_path / "in", 3), tmp_path / "out"
    predict_folder(Predictor(engine=CannedEngine()), source, out)
    (source / "001.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 3 images have no answer"):
        predict_folder(Predictor(engine=CannedEngine()), source, out)
    assert "error" in rows_of(out)[1] and "boxes" not in rows_of(out)[1]


def test_names_that_are_no_text_of_any_encoding(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Image.new("RGB", (61, 50)).save(source / "a.png")
        (source / "a.png").rename(source / name)
    except OSError:
        pytest.skip("this file system takes Unicode alone")
    engine = CannedEngine()
    for _ in range(2):
        predict_folder(Predictor(engine=engine), source, out, format="json,coco,yolo,labelstudio")
    assert [row["file"] for row in rows_of(out)] == [str(source / name)] and len(engine.seen) == 1


def test_where_files_cannot_be_locked_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    predict_folder(Predictor(engine=CannedEngine()), write_images(tmp_path / "in", 2), tmp_path / "out")
    assert "cannot be locked here ([Errno 38] Function not implemented)" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "out")) == 2


def test_an_interrupted_engine_leaves_what_it_answered(tmp_path: Path) -> None:
    """Also what belongs to a batch that was not finished."""
    source, out = write_images(tmp_path / "in", 6), tmp_path / "out"

    with pytest.raises(KeyboardInterrupt):
        predict_folder(Predictor(engine=CannedEngine(most=3)), source, out)
    assert names_of([json.loads(line) for line in lines_of(out)]) == ["000.png", "001.png", "002.png"]
    engine = CannedEngine()
    predict_folder(Predictor(engine=engine), source, out)
    assert engine.seen == [(63, 50), (64, 50), (65, 50)]
    assert [row["width"] for row in rows_of(out)] == list(range(60, 66))


def test_another_engine_is_refused(tmp_path: Path) -> None:
    class Served(CannedEngine):
        pass

    source, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    predict_folder(Predictor(engine=CannedEngine()), source, out)
    with pytest.raises(ConfigError, match='engine was "CannedEngine", is "Served"'):
        predict_folder(Predictor(engine=Served()), source, out)
    other = CannedEngine(tiling=Tiling(size=48, overlap=0.1, min_visible=0.3))
    with pytest.raises(ConfigError, match=r"tiling was null, is \{"):
        predict_folder(Predictor(engine=other), source, out)
