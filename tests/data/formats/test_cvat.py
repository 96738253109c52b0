"""CVAT XML: for images and for video."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.errors import DataError

from .made_sets import boxes_of, checks_of, counts_of, image, seen_of, write

BOX = '<box label="cat" occluded="0" source="manual" xtl="8.00" ytl="6.00" xbr="28.50" ybr="22.00" z_order="0"></box>'
XYXY = [8.0, 6.0, 28.5, 22.0]
LABELS = "<labels><label><name>dog</name></label><label><name>cat</name></label></labels>"


def one(name: str, shapes: str = BOX, more: str = "") -> str:
    return f'<image id="0" name="{name}" width="64" height="48" {more}>{shapes}</image>'


def document(*parts: str, meta: str = f"<task><name>t</name>{LABELS}</task>") -> str:
    inside = f"<version>1.1</version><meta>{meta}</meta>{''.join(parts)}"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{inside}</annotations>'


@pytest.mark.parametrize(
    ("shape", "xyxy", "check"),
    [
        (BOX, XYXY, None),
        (BOX.replace("/box", "/box").replace("></box>", '><attribute name="age">3</attribute></box>'), XYXY, None),
        (BOX.replace("<box", '<box rotation="0.00"'), XYXY, None),
        (
            '<box label="cat" rotation="90.0" xtl="12" ytl="16" xbr="28" ybr="24"/>',
            [16.0, 12.0, 24.0, 28.0],
            "cvat.hull",
        ),
        ('<polygon label="cat" points="8.00,10.00;20.5,6;28.5,22"/>', XYXY, "cvat.hull"),
        ('<ellipse label="cat" cx="20" cy="20" rx="6" ry="3"/>', [14.0, 17.0, 26.0, 23.0], "cvat.hull"),
        ('<ellipse label="cat" cx="20" cy="20" rx="6" ry="3" rotation="90"/>', [17.0, 14.0, 23.0, 26.0], "cvat.hull"),
        ('<mask label="cat" rle="1, 2" left="8" top="6" width="20" height="16"/>', [8.0, 6.0, 28.0, 22.0], "cvat.hull"),
    ],
)
def test_shapes(tmp_path: Path, shape: str, xyxy: list[float], check: str | None) -> None:
    image(tmp_path / "images" / "a.png")
    write(tmp_path / "annotations.xml", document(one("a.png", shape)))
    for path in (tmp_path, tmp_path / "annotations.xml"):
        dataset = read_dataset(path)
        assert dataset.format == "cvat" and boxes_of(dataset) == {"images/a.png": [("cat", xyxy)]}
        assert set(checks_of(dataset)) == ({check} if check else set())


def test_what_is_no_box_is_left_out(tmp_path: Path) -> None:
    others = (
        '<polyline label="cat" points="1,2;3,4"/><points label="cat" points="1,2"/><cuboid label="cat" xtl1="1"/>'
        '<skeleton label="cat"><points label="eye" points="1,2"/></skeleton><tag label="cat" source="manual"></tag>'
    )
    image(tmp_path / "a.png")
    write(tmp_path / "annotations.xml", document(one("a.png", BOX + others + BOX.replace('label="cat"', 'label=""'))))
    dataset = read_dataset(tmp_path)
    assert boxes_of(dataset) == {"a.png": [("cat", XYXY)]}
    assert checks_of(dataset) == {"cvat.left_out": "warn", "cvat.unlabelled": "warn"}
    assert ": 4 (a.png polyline cat, a.png points cat, a.png cuboid cat and 1 more)" in seen_of(
        dataset, "cvat.left_out"
    )


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (one("a.png", BOX.replace('ybr="22.00"', "")), "a.png box cat: <box label="),
        (one("a.png", BOX.replace("22.00", "nan")), "a.png box cat"),
        (one("a.png", BOX.replace("<box", '<box rotation="x"')), "a.png box cat"),
        (one("a.png", '<polygon label="cat" points="1,2;3,4"/>'), "a.png polygon cat"),
        (one("a.png", '<polygon label="cat" points="1,2;3,4;5"/>'), "a.png polygon cat"),
        (one("a.png", '<ellipse label="cat" cx="20"/>'), "a.png ellipse cat"),
        (one("a.png", '<mask label="cat" left="20"/>'), "a.png mask cat"),
        (one("", BOX), "image 0 has no name"),
    ],
)
def test_broken_shapes(tmp_path: Path, part: str, words: str) -> None:
    image(tmp_path / "a.png")
    write(tmp_path / "annotations.xml", document(part))
    with pytest.raises(DataError, match=r"shapes that cannot be used: 1") as caught:
        read_dataset(tmp_path)
    assert words in caught.value.what


def test_broken_files(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    file = write(tmp_path / "annotations.xml", document(one("a.png"))[:-5])
    with pytest.raises(DataError, match=r"annotations\.xml is not XML: unclosed token") as caught:
        read_dataset(tmp_path)
    assert "line 2, column" in caught.value.where
    write(file, document(one("a.png")).replace("<annotations>", '<!DOCTYPE x [<!ENTITY a "b">]><annotations>'))
    with pytest.raises(DataError, match=r"has a DOCTYPE"):
        read_dataset(file, format="cvat")
    write(file, "<annotation/>")
    with pytest.raises(DataError, match=r"begins with <annotation>"):
        read_dataset(file, format="cvat")
    with pytest.raises(DataError, match=r"no CVAT file was found"):
        read_dataset(tmp_path, format="cvat")


def test_classes_negatives_and_names(tmp_path: Path) -> None:
    """Labels keep the order of the task; a skeleton's points are no classes."""
    labels = f"{LABELS[:-9]}<label><name>eye</name><parent>cat</parent></label></labels>"
    names = ["sub folder/größe #1.png", "b%20c.png"]
    for name in names:
        image(tmp_path / "images" / name)
    dog = BOX.replace("cat", "dog")
    write(
        tmp_path / "annotations.xml", document(one(names[0], BOX + dog), one(names[1], ""), meta=f"<job>{labels}</job>")
    )
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("dog", "cat") and counts_of(dataset) == {"train": (2, 2)}
    assert boxes_of(dataset)["images/sub folder/größe #1.png"] == [("cat", XYXY), ("dog", XYXY)]


