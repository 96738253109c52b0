"""LabelMe: shapes, splits, and the image that a file names or holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset, read_size
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from .made_sets import boxes_of, checks_of, counts_of, image, seen_of, write

XYXY = [8.0, 6.0, 28.5, 22.0]
POINTS = [[8, 6], [28.5, 22]]


def shape(points: Any = POINTS, kind: str | None = "rectangle", label: Any = "cat", **more: Any) -> dict[str, Any]:
    typed = {} if kind is None else {"shape_type": kind}
    return {"label": label, "points": points, "group_id": None, **typed, "flags": {}, **more}


def content(name: Any, *shapes: Any, **more: Any) -> str:
    whole = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": name, "imageData": None}
    return json.dumps({**whole, "imageHeight": 48, "imageWidth": 64, **more}, ensure_ascii=False)


def pair(folder: Path, *shapes: Any, stem: str = "a", **more: Any) -> Path:
    image(folder / f"{stem}.png")
    return write(folder / f"{stem}.json", content(f"{stem}.png", *shapes, **more))


@pytest.mark.parametrize(
    ("made", "xyxy", "check"),
    [
        (shape(), XYXY, None),
        (shape([[28.5, 6], [8, 22]]), XYXY, None),
        (shape([[28.5, 22], [8, 6]]), XYXY, None),
        (shape([[8, 6], [28.5, 6], [28.5, 22], [8, 22]]), XYXY, None),  # X-AnyLabeling
        (shape([[8, 10], [20, 6], [28.5, 22]], "polygon"), XYXY, "labelme.hull"),
        (shape([[8, 10], [20, 6], [28.5, 22]], None), XYXY, "labelme.hull"),
        (shape([[8, 10], [20, 6], [28.5, 12], [10, 22]], "rotation"), XYXY, "labelme.hull"),
        (shape([[20, 20], [23, 24]], "circle"), [15.0, 15.0, 25.0, 25.0], "labelme.hull"),
        (shape(POINTS, "mask", mask="iVBOR"), XYXY, "labelme.hull"),
        (shape(difficult=True), XYXY, "labelme.difficult"),
    ],
)
def test_shapes(tmp_path: Path, made: dict[str, Any], xyxy: list[float], check: str | None) -> None:
    pair(tmp_path, made)
    dataset = read_dataset(tmp_path)
    assert dataset.format == "labelme" and boxes_of(dataset) == {"a.png": [("cat", xyxy)]}
    assert set(checks_of(dataset)) == ({check} if check else set())
    (sample,) = dataset.splits["train"]
    assert sample.ignore.tolist() == [check == "labelme.difficult"]


def test_what_is_no_box_is_left_out(tmp_path: Path) -> None:
    others = [shape([[1, 2]], "point"), shape([[1, 2], [3, 4]], "line"), shape([[1, 2], [3, 4]], "linestrip")]
    pair(tmp_path, shape(), *others, shape(label=""), shape(label=None))
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset) == {"a.png": [("cat", XYXY)]}
    assert checks_of(dataset) == {"labelme.left_out": "warn", "labelme.unlabelled": "warn"}
    assert ": 3 (a.json shape 2 (cat) is a point" in seen_of(dataset, "labelme.left_out")


def test_groups_of_polygons(tmp_path: Path) -> None:
    left, right = [[0, 0], [4, 0], [4, 4]], [[20, 8], [24, 8], [24, 12]]
    parts = [shape(points, "polygon", group_id=7) for points in (left, right)]
    pair(tmp_path, *parts, shape(right, "polygon", group_id=8), shape(group_id=7), shape(group_id=7))
    dataset = read_dataset(tmp_path)
    boxes = [box for _, box in boxes_of(dataset)["a.png"]]
    assert boxes == [[0, 0, 24, 12], [20, 8, 24, 12], XYXY, XYXY]
    assert "1 (a.json (cat, group 7))" in seen_of(dataset, "labelme.grouped")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (content("a.png", shape([[8, 6]])), "a.json shape 1 (cat): a rectangle of 1 points"),
        (content("a.png", shape([[8, 6], [9, 9]], "polygon")), "a polygon of 2 points"),
        (content("a.png", shape([[8, 6], [9, None]])), "a point is [9, None]"),
        (content("a.png", shape(None)), "a rectangle of 0 points"),
        (content("a.png", shape([[8, 6], [float("nan"), 9]])), "a point is [nan, 9]"),
        (content("a.png", shape(), shape(), "x"), "a.json shape 3 is no object"),
        (content("a.png", shape())[:-4], "a.json is not JSON"),
    ],
)
def test_broken(tmp_path: Path, text: str, words: str) -> None:
    image(tmp_path / "a.png")
    write(tmp_path / "a.json", text)
    with pytest.raises(DataError, match=r"LabelMe files or shapes that cannot be used: 1") as caught:
        read_dataset(tmp_path, format="labelme")
    assert words in caught.value.what


@pytest.mark.parametrize(
    ("folder", "said", "there"),
    [
        (".", "a.png", "a.png"),
        ("annotations", "../images/größe #1.png", "images/größe #1.png"),
        ("annotations", "..\\images\\a.png", "images/a.png"),
        ("annotations", "C:\\Users\\me\\pictures\\a.png", "images/a.png"),
        ("annotations", "/home/me/b%20c.png", "images/b%20c.png"),
        ("json", "b%20c.png", "images/b c.png"),
        ("labels/train", "a.png", "images/train/a.png"),
        (".", "a.png", "images/a.png"),
    ],
)
def test_where_images_are(tmp_path: Path, folder: str, said: str, there: str) -> None:
    image(tmp_path / there)
    write(tmp_path / folder / "a.json", content(said, shape()))
    for path in (tmp_path, tmp_path / folder, tmp_path / folder / "a.json"):
        dataset = read_dataset(path)
        (sample,) = dataset.splits["train"]
        assert sample.image.resolve() == (tmp_path / there).resolve() and checks_of(dataset) == {}


def test_image_of_the_same_stem(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    write(tmp_path / "a.json", content("IMG_001.png", shape()))
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset) == {"a.jpg": [("cat", XYXY)]}
    assert "a.json says IMG_001.png, taken is a.jpg" in seen_of(dataset, "labelme.image_by_stem")


def test_image_in_the_file(tmp_path: Path) -> None:
    """Pictures that are not there as files are copied out into the cache, byte by byte."""
    picture = image(tmp_path / "elsewhere.png").read_bytes()
    folder = tmp_path / "set"
    data = base64.b64encode(picture).decode()
    write(folder / "a.json", content("a.png", shape(), imageData=data))
    dataset = read_dataset(folder)
    (sample,) = dataset.splits["train"]
    assert sample.image.read_bytes() == picture and read_size(sample.image) == (64, 48)
    assert sample.image.name == "a.png" and not sample.image.is_relative_to(tmp_path)
    assert "copied out unchanged: 1" in seen_of(dataset, "image.embedded")
    image(folder / "a.png")
    (sample,) = read_dataset(folder).splits["train"]
    assert sample.image == folder / "a.png"
    (folder / "a.png").unlink()
    write(folder / "a.json", content("a.png", shape(), imageData=data[:-2] + "!!"))
    with pytest.raises(DataError, match=r"imageData of a\.json is broken"):
        read_dataset(folder)


def test_size_unknown(tmp_path: Path) -> None:
    pair(tmp_path, shape(), imageWidth=None, imageHeight=0)
    (sample,) = read_dataset(tmp_path).splits["train"]
    assert sample.size_wh == (64, 48)


def test_splits_and_negatives(tmp_path: Path) -> None:
    pair(tmp_path / "train", shape())
    pair(tmp_path / "val", shape(), shape(label="dog"), stem="b")
    pair(tmp_path / "val", stem="negative")
    image(tmp_path / "val" / "unannotated.png")
    write(tmp_path / "val" / "other.json", '{"shapes": "none"}')
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1), "valid": (2, 2)} and checks_of(dataset) == {}
    pair(tmp_path, shape(), stem="stray")
    assert "1 (stray.json)" in seen_of(read_dataset(tmp_path), "labelme.outside_splits")


def test_sniffer(tmp_path: Path) -> None:
    long = base64.b64encode(bytes(100_000)).decode()
    first = json.dumps({"version": "3", "imageData": long, "imagePath": "a.png", "shapes": [shape()]})
    assert list(sniff(write(tmp_path / "first.json", first))) == ["labelme"]
    assert list(sniff(write(tmp_path / "last.json", content("a.png", shape(), imageData=long)))) == ["labelme"]
    many = content("a.png", *[shape([[i, i], [i + 1, i], [i, i + 1]], "polygon") for i in range(2000)])
    assert list(sniff(write(tmp_path / "many.json", many))) == ["labelme"]
    for text in ('{"regions": [], "asset": {}}', '[{"image": "a.png"}]', '{"images": [], "shapes": 3}', "{", "[1]"):
        assert "labelme" not in sniff(write(tmp_path / "other" / "x.json", text))
    with pytest.raises(DataError, match=r"no LabelMe file was found, only x\.json"):
        read_dataset(tmp_path / "other", format="labelme")
    with pytest.raises(DataError, match=r"x\.json has no list of shapes"):
        read_dataset(tmp_path / "other" / "x.json", format="labelme")
