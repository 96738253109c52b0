"""COCO entries, sound and not: what is read, what is said, what is refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.errors import DataError

from .cases import (
    CATEGORIES,
    SIZE_WH,
    box_entry,
    find,
    image_entry,
    names,
    picture,
    read_coco,
    save,
    write_json,
    write_one,
)


def test_boxes_labels_and_flags(tmp_path: Path) -> None:
    boxes = [
        box_entry(11, 1, (8.5, 6, 20, 16)),
        box_entry(3, 1, (0, 0, 64, 48), category=2, iscrowd=1),
        box_entry(7, 1, (1, 2, 3, 4), ignore=1),
    ]
    dataset = read_coco(write_one(tmp_path, boxes))
    (sample,) = dataset.splits["train"]
    assert sample.image == tmp_path / "a.png" and sample.image_id == 1 and sample.size_wh == SIZE_WH
    assert sample.boxes.xyxy_px.tolist() == [[8.5, 6, 28.5, 22], [0, 0, 64, 48], [1, 2, 4, 6]]
    assert sample.boxes.labels == ("cat", "dog", "cat")
    assert sample.crowd.tolist() == [False, True, False] and sample.ignore.tolist() == [False, False, True]
    assert sample.targets.labels == ("cat",)
    crowd = find(dataset, "box.crowd")
    assert crowd is not None and "annotation 3" in crowd.seen and "annotation 7" in crowd.seen


def test_sound_file_has_no_findings(tmp_path: Path) -> None:
    dataset = read_coco(write_one(tmp_path, [box_entry(1, 1), box_entry(2, 1, category=2)]))
    assert dataset.findings == () and dataset.format == "coco" and dataset.why == "truth.json given"


def test_sparse_ids_class_order_and_unused_categories(tmp_path: Path) -> None:
    categories = [{"id": 90, "name": "zebra"}, {"id": 7, "name": "yak"}, {"id": 8, "name": "nobody"}]
    images = [image_entry(1000, "b.png"), image_entry(5, "a.png")]
    boxes = [box_entry(1, 5, category=90), box_entry(2, 1000, category=7)]
    save(picture(1), tmp_path / "a.png")
    save(picture(2), tmp_path / "b.png")
    dataset = read_coco(write_json(tmp_path / "x.json", images, boxes, categories))
    assert dataset.classes == ("yak", "zebra")
    assert [(sample.image.name, sample.image_id) for sample in dataset.splits["train"]] == [
        ("b.png", 1000),
        ("a.png", 5),
    ]
    unused = find(dataset, "class.unused")
    assert unused is not None and unused.level == "ok" and "nobody" in unused.seen


def test_negatives_are_kept(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "a.png")
    save(picture(2), tmp_path / "b.png")
    images = [image_entry(1, "a.png"), image_entry(2, "b.png")]
    dataset = read_coco(write_json(tmp_path / "x.json", images, [box_entry(1, 1)]))
    assert [len(sample.boxes) for sample in dataset.splits["train"]] == [1, 0]
    finding = find(dataset, "image.no_boxes")
    assert finding is not None and finding.level == "ok" and "b.png" in finding.seen


def test_no_box_at_all_fails(tmp_path: Path) -> None:
    finding = find(read_coco(write_one(tmp_path, [])), "image.no_boxes")
    assert finding is not None and finding.level == "fail"


@pytest.mark.parametrize(
    ("xywh", "kept", "check", "level"),
    [
        ((0, 0, 64, 48), [0, 0, 64, 48], None, None),
        ((0, 0, 64.005, 48), [0, 0, 64, 48], None, None),
        ((-0.5, 0, 10, 10), [0, 0, 9.5, 10], "box.clipped", "ok"),
        ((-12.5, -3, 40, 30), [0, 0, 27.5, 27], "box.clipped", "warn"),
        ((60, 40, 40, 50), [60, 40, 64, 48], "box.clipped", "warn"),
        ((10, 10, 0, 5), None, "box.without_area", "warn"),
        ((10, 10, -4, 5), None, "box.without_area", "warn"),
        ((70, 10, 5, 5), None, "box.without_area", "warn"),
        ((-5, 10, 5, 5), None, "box.without_area", "warn"),
    ],
)
def test_boxes_at_the_edge(
    tmp_path: Path, xywh: tuple[float, ...], kept: list[float] | None, check: str | None, level: str | None
) -> None:
    dataset = read_coco(write_one(tmp_path, [box_entry(4, 1), box_entry(99, 1, xywh)]))
    (sample,) = dataset.splits["train"]
    assert sample.boxes.xyxy_px.tolist()[1:] == ([] if kept is None else [kept])
    assert [(finding.check, finding.level) for finding in dataset.findings] == ([(check, level)] if check else [])
    if check:
        assert "a.png annotation 99" in dataset.findings[0].seen and "annotation 4" not in dataset.findings[0].seen


def test_corners_in_place_of_sizes_fail(tmp_path: Path) -> None:
    corners = [box_entry(i, 1, (20 + i, 16, 50, 44)) for i in range(12)]
    finding = find(read_coco(write_one(tmp_path, corners)), "box.clipped")
    assert finding is not None and finding.level == "fail" and "corners" in finding.fix


def test_relative_boxes_fail(tmp_path: Path) -> None:
    finding = find(read_coco(write_one(tmp_path, [box_entry(1, 1, (0.1, 0.2, 0.5, 0.4))])), "box.relative")
    assert finding is not None and finding.level == "fail"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (box_entry(5, 1, category=1234), r"annotation 5 has category 1234[\s\S]*there are: 1, 2"),
        (box_entry(5, 1, category="01"), r"annotation 5 has category '01'[\s\S]*there are: 1, 2"),
        (box_entry(5, 1, [1, 2, 3]), r"annotation 5 has the bbox \[1, 2, 3\]"),
        (box_entry(5, 1, [1, 2, float("nan"), 4]), r"annotation 5 has the bbox .*nan"),
        (box_entry(5, 1, [1, 2, float("inf"), 4]), r"annotation 5 has the bbox .*inf"),
        (box_entry(5, 1, ["1", "2", "3", "4"]), r"annotation 5 has the bbox \['1'"),
        (box_entry(5, 1, [1, 2, 3, True]), "annotation 5 has the bbox"),
        (box_entry(5, 1, "1,2,3,4"), "annotation 5 has the bbox 1,2,3,4"),
        ({"id": 5, "image_id": 1, "category_id": 1}, "annotation 5 has no bbox"),
        ({"id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}, "annotation 5 has no image_id"),
        ({"image_id": 1, "bbox": [1, 2, 3, 4]}, r"annotations\[1\] has no category_id"),
        ([1, 2], r"annotations\[1\] is no object"),
    ],
)
def test_annotations_that_are_refused(tmp_path: Path, annotation: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_coco(write_one(tmp_path, [box_entry(4, 1), annotation], categories=CATEGORIES))
    assert caught.value.where == str(tmp_path / "truth.json") and caught.value.fix


def test_annotation_of_an_unlisted_image(tmp_path: Path) -> None:
    dataset = read_coco(write_one(tmp_path, [box_entry(1, 1), box_entry(3, 1), box_entry(2, 777)]))
    finding = find(dataset, "coco.image_unknown")
    assert finding is not None and "annotation 2 of image 777" in finding.seen
    assert [len(sample.boxes) for sample in dataset.splits["train"]] == [2]


def test_polygons_and_masks_without_bbox(tmp_path: Path) -> None:
    polygon = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[5, 6, 15, 6, 10, 20], [2, 8, 4, 8, 4, 9]]}
    mask = {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"counts": [0, 9], "size": [48, 64]}, "bbox": []}
    dataset = read_coco(write_one(tmp_path, [polygon, mask]))
    assert dataset.splits["train"][0].boxes.xyxy_px.tolist() == [[2, 6, 15, 20]]
    boxed, left_out = find(dataset, "coco.box_from_polygon"), find(dataset, "coco.mask_only")
    assert boxed is not None and boxed.level == "ok" and "annotation 1" in boxed.seen
    assert left_out is not None and left_out.level == "warn" and "annotation 2" in left_out.seen


def test_annotation_id_used_twice(tmp_path: Path) -> None:
    same, other = box_entry(1, 1), box_entry(1, 1, (30, 20, 10, 10))
    dataset = read_coco(write_one(tmp_path, [same, same, other]))
    assert len(dataset.splits["train"][0].boxes) == 2
    finding = find(dataset, "coco.annotation_twice")
    assert finding is not None and ": 2 (" in finding.seen
    assert find(dataset, "box.twice") is None


def test_box_given_twice_is_said(tmp_path: Path) -> None:
    dataset = read_coco(write_one(tmp_path, [box_entry(1, 1), box_entry(2, 1), box_entry(3, 1, category=2)]))
    assert len(dataset.splits["train"][0].boxes) == 3
    finding = find(dataset, "box.twice")
    assert finding is not None and "annotation 2" in finding.seen and "annotation 3" not in finding.seen


def test_category_names_that_repeat(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": " cat"}, {"id": 3, "name": "dog"}]
    boxes = [box_entry(1, 1, category=2), box_entry(2, 1, (1, 1, 9, 9), category=1), box_entry(3, 1, category=3)]
    dataset = read_coco(write_one(tmp_path, boxes, categories=categories))
    assert dataset.classes == ("cat", "dog") and dataset.splits["train"][0].boxes.labels == ("cat", "cat", "dog")
    finding = find(dataset, "coco.category_twice")
    assert finding is not None and "cat" in finding.seen


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "category id 1 is both 'cat' and 'dog'"),
        ([{"id": 1}], r"categories\[0\] has no id or no name"),
        ([{"id": 1, "name": " "}], "empty name"),
    ],
)
def test_categories_that_are_refused(tmp_path: Path, categories: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_coco(write_one(tmp_path, [box_entry(1, 1)], categories=categories))


def test_one_image_listed_under_two_ids(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "a.png")
    images = [image_entry(1, "a.png"), image_entry(2, "a.png"), image_entry(1, "a.png")]
    boxes = [box_entry(1, 1), box_entry(2, 2, (30, 20, 10, 10))]
    dataset = read_coco(write_json(tmp_path / "x.json", images, boxes))
    (sample,) = dataset.splits["train"]
    assert sample.image_id == 1 and len(sample.boxes) == 2
    finding = find(dataset, "image.twice")
    assert finding is not None and "a.png (id 2)" in finding.seen


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([image_entry(1, "a.png"), image_entry(1, "b.png")], r"image id 1 is both a\.png and b\.png"),
        ([{"file_name": "a.png"}], r"images\[0\] has no id"),
        ([{"id": 3}], "image 3 has no file_name"),
        ([], "no image is listed"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, images: list[Any], words: str) -> None:
    save(picture(1), tmp_path / "a.png")
    with pytest.raises(DataError, match=words):
        read_coco(write_json(tmp_path / "x.json", images, []))


def test_ids_that_are_no_numbers(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "a.png")
    dataset = read_coco(write_json(tmp_path / "x.json", [image_entry("first", "a.png")], [box_entry("x", "first")]))
    assert dataset.splits["train"][0].image_id == 1 and len(dataset.splits["train"][0].boxes) == 1
    assert find(dataset, "image.renumbered") is not None


def test_size_from_the_header_and_unknown(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png"}, image_entry(2, "gone.png", (0, None))]
    dataset = read_coco(write_json(tmp_path / "x.json", images, [box_entry(1, 1, (60, 40, 40, 50)), box_entry(2, 2)]))
    first, second = dataset.splits["train"]
    assert first.size_wh == SIZE_WH and first.boxes.xyxy_px.tolist() == [[60, 40, 64, 48]]
    assert second.size_wh == (0, 0)
    measured, unknown = find(dataset, "image.size_from_file"), find(dataset, "image.size_unknown")
    assert measured is not None and "a.png" in measured.seen
    assert unknown is not None and unknown.level == "fail" and "gone.png" in unknown.seen


ODD_NAMES = ["a b.png", "c#t=3.png", "100%20.png", "sub dir/ü ñ.png", "deep/er/x.png", "日本.png"]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_odd_file_names(tmp_path: Path, name: str, form: str) -> None:
    on_disk = unicodedata.normalize("NFD" if form == "NFC" else "NFC", name)
    save(picture(1), tmp_path / "images" / on_disk)
    listed = unicodedata.normalize(form, name)
    dataset = read_coco(write_json(tmp_path / "x.json", [image_entry(1, listed)], [box_entry(1, 1)]))
    assert dataset.splits["train"][0].image == tmp_path / "images" / on_disk and dataset.findings == ()


def test_back_slashes(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "images" / "cam" / "a.png")
    save(picture(2), tmp_path / "images" / "odd\\b.png")
    images = [image_entry(1, "cam\\a.png"), image_entry(2, "odd\\b.png")]
    dataset = read_coco(write_json(tmp_path / "x.json", images, [box_entry(1, 1), box_entry(2, 2)]))
    assert names(dataset, "train") == ["a.png", "odd\\b.png"]


def test_folders_of_another_machine(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "images" / "a.png")
    images = [image_entry(1, "C:\\Users\\me\\a.png")]
    dataset = read_coco(write_json(tmp_path / "x.json", images, [box_entry(1, 1)]))
    finding = find(dataset, "image.found_by_name")
    assert names(dataset, "train") == ["a.png"] and finding is not None and finding.level == "warn"


def test_bare_name_of_two_images_is_no_match(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "images" / "0001.png")
    save(picture(1), tmp_path / "images" / "b.png")
    images = [image_entry(1, "cam1/0001.png"), image_entry(2, "cam2/0001.png"), image_entry(3, "b.png")]
    dataset = read_coco(write_json(tmp_path / "x.json", images, [box_entry(1, 1)]))
    finding = find(dataset, "image.missing")
    assert finding is not None and ": 2 (cam1/0001.png, cam2/0001.png)" in finding.seen
    assert [sample.image.is_file() for sample in dataset.splits["train"]] == [False, False, True]


def test_missing_images(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "images" / "a.png")
    images = [image_entry(1, "a.png"), image_entry(2, "gone.png")]
    file = write_json(tmp_path / "x.json", images, [box_entry(1, 1)])
    dataset = read_coco(file)
    finding = find(dataset, "image.missing")
    assert finding is not None and "gone.png" in finding.seen
    assert dataset.splits["train"][1].image == tmp_path / "images" / "gone.png"
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(DataError, match=r"none of the 2 images of x\.json is there, such as a\.png") as caught:
        read_coco(file)
    assert str(tmp_path / "images") in caught.value.where


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b'{"images": [\n  {"id": 1,}\n]}', r"is not JSON[\s\S]*line 2, column 1[12]"),
        (b'{"images": "\xff"}', "not UTF-8"),
        (b"[1, 2]", "but a list"),
        (b'{"images": [], "annotations": {}}', "without the list `annotations` and `categories`"),
        (b'{"shapes": []}', "`images` and `annotations` and `categories`"),
    ],
)
def test_files_that_are_no_coco(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_coco(tmp_path / "x.json")
    assert caught.value.where.startswith(str(tmp_path / "x.json"))


def test_byte_order_mark(tmp_path: Path) -> None:
    file = write_one(tmp_path, [box_entry(1, 1)])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(read_coco(file).splits["train"]) == 1


def test_splits_share_classes_by_name(tmp_path: Path) -> None:
    for split, category, seed in (("train", {"id": 1, "name": "cat"}, 1), ("valid", {"id": 1, "name": "dog"}, 2)):
        save(picture(seed), tmp_path / split / "a.png")
        file = tmp_path / split / "_annotations.coco.json"
        write_json(file, [image_entry(1, "a.png")], [box_entry(1, 1)], [category])
    dataset = read_coco(tmp_path)
    assert dataset.classes == ("cat", "dog")
    finding = find(dataset, "coco.category_ids_differ")
    assert finding is not None and "1 is cat in train but dog in valid" in finding.seen


def test_image_in_two_splits(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "images" / "a.png")
    for split in ("train", "val"):
        write_json(tmp_path / "annotations" / f"{split}.json", [image_entry(1, "a.png")], [box_entry(1, 1)])
    finding = find(read_coco(tmp_path), "image.in_two_splits")
    assert finding is not None and "a.png (train, valid)" in finding.seen


def test_empty_split_is_left_out(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "train" / "a.png")
    write_json(tmp_path / "train" / "_annotations.coco.json", [image_entry(1, "a.png")], [box_entry(1, 1)])
    write_json(tmp_path / "valid" / "_annotations.coco.json", [], [])
    dataset = read_coco(tmp_path)
    assert list(dataset.splits) == ["train"] and find(dataset, "data.empty_split") is not None


def test_many_boxes_keep_their_images(tmp_path: Path) -> None:
    """Annotations in no order at all still reach their own image, in file order."""
    random = np.random.default_rng(0)
    images = [image_entry(number, f"{number}.png") for number in range(20)]
    save(picture(1), tmp_path / "0.png")
    owners = random.integers(0, 20, 300)
    boxes = [box_entry(i, int(owner), (i / 10, 1, 5, 5)) for i, owner in enumerate(owners)]
    samples = read_coco(write_json(tmp_path / "x.json", images, boxes, CATEGORIES)).splits["train"]
    num_seen = 0
    for sample in samples:
        expected = [i / 10 for i, owner in enumerate(owners) if owner == sample.image_id]
        assert np.allclose(sample.boxes.xyxy_px[:, 0], expected)
        num_seen += len(expected)
    assert num_seen == 300


def test_json_keeps_unicode(tmp_path: Path) -> None:
    file = write_one(tmp_path, [box_entry(1, 1)], categories=[{"id": 1, "name": "Käse"}])
    assert read_coco(file).classes == ("Käse",) and "Käse" in json.loads(file.read_text())["categories"][0]["name"]