def test_subsets_of_a_project(tmp_path: Path) -> None:
    """By the subset of each image, or by that of its task; images lie in images/SUBSET/."""
    for subset, name in (("Train", "a.png"), ("Validation", "a.png"), ("default", "c.png"), ("Test", "d.png")):
        image(tmp_path / "images" / subset / name)
    tasks = "<tasks><task><id>4</id><subset>Test</subset></task></tasks>"
    images = [
        one("a.png", more='subset="Train" task_id="1"'),
        one("a.png", more='subset="Validation" task_id="2"'),
        one("c.png", more='subset="default" task_id="3"'),
        one("d.png", more='task_id="4"'),
    ]
    write(tmp_path / "annotations.xml", document(*images, meta=f"<project>{tasks}{LABELS}</project>"))
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == dict.fromkeys(("train", "valid", "test"), (1, 1))
    assert set(boxes_of(dataset)) == {"images/Train/a.png", "images/Validation/a.png", "images/Test/d.png"}
    assert checks_of(dataset) == {"cvat.subset": "warn"} and "1 (c.png in default)" in seen_of(dataset, "cvat.subset")


def test_one_subset_of_any_name_is_train(tmp_path: Path) -> None:
    image(tmp_path / "images" / "site1" / "a.png")
    write(tmp_path / "annotations.xml", document(one("a.png", more='subset="site1"')))
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1)} and checks_of(dataset) == {}


@pytest.mark.parametrize("files", [("train.xml", "val.xml"), ("train/annotations.xml", "valid/annotations.xml")])
def test_a_file_for_each_split(tmp_path: Path, files: tuple[str, str]) -> None:
    for file in files:
        image((tmp_path / file).parent / "images" / f"{Path(file).stem}.png")
        write(tmp_path / file, document(one(f"{Path(file).stem}.png")))
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1), "valid": (1, 1)}
    assert counts_of(read_dataset(tmp_path / files[1])) == {"valid": (1, 1)}


