"""Label Studio's regions: what they draw, and the box around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.labelstudio_regions import decode_brush
from boxtune.errors import DataError

from .labelstudio_cases import CORNERS, annotation, item, task
from .tool_cases import boxes, finding, pictures, put, read


def read_items(folder: Path, *items: Any) -> Any:
    pictures(folder, "a.png")
    put(folder / "export.json", [task(1, "a.png", annotation(*items))])
    return read(folder, "labelstudio")


def shape(kind: str, label: str = "cat", **value: Any) -> dict[str, Any]:
    one = item(label)
    return {**one, "id": kind, "type": f"{kind}labels", "value": {**value, f"{kind}labels": [label]}}


def test_turned_around_the_upper_left_corner(tmp_path: Path) -> None:
    # 25 %, 25 % is (16, 12); 50 % and 25 % are 32 px and 12 px; a quarter turn clockwise swings it to the left.
    dataset = read_items(tmp_path, item(rotation=90), item("dog", rotation=360))
    assert boxes(dataset)["a.png"] == [("cat", [4, 12, 16, 44]), ("dog", CORNERS)]
    found = finding(dataset, "labelstudio.hull")
    assert found is not None and ": 1 (task 1 region 'r25cat' (rectangle))" in found.seen


def test_an_angle_between(tmp_path: Path) -> None:
    half = 2**-0.5
    dataset = read_items(tmp_path, item(rotation=45, x=50, y=0, width=25, height=25))
    wanted = [32 - 12 * half, 0, 32 + 16 * half, 28 * half]
    np.testing.assert_allclose(boxes(dataset)["a.png"][0][1], wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("drawn", "corners"),
    [
        (shape("polygon", points=[[25, 25], [75, 30], [40, 50]], closed=True), CORNERS),
        (shape("ellipse", x=50, y=37.5, radiusX=25, radiusY=12.5, rotation=0), CORNERS),
        (shape("ellipse", x=50, y=50, radiusX=25, radiusY=12.5, rotation=90), [26, 8, 38, 40]),
    ],
)
def test_hulls(tmp_path: Path, drawn: dict[str, Any], corners: list[float]) -> None:
    dataset = read_items(tmp_path, drawn)
    assert boxes(dataset)["a.png"] == [("cat", corners)] and finding(dataset, "labelstudio.hull") is not None


def test_what_is_no_box_is_counted(tmp_path: Path) -> None:
    drawn = [
        shape("keypoint", x=1, y=2, width=0.5),
        shape("bitmask", imageDataURL="data:image/png;base64,"),
        shape("vector", vertices=[]),
        shape("polygon", points=[[1, 2], [3, 4]], closed=False),
        item(),
    ]
    dataset = read_items(tmp_path, *drawn)
    assert boxes(dataset)["a.png"] == [("cat", CORNERS)]
    found = finding(dataset, "labelstudio.no_box")
    assert found is not None and ": 4 (task 1 region 'keypoint' (keypoint)" in found.seen


def test_labels_apart_from_the_shape(tmp_path: Path) -> None:
    """The <Labels> and <Rectangle> tags, and a choice made for a region, are items of one id."""
    bare = item()
    value = {key: number for key, number in bare["value"].items() if key != "rectanglelabels"}
    rectangle = {**bare, "id": "r", "type": "rectangle", "from_name": "bbox", "value": value}
    labels = {**rectangle, "type": "labels", "value": {**value, "labels": ["cat"]}}
    text = {**rectangle, "type": "textarea", "value": {**value, "text": ["hello"]}}
    chosen = {**rectangle, "type": "choices", "value": {**value, "choices": ["dog"]}}
    assert boxes(read_items(tmp_path, rectangle, labels, text))["a.png"] == [("cat", CORNERS)]
    assert boxes(read_items(tmp_path, text, rectangle, chosen))["a.png"] == [("dog", CORNERS)]
    assert boxes(read_items(tmp_path, chosen, labels, rectangle))["a.png"] == [("cat", CORNERS)]
    dataset = read_items(tmp_path, rectangle, text, {"id": "w", "type": "choices", "value": {"choices": ["sharp"]}})
    assert boxes(dataset)["a.png"] == []
    found = finding(dataset, "labelstudio.unlabelled")
    assert found is not None and ": 1 (task 1 region 'r')" in found.seen


def test_several_labels(tmp_path: Path) -> None:
    dataset = read_items(tmp_path, item(["cat", "dog"]))
    assert boxes(dataset)["a.png"] == [("cat", CORNERS), ("dog", CORNERS)]
    found = finding(dataset, "labelstudio.several_labels")
    assert found is not None and "(cat, dog)" in found.seen


def test_broken_regions_are_named(tmp_path: Path) -> None:
    unsized = {key: value for key, value in item(rotation=5).items() if not key.startswith("original")}
    broken = [
        {**item(x="wide"), "id": "a"},
        {**unsized, "id": "b"},
        {**shape("polygon", points=[]), "id": "c"},
        {**shape("rectangle"), "id": "d"},
    ]
    with pytest.raises(DataError) as caught:
        read_items(tmp_path, *broken)
    assert "cannot be read: 4 (task 1 region 'a' lacks a number of x, y, width, height" in caught.value.what
    assert "region 'b' is turned, but lacks original_width" in caught.value.what
    assert "region 'c' has no list of points x, y and 1 more" in caught.value.what


def encode(values: np.ndarray, lengths: tuple[int, int, int, int] = (3, 4, 8, 16)) -> list[int]:
    """Bytes of a brush as the drawing tool packs them: runs of a repeated value, and one run of different ones."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{length - 1:04b}" for length in lengths)
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and values[at + run] == values[at] and run < 2 ** lengths[3]:
            run += 1
        if run > 1:
            bits += f"1{3:02b}{run - 1:0{lengths[3]}b}{values[at]:08b}"
        else:
            run = min(2, len(values) - at)
            bits += f"0{0:02b}{run - 1:0{lengths[0]}b}" + "".join(f"{value:08b}" for value in values[at : at + run])
        at += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def brush(rle: Any) -> dict[str, Any]:
    return shape("brush", format="rle", rle=rle)


def test_a_brush_is_taken_by_its_hull(tmp_path: Path) -> None:
    mask = np.zeros((48, 64, 4), dtype=np.uint8)
    mask[12:24, 16:48] = (10, 20, 30, 255)
    mask[20, 20] = (1, 2, 3, 0)
    dataset = read_items(tmp_path, brush(encode(mask.ravel())))
    assert boxes(dataset)["a.png"] == [("cat", CORNERS)]
    found = finding(dataset, "labelstudio.hull")
    assert found is not None and "(brush)" in found.seen


def test_decode_brush_gives_the_values_back() -> None:
    values = np.random.default_rng(1).integers(0, 3, 4000).astype(np.uint8)
    assert (decode_brush(np.array(encode(values), dtype=np.uint8), 4000) == (values > 0)).all()


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (encode(np.zeros(64 * 48 * 4, dtype=np.uint8)), "paints nothing"),
        (encode(np.ones(10, dtype=np.uint8)), "is a brush of another size"),
        (encode(np.ones(64 * 48 * 4, dtype=np.uint8))[:9], "whose bytes are cut off"),
        ([1, 2, 300], "without a list of bytes"),
        ("text", "without a list of bytes"),
    ],
)
def test_broken_brushes(tmp_path: Path, rle: Any, message: str) -> None:
    pictures(tmp_path, "a.png")
    put(tmp_path / "export.json", [task(1, "a.png", annotation(brush(rle)))])
    with pytest.raises(DataError, match=message):
        read_dataset(tmp_path)
