"""Which column is which, and the questions where that cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.data.formats.csv_cells import (
    find_prediction_shape,
    holds_outline,
    orders_in,
    parse_boxes,
    parse_labels,
    parse_predictions,
)
from boxtune.data.formats.csv_columns import Columns, find_columns
from boxtune.data.formats.csv_table import find_dialect, iter_rows, peek_rows
from boxtune.data.formats.csv_words import coordinate_of, speaks_of_box
from boxtune.errors import DataError

from .tool_cases import put

FILE = Path("boxes.csv")


def columns(text: str) -> Columns | None:
    rows = [line.split(",") for line in text.splitlines()]
    return find_columns([(i, [cell.strip() for cell in row]) for i, row in enumerate(rows, start=1)], FILE)


def require(text: str) -> Columns:
    found = columns(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("xmin", "x1"),
        ("X_Min", "x1"),
        ("bbox_x1", "x1"),
        ("Upper left corner X", "x1"),
        ("top", "y1"),
        ("bbox height", "h"),
        ("x-center", "cx"),
        ("Roi.Y2", "y2"),
        ("xtype", None),
        ("image_width", None),
        ("exit", None),
    ],
)
def test_coordinate_of(name: str, side: str | None) -> None:
    assert coordinate_of(name) == side


def test_speaks_of_box() -> None:
    assert [speaks_of_box(name) for name in ("bbox_width", "w", "width", "xmin")] == [True, True, False, False]


def test_the_width_of_the_box_or_of_the_image() -> None:
    corners = require("filename,width,height,xmin,ymin,xmax,ymax,class")
    assert corners.numbers == (3, 4, 5, 6) and corners.size == (1, 2) and corners.label == 7
    sides = require("filename,xmin,ymin,width,height,class")
    assert sides.numbers == (1, 2, 3, 4) and sides.size is None and sides.orders == ("xywh",)
    both = require("filename,bbox_x,bbox_y,bbox_width,bbox_height,width,height")
    assert both.numbers == (1, 2, 3, 4) and both.size == (5, 6) and both.orders == ("xywh", "cxcywh")


def test_the_column_of_the_image() -> None:
    assert require("image_id,filename,x1,y1,x2,y2\n1,a.jpg,1,2,3,4").file == 1
    assert require("id,img,x1,y1,x2,y2\n1,7,1,2,3,4").file == 1
    assert require("what,x1,y1,x2,y2\na.jpg,1,2,3,4").file == 0
    assert columns("id,x1,y1,x2,y2\n1,1,2,3,4") is None


def test_the_column_of_the_class() -> None:
    assert require("file,x1,y1,x2,y2,class_id,name\na.jpg,1,2,3,4,0,cat").label == 6
    assert require("file,x1,y1,x2,y2,class,label\na.jpg,1,2,3,4,0,cat").label == 6
    assert require("file,x1,y1,x2,y2,class,label\na.jpg,1,2,3,4,cat,cat").label == 5
    assert require("file,x1,y1,x2,y2,class,label\na.jpg,1,2,3,4,,cat").label == 6
    assert require("file,x1,y1,x2,y2\na.jpg,1,2,3,4").label is None
    with pytest.raises(DataError, match="2 columns that may hold the class") as caught:
        columns("file,x1,y1,x2,y2,class,category\na.jpg,1,2,3,4,cat,animal\nb.jpg,1,2,3,4,dog,animal")
    assert "class (cat, dog); category (animal)" in caught.value.what and "`class`" in caught.value.fix


def test_two_columns_for_one_side() -> None:
    with pytest.raises(DataError, match="2 columns for one side of a box: xmin, left"):
        columns("file,xmin,left,y1,x2,y2\na.jpg,1,1,2,3,4")


def test_what_is_not_read_is_named() -> None:
    assert require("file,x1,y1,x2,y2,class,pose,score\na.jpg,1,2,3,4,cat,up,1").unread() == ["pose", "score"]


def test_without_a_header() -> None:
    found = require("a.jpg,1,2,3,4,cat\nb.jpg,,,,,")
    assert (found.file, found.numbers, found.label, found.header) == (0, (1, 2, 3, 4), 5, None)
    assert require("a.jpg,1,2,3,4,cat,\nb.jpg,1,2,3,4,cat,").label == 5
    assert require("train,a.jpg,1,2,3,4,cat\nvalid,b.jpg,1,2,3,4,cat").split == 0
    assert require("cat,1,2,3,4,a.jpg").label == 0
    assert require("0,a.jpg,1,2,3,4\n1,b.jpg,1,2,3,4").label == 0
    for text in ("a.jpg,cat", "a.jpg,b.jpg,1,2,3,4", "a.jpg,cat,dog,1,2,3,4", "a.jpg,1,2,3,4,5,6,7,cat"):
        assert columns(text) is None


def test_numbers_that_may_be_box_or_size_are_asked() -> None:
    with pytest.raises(DataError, match=r"it cannot be told which of its numbers \(6 in a row\) are the box") as caught:
        columns("a.jpg,60,40,1,2,60,40,cat")
    assert "filename,xmin,ymin,xmax,ymax,class" in caught.value.fix
    with pytest.raises(DataError, match=r"\(5 in a row\)"):
        columns("a.jpg,1,2,3,4,5")
    assert require("a.jpg,1,2,3,4,0").label == 5 and require("a.jpg,9,1,2,3,4").label == 1


def test_a_file_with_a_header_alone() -> None:
    assert require("filename,xmin,ymin,xmax,ymax,class").label == 5
    assert require("image_id,width,height,bbox,source").cell == 3
    assert columns("image_id,PredictionString") is None


def test_parse_boxes() -> None:
    assert parse_boxes("[1, 2.5, -3, 4e1]") == [[1, 2.5, -3, 40]]
    assert parse_boxes("1 2 3 4;5 6 7 8") == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert parse_boxes("[(1, 2), (3, 4)]") == [[1, 2, 3, 4]]
    assert parse_boxes("{'left': 1, 'top': 2, 'right': 3, 'bottom': 4}") == [[1, 2, 3, 4]]
    assert all(parse_boxes(cell) == [] for cell in ("", "[]", "no_box", "NaN"))
    for cell in (
        "[1, 2, 3]",
        "one, two",
        "{'x': 1}",
        "{broken",
        "{'x': 1, 'y': 2, 'w': 3, 'h': 'wide'}",
        "[{1: 2}, 3]",
    ):
        with pytest.raises(ValueError):
            parse_boxes(cell)


def test_orders_in() -> None:
    assert orders_in("[1, 2, 3, 4]") == ("xywh", "xyxy", "cxcywh")
    assert orders_in('{"x": 1, "y": 2, "width": 3, "height": 4}') == ("xywh",)
    assert orders_in("[]") is None and orders_in("text") is None


def test_parse_labels() -> None:
    assert parse_labels("cat", 2) == ["cat", "cat"] and parse_labels("['a', 'b']", 2) == ["a", "b"]
    assert parse_labels("[a, b]", 2) == ["a", "b"] and parse_labels("['a', 'b']", 1) == ["['a', 'b']"]
    with pytest.raises(ValueError, match="holds 1 labels for 2 boxes"):
        parse_labels("['a']", 2)


def test_prediction_strings() -> None:
    assert find_prediction_shape(["cat 0.5 1 2 3 4", ""]) == ("label score box",)
    assert find_prediction_shape(["0.5 1 2 3 4 0.5 1 2 3 4"]) == ("score box",)
    assert find_prediction_shape(["cat 1 2 3 4"]) == ("label box",)
    assert find_prediction_shape(["1 1 2 3 4"]) == ("label box", "score box")
    assert find_prediction_shape(["some words", ""]) == () and find_prediction_shape([]) == ()
    assert parse_predictions("7 1.0 1 2 3 4", "label score box") == [("7", [1, 2, 3, 4])]
    assert parse_predictions("1.0 1 2 3 4", "score box") == [(None, [1, 2, 3, 4])]
    with pytest.raises(ValueError, match="is not `score box` over and over"):
        parse_predictions("1.0 1 2 3", "score box")
    with pytest.raises(DataError, match="can be read in 2 ways: label box, score box"):
        columns("image_id,PredictionString\na,1 1 2 3 4")


def test_dialects(tmp_path: Path) -> None:
    assert find_dialect("a;b,c;d\n").delimiter == ";" and find_dialect("").delimiter == ","
    assert find_dialect('"a;b;c",d\n').delimiter == ","
    assert not find_dialect("a,b\n1,2\n").decimal_comma and find_dialect("a;b\n1,5;2\n").decimal_comma
    file = put(tmp_path / "a.csv", '\ufeffa ; b\n\n"two\nlines";1,5\n')
    assert list(iter_rows(file)) == [(1, ["a", "b"]), (4, ["two\nlines", "1.5"])]


def test_broken_text(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("a,b\n".encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16 text"):
        list(iter_rows(file))
    assert peek_rows(file) == []
    file.write_bytes(b"a,b\n1,\xe4\n")
    with pytest.raises(DataError, match="is not UTF-8 text") as caught:
        list(iter_rows(file))
    assert "line 2, column 3" in caught.value.where
    with pytest.raises(DataError, match="cannot be read"):
        list(iter_rows(tmp_path / "gone.csv"))
    file.write_text('a,"' + "x" * (1 << 25))
    with pytest.raises(DataError, match="is no CSV: field larger") as caught:
        list(iter_rows(file))
    assert "a quote that is not closed" in caught.value.fix


def test_a_sniffer_takes_no_row_that_is_cut_off(tmp_path: Path) -> None:
    file = put(tmp_path / "a.csv", "name,text\n" + "\n".join(f"{i},{'x' * 3000}" for i in range(40)))
    rows = peek_rows(file)
    assert 10 < len(rows) < 40 and all(len(cells[1]) == 3000 for _, cells in rows[1:])


def test_lists_in_cells() -> None:
    two = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    for cell in ("[[1, 2, 3, 4], [5, 6, 7, 8]]", "[1 2 3 4];[5 6 7 8]", "{{1,2,3,4},{5,6,7,8}}", "1 2 3 4;5 6 7 8"):
        assert parse_boxes(cell) == two and not holds_outline(cell)
    assert parse_boxes("[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]") == two  # two corners each
    assert parse_boxes("((1, 2), (3, 4))") == two[:1] and not holds_outline("((1, 2), (3, 4))")
    assert parse_boxes("[[1, 2], [3, 0], [2, 8]]") == [[1.0, 0.0, 3.0, 8.0]]
    assert holds_outline("[[1, 2], [3, 0], [2, 8]]") and orders_in("[[1, 2], [3, 0], [2, 8]]") == ("xyxy",)
    for cell, words in {
        "[[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4]]": "8 numbers in a list",
        "[[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 2, 3]]": "3 numbers in a list",
        "[1, 2, [3, 4]]": "mixes numbers",
        "[[1, 2, 3, 4]": "does not close",
        "1, 2, 3, 4]": "closes more",
    }.items():
        with pytest.raises(ValueError, match=words):
            parse_boxes(cell)
