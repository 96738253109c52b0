"""What the readers of annotation tools share: JSON by its head, files by split, spellings of image names, hulls."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxtune.data.formats.documents import find_documents, group_documents
from boxtune.data.formats.image_names import StemFinder, choose_name, query_value, spell_link
from boxtune.data.formats.json_files import HEAD, as_number, as_numbers, as_size, load_json, peek_json
from boxtune.data.formats.outline import box_around, box_around_ellipse, box_around_rotated
from boxtune.data.places import ImageFinder
from boxtune.errors import DataError

from .tool_cases import pictures, put


def test_peek_json_closes_what_the_head_cuts_off(tmp_path: Path) -> None:
    entries = [{"name": f'a,{i}] \\"{{', "values": [1, 2, {"x": i}]} for i in range(5000)]
    file = put(tmp_path / "a.json", entries)
    assert file.stat().st_size > 2 * HEAD
    peeked = peek_json(file)
    assert peeked[:-1] == entries[: len(peeked) - 1] and len(peeked) > 500
    assert set(peek_json(put(tmp_path / "b.json", {"first": 1, "long": list(range(99999))}))) == {"first", "long"}


@pytest.mark.parametrize("text", ["", "words", "{broken", "[1, 2", '{"a": [1, 2}', "[" * 99999])
def test_peek_json_never_raises(tmp_path: Path, text: str) -> None:
    assert peek_json(put(tmp_path / "a.json", text)) in (None, {}, [], [1], {"a": [1]})
    assert peek_json(tmp_path / "gone.json") is None


def test_load_json_says_where(tmp_path: Path) -> None:
    assert load_json(put(tmp_path / "a.json", "\ufeff[1]"), "a list") == [1]
    for text, message, where in (("[1,\n 2 3]", "is not JSON", "line 2, column 4"), (" \n", "is empty", "a.json")):
        with pytest.raises(DataError, match=message) as caught:
            load_json(put(tmp_path / "a.json", text), "a list")
        assert caught.value.where.endswith(where)
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="is not UTF-8"):
        load_json(tmp_path / "a.json", "a list")
    with pytest.raises(DataError, match="cannot be read"):
        load_json(tmp_path / "gone.json", "a list")
    with pytest.raises(DataError, match="nested too deeply"):
        load_json(put(tmp_path / "a.json", "[" * 99999), "a list")


def test_numbers() -> None:
    assert [as_number(value) for value in (1, 2.5, "3", True, None, math.nan, "inf", "x", [1])] == [
        1.0, 2.5, 3.0, None, None, None, None, None, None
    ]  # fmt: skip
    assert as_numbers([1, "2"]) == [1, 2] and as_numbers([1, None]) is None and as_numbers(3) is None
    assert as_numbers([1, 2], 2) == [1, 2] and as_numbers([1], 2) is None
    assert as_size(64, "48") == (64, 48) and as_size(64, 0) is None and as_size(6.5, 4) is None


def test_documents_by_place_and_split(tmp_path: Path) -> None:
    for name in ("train/a.json", "train/annotations/b.json", "loose.json", "annotations/val.json", "other/c.json"):
        put(tmp_path / name, [])

    def names(path: Path) -> list[str]:
        return [file.relative_to(tmp_path).as_posix() for file in find_documents(path, ".json", lambda file: True)]

    assert names(tmp_path) == ["train/a.json", "train/annotations/b.json"]
    (tmp_path / "train").rename(tmp_path / "more")
    assert names(tmp_path) == ["loose.json"] and names(tmp_path / "loose.json") == ["loose.json"]
    (tmp_path / "loose.json").unlink()
    assert names(tmp_path) == ["annotations/val.json"] and names(tmp_path / "gone") == []
    for number in range(60):
        put(tmp_path / f"{number}.json", [])
    assert names(tmp_path) == ["annotations/val.json"]  # so many are one an image


def test_the_file_that_names_no_split(tmp_path: Path) -> None:
    one, valid, train = (put(tmp_path / name, []) for name in ("boxes.json", "boxes_val.json", "boxes_train.json"))
    assert group_documents(tmp_path, [one]).files == {"train": [one]}
    splits = group_documents(tmp_path, [one, valid])
    assert splits.files == {"train": [one], "valid": [valid]} and splits.why == "boxes.json taken as train"
    with pytest.raises(DataError, match=r"the split of boxes\.json cannot be told"):
        group_documents(tmp_path, [one, train])
    with pytest.raises(DataError, match="speaks of train and valid"):
        group_documents(tmp_path, [put(tmp_path / "train_val.json", [])])


def test_spellings_and_which_is_chosen(tmp_path: Path) -> None:
    assert list(spell_link("a.png")) == ["a.png"] and list(spell_link("a%20b.png")) == ["a%20b.png", "a b.png"]
    assert "x/a b.png" in spell_link("s3://bucket/x/a%20b.png") and "x/a?.png" in spell_link("https://host/x/a?.png")
    assert "/home/me/a b.png" in spell_link("file:///home/me/a%20b.png")
    assert list(spell_link("C:\\x\\a.png")) == ["C:\\x\\a.png"]
    pictures(tmp_path / "deep", "b.png")
    pictures(tmp_path, "b.png")
    finder = ImageFinder([tmp_path])
    assert choose_name(["gone/b.png", "deep/b.png"], finder) == "deep/b.png"
    assert choose_name(["gone/b.png", "c.png"], finder) == "gone/b.png"
    assert choose_name(["c.png", "d.png"], finder) == "c.png"
    assert query_value("/x/?d=a%20b&e=1", "d") == "a b" and query_value("/x", "d") is None


def test_images_by_their_stem(tmp_path: Path) -> None:
    pictures(tmp_path / "one", "a.png", "v1.2.jpg")
    pictures(tmp_path / "two" / "deep", "a.jpg", "b.jpg")
    put(tmp_path / "one" / "b.txt", "no image")
    finder = StemFinder([tmp_path / "one", tmp_path / "two"])
    assert finder.find("a") == tmp_path / "one" / "a.png" and finder.find("v1.2") == tmp_path / "one" / "v1.2.jpg"
    assert finder.find("deep/b") == tmp_path / "two" / "deep" / "b.jpg"
    assert [finder.find(name) for name in ("b", "../one/a", "/a", "gone/a")] == [None] * 4


points = st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 2), min_size=1, max_size=9)


@given(points)
def test_box_around_holds_all_points_and_touches_each_side(rows: list[tuple[float, float]]) -> None:
    x1, y1, x2, y2 = box_around(rows)
    assert all(x1 <= x <= x2 and y1 <= y <= y2 for x, y in rows)
    assert {x1, x2} <= {x for x, _ in rows} and {y1, y2} <= {y for _, y in rows}


@given(st.floats(-7, 7), st.floats(0.1, 50), st.floats(0.1, 50))
def test_box_around_an_ellipse_is_that_of_its_points(angle: float, rx: float, ry: float) -> None:
    turns = np.linspace(0, 2 * np.pi, 4001)
    xs = 5 + rx * np.cos(turns) * np.cos(angle) - ry * np.sin(turns) * np.sin(angle)
    ys = 7 + rx * np.cos(turns) * np.sin(angle) + ry * np.sin(turns) * np.cos(angle)
    wanted = [xs.min(), ys.min(), xs.max(), ys.max()]
    np.testing.assert_allclose(box_around_ellipse(5.0, 7.0, rx, ry, angle), wanted, atol=1e-3)


def test_box_around_a_turned_rectangle() -> None:
    box = (10.0, 10.0, 4.0, 2.0)
    assert np.allclose(box_around_rotated(box, 0.0, pivot=(0.0, 0.0)), (10, 10, 14, 12))
    assert np.allclose(box_around_rotated(box, math.pi / 2, pivot=(10.0, 10.0)), (8, 10, 10, 14))
    assert np.allclose(box_around_rotated(box, math.pi, pivot=(12.0, 11.0)), (10, 10, 14, 12))
