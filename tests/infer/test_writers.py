"""What is written of answers reads back the same with boxtune's own readers: boxes, labels, images, empty ones too."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from squares import write_squares

from boxtune.boxes import Boxes
from boxtune.cli import main
from boxtune.data import Dataset, leave_out_broken, open_image, read_dataset
from boxtune.errors import DataError
from boxtune.infer import Predictor, predict_folder, writers_images
from boxtune.infer.writers import FORMATS, WRITERS

from .canned_engine import LABELS, CannedEngine, boxes_of

SETS = tuple(WRITERS)
WITHIN_PX = 1e-9  # of images up to some thousand pixels a side; what is asked for is 1e-6

# Every name that some reader could take for another one, and every turn.
NAMES = (
    "a.png", "a.jpg", "sub/A.png", "A.PNG", "ö #1 & 100% + b?.jpg", "x y/ü'\".webp", "images/train/1.jpg",
    "labels/1.png", "valid/1.png", "back\\slash.png", "trailing .png", "two.dots.v2.jpg", "日本/写真.jpg",
)  # fmt: skip


def write_photos(folder: Path) -> Path:
    """Photographs of many names, each of another size, one of each EXIF turn among them."""
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number % 2:
            exif[0x0112] = 1 + number // 2 % 8
        noise = np.random.default_rng(number).integers(0, 255, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((101 + number, 73 + 5 * number)).save(path, exif=exif)
    return folder


def predict(source: Path | str, out: Path, **how: Any) -> CannedEngine:
    engine = CannedEngine(at_once=4)
    predict_folder(Predictor(engine=engine), source, out, draw=False, **how)
    return engine


def truth(dataset: Dataset, split: str) -> dict[tuple[int, int], Any]:
    """What is read of each image, by its size: no two are of the same here."""
    return {sample.size_wh: sample for sample in dataset.splits[split]}


def same_boxes(read: Boxes, said: Boxes) -> None:
    assert read.labels == said.labels
    assert np.allclose(read.xyxy_px, said.xyxy_px, rtol=0, atol=WITHIN_PX)


@pytest.mark.parametrize("name", SETS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    source = write_photos(tmp_path / "photos of mine")
    sizes = {open_image(source / one).size: source / one for one in NAMES}
    assert len(sizes) == len(NAMES)
    predict(source, tmp_path / "out", format=name)
    dataset = read_dataset(tmp_path / "out" / name)
    assert dataset.format == name and list(dataset.splits) == ["train"]
    assert dataset.classes == LABELS
    # As training reads it, too: with every header looked at, nothing moves and nothing is left out.
    for read in (dataset, leave_out_broken(dataset)):
        samples = truth(read, "train")
        assert samples.keys() == sizes.keys()
        for size_wh, sample in samples.items():
            same_boxes(sample.boxes, boxes_of(size_wh))
            shown, original = open_image(sample.image), open_image(sizes[size_wh])
            assert np.abs(np.asarray(shown, int) - np.asarray(original, int)).mean() < 3
    assert any(not len(sample.boxes) for sample in samples.values())
    said = {finding.check: finding for finding in dataset.findings}
    assert ("labelstudio.predictions" in said) is (name == "labelstudio")
    assert not [check for check, finding in said.items() if finding.level in ("warn", "fail")] or name == "labelstudio"


@pytest.mark.parametrize("name", SETS)
def test_a_split_of_a_data_set(tmp_path: Path, name: str) -> None:
    data = write_squares(tmp_path / "squares", train=2, valid=3)
    predict(data, tmp_path / "out", split="valid", format=name)
    dataset = read_dataset(tmp_path / "out" / name)
    assert list(dataset.splits) == ["valid"] and len(dataset.splits["valid"]) == 3
    if name == "coco":
        ids = [sample.image_id for sample in read_dataset(data).splits["valid"]]
        assert [sample.image_id for sample in dataset.splits["valid"]] == ids
        assert {row["image_id"] for row in json.loads((tmp_path / "out" / "coco" / "results.json").read_text())} <= {
            *ids
        }


def test_images_are_links_and_turned_ones_upright_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_photos(tmp_path / "in")
    shutil.copy(source / "a.png", source / "plain")
    (tmp_path / "list.txt").write_text("in/plain\nin/a.png\nin/a.jpg\nin/x y/ü'\".webp\n")
    predict(tmp_path / "list.txt", tmp_path / "out", format="yolo")
    images = tmp_path / "out" / "yolo" / "images" / "train"
    assert os.readlink(images / "a.png") == "../../../../in/a.png"
    assert sorted(path.name for path in images.rglob("*.*")) == ["a-2.jpg", "a.png", "plain.png", "ü'\".png"]
    upright = [path for path in images.rglob("*.*") if not path.is_symlink()]
    assert [path.name for path in sorted(upright)] == ["plain.png", "ü'\".png"]
    assert all(not Image.open(path).getexif() for path in upright)
    assert "2 images were written anew, upright" in capsys.readouterr().out
    # Links are relative: all of it can be moved together, and convert makes a data set without links of it.
    shutil.move(tmp_path, moved := tmp_path.with_name("moved"))
    assert len(read_dataset(moved / "out" / "yolo").splits["train"]) == 4
    assert main(["convert", str(moved / "out" / "yolo"), str(moved / "own"), "--to", "coco"]) == 0


def test_where_links_cannot_be_made_images_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links")

    monkeypatch.setattr(writers_images.os, "symlink", refuse)
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (61, 50)).save(source / "a.png")
    predict(source, tmp_path / "out", format=("coco",))
    assert "1 images were copied" in capsys.readouterr().out
    copy = tmp_path / "out" / "coco" / "train" / "a.png"
    assert not copy.is_symlink() and copy.read_bytes() == (source / "a.png").read_bytes()


def test_what_the_files_say(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for width in (64, 61):
        Image.new("RGB", (width, 50)).save(source / f"ö {width}.png")
    predict(source, tmp_path / "out", format="yolo,coco,labelstudio", confidence=True)
    out, (_, (x1, y1, x2, y2)) = tmp_path / "out", boxes_of((61, 50)).xyxy_px.tolist()
    coco = json.loads((out / "coco" / "train" / "_annotations.coco.json").read_text(encoding="utf-8"))
    assert coco["categories"] == [{"id": 1, "name": LABELS[0]}, {"id": 2, "name": LABELS[1]}]
    assert coco["images"][0] == {"id": 1, "file_name": "ö 61.png", "width": 61, "height": 50}
    row = {"image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.7061}
    assert coco["annotations"][1] == {"id": 2, **row, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
    results = json.loads((out / "coco" / "results.json").read_text())
    assert results[1] == row and len(results) == 2
    assert yaml.safe_load((out / "yolo" / "data.yaml").read_text()) == {
        "train": "images/train",
        "names": dict(enumerate(LABELS)),
    }
    rows = (out / "yolo" / "labels" / "train" / "ö 61.txt").read_text().splitlines()
    assert [len(row.split()) for row in rows] == [6, 6] and rows[1].endswith(" 0.7061")
    assert (out / "yolo" / "labels" / "train" / "ö 64.txt").read_text() == ""
    assert "yolo.confidence" in {finding.check for finding in read_dataset(out / "yolo").findings}
    one, empty = json.loads((out / "labelstudio" / "tasks.json").read_text())
    assert one["data"] == {"image": "/data/local-files/?d=images/%C3%B6%2061.png"}
    (said,) = one["predictions"]
    assert said["model_version"] == "boxtune" and said["score"] == pytest.approx((1 / 3 + 0.7061) / 2)
    region = said["result"][0]
    assert region["value"] == {
        **{"x": 0.0, "y": 0.0, "width": 100.0, "height": 100.0},
        **{"rotation": 0, "rectanglelabels": [LABELS[1]]},
    }
    assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "rectanglelabels")
    assert empty["predictions"] == [{"model_version": "boxtune", "result": []}]


def test_boxes_without_scores_and_beyond_the_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (61, 50)).save(source / "a.png")
    corners = [[-3.0, 4.0, 70.0, 51.5], [5.0, 5.0, 5.0, 9.0], [-9.0, 0.0, -1.0, 9.0]]
    said = Boxes(xyxy_px=np.array(corners), labels=("red",) * 3)
    engine = CannedEngine(said=said)
    predict_folder(Predictor(engine=engine), source, tmp_path / "out", format=FORMATS)
    assert capsys.readouterr().out.count("2 boxes without area are left out") == 3
    for name in SETS:
        (sample,) = read_dataset(tmp_path / "out" / name).splits["train"]
        assert np.allclose(sample.boxes.xyxy_px, [[0, 4, 61, 50]], rtol=0, atol=WITHIN_PX)
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [box["xyxy_px"] for box in row["boxes"]] == corners and row["boxes"][0]["score"] is None
    assert json.loads((tmp_path / "out" / "coco" / "results.json").read_text())[0]["score"] == 1.0
    assert "score" not in json.loads((tmp_path / "out" / "labelstudio" / "tasks.json").read_text())[0]["predictions"][0]


def test_a_data_set_that_is_there_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.new("RGB", (61, 50)).save(source / "a.png")
    predict(source, out, format="yolo")
    label = out / "yolo" / "labels" / "train" / "a.txt"
    label.write_text("corrected by hand")
    predict(source, out, format="yolo")
    assert label.read_text() == "corrected by hand" and "yolo, as it was" in capsys.readouterr().out
    Image.new("RGB", (62, 50)).save(source / "b.png")
    with pytest.raises(DataError, match=r"may hold corrections[\s\S]*out/yolo[\s\S]*move it away"):
        predict(source, out, format="yolo,json,coco")
    assert label.read_text() == "corrected by hand"
    assert len(json.loads((out / "predictions.json").read_text())) == 2 and (out / "coco").is_dir()
    (out / "yolo").rename(tmp_path / "corrected")
    assert predict(source, out, format="yolo").seen == []
    assert len(read_dataset(out / "yolo").splits["train"]) == 2


def test_what_could_not_be_opened_is_left_out_of_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.png").write_text("no image")
    Image.new("RGB", (61, 50)).save(source / "b.png")
    with pytest.raises(DataError, match=r"1 of 2 images have no answer[\s\S]*a\.png is not an image"):
        predict(source, out, format="yolo,coco,labelstudio")
    assert capsys.readouterr().out.count("1 images that could not be answered are left out") == 3
    for name in SETS:
        assert [one.image.name for one in read_dataset(out / name).splits["train"]] == ["b.png"]


def test_a_class_that_xml_cannot_hold(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (61, 50)).save(source / "a.png")
    engine = CannedEngine(classes=("bell\x07", "red"))
    with pytest.raises(DataError, match=r"'bell\\x07' does not survive XML"):
        predict_folder(Predictor(engine=engine), source, tmp_path / "out", format="labelstudio")
    assert not (tmp_path / "out" / "labelstudio").exists()
