"""What a user names -> which images, in which order; and images that are opened ahead."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from squares import write_squares

from boxtune.errors import DataError
from boxtune.infer.sources import OpenAhead, find_images, list_images


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(source: Path | str, folder: Path) -> list[str]:
    return [os.path.relpath(file, folder) for file in list_images(source).files]


def test_a_folder_is_sorted_by_the_parts_of_paths(tmp_path: Path) -> None:
    names = ["a/z.png", "a-b/ä ö.JPG", "a.jpg", "b/c/d.webp", "z.tiff"]
    touch(tmp_path, *names, "notes.txt", ".hidden.png", ".thumbs/x.png", "__MACOSX/y.png", "a/._z.png")
    assert listed(tmp_path, tmp_path) == sorted(names, key=lambda name: name.split("/"))
    assert find_images(tmp_path) == [tmp_path / name for name in sorted(names, key=lambda name: name.split("/"))]


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    touch(tmp_path / "far", "a.png")
    touch(tmp_path / "in", "b.png")
    (tmp_path / "in" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert listed(tmp_path / "in", tmp_path / "in") == ["b.png", "far/a.png", "gone.png"]


def test_patterns_and_files(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/2.jpg", "photo", "x[1].png")
    assert listed(str(tmp_path / "*" / "1.png"), tmp_path) == ["a/1.png", "b/1.png"]
    assert listed(f"{tmp_path}/**/*.jpg", tmp_path) == ["b/2.jpg"]
    assert listed(tmp_path / "photo", tmp_path) == ["photo"]
    assert listed(tmp_path / "x[1].png", tmp_path) == ["x[1].png"]
    with pytest.raises(DataError, match=r"no image to predict[\s\S]*none\.png"):
        list_images(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "\ufeffb/2 ä.png\r\n\n a/1.png \nb/../a/1.png\n"),
        ("list.jsonl", '"b/2 ä.png"\n{"file": "a/1.png", "boxes": [1]}\n\n{"path": "a/1.png"}\n'),
        ("list.json", '["b/2 ä.png", {"image": "a/1.png", "id": 3}, {"file_name": "a/1.png"}]'),
    ],
)
def test_lists_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    home = touch(tmp_path / "home", "a/1.png", "b/2 ä.png")
    (home / name).write_text(text, encoding="utf-8")
    listing = list_images(home / name)
    assert listing.files == [str(home / "b/2 ä.png"), str(home / "a/1.png")] and listing.num_repeated == 1
    (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(home)  # nothing of it lies beside the list, so it is meant from here
    assert list_images(tmp_path / name).files == ["b/2 ä.png", "a/1.png"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("list.txt", "no.png\nnone.png\n", r"none of the images that list\.txt lists is there: no\.png, none\.png"),
        ("list.txt", "\n", "list.txt is empty"),
        ("list.json", '{"images": []}', r"no list of images[\s\S]*split=valid"),
        ("list.json", '["a.png"', "no list of images"),
        ("list.jsonl", '"a.png"\n{"label": 3}\n', r"names no image[\s\S]*line 2"),
        ("list.jsonl", '{"file": "a.png", "image": "b.png"}\n', r"several images: a\.png, b\.png[\s\S]*line 1"),
        ("data.yaml", "train: images", r"no list of images[\s\S]*split=train"),
    ],
)
def test_what_is_no_list_is_one_clear_error(tmp_path: Path, name: str, text: str, words: str) -> None:
    (touch(tmp_path, "a.png") / name).write_text(text)
    with pytest.raises(DataError, match=words):
        list_images(tmp_path / name)


def test_text_that_is_no_unicode_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("ä.png".encode("latin-1"))
    with pytest.raises(DataError, match=r"list\.txt is not UTF-8"):
        list_images(tmp_path / "list.txt")


def test_a_split_of_a_data_set(tmp_path: Path) -> None:
    data = write_squares(tmp_path / "squares", train=3, valid=2)
    document = json.loads((data / "valid" / "_annotations.coco.json").read_text())
    for image in document["images"]:
        image["id"] += 40
    for annotation in document["annotations"]:
        annotation["image_id"] += 40
    (data / "valid" / "_annotations.coco.json").write_text(json.dumps(document))
    listing = list_images(data, split="valid")
    assert list(listing.files) == [str(data / "valid" / f"{n:03d}.png") for n in (1, 2)]
    assert listing.image_ids is not None and listing.image_ids.tolist() == [41, 42] and listing.split == "valid"
    assert listing.name(1) == "002.png"
    with pytest.raises(DataError, match=r"no split 'test'[\s\S]*train, valid"):
        list_images(data, split="test")


def test_images_are_opened_ahead_once_and_not_too_many() -> None:
    opened: Counter[str] = Counter()
    lock = threading.Lock()

    def open_one(file: str) -> Image.Image:
        with lock:
            opened[file] += 1
        if file == "5":
            raise DataError("broken")
        return Image.new("RGB", (int(file) + 1, 1))

    files = [str(number) for number in range(12)]
    with ThreadPoolExecutor(2) as pool:
        ahead = OpenAhead(files, open_one, pool=pool, ahead=3)
        order = [0, 1, 7, 2, 3, 4, 6, 8, 9, 10, 11]  # the eighth earlier than it was expected
        for num_taken, place in enumerate(order, start=1):
            assert ahead.take(place).width == place + 1
            assert sum(opened.values()) <= num_taken + 3
        with pytest.raises(DataError, match="broken"):
            ahead.take(5)
    assert opened == Counter(files)
