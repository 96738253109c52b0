"""A data set written in another format reads back the same, images and all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from boxtune.cli import main
from boxtune.data import Dataset, open_image, read_dataset
from boxtune.data.convert import convert
from boxtune.errors import ConfigError, DataError

from .cases import box_entry, image_entry, picture, save, write_json

TARGETS = ("coco", "yolo", "voc", "jsonl")
READERS = {"coco": "coco", "yolo": "yolo", "voc": "voc", "jsonl": "hf"}
CATEGORIES = [{"id": 4, "name": "zebra"}, {"id": 9, "name": "no: 'ä' & <b>"}]
BOXES = [(8, 6, 20, 16), (0, 0, 64, 48), (1.2345, 2.5, 10.0 / 3, 7.125)]


def write_set(folder: Path, **more: Any) -> Path:
    """Two splits that share the name a.png; 1 negative, three boxes of two classes in each."""
    for split in ("train", "valid"):
        save(picture(len(split)), folder / split / "a.png")
        save(picture(7 + len(split)), folder / split / "ö #1 b.jpg")
        images = [image_entry(5, "a.png"), image_entry(7, "ö #1 b.jpg")]
        boxes = [box_entry(i, 5, xywh, category=9 if i else 4, **more) for i, xywh in enumerate(BOXES)]
        write_json(folder / split / "_annotations.coco.json", images, boxes, CATEGORIES)
    return folder


def rows_of(dataset: Dataset) -> dict[str, list[list[tuple[str, list[float]]]]]:
    """The boxes of each image in order, by split."""
    return {
        split: [list(zip(one.boxes.labels, one.boxes.xyxy_px.tolist(), strict=True)) for one in samples]
        for split, samples in dataset.splits.items()
    }


def same(left: Dataset, right: Dataset, tolerance_px: float) -> None:
    """Equal boxes and labels in equal images, in any order."""
    ours, theirs = rows_of(left), rows_of(right)
    assert ours.keys() == theirs.keys()
    for split in ours:
        assert len(ours[split]) == len(theirs[split])
        for one, other in zip(sorted(ours[split]), sorted(theirs[split]), strict=True):
            assert [label for label, _ in one] == [label for label, _ in other]
            assert np.allclose([box for _, box in one], [box for _, box in other], rtol=0, atol=tolerance_px)


@pytest.mark.parametrize("to", TARGETS)
def test_round_trip(tmp_path: Path, to: str) -> None:
    source = write_set(tmp_path / "source")
    done = convert(source, tmp_path / "out", to=to)
    assert done.splits == {"train": (2, 3, 1), "valid": (2, 3, 1)}
    assert done.as_text().startswith(f"{tmp_path / 'out'}: {to}\n  train: 2 images, 3 boxes, 1 negatives")
    before = read_dataset(source)
    after = read_dataset(tmp_path / "out")
    assert after.format == READERS[to]
    same(before, after, 1e-4)
    assert before.classes == ("zebra", "no: 'ä' & <b>")
    has_order = to in ("coco", "yolo")
    assert after.classes == (before.classes if has_order else tuple(sorted(before.classes)))
    files = {one.image.name: one.image for samples in after.splits.values() for one in samples}
    expected = {"a.png", "ö #1 b.jpg", "a-2.png", "ö #1 b-2.jpg"} if to == "voc" else {"a.png", "ö #1 b.jpg"}
    assert set(files) == expected
    assert files["a.png"].read_bytes() == (source / ("train" if to == "voc" else "valid") / "a.png").read_bytes()
    assert not os.path.samefile(files["a.png"], source / "valid" / "a.png")


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_twice_is_stable(tmp_path: Path, to: str) -> None:
    convert(write_set(tmp_path / "source"), tmp_path / "one", to=to)
    convert(tmp_path / "one", tmp_path / "two", to=to)
    first, second = (
        {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    )
    assert first == second and len(first) > 4


def test_what_the_files_say(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    for to in TARGETS:
        convert(source, tmp_path / to, to=to)
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text(encoding="utf-8")) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "zebra", 1: "no: 'ä' & <b>"},
    }
    rows = (tmp_path / "yolo" / "labels" / "val" / "a.txt").read_text().splitlines()
    assert rows[0] == "0 0.28125000 0.29166667 0.31250000 0.33333333" and len(rows) == 3
    assert (tmp_path / "yolo" / "labels" / "val" / "ö #1 b.txt").read_text() == ""
    lines = (tmp_path / "jsonl" / "validation" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    objects = {
        "bbox": [[8, 6, 20, 16], [0, 0, 64, 48], [1.2345, 2.5, 3.3333, 7.125]],
        "categories": ["zebra", "no: 'ä' & <b>", "no: 'ä' & <b>"],
        "area": [320, 3072, 23.7498],
    }
    assert [json.loads(line) for line in lines] == [
        {"file_name": "a.png", "objects": objects},
        {"file_name": "ö #1 b.jpg", "objects": {"bbox": [], "categories": [], "area": []}},
    ]
    xml = (tmp_path / "voc" / "Annotations" / "a.xml").read_text(encoding="utf-8")
    assert "<xmin>8</xmin>" in xml and "<xmin>1.2345</xmin>" in xml and "<filename>a.png</filename>" in xml
    assert (tmp_path / "voc" / "ImageSets" / "Main" / "val.txt").read_text(encoding="utf-8") == "a-2\nö #1 b-2\n"
    coco = json.loads((tmp_path / "coco" / "valid" / "_annotations.coco.json").read_text(encoding="utf-8"))
    assert coco["categories"] == [{"id": 1, "name": "zebra"}, {"id": 2, "name": "no: 'ä' & <b>"}]
    assert [image["id"] for image in coco["images"]] == [5, 7]
    assert coco["annotations"][0]["bbox"] == [8, 6, 20, 16] and coco["annotations"][0]["area"] == 320


def test_flags(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save(picture(1), source / "a.png")
    flagged = [box_entry(1, 1), box_entry(2, 1, (0, 0, 9, 9), category=2), box_entry(3, 1, (5, 5, 9, 9), ignore=1)]
    flagged[1]["iscrowd"] = 1
    write_json(source / "train.json", [image_entry(1, "a.png")], flagged)
    said = {to: list(convert(source, tmp_path / to, to=to).lines) for to in TARGETS}
    assert said["coco"] == [] and said["voc"] == ["1 crowd boxes are marked difficult, as VOC has no crowds"]
    assert said["yolo"] == [
        "data.yaml has no val, which ultralytics asks for",
        "2 crowd or ignored boxes left out, as YOLO cannot mark them",
    ]
    assert said["jsonl"] == ["2 crowd or ignored boxes left out, as JSON lines cannot mark them"]
    for to, crowd, ignore in (("coco", [0, 1, 0], [0, 0, 1]), ("voc", [0, 0, 0], [0, 1, 1]), ("yolo", [0], [0])):
        (sample,) = read_dataset(tmp_path / to).splits["train"]
        assert sample.crowd.tolist() == crowd and sample.ignore.tolist() == ignore


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_turned_pictures_are_written_upright(tmp_path: Path, to: str, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(picture(3), tmp_path / "source" / f"a{suffix}", exif=exif)
    save(picture(4), tmp_path / "source" / "b.png")
    write_json(
        source.parent / "train.json",
        [image_entry(1, source.name, (48, 64)), image_entry(2, "b.png")],
        [box_entry(1, 1)],
    )
    done = convert(source.parent, tmp_path / "out", to=to)
    assert "1 images that EXIF turns were written upright" in done.lines
    written = read_dataset(tmp_path / "out").splits["train"][0]
    assert written.size_wh == (48, 64) and np.allclose(written.boxes.xyxy_px, [[8, 6, 28, 22]], rtol=0, atol=1e-5)
    assert written.image.name == ("a.png" if suffix == ".webp" else source.name)
    with Image.open(written.image) as stored:
        assert stored.size == (48, 64) and not stored.getexif()
    difference = np.abs(np.asarray(open_image(written.image), int) - np.asarray(open_image(source), int))
    assert difference.mean() < (3 if suffix == ".jpg" else 0.01)


def test_names_that_differ_in_suffix_or_case(tmp_path: Path) -> None:
    source = tmp_path / "source"
    names = ["a.png", "a.jpg", "sub/A.png", "a-2.png"]
    for number, name in enumerate(names):
        save(picture(number), source / name)
    boxes = [box_entry(number, number, (number, 0, 5, 5)) for number in range(4)]
    write_json(source / "train.json", [image_entry(number, name) for number, name in enumerate(names)], boxes)
    done = convert(source, tmp_path / "out", to="yolo")
    assert "images with another name, since two had the same: 3 (a.jpg -> a-2.jpg, A.png -> A-3.png" in done.lines[1]
    same(read_dataset(source), read_dataset(tmp_path / "out"), 1e-4)


def test_links(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    done = convert(source, tmp_path / "out", to="coco", link=True)
    assert done.lines == ["4 images linked, 0 copied"]
    assert os.path.samefile(source / "valid" / "a.png", tmp_path / "out" / "valid" / "a.png")


def test_links_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr(os, "link", refuse)
    done = convert(write_set(tmp_path / "source"), tmp_path / "out", to="coco", link=True)
    assert done.lines == ["0 images linked, 4 copied"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out", to="coco")
    with pytest.raises(DataError, match=r"out is not empty"):
        convert(source, tmp_path / "out", to="yolo")
    with pytest.raises(DataError, match=r"a\.png is there already"):
        convert(source, source / "train" / "a.png", to="yolo")
    with pytest.raises(ConfigError, match=r"cannot write 'pascal'[\s\S]*coco, yolo, voc, jsonl"):
        convert(source, tmp_path / "new", to="pascal")
    (tmp_path / ".new.part").mkdir()
    with pytest.raises(DataError, match=r"left from a conversion that was cut off"):
        convert(source, tmp_path / "new", to="coco")


def test_a_fault_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write_set(tmp_path / "source")
    content = json.loads((source / "train" / "_annotations.coco.json").read_text(encoding="utf-8"))
    content["categories"][0]["name"] = "cat\x07"
    (source / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"the class name 'cat\\x07' does not survive XML"):
        convert(source, tmp_path / "out", to="voc")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    (source / "valid" / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images of the valid split cannot be used"):
        convert(source, tmp_path / "out", to="coco")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_set(tmp_path / "source")
    assert main(["convert", str(source), str(tmp_path / "a"), "--to", "yolo"]) == 0
    assert main(["convert", str(source), str(tmp_path / "b"), "format=voc", "link=true"]) == 0
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "c"), "to=coco", "format=yolo"]) == 0
    shown = capsys.readouterr().out
    assert f"{tmp_path / 'a'}: yolo" in shown and "4 images linked" in shown
    assert read_dataset(tmp_path / "c").format == "coco" and read_dataset(tmp_path / "b").format == "voc"
    assert main(["convert", str(source), str(tmp_path / "d")]) == 2
    assert main(["convert", str(source), str(tmp_path / "a"), "--to", "coco"]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_real_formats(shared_data: Path, tmp_path: Path) -> None:
    """From one format to another, from files of real tools."""
    for case, to in (
        ("cvat_xml", "yolo"),
        ("yolo_darknet", "voc"),
        ("labelme_paths", "coco"),
        ("roboflow_yolo", "coco"),
    ):
        source = shared_data / "formats" / case
        convert(source, tmp_path / case, to=to)
        same(read_dataset(source), read_dataset(tmp_path / case), 1e-3)
