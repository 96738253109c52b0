"""Label maps in protobuf's text format."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data.formats.label_map import read_label_map
from boxtune.errors import DataError


def read(folder: Path, text: str) -> dict[int, tuple[str, str]]:
    file = folder / "map.pbtxt"
    file.write_text(text, encoding="utf-8")
    return {number: (one.name, one.shown) for number, one in read_label_map(file).items()}


def test_forms(tmp_path: Path) -> None:
    text = """# comment { with a bracket
    item { id: 1 name: 'cat' }  # behind
    item: < name: "/m/01", display_name: "Käse \\"x\\"" ; id: 3 >
    item {
      id: 2
      name: "a { b } # c"
      keypoints { id: 9 label: "nose" }
    }"""
    assert read(tmp_path, text) == {1: ("cat", "cat"), 3: ("/m/01", 'Käse "x"'), 2: ("a { b } # c", "a { b } # c")}


def test_escapes(tmp_path: Path) -> None:
    assert read(tmp_path, r"item { id: 1 name: 'it\'s\ta\\b \303\274' }") == {1: ("it's\ta\\b ü", "it's\ta\\b ü")}


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "no item is in there", 1),
        ("item {\n id: 1\n}", "an item without id and name", 1),
        ("item { id: one name: 'x' }", "an item without id and name", 1),
        ("item { id: 1 name: 'a' }\nitem { id: 1 name: 'b' }", "the id 1 stands there twice", 2),
        ("item { id: 1\nname: 'a'", "an item is not closed", 2),
        ("\n}", "a bracket is closed", 2),
        ("class { id: 1 name: 'a' }", "class is no item", 1),
        ("item { id: 1 name: 'a }", "cannot be read at", 1),
    ],
)
def test_broken(tmp_path: Path, text: str, message: str, line: int) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text)
    assert caught.value.where.endswith(f"line {line}")


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "map.pbtxt").write_bytes(b"item { id: 1 name: '\xff' }")
    with pytest.raises(DataError, match="not UTF-8"):
        read_label_map(tmp_path / "map.pbtxt")
