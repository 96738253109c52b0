"""TFRecord files of the TF Object Detection API, written here byte by byte."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats import sniff
from boxtune.data.formats.tfrecord import sniff_tfrecord
from boxtune.data.formats.tfrecord_records import crc32c, iter_records, parse_example
from boxtune.errors import DataError

from ..cases import find, picture, save
from . import tf_records as tf

CAT = ("cat", 1, (0.125, 0.25, 0.5, 0.75))
DOG = ("dog", 2, (0.0, 0.0, 1.0, 1.0))
UNIT = "TFRecord"


def write_set(folder: Path) -> Path:
    tf.write_label_map(folder / "label_map.pbtxt", "cat", "dog")
    tf.write(folder / "train-00000-of-00002", tf.example(tf.detection("a.jpg", [CAT, DOG])))
    tf.write(folder / "train-00001-of-00002", tf.detection("b.jpg", [DOG]), tf.detection("c c#ü.jpg", []))
    tf.write(folder / "val-00000-of-00001", tf.detection("d.jpg", [CAT]))
    return folder


def test_shards_with_pictures_inside(tmp_path: Path) -> None:
    dataset = read_dataset(write_set(tmp_path))
    assert dataset.format == "tfrecord" and dataset.classes == ("cat", "dog")
    assert "train 2 files, valid val-00000-of-00001" in dataset.why and "CRC-32C" in dataset.why
    train = dataset.splits["train"]
    assert [len(sample.boxes) for sample in train] == [2, 1, 0] and len(dataset.splits["valid"]) == 1
    assert train[0].boxes.xyxy_px.tolist() == [[8, 12, 32, 36], [0, 0, 64, 48]]
    assert train[0].boxes.labels == ("cat", "dog") and train[0].size_wh == (64, 48)
    assert train[0].image.read_bytes() == tf.jpeg(len("a.jpg"))
    assert [sample.image.name for sample in train] == ["a.jpg", "b.jpg", "c-c-ü.jpg"]
    embedded = [finding for finding in dataset.findings if finding.check == "image.embedded"]
    assert len(embedded) == 2 and "train-00000-of-00002" in embedded[0].seen and ": 3 " in embedded[0].seen
    assert find(dataset, "data.shard_missing") is None
    by_map = read_dataset(tmp_path / "label_map.pbtxt")
    assert by_map.format == "tfrecord" and by_map.splits.keys() == dataset.splits.keys()


def test_missing_shard_is_named(tmp_path: Path) -> None:
    (write_set(tmp_path) / "train-00001-of-00002").unlink()
    finding = find(read_dataset(tmp_path), "data.shard_missing")
    assert finding is not None and "1 (train-00001-of-00002)" in finding.seen


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_packed_files(tmp_path: Path, pack: object) -> None:
    file = tf.write(tmp_path / "train.tfrecord", tf.detection("a.jpg", [CAT]), tf.detection("b.jpg", [DOG]))
    plain = list(iter_records(file))
    file.write_bytes(pack(file.read_bytes()))  # type: ignore[operator]
    assert list(iter_records(file)) == plain and len(plain) == 2
    assert sniff_tfrecord(file) and sniff_tfrecord(tmp_path) == "train.tfrecord"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"cannot be unpacked|ends in the middle"):
        list(iter_records(file))


def test_lists_may_be_packed_or_not() -> None:
    values = {"a": [1, -2, 1 << 40], "b": [0.5, 0.25], "c": ["x", "ü"], "d": []}
    expected = {"a": [1, -2, 1 << 40], "b": [0.5, 0.25], "c": [b"x", "ü".encode()], "d": []}
    assert parse_example(tf.example(values)) == expected == parse_example(tf.example(values, packed=False))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 31, 64, 1000, 4099])
def test_checksum_is_that_of_the_definition(size: int) -> None:
    data = bytes((7 * place * place + place) % 251 for place in range(size))
    assert crc32c(data) == tf.crc32c(data)
    assert crc32c(b"123456789") == 0xE3069283  # the check value that the definition gives


def test_roboflow_layout_with_a_label_map_in_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        tf.write(tmp_path / split / "cells.tfrecord", tf.detection(f"{split}.jpg", [("", 2, CAT[2])]))
        tf.write_label_map(tmp_path / split / "cells_label_map.pbtxt", "red", "white")
    dataset = read_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "valid", "test"] and dataset.classes == ("white",)


def test_names_shown_to_people_come_first(tmp_path: Path) -> None:
    tf.write(tmp_path / "a.record", tf.detection("a.jpg", [("", 1, CAT[2]), ("dog", 2, CAT[2])]))
    (tmp_path / "label_map.pbtxt").write_text(
        "# classes\nitem: { name: \"/m/01\", id: 1, display_name: 'It\\'s a cat' }\nitem { id: 2 name: 'dog' }\n"
    )
    assert read_dataset(tmp_path).classes == ("It's a cat", "dog")


def test_pictures_by_their_names(tmp_path: Path) -> None:
    save(picture(1), tmp_path / "images" / "a b.png")
    values = tf.detection("a b.png", [CAT], **{"image/encoded": [""], "image/width": None, "image/height": None})
    tf.write(tmp_path / "set.tfrecords", values)
    sample = read_dataset(tmp_path).splits["train"][0]
    assert sample.image == tmp_path / "images" / "a b.png" and sample.boxes.xyxy_px.tolist() == [[8, 12, 32, 36]]


def test_unlabelled_and_flagged_boxes(tmp_path: Path) -> None:
    flags = {"image/object/is_crowd": [1, 0, 0], "image/object/difficult": [0, 1, 0]}
    tf.write(tmp_path / "a.tfrecord", tf.detection("a.jpg", [CAT, DOG, ("", 0, CAT[2])], **flags))
    dataset = read_dataset(tmp_path)
    sample = dataset.splits["train"][0]
    assert sample.crowd.tolist() == [True, False] and sample.ignore.tolist() == [False, True]
    unlabelled, difficult = find(dataset, "tfrecord.unlabelled"), find(dataset, "tfrecord.difficult")
    assert unlabelled is not None and "1 (a.jpg box 2)" in unlabelled.seen and unlabelled.level == "warn"
    assert difficult is not None and "1 (a.jpg box 1)" in difficult.seen
    assert find(read_dataset(write_set(tmp_path / "sound")), "tfrecord.unlabelled") is None


def test_text_that_contradicts_the_label_map(tmp_path: Path) -> None:
    tf.write_label_map(tmp_path / "label_map.pbtxt", "dog", "cat")
    tf.write(tmp_path / "a.tfrecord", tf.detection("a.jpg", [CAT]))
    dataset = read_dataset(tmp_path)
    finding = find(dataset, "tfrecord.text_differs")
    assert finding is not None and "a.jpg box 0 is 'cat', id 1 is 'dog'" in finding.seen
    assert dataset.classes == ("cat",)
    assert find(read_dataset(write_set(tmp_path / "sound")), "tfrecord.text_differs") is None


def test_pixels_are_told_from_shares(tmp_path: Path) -> None:
    tf.write(tmp_path / "a.tfrecord", tf.detection("a.jpg", [("cat", 1, (8, 12, 32, 36)), ("dog", 2, (0, 0, 64, 48))]))
    dataset = read_dataset(tmp_path)
    assert dataset.splits["train"][0].boxes.xyxy_px.tolist() == [[8, 12, 32, 36], [0, 0, 64, 48]]
    assert "in pixels" in dataset.why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image/object/bbox/xmax": [0.5]}, r"not whole: 2 xmin, 2 ymin, 1 xmax, 2 ymax"),
        ({"image/object/bbox/xmax": [0.5, float("nan")]}, r"a\.jpg box 1 has corners"),
        ({"image/object/class/text": ["cat"]}, r"2 boxes but 1 image/object/class/text"),
        ({"image/object/class/text": [1, 2]}, r"class/text holds numbers"),
        ({"image/object/bbox/xmin": ["x", "y"]}, r"xmin holds bytes"),
        ({"image/object/class/text": ["", ""]}, r"class id 1 has no text, and there is no label map"),
        ({"image/filename": None, "image/encoded": None}, r"neither a picture nor the name of one"),
    ],
)
def test_broken_records_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tf.write(tmp_path / "a.tfrecord", tf.detection("0.jpg", [DOG]), tf.detection("a.jpg", [CAT, DOG], **change))
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(tmp_path)
    assert caught.value.where == f"{file}, record 1" and caught.value.fix


def test_unknown_ids_and_several_label_maps(tmp_path: Path) -> None:
    tf.write(tmp_path / "a.tfrecord", tf.detection("a.jpg", [("", 7, CAT[2])]))
    tf.write_label_map(tmp_path / "one.pbtxt", "cat")
    with pytest.raises(DataError, match=r"class id 7 is not in one\.pbtxt") as caught:
        read_dataset(tmp_path)
    assert "ids there are: 1" in caught.value.fix
    tf.write_label_map(tmp_path / "two.pbtxt", "cat")
    with pytest.raises(DataError, match=r"2 label maps: one\.pbtxt, two\.pbtxt"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("place", "message"), [(3, "the length of a record"), (40, "a record does not fit"), (-2, "a record does not fit")]
)
def test_damage_is_seen(tmp_path: Path, place: int, message: str) -> None:
    file = tf.write(tmp_path / "a.tfrecord", tf.detection("a.jpg", [CAT]))
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=f"is damaged: {message}") as caught:
        list(iter_records(file))
    assert caught.value.where.endswith("record 0")


@pytest.mark.parametrize("cut", [1, 6, 500])
def test_cut_files_are_seen(tmp_path: Path, cut: int) -> None:
    file = tf.write(tmp_path / "a.tfrecord", tf.detection("a.jpg", [CAT]), tf.detection("b.jpg", [CAT]))
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DataError, match="ends in the middle of a record") as caught:
        list(iter_records(file))
    assert "record 1" in caught.value.where


def test_records_of_something_else(tmp_path: Path) -> None:
    file = tf.write(tmp_path / "a.tfrecord", b"\x07\xff\xff not protobuf")
    with pytest.raises(DataError, match=r"no tf\.train\.Example"):
        read_dataset(file)
    tf.write(file, {"objects/bbox": [0.5], "label": [1]})
    with pytest.raises(DataError, match="no key of the TF Object Detection API, only label, objects/bbox"):
        read_dataset(file)


def test_sniffer_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "train.tfrecord").write_bytes(b"no record at all, but long enough to be one")
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    (tmp_path / "notes.record.txt").write_text("words")
    assert sniff_tfrecord(tmp_path) is None and sniff_tfrecord(tmp_path / "train.tfrecord") is None
    assert sniff_tfrecord(tmp_path / "nowhere") is None
    assert list(sniff(tf.write(tmp_path / "x" / "b.bin", tf.detection("a.jpg", [CAT])))) == ["tfrecord"]


def test_splits_that_cannot_be_told(tmp_path: Path) -> None:
    record = tf.detection("a.jpg", [CAT])
    tf.write(tmp_path / "train.tfrecord", record)
    tf.write(tmp_path / "more.tfrecord", record)
    with pytest.raises(DataError, match=r"split of 1 of 2 data files cannot be told: more\.tfrecord"):
        read_dataset(tmp_path)
    (tmp_path / "more.tfrecord").rename(tmp_path / "trainval.tfrecord")
    with pytest.raises(DataError, match=r"speaks of train and valid"):
        read_dataset(tmp_path)
    (tmp_path / "trainval.tfrecord").unlink()
    tf.write(tmp_path / "other" / "train.tfrecord", record)
    with pytest.raises(DataError, match="2 folders hold a train split"):
        read_dataset(tmp_path)
