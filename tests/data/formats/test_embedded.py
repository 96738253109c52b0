"""Pictures inside of data files become files of their own: whole, unchanged, once."""

from __future__ import annotations

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from boxtune.data.formats.embedded import PictureStore, decode_data_uri, say_embedded
from boxtune.errors import DataError

from .tf_records import jpeg


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "data.parquet"
    file.write_bytes(b"whatever")
    return file


def test_bytes_and_names(source: Path) -> None:
    store = PictureStore(source)
    pictures = {"a.jpg": jpeg(1), "cam1/b c.jpg": jpeg(2), "..\\x?.PNG": b"\x89PNG 3", "": jpeg(4), "no": b"GIF8 5"}
    kept = [store.keep(row, name, data) for row, (name, data) in enumerate(pictures.items())]
    assert [path.read_bytes() for path in kept] == list(pictures.values())
    assert [path.name for path in kept] == ["a.jpg", "cam1-b-c.jpg", "x.PNG", "3.jpg", "no.gif"]
    assert all(path.parent == store.folder for path in kept)


def test_names_are_unique(source: Path) -> None:
    store = PictureStore(source)
    first, other = store.keep(0, "a.jpg", jpeg(1)), store.keep(1, "a.jpg", jpeg(2))
    again, third = store.keep(2, "a.jpg", jpeg(1)), store.keep(3, "A.jpg", jpeg(3))
    assert first == again and other.name == "a-2.jpg" and third.name == "A-3.jpg"
    assert other.read_bytes() == jpeg(2) and third.read_bytes() == jpeg(3)
    assert ": 3 " in say_embedded([store], source)[0].seen
    assert say_embedded([PictureStore(source)], source) == []


def test_read_once(source: Path) -> None:
    store = PictureStore(source)
    assert not store.load()
    path = store.keep(7, "a.jpg", jpeg(1))
    assert not PictureStore(source).load()  # cut off before the end
    store.finish()
    again = PictureStore(source)
    assert again.load() and again.kept == {7: path}
    path.write_bytes(b"")  # as a full disk leaves it
    assert not PictureStore(source).load()
    assert PictureStore(source).keep(7, "a.jpg", jpeg(1)).read_bytes() == jpeg(1)
    path.unlink()
    assert not PictureStore(source).load()
    (store.folder / "index.json").write_text('{"7": "a.jpg"}')
    assert not PictureStore(source).load()


def test_changed_file_has_another_folder(source: Path) -> None:
    before = PictureStore(source).folder
    assert PictureStore(source).folder == before
    os.utime(source, ns=(1, 1))
    touched = PictureStore(source).folder
    source.write_bytes(b"longer than it was")
    os.utime(source, ns=(1, 1))
    assert len({before, touched, PictureStore(source).folder}) == 3


def test_readers_at_once(source: Path) -> None:
    pictures = [jpeg(seed, (640, 480)) for seed in range(5)]

    def read(_: int) -> bool:
        store = PictureStore(source)
        kept = [store.keep(row, f"{row}.jpg", data) for row, data in enumerate(pictures)]
        return [path.read_bytes() for path in kept] == pictures

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert all(pool.map(read, range(24)))
    assert not list(PictureStore(source).folder.glob(".*"))


def test_cannot_be_written(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PictureStore(source)

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"a\.jpg cannot be copied into the cache: No space left") as caught:
        store.keep(0, "a.jpg", jpeg(1))
    assert "BOXTUNE_CACHE" in caught.value.fix and not list(store.folder.iterdir())


def test_base64() -> None:
    text = base64.b64encode(jpeg(1)).decode()
    for head in ("data:image/jpeg;base64,", "DATA:image/svg+xml;charset=utf-8;base64,"):
        assert decode_data_uri(f"{head}{text[:70]}\n{text[70:]}", "x") == jpeg(1)
    assert decode_data_uri("images/a.jpg", "x") is None
    with pytest.raises(DataError, match="base64 is broken") as caught:
        decode_data_uri("data:image/png;base64,a", "line 3")
    assert caught.value.where == "line 3"
