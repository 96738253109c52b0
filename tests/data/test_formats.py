"""The format is told from what is there, and what is not read is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import FORMATS, read_dataset
from boxtune.errors import ConfigError, DataError

from .cases import box_entry, write_one, write_splits


def test_every_format_can_be_named(tmp_path: Path) -> None:
    assert len(FORMATS) >= 20 and "coco" in FORMATS
    for known in FORMATS.values():
        assert known.sniff(tmp_path) is None and known.looks_for
    write_splits(tmp_path, {"train": 2})
    assert read_dataset(tmp_path).splits.keys() == read_dataset(str(tmp_path), format="coco").splits.keys() == {"train"}


def test_coco_wins_and_the_rest_is_named(tmp_path: Path) -> None:
    write_splits(tmp_path, {"train": 1, "valid": 1})
    for name in ("a.xml", "b.xml"):
        (tmp_path / "voc" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "voc" / "train" / name).write_text("<annotation/>")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "index.json").write_text("{}")
    (tmp_path / "boxes.csv").write_text("a,b\n")
    (tmp_path / "notes.txt").write_text("no labels")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "coco"
    assert dataset.why.endswith("; not read: boxes.csv, voc/train/ (2 .xml)")


def test_nothing_else_to_name(tmp_path: Path) -> None:
    write_splits(tmp_path, {"train": 1})
    assert "not read" not in read_dataset(tmp_path).why


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder is empty") as caught:
        read_dataset(tmp_path)
    assert "_annotations.coco.json" in caught.value.fix
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=r"no data set was recognised; the folder holds a\.txt, sub/"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt is no annotation file"):
        read_dataset(tmp_path / "a.txt")


def test_missing_path_names_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="fotos does not exist") as caught:
        read_dataset(tmp_path / "fotos")
    assert "photos/" in caught.value.fix
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="photos/train does not exist"):
        read_dataset("photos/train")


def test_hub_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="neither a local path nor in the hub cache"):
        read_dataset("keremberke/license-plates")


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown format 'yolov5'[\s\S]*one of auto, coco, yolo"):
        read_dataset(tmp_path, format="yolov5")


def test_broken_json_is_located(tmp_path: Path) -> None:
    file = write_one(tmp_path, [box_entry(1, 1)])
    file.write_text(file.read_text()[:-20])
    with pytest.raises(DataError, match="is not JSON") as caught:
        read_dataset(file)
    assert "line 1, column" in caught.value.where
