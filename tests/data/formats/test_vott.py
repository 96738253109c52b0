"""VoTT: exports, and the files that it keeps for each image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.vott import sniff_vott
from boxtune.errors import DataError

from .tool_cases import boxes, finding, pictures, put, raw_of, read

CORNERS = [10.0, 5.0, 30.0, 25.0]


def region(*tags: Any, kind: str = "RECTANGLE", box: Any = (10, 5, 20, 20), **more: Any) -> dict[str, Any]:
    sides = dict(zip(("left", "top", "width", "height"), box, strict=True)) if box is not None else None
    bounding = {"boundingBox": sides} if sides is not None else {}
    return {"id": "x", "type": kind, "tags": list(tags), **bounding, **more}


def asset(name: Any, *regions: Any, state: int = 2, **more: Any) -> dict[str, Any]:
    size = {"width": 64, "height": 48}
    details = {"format": "jpg", "id": "1", "name": name, "path": f"file:/home/me/{name}", "size": size, "state": state}
    return {"asset": {**details, "type": 1, **more}, "regions": list(regions), "version": "2.2.0"}


def export(*assets: Any) -> dict[str, Any]:
    tags = [{"name": name, "color": "#5db300"} for name in ("dog", "cat")]
    return {"name": "p", "videoSettings": {}, "tags": tags, "assets": {str(i): one for i, one in enumerate(assets)}}


def test_an_export_with_tags_and_a_negative(tmp_path: Path) -> None:
    home = pictures(tmp_path / "vott-json-export", "a.jpg", "b.jpg")
    file = put(home / "p-export.json", export(asset("a.jpg", region("cat"), region("cat", "dog")), asset("b.jpg")))
    for path in (tmp_path, home, file):
        dataset = read(path, "vott")
        assert boxes(dataset) == {"a.jpg": [("cat", CORNERS), ("cat", CORNERS), ("dog", CORNERS)], "b.jpg": []}
        assert dataset.classes == ("dog", "cat")
        found = finding(dataset, "vott.several_tags")
        assert found is not None and "a.jpg region 1 (cat, dog)" in found.seen


def test_files_for_each_image(tmp_path: Path) -> None:
    pictures(tmp_path, "a b.jpg", "c.jpg")
    put(tmp_path / "1-asset.json", asset("a%20b.jpg", region("cat")))
    put(tmp_path / "2-asset.json", asset("c.jpg", region("dog")))
    put(tmp_path / "p.vott", {"name": "p", "assets": {}})
    dataset = read(tmp_path, "vott")
    assert boxes(dataset) == {"a b.jpg": [("cat", CORNERS)], "c.jpg": [("dog", CORNERS)]}
    assert boxes(read(tmp_path / "2-asset.json", "vott")) == {"c.jpg": [("dog", CORNERS)]}
    for name in ("1-asset.json", "2-asset.json"):
        (tmp_path / "valid").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "valid" / name)
    (tmp_path / "c.jpg").rename(tmp_path / "valid" / "c.jpg")
    assert list(read(tmp_path, "vott").splits) == ["valid"]


def test_shapes_other_than_boxes(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    points = [{"x": 10, "y": 5}, {"x": 30, "y": 10}, {"x": 20, "y": 25}]
    shapes = [
        region("cat", kind="POLYGON"),
        region("cat", kind="POLYGON", box=None, points=points),
        region("cat", kind="SQUARE"),
        region("cat", kind="POINT", box=None),
        region("cat", kind="POLYLINE"),
    ]
    put(tmp_path / "e.json", export(asset("a.jpg", *shapes)))
    dataset = read(tmp_path, "vott")
    assert boxes(dataset) == {"a.jpg": [("cat", CORNERS)] * 3}
    hull, no_box = finding(dataset, "vott.hull"), finding(dataset, "vott.no_box")
    assert hull is not None and ": 2 (a.jpg region 0, a.jpg region 1)" in hull.seen
    assert no_box is not None and ": 2 (a.jpg region 3 (point), a.jpg region 4 (polyline))" in no_box.seen


def test_untagged_and_not_looked_at(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    put(tmp_path / "e.json", export(asset("a.jpg", region(), region("cat")), asset("b.jpg", state=0)))
    dataset = read(tmp_path, "vott")
    assert boxes(dataset) == {"a.jpg": [("cat", CORNERS)]}
    unlabelled, unseen = finding(dataset, "vott.unlabelled"), finding(dataset, "vott.not_visited")
    assert unlabelled is not None and ": 1 (a.jpg region 0)" in unlabelled.seen
    assert unseen is not None and ": 1 (b.jpg)" in unseen.seen
    put(tmp_path / "e.json", export(asset("a.jpg", region("cat")), asset("b.jpg", state=1)))
    sound = read(tmp_path, "vott")
    assert {one.check for one in sound.findings if one.check.startswith("vott")} == set() and len(boxes(sound)) == 2


def test_splits_by_file_name(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    put(tmp_path / "train-export.json", export(asset("a.jpg", region("cat"))))
    put(tmp_path / "val-export.json", export(asset("b.jpg", region("dog"))))
    assert list(read(tmp_path, "vott").splits) == ["train", "valid"]


def test_videos_are_no_images(tmp_path: Path) -> None:
    pictures(tmp_path, "v.mp4#t=1.jpg")
    put(tmp_path / "e.json", export(asset("v.mp4", type=2), asset("v.mp4#t=1.jpg", region("cat"), type=3)))
    assert list(boxes(read(tmp_path, "vott"))) == ["v.mp4#t=1.jpg"]


def test_the_first_version(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    one = {"x1": 5, "y1": 2.5, "x2": 15, "y2": 12.5, "width": 32, "height": 24, "tags": ["cat"], "type": "Rectangle"}
    content = {"frames": {"a.jpg": [one], "b.jpg": []}, "framerate": "1", "inputTags": "cat", "scd": False}
    put(tmp_path / "pictures.json", content)
    assert boxes(read(tmp_path, "vott")) == {"a.jpg": [("cat", CORNERS)], "b.jpg": []}
    content["frames"] = {"a.jpg": [{**one, "width": None}]}
    put(tmp_path / "pictures.json", content)
    with pytest.raises(DataError, match=r"a\.jpg region 0 lacks a number of x1"):
        read_dataset(tmp_path)
    put(tmp_path / "pictures.json", {**content, "frames": {"a.jpg": None}})
    with pytest.raises(DataError, match=r"a\.jpg has no list of regions"):
        read_dataset(tmp_path)


def test_broken_entries_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    broken = [region("cat", box=(1, 2, "wide", 4)), region("cat", box=None), "region", region("cat")]
    put(tmp_path / "e.json", export(asset("a.jpg", *broken), asset("")))
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert "cannot be read: 4 (a.jpg region 0 has no boundingBox of four numbers" in caught.value.what
    assert "a.jpg region 2 is no object and 1 more" in caught.value.what
    put(tmp_path / "e.json", {"name": "p"})
    with pytest.raises(DataError, match="is JSON, without `assets`"):
        raw_of(tmp_path / "e.json", "vott")
    (tmp_path / "e.json").unlink()
    with pytest.raises(DataError, match="no VoTT file was found"):
        raw_of(tmp_path, "vott")


def test_the_sniffer_is_quiet_elsewhere(tmp_path: Path) -> None:
    assert sniff_vott(put(tmp_path / "a.json", {"images": [], "annotations": [], "categories": []})) is None
    assert sniff_vott(put(tmp_path / "b.json", {"assets": {"1": {"url": "x"}}})) is None
    assert sniff_vott(put(tmp_path / "c.json", [asset("a.jpg")])) is None
    assert sniff_vott(tmp_path) is None
