"""Boxes come out on the upright picture, whichever picture they were drawn on: proved by the pixels under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data import Dataset, Sample, SampleTable, as_table, leave_out_broken, open_image, read_dataset
from boxtune.data.frames import AskedFrame, turn_upright
from boxtune.errors import DataError

from .cases import box_entry, find, image_entry, picture, read_coco, save, write_json

RED = (255, 0, 0)
STORED_WH = (60, 40)
TURNS = range(1, 9)
XYXY = (7, 5, 30, 12)
"""The red rectangle in the stored picture: off the middle, so that every turn moves it elsewhere."""


def write_turned(folder: Path, turn: int, size_wh: tuple[int, int] = STORED_WH) -> Path:
    """A grey picture with a red rectangle at XYXY, stored as it is and marked with an EXIF orientation."""
    image = Image.new("RGB", size_wh, (90, 90, 90))
    image.paste(RED, XYXY)
    exif = image.getexif()
    exif[0x0112] = turn
    return save(image, folder / f"turn{turn}_{size_wh[0]}.png", exif=exif)


def red_box(path: Path) -> list[int]:
    """The corners of what is red in the upright picture."""
    red = (np.asarray(open_image(path)) == RED).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert red.sum() == (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0]) == 23 * 7
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def write_set(folder: Path, paths: Sequence[Path], stored: Sequence[bool]) -> Path:
    """A COCO file whose sizes and boxes are those of the stored picture, or of the upright one."""
    images, boxes = [], []
    for place, (path, in_stored) in enumerate(zip(paths, stored, strict=True)):
        with Image.open(path) as image:
            size_wh = image.size if in_stored else open_image(path).size
        x1, y1, x2, y2 = XYXY if in_stored else red_box(path)
        images.append(image_entry(place, path.name, size_wh))
        boxes.append(box_entry(place, place, (x1, y1, x2 - x1, y2 - y1)))
    return write_json(folder / "truth.json", images, boxes)


def check_all(dataset: Dataset, num: int) -> None:
    samples = dataset.splits["train"]
    assert len(samples) == num
    for sample in samples:
        assert sample.boxes.xyxy_px.tolist() == [red_box(sample.image)], sample.image.name
        assert sample.size_wh == open_image(sample.image).size


def as_shares(dataset: Dataset) -> Dataset:
    table = dataset.splits["train"]
    assert isinstance(table, SampleTable)
    return dataset.with_splits({"train": replace(table, relative=True)})


@pytest.mark.parametrize("stored", [True, False])
def test_every_turn_in_both_frames(tmp_path: Path, stored: bool) -> None:
    """The quarter turns tell the frame; the mirrored pictures and the square ones follow."""
    paths = [write_turned(tmp_path, turn) for turn in TURNS]
    paths += [write_turned(tmp_path, turn, (50, 50)) for turn in TURNS]
    read = read_coco(write_set(tmp_path, paths, [stored] * 16))
    assert len({tuple(red_box(path)) for path in paths[:8]}) == 8  # no two turns agree
    dataset = leave_out_broken(read)
    check_all(dataset, 16)
    finding = find(dataset, "image.exif_turned")
    assert finding is not None and finding.seen.startswith("14 images are turned by EXIF; ")
    assert finding.level == ("warn" if stored else "ok")
    assert ("sizes of 4 show, and were turned" if stored else "upright picture, as declared sizes of 4") in finding.seen


@pytest.mark.parametrize("turn", TURNS)
def test_turn_upright(turn: int) -> None:
    """A corner of the picture stays a corner, and twice the way of a half turn is where it began."""
    boxes = np.array([XYXY, (0, 0, 60, 40), (0, 0, 1.5, 0.25)], dtype=np.float64)
    turns = np.full(3, turn)
    wh = np.tile(np.array(STORED_WH, dtype=np.float64), (3, 1))
    turned = turn_upright(boxes, wh, turns)
    assert turned[1].tolist() == ([0, 0, 40, 60] if turn >= 5 else [0, 0, 60, 40])
    assert np.isin(turned[2], [0, 1.5, 0.25, 60, 58.5, 59.75, 40, 39.75, 38.5]).all()
    there_and_back = {6: 8, 8: 6}.get(turn, turn)
    wh = wh[:, ::-1] if turn >= 5 else wh
    assert (turn_upright(turned, wh, np.full(3, there_and_back)) == boxes).all()


def test_no_evidence_is_asked_for(tmp_path: Path) -> None:
    paths = [write_turned(tmp_path, turn) for turn in (1, 2, 3, 4)] + [write_turned(tmp_path, 6, (50, 50))]
    read = read_coco(write_set(tmp_path, paths, [True] * 5))
    unasked = leave_out_broken(read)
    finding = find(unasked, "image.exif_turned")
    assert finding is not None and finding.level == "cannot_tell" and finding.seen.startswith("4 images")
    assert "data.frame=upright or data.frame=stored" in finding.fix
    assert [sample.boxes.xyxy_px.tolist() for sample in unasked.splits["train"]] == [[list(XYXY)]] * 5
    asked = leave_out_broken(read, frame="stored")
    check_all(asked, 5)
    for dataset in (asked, leave_out_broken(read, frame="upright")):
        finding = find(dataset, "image.exif_turned")
        assert finding is not None and finding.level == "ok" and "asks" in finding.seen


def test_without_turned_pictures_nothing_is_said(tmp_path: Path) -> None:
    frames: tuple[AskedFrame, ...] = ("auto", "upright", "stored")
    for frame in frames:
        dataset = leave_out_broken(read_coco(write_set(tmp_path, [write_turned(tmp_path, 1)], [True])), frame=frame)
        assert find(dataset, "image.exif_turned") is None and find(dataset, "image.size_scaled") is None
        check_all(dataset, 1)


def test_disagreement(tmp_path: Path) -> None:
    """Each is taken as its own size says; the mirrored one is taken as upright, and the question is asked."""
    paths = [write_turned(tmp_path, turn) for turn in (5, 6, 7, 8, 3)]
    dataset = leave_out_broken(read_coco(write_set(tmp_path, paths, [True, True, False, False, False])))
    check_all(dataset, 5)
    finding = find(dataset, "image.exif_turned")
    assert finding is not None and finding.level == "warn" and "data.frame=stored" in finding.fix
    assert "2 declare the size of the upright picture and 2 that of the stored one" in finding.seen


def test_asked_frame_against_the_sizes(tmp_path: Path) -> None:
    """Sizes read without EXIF, boxes drawn on what a browser shows: only the user can know."""
    path = write_turned(tmp_path, 6)
    xyxy = red_box(path)
    assert xyxy == [28, 7, 35, 30]
    boxes = [box_entry(1, 0, (28, 7, 7, 23)), box_entry(2, 0, (10, 20, 20, 35))]
    read = read_coco(write_json(tmp_path / "truth.json", [image_entry(0, path.name, STORED_WH)], boxes))
    dataset = leave_out_broken(read, frame="upright")
    sample = dataset.splits["train"][0]
    assert sample.size_wh == (40, 60) and sample.boxes.xyxy_px[0].tolist() == xyxy
    finding = find(dataset, "image.exif_turned")
    assert finding is not None and finding.level == "warn" and "upright sizes" in finding.fix
    assert "the sizes of 1 say otherwise, and 1 boxes that end with them may be cut" in finding.seen


def test_shares_follow_the_real_size(tmp_path: Path) -> None:
    """Annotated as shares of the sides: another declared size is no error, in either frame."""
    paths = [write_turned(tmp_path, turn) for turn in (1, 6)]
    for number, stored in enumerate((True, False)):
        truth = write_set(tmp_path, paths, [stored] * 2)
        table = as_table(read_coco(truth).splits["train"])
        doubled = replace(table, sizes_wh=table.sizes_wh * [[2, 4], [1, 1]], relative=True)
        doubled.xyxy_px[0] *= [2, 4, 2, 4]
        dataset = leave_out_broken(read_coco(truth).with_splits({"train": doubled}))
        check_all(dataset, 2)
        finding = find(dataset, "image.size_scaled")
        assert finding is not None and finding.level == "warn" and "1 (turn1_60.png)" in finding.seen, number


def test_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    truth = write_json(tmp_path / "truth.json", [image_entry(0, "a.png", (30, 20))], [box_entry(1, 0, (1, 1, 9, 9))])
    save(picture(1, STORED_WH), tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is 60 x 40 but declared as 30 x 20"):
        leave_out_broken(read_coco(truth))
    sound = leave_out_broken(as_shares(read_coco(truth)))
    assert sound.splits["train"][0].boxes.xyxy_px.tolist() == [[2, 2, 20, 20]]


def test_measured_sizes_are_no_evidence(tmp_path: Path) -> None:
    """A size that reading took from the file equals the upright one, whatever frame the boxes are in."""
    path = write_turned(tmp_path, 6)
    entry = {"id": 0, "file_name": path.name}
    truth = write_json(tmp_path / "truth.json", [entry], [box_entry(1, 0, (7, 5, 23, 7))])
    finding = find(leave_out_broken(read_coco(truth)), "image.exif_turned")
    assert finding is not None and finding.level == "cannot_tell"
    check_all(leave_out_broken(read_coco(truth), frame="stored"), 1)
    table = as_table(read_coco(truth).splits["train"])
    assert table.measured is not None and table.measured.tolist() == [True] and table.take([0, 0]).measured is not None


def test_shares_without_a_declared_size(tmp_path: Path) -> None:
    """As YOLO annotates: shares of the stored sides, put into pixels with the size of the upright file."""
    paths = [write_turned(tmp_path, turn) for turn in TURNS]
    truth = write_set(tmp_path, paths, [True] * 8)
    table = as_table(read_coco(truth).splits["train"])
    upright = np.array([open_image(path).size for path in paths])
    shares = table.xyxy_px / np.tile(STORED_WH, 2) * np.tile(upright, 2)
    table = replace(table, sizes_wh=upright, xyxy_px=shares, relative=True, measured=np.ones(8, dtype=bool))
    dataset = leave_out_broken(read_coco(truth).with_splits({"train": table}), frame="stored")
    for sample in dataset.splits["train"]:
        assert np.abs(sample.boxes.xyxy_px - red_box(sample.image)).max() < 1e-9
    finding = find(dataset, "image.exif_turned")
    assert finding is not None and finding.level == "ok" and find(dataset, "image.size_scaled") is None


def test_crowd_flags_and_order_stay(tmp_path: Path) -> None:
    path = write_turned(tmp_path, 8)
    boxes = [box_entry(1, 0, (0, 0, 5, 5), iscrowd=1), box_entry(2, 0, (7, 5, 23, 7), category=2)]
    truth = write_json(tmp_path / "truth.json", [image_entry(0, path.name, STORED_WH)], boxes)
    sample = leave_out_broken(read_coco(truth)).splits["train"][0]
    assert sample.crowd.tolist() == [True, False] and sample.boxes.labels == ("cat", "dog")
    assert sample.boxes.xyxy_px.tolist() == [[0, 55, 5, 60], red_box(path)]


def test_samples_without_a_table(tmp_path: Path) -> None:
    path, no = write_turned(tmp_path, 6), np.zeros(1, dtype=bool)
    boxes = Boxes(xyxy_px=np.array([XYXY], dtype=np.float64), labels=("cat",))
    sample = Sample(image=path, image_id=0, size_wh=STORED_WH, boxes=boxes, crowd=no, ignore=no)
    dataset = Dataset(path=tmp_path, format="coco", why="", classes=("cat",), splits={"train": [sample]})
    check_all(leave_out_broken(dataset), 1)
    upright = replace(sample, size_wh=(40, 60), boxes=Boxes(xyxy_px=np.array([[28.0, 7, 35, 30]]), labels=("cat",)))
    kept = [upright]
    assert leave_out_broken(dataset.with_splits({"train": kept})).splits["train"] is kept


def test_real_pictures_in_both_frames(shared_data: Path) -> None:
    """The same objects annotated on the displayed and on the stored picture give the same boxes."""
    folder = shared_data / "quirks" / "exif"
    shown, stored = (
        leave_out_broken(read_dataset(folder / name), open_all=True)
        for name in ("_annotations.coco.json", "_annotations.stored.coco.json")
    )
    levels = [find(dataset, "image.exif_turned") for dataset in (shown, stored)]
    assert [one.level for one in levels if one is not None] == ["ok", "warn"]
    num_boxes = 0
    for left, right in zip(shown.splits["train"], stored.splits["train"], strict=True):
        assert left.image == right.image and left.size_wh == right.size_wh == open_image(left.image).size
        assert left.boxes.labels == right.boxes.labels
        assert np.abs(left.boxes.xyxy_px - right.boxes.xyxy_px).max() < 1e-6, left.image.name
        num_boxes += len(left.boxes)
    assert num_boxes == 90