def entry(frame: int, x1: float = 8, *, outside: int = 0, tag: str = "box") -> str:
    return (
        f'<{tag} frame="{frame}" keyframe="1" outside="{outside}" occluded="0" xtl="{x1}" ytl="6" xbr="{x1 + 20}"'
        f' ybr="22" z_order="0"><attribute name="age">3</attribute></{tag}>'
    )


def video(*tracks: str, stop: int = 4) -> str:
    size = "<original_size><width>64</width><height>48</height></original_size>"
    meta = f"<task><start_frame>0</start_frame><stop_frame>{stop}</stop_frame>{LABELS}{size}</task>"
    parts = [f'<track id="{i}" label="cat" source="manual">{track}</track>' for i, track in enumerate(tracks)]
    return document(*parts, meta=meta)


def test_video(tmp_path: Path) -> None:
    """Frames without a box are negatives; boxes that left the picture are none; gaps are filled in a straight line."""
    for frame in range(5):
        image(tmp_path / "images" / f"frame_{frame:06d}.PNG")
    write(tmp_path / "annotations.xml", video(entry(0) + entry(2, 12) + entry(3, 12, outside=1), entry(3, 4)))
    dataset = read_dataset(tmp_path)
    found = {name[-5:-4]: [box[0] for _, box in boxes] for name, boxes in boxes_of(dataset).items()}
    assert found == {"0": [8.0], "1": [10.0], "2": [12.0], "3": [4.0], "4": []}
    assert checks_of(dataset) == {"cvat.between": "ok"}
    assert "1 (track 0 cat in frame 1)" in seen_of(dataset, "cvat.between")


def test_frames_that_are_not_there(tmp_path: Path) -> None:
    file = write(tmp_path / "annotations.xml", video(entry(0) + entry(2)))
    with pytest.raises(DataError, match=r"annotates a video, and its frames are not there") as caught:
        read_dataset(file)
    assert "images/frame_000000.png" in caught.value.fix
    image(tmp_path / "images" / "frame_000000.png")
    image(tmp_path / "images" / "frame_000009.png")  # past the end of the task
    dataset = read_dataset(file)
    assert counts_of(dataset) == {"train": (1, 1)}
    assert "1 (track 0 cat in frame 2)" in seen_of(dataset, "cvat.no_frame")
    image(tmp_path / "images" / "copy_000000.png")
    with pytest.raises(DataError, match=r"two images in images/ are one frame: copy_000000\.png and frame_000000\.png"):
        read_dataset(file)


def test_frames_counted_from_one(tmp_path: Path) -> None:
    for frame in range(1, 6):
        image(tmp_path / "shots" / f"{frame}.png")
    file = write(tmp_path / "annotations.xml", video(entry(0)))
    with pytest.raises(DataError, match=r"the frames are 0 to 4, but the images 1 to 5"):
        read_dataset(file, images=tmp_path / "shots")
    write(file, video('<box xtl="1"/>'))
    image(tmp_path / "shots" / "0.png")
    with pytest.raises(DataError, match=r"track 0 cat: box without a frame"):
        read_dataset(file, images=tmp_path / "shots")


def test_other_shapes_in_tracks(tmp_path: Path) -> None:
    image(tmp_path / "images" / "frame_000000.png")
    write(tmp_path / "annotations.xml", video(entry(0, tag="points"), entry(0)))
    dataset = read_dataset(tmp_path)
    assert counts_of(dataset) == {"train": (1, 1)} and checks_of(dataset) == {"cvat.left_out": "warn"}


def test_sniffer_is_quiet(tmp_path: Path) -> None:
    for name, text in [
        ("a.xml", "<annotation><object/></annotation>"),
        ("b.xml", "<annotations>words</annotations>"),
        ("c.xml", "<x><annotations><meta/></annotations></x>"),
    ]:
        assert "cvat" not in sniff(write(tmp_path / name, text))
    assert "cvat" not in sniff(tmp_path)
    assert list(sniff(write(tmp_path / "d.xml", document()))) == ["cvat"]
