"""The contact sheets show the images that matter, and an image that cannot be opened does not stop them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data import Dataset, Sample, inspect_dataset
from boxtune.data.inspection import Inspection
from boxtune.errors import ConfigError, Finding
from boxtune.pictures import TRUTH
from boxtune.report import sheet as sheets_of
from boxtune.report import write_sheets

Box = tuple[str, float, float, float, float]


def inspected(folder: Path, rows: list[list[Box]], *findings: Finding) -> Inspection:
    """Grey pictures of 800 x 600 with these boxes, the last two in `valid`."""
    samples = []
    for place, boxes in enumerate(rows):
        path = folder / f"{place}.png"
        Image.new("RGB", (800, 600), (120, 120, 120)).save(path)
        truth = Boxes(
            xyxy_px=np.array([box[1:] for box in boxes], dtype=np.float64).reshape(-1, 4),
            labels=tuple(box[0] for box in boxes),
        )
        no = np.zeros(len(boxes), dtype=bool)
        samples.append(Sample(image=path, image_id=place, size_wh=(800, 600), boxes=truth, crowd=no, ignore=no))
    names = dict.fromkeys(box[0] for boxes in rows for box in boxes)
    splits = {"train": samples[:-2], "valid": samples[-2:]}
    dataset = Dataset(path=folder, format="coco", why="", classes=tuple(names), splits=splits, findings=findings)
    return inspect_dataset(dataset)


ROWS: list[list[Box]] = [
    [("cat", 10, 10, 300, 300), ("dog", 50, 50, 99, 99), ("dog", 300, 300, 380, 380)],
    [("cat", 100, 100, 110, 112)],
    [],
    [("cat", 0, 0, 800, 600)],
    [],
]


def captions(
    monkeypatch: pytest.MonkeyPatch, inspection: Inspection, folder: Path, **more: int
) -> dict[str, list[str]]:
    """What stands above each picture of each sheet."""
    told: list[str] = []
    drawn: dict[str, list[str]] = {}
    draw, sheet = sheets_of.draw_boxes, sheets_of.contact_sheet

    def note(*args: object, caption: str, **options: object) -> Image.Image:
        told.append(caption)
        return draw(*args, caption=caption, **options)  # type: ignore[arg-type]

    def lay(images: list[Image.Image], **options: object) -> Image.Image:
        drawn[str(options["title"])], told[:] = list(told), []
        return sheet(images, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sheets_of, "draw_boxes", note)
    monkeypatch.setattr(sheets_of, "contact_sheet", lay)
    names = [path.stem for path in write_sheets(folder, inspection, **more)]
    return dict(zip(names, drawn.values(), strict=True))


def test_every_sheet_shows_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(check="box.odd", level="warn", seen="odd boxes: 1 (3.png annotation 7)")
    quiet = Finding(check="box.fine", level="ok", seen="fine: 0.png")
    shown = captions(monkeypatch, inspected(tmp_path, ROWS, finding, quiet), tmp_path / "sheets" / "deep")
    assert shown == {
        "smallest": [
            "cat 10 x 12 px, 1.png (train)",
            "dog 49 x 49 px, 0.png (train)",
            "cat 800 x 600 px, 3.png (valid)",
        ],
        "largest": ["cat 100%, 3.png (valid)", "cat 18%, 0.png (train)", "cat 0%, 1.png (train)"],
        "crowded": ["0.png (train)", "1.png (train)", "3.png (valid)"],
        "negatives": ["2.png (train)", "4.png (valid)"],
        "classes": ["cat (3 boxes)", "dog (2 boxes)"],
        "findings": ["3.png (valid) box.odd"],
    }
    assert {path.name for path in (tmp_path / "sheets" / "deep").iterdir()} == {f"{name}.jpg" for name in shown}


def test_only_so_many_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[Box]] = [[("cat", 0, 0, 10 + i, 10 + i)] if i % 2 else [] for i in range(20)]
    shown = captions(monkeypatch, inspected(tmp_path, rows), tmp_path / "sheets", num_each=4)
    assert {name: len(told) for name, told in shown.items()} == {
        "smallest": 4,
        "largest": 4,
        "crowded": 2,
        "negatives": 4,
        "classes": 1,
    }
    assert [told.split(".")[0] for told in shown["negatives"]] == ["0", "6", "12", "18"]


def test_small_boxes_are_cut_out_and_enlarged(tmp_path: Path) -> None:
    """The box of 10 x 12 px stands in a window of 96 px, which is drawn 3.75 times as large."""
    sheet = write_sheets(tmp_path / "sheets", inspected(tmp_path, ROWS), num_each=1)[0]
    with Image.open(sheet) as image:
        assert sheet.name == "smallest.jpg" and image.width == 360 + 2 * 9
        green = np.abs(np.asarray(image).astype(int) - TRUTH).max(axis=2) < 60
    rows, columns = (np.flatnonzero(green[40:].any(axis=axis)) for axis in (1, 0))
    assert rows[-1] - rows[0] >= 40 and columns[-1] - columns[0] >= 35


def test_names_stand_alone() -> None:
    assert sheets_of._stands_alone("1.png", "left out: 1.png is broken")
    assert not sheets_of._stands_alone("1.png", "left out: 11.png is broken")
    assert sheets_of._stands_alone("1.png", "left out: 11.png, sub/1.png.")
    assert not sheets_of._stands_alone("1.png", "a-1.png")


def test_broken_image_is_a_grey_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspection = inspected(tmp_path, ROWS)
    (tmp_path / "3.png").write_text("no image")
    shown = captions(monkeypatch, inspection, tmp_path / "sheets")
    assert "is not an image that can be read" in shown["largest"][0] and len(shown["crowded"]) == 3


def test_nothing_to_show(tmp_path: Path) -> None:
    empty = Dataset(path=tmp_path, format="coco", why="", classes=(), splits={"train": []})
    assert write_sheets(tmp_path / "sheets", inspect_dataset(empty)) == []


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="file in the way"):
        write_sheets(tmp_path / "file", inspected(tmp_path, ROWS))
