"""What the readers of files share: listings, paths of other machines, XML, and remarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data.formats.listing import IMAGE_SUFFIXES, PathFinder, list_files, peek_files, read_head
from boxtune.data.formats.pairs import PairFinder, group_by_split, lies_near
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.xml_files import read_number, read_size_wh, read_xml
from boxtune.errors import DataError

from .made_sets import image, write


def test_list_files(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a.jpg", ".hidden.png", ".cache/x.png", "__MACOSX/a.png", "a.txt", "._a.jpg"):
        write(tmp_path / name, "")
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [file.relative_to(tmp_path).as_posix() for file in list_files(tmp_path, IMAGE_SUFFIXES)]
    assert found == ["a.jpg", "b/10.png", "b/2.PNG"] or found == ["a.jpg", "linked/10.png", "linked/2.PNG"]


def test_peek_files(tmp_path: Path) -> None:
    for name in ("1/2/3/4/deep.xml", "1/2/3/4/5/deeper.xml", "z.xml", "1/a.xml", ".x/a.xml"):
        write(tmp_path / name, "")
    found = [[file.relative_to(tmp_path).as_posix() for file in files] for files in peek_files(tmp_path, {".xml"})]
    assert found == [["z.xml"], ["1/a.xml"], ["1/2/3/4/deep.xml"]]
    assert read_head(write(tmp_path / "b.txt", "\ufeffwords"), 5) == b"wo" and read_head(tmp_path / "gone") == b""


def test_path_finder(tmp_path: Path) -> None:
    write(tmp_path / "set" / "images" / "a b.jpg", "")
    finder = PathFinder([tmp_path, tmp_path / "set"])
    there = tmp_path / "set" / "images" / "a b.jpg"
    for name, dropped in [
        ("set/images/a b.jpg", 0),
        ("images/a b.jpg", 0),
        ("./images/../images/a b.jpg", 0),
        (str(there), 0),
        ("data/images/a b.jpg", 1),
        ("/content/set/images/a b.jpg", 2),
        ("C:\\mine\\images\\a b.jpg", 2),
    ]:
        assert finder.find(name) == (there, dropped), name
    assert finder.find("images/b.jpg") is None and finder.find("a b.jpg") is None


def test_group_by_split(tmp_path: Path) -> None:
    def group(*names: str, root: Path = tmp_path) -> tuple[dict[str, list[str]], list[str]]:
        groups, findings = group_by_split([root / name for name in names], root, "x")
        named = {split: [file.relative_to(root).as_posix() for file in files] for split, files in groups.items()}
        return named, [finding.check for finding in findings]

    assert group("a.xml", "b/c.xml") == ({"train": ["a.xml", "b/c.xml"]}, [])
    assert group("a.xml", root=tmp_path / "val") == ({"valid": ["a.xml"]}, [])
    assert group("a.xml", root=tmp_path / "test" / "Annotations") == ({"test": ["a.xml"]}, [])
    assert group("train/test/a.xml", "val/x/a.xml") == ({"valid": ["val/x/a.xml"], "test": ["train/test/a.xml"]}, [])
    assert group("train/a.xml", "b.xml") == ({"train": ["train/a.xml"]}, ["x.outside_splits"])


def test_lies_near(tmp_path: Path) -> None:
    near = (
        "a.xml",
        "Annotations/x/y/a.xml",
        "mine/Annotations/a.xml",
        "VOCdevkit/VOC2012/Annotations/a.xml",
        "x/a.xml",
    )
    assert [name for name in near if not lies_near(tmp_path / name, tmp_path)] == []
    assert not lies_near(tmp_path / "sets" / "mine" / "Annotations" / "a.xml", tmp_path)


def test_pair_finder_prefers_the_nearest(tmp_path: Path) -> None:
    """Images of one name in every split, and a stray one at the top."""
    for folder in ("images/train", "images/val", "."):
        image(tmp_path / folder / "a.png")
    finder = PairFinder(tmp_path, None)
    for split in ("train", "val"):
        match = finder.find(tmp_path / "Annotations" / split / "a.xml", "a.png", stem_first=True)
        assert match is not None and match.path == tmp_path / "images" / split / "a.png" and not match.by_stem
    assert finder.find(tmp_path / "Annotations" / "b.xml", "b.png", stem_first=True) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", r"a\.xml is not XML: it is empty"),
        (b"<a>\n<b></a>", r"a\.xml is not XML: mismatched tag"),
        (b'<?xml version="1.0" encoding="gb2312"?><a>\xd6\xd0</a>', r"a\.xml cannot be decoded: multi-byte"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', r"a\.xml (cannot be decoded|is not XML): unknown encoding"),
        (b'<!DOCTYPE a SYSTEM "http://example.com/x.dtd"><a/>', r"a\.xml has a DOCTYPE"),
    ],
)
def test_broken_xml(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_xml(write(tmp_path / "a.xml", data), "a file")
    assert str(tmp_path / "a.xml") in caught.value.where and caught.value.fix


def test_sound_xml(tmp_path: Path) -> None:
    assert read_xml(write(tmp_path / "a.xml", b"\xef\xbb\xbf<a>\xc3\xa4</a>"), "a file").text == "ä"
    latin = b'<?xml version="1.0" encoding="iso-8859-1"?><a>\xe4</a>'
    assert read_xml(write(tmp_path / "a.xml", latin), "a file").text == "ä"
    with pytest.raises(DataError, match=r"gone\.xml cannot be read: No such file"):
        read_xml(tmp_path / "gone.xml", "a file")


def test_numbers_and_sizes() -> None:
    assert [read_number(text) for text in (" 1.5\n", "1e2", "", None, "x", "nan", "inf")] == [1.5, 100.0, *[None] * 5]
    assert read_size_wh("64", "48.0") == (64, 48)
    assert {read_size_wh(*sides) for sides in (("0", "4"), (None, "4"), ("1.5", "4"), ("-3", "4"))} == {None}


def test_remarks(tmp_path: Path) -> None:
    remarks = Remarks(tmp_path, {"x.first": ("ok", "things", ""), "x.second": ("warn", "others", "mend")})
    assert remarks.findings() == []
    remarks.require_sound("faults", "mend")
    for name in "abcd":
        remarks.add("x.second", name)
    remarks.add("x.first", "e")
    assert [finding.seen for finding in remarks.findings()] == ["things: 1 (e)", "others: 4 (a, b, c and 1 more)"]
    with pytest.raises(KeyError):
        remarks.add("x.third", "f")
    remarks.fault("g")
    with pytest.raises(DataError, match=r"faults: 1 \(g\)"):
        remarks.require_sound("faults", "mend")
