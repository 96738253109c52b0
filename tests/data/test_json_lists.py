"""Large JSON in pieces: whatever the content and wherever a piece ends, it says the same as the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxtune.data.formats import json_lists
from boxtune.data.formats.json_lists import Piece, iter_lists
from boxtune.errors import DataError

KEYS = ("images", "annotations")
AWKWARD = ['a"b\\', "\\\\", "[{,}]", 'ü"', '\\"[', "", "images", '"images": [']
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(AWKWARD) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "x", 'y"']), inner, max_size=3),
    max_leaves=12,
)


def read(path: Path) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    lists: dict[str, list[Any]] = {key: [] for key in KEYS}
    rest: dict[str, Any] = {}
    for piece in iter_lists(path, KEYS, "a test file"):
        if isinstance(piece, Piece):
            lists[piece.key] += piece.parse()
        else:
            rest = piece
    return lists, rest


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    document=st.fixed_dictionaries(
        {"images": st.lists(VALUES, max_size=6), "info": VALUES, "annotations": st.lists(VALUES, max_size=6)}
    ),
    block=st.sampled_from([5, 16, 64, 4096]),
    indent=st.sampled_from([None, 1]),
    plain=st.booleans(),
)
def test_pieces_say_what_the_whole_says(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], block: int, indent: int | None, plain: bool
) -> None:
    path = tmp_path_factory.mktemp("lists") / "file.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=plain), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "BLOCK", block)
        lists, rest = read(path)
    assert lists == {key: document[key] for key in KEYS}
    assert rest == {**document, "images": [], "annotations": []}


@pytest.mark.parametrize("block", [7, 4096])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"images": [\n{"a": 1},\n{"a" 2}]}', r"not JSON[\s\S]*line 3, column 6"),
        (b'{"images": [1, 2],\n "x": }', r"not JSON[\s\S]*line 2, column 7"),
        (b'{"images": [1, 2]\n "x": 3}', r"not JSON[\s\S]*line 2, column 2"),
        (b'{"images": [1, 2', r"not JSON"),
        (b'{"images": ["\xff"]}', "not UTF-8"),
        (b'{"\xff": 1}', "not UTF-8"),
        (b"[1, 2]", "JSON, but a list"),
        (b"", "is empty"),
        (b"  \n ", "is empty"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, words: str, block: int
) -> None:
    monkeypatch.setattr(json_lists, "BLOCK", block)
    path = tmp_path / "file.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=words):
        read(path)


def test_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"images": [1], "annotations": []}).encode())
    assert read(path)[0] == {"images": [1], "annotations": []}
