"""VGG Image Annotator: projects and exports of its three versions."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.via import sniff_via
from boxtune.errors import DataError

from .tool_cases import boxes, finding, pictures, put, raw_of, read

RECT = {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 20}
CORNERS = [10.0, 5.0, 30.0, 25.0]


def region(shape: Any = RECT, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def metadata(**regions: Any) -> dict[str, Any]:
    """Entries of an export, by names whose underscore stands for a dot."""
    names = {name.replace("_", "."): rows for name, rows in regions.items()}
    return {f"{n}99": {"filename": n, "size": 99, "regions": rows, "file_attributes": {}} for n, rows in names.items()}


def project(entries: dict[str, Any], **region_attributes: Any) -> dict[str, Any]:
    attributes = {"region": region_attributes, "file": {}}
    return {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": attributes}


def test_a_project_and_its_export_say_the_same(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    entries = metadata(a_png=[region(**{"class": "cat"})], b_png=[])
    export, whole = put(tmp_path / "export.json", entries), put(tmp_path / "project.json", project(entries))
    for path in (tmp_path, export, whole):
        assert boxes(read(path, "via")) == {"a.png": [("cat", CORNERS)], "b.png": []}
    assert "project.json says the same as export.json" in read(tmp_path, "via").why
    put(whole, project(metadata(a_png=[region(**{"class": "dog"})], b_png=[])))
    with pytest.raises(DataError, match=r"export\.json and project\.json are both a `train` split"):
        read_dataset(tmp_path)


def test_splits_by_folder_as_in_balloon(tmp_path: Path) -> None:
    for split, name in (("train", "a.png"), ("val", "b.png")):
        pictures(tmp_path / split, name)
        entry = {"fileref": "", "size": 9, "filename": name, "base64_img_data": "", "regions": {"0": region()}}
        put(tmp_path / split / "via_region_data.json", {f"{name}9": entry})
    dataset = read(tmp_path, "via")
    assert boxes(dataset, "valid") == {"b.png": [("object", CORNERS)]} and len(boxes(dataset)) == 1
    found = [one for one in dataset.findings if one.check == "via.no_class"]
    assert len(found) == 2 and "data.classes={object: NAME}" in found[0].fix


def test_the_first_version_writes_numbers_as_text(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    shape = {"name": "rect", "x": "10", "y": "5", "width": "20", "height": "20"}
    put(tmp_path / "via.json", metadata(a_png={"0": region(shape, label="cat")}))
    assert boxes(read(tmp_path, "via")) == {"a.png": [("cat", CORNERS)]}


SHAPES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "polygon": ({"name": "polygon", "all_points_x": [10, 30, 15], "all_points_y": [5, 9, 25]}, CORNERS),
    "circle": ({"name": "circle", "cx": 20, "cy": 15, "r": 10}, CORNERS),
    "ellipse": ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 10, "ry": 5}, [10, 10, 30, 20]),
    "turned": ({"name": "ellipse", "cx": 20, "cy": 15, "rx": 10, "ry": 5, "theta": math.pi / 2}, [15, 5, 25, 25]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_hulls(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, "a.png")
    shape, corners = SHAPES[name]
    put(tmp_path / "via.json", metadata(a_png=[region(shape, label="cat")]))
    dataset = read(tmp_path, "via")
    assert boxes(dataset) == {"a.png": [("cat", corners)]}
    found = finding(dataset, "via.hull")
    assert found is not None and f"a.png region 0 ({shape['name']})" in found.seen


def test_points_and_lines_are_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    line = {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [3, 4]}
    rows = [region({"name": "point", "cx": 1, "cy": 2}, label="cat"), region(line, label="cat"), region(label="cat")]
    put(tmp_path / "via.json", metadata(a_png=rows))
    dataset = read(tmp_path, "via")
    assert boxes(dataset) == {"a.png": [("cat", CORNERS)]}
    found = finding(dataset, "via.no_box")
    assert found is not None and ": 2 (a.png region 0 (point), a.png region 1 (polyline))" in found.seen


def test_the_attribute_that_holds_the_class(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    file = tmp_path / "via.json"
    put(file, metadata(a_png=[region(species="cat", note="")]))
    assert "the class is the region attribute 'species'" in read(tmp_path, "via").why
    put(file, metadata(a_png=[region(Label="cat", note="blurred")]))
    dataset = read(tmp_path, "via")
    assert boxes(dataset) == {"a.png": [("cat", CORNERS)]} and "there are also 'note'" in dataset.why
    put(file, metadata(a_png=[region(species="cat", colour="grey"), region(species="dog", colour="grey")]))
    with pytest.raises(DataError, match="cannot be told which of them is the class") as caught:
        read_dataset(tmp_path)
    assert "'species' (cat, dog); 'colour' (grey)" in caught.value.what and "`class`" in caught.value.fix


def test_menus_and_boxes_to_tick(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    rows = [region(type="2"), region(type={"1": True, "2": True}), region(type={"1": False}), region(type="")]
    menu = {"type": "dropdown", "options": {"1": "cat", "2": "dog"}}
    put(tmp_path / "export.json", metadata(a_png=rows))
    put(tmp_path / "project.json", project(metadata(a_png=rows), type=menu))
    dataset = read(tmp_path, "via")
    assert boxes(dataset) == {"a.png": [("dog", CORNERS), ("cat", CORNERS), ("dog", CORNERS)]}
    several, none = finding(dataset, "via.several_classes"), finding(dataset, "via.unlabelled")
    assert several is not None and "region 1 (cat, dog)" in several.seen
    assert none is not None and ": 2 (a.png region 2, a.png region 3)" in none.seen
    (tmp_path / "export.json").unlink()
    spoken = {"type": "radio", "options": {"cat": "a small beast", "dog": ""}}
    put(tmp_path / "project.json", project(metadata(a_png=[region(type="cat")]), type=spoken))
    assert boxes(read(tmp_path, "via")) == {"a.png": [("cat", CORNERS)]}


def csv_row(name: str, count: int, shape: Any, attributes: Any) -> str:
    cells = ["{}" if one is None else json.dumps(one).replace('"', '""') for one in ({}, shape, attributes)]
    return f'{name},99,"{cells[0]}",{count},0,"{cells[1]}","{cells[2]}"\n'


@pytest.mark.parametrize("first", ["filename", "#filename"])
def test_csv_exports(tmp_path: Path, first: str) -> None:
    pictures(tmp_path, "a.png", "b.png")
    head = "file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    text = f"{first},{head}\n" + csv_row("a.png", 1, RECT, {"class": "cat, grey"}) + csv_row("b.png", 0, {}, {})
    file = put(tmp_path / "via.csv", text)
    for path in (tmp_path, file):
        assert boxes(read(path, "via")) == {"a.png": [("cat, grey", CORNERS)], "b.png": []}
    put(file, text + 'c.png,99,"{}",1,0,"{broken","{}"\n')
    with pytest.raises(DataError, match="a cell that is not JSON") as caught:
        read_dataset(file)
    assert caught.value.where.endswith("via.csv, line 4")
    put(file, text + "c.png,99\n")
    with pytest.raises(DataError, match="has a row that lacks cells"):
        read_dataset(file)


def project_3(**metadata_of_view: list[Any]) -> dict[str, Any]:
    views = {str(place): rows for place, rows in enumerate(metadata_of_view.values(), start=1)}
    names = [name.replace("_", ".") for name in metadata_of_view]
    numbered = [(view, place, xy) for view, rows in views.items() for place, xy in enumerate(rows)]
    return {
        "project": {"pid": "p", "pname": "x", "data_format_version": "3.1.1", "vid_list": list(views)},
        "config": {},
        "attribute": {"1": {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 3, "options": {"c": "cat"}}},
        "file": {str(i): {"fid": str(i), "fname": name, "type": 2} for i, name in enumerate(names, start=1)},
        "metadata": {f"{v}_{i}": {"vid": v, "flg": 0, "z": [], "xy": xy, "av": {"1": "c"}} for v, i, xy in numbered},
        "view": {view: {"fid_list": [view]} for view in views},
    }


def test_the_third_version(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    shapes = [[2, 10, 5, 20, 20], [7, 10, 5, 30, 9, 15, 25], [8, 10, 9, 30, 9, 15, 5, 15, 25], [3, 20, 15, 10]]
    content = project_3(a_png=[*shapes, [1, 4, 4], [6, 1, 2, 3, 4]], b_png=[])
    file = put(tmp_path / "via.json", content)
    dataset = read(tmp_path, "via")
    assert boxes(dataset) == {"a.png": [("cat", CORNERS)] * 4, "b.png": []}
    found = finding(dataset, "via.no_box")
    assert found is not None and ": 2 (" in found.seen
    content["view"]["1"]["fid_list"] = ["1", "2"]
    put(file, content)
    with pytest.raises(DataError, match="has a view '1' of 2 images"):
        read_dataset(file)
    content["view"]["1"]["fid_list"] = ["7"]
    with pytest.raises(DataError, match="a view '1' of a file that is not there"):
        read_dataset(put(file, content))
    content = project_3(a_png=shapes)
    content["metadata"]["1_0"]["vid"] = "8"
    with pytest.raises(DataError, match="metadata '1_0' of the view '8', which is not there"):
        read_dataset(put(file, content))
    put(file, project_3(a_png=[[2, 10, 5, 20]]))
    with pytest.raises(DataError, match=r"a\.png region 0 has no shape"):
        read_dataset(file)


def test_a_csv_export_of_the_third_version(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    head = "# Exported using VGG Image Annotator\n# CSV_HEADER = metadata_id,file_list,flags,...\n"
    rows = '"1_x","[""a.png""]",0,"[]","[2,10,5,20,20]","{""1"":""cat""}"\n'
    moment = '"1_y","[""a.png""]",0,"[1.5]","[2,10,5,20,20]","{""1"":""cat""}"\n'
    put(tmp_path / "via.csv", head + rows + moment)
    dataset = read(tmp_path, "via")
    assert boxes(dataset) == {"a.png": [("cat", CORNERS)]}
    found = finding(dataset, "via.no_box")
    assert found is not None and "(moment)" in found.seen
    put(tmp_path / "via.csv", head + rows.replace('[""a.png""]', '[""a.png"",""b.png""]'))
    with pytest.raises(DataError, match="does not name one image"):
        read_dataset(tmp_path)


def test_links_as_names(tmp_path: Path) -> None:
    pictures(tmp_path, "a b.png")
    entries = metadata(x=[region(label="cat")])
    entries["x99"]["filename"] = "https://example.org/pictures/a%20b.png?size=big"
    put(tmp_path / "via.json", entries)
    assert list(boxes(read(tmp_path, "via"))) == ["a b.png"]


def test_broken_entries_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    lopsided = {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1]}
    rows = [region({"name": "rect", "x": 1}, label="c"), region(lopsided, label="c"), region({}, label="c")]
    file = put(tmp_path / "via.json", metadata(a_png=rows))
    with pytest.raises(DataError, match=r"cannot be read: 3 \(a\.png region 0 is no rect of numbers, ") as caught:
        read_dataset(file)
    assert "a.png region 2 has no shape" in caught.value.what
    for content, message in (({"k": {"filename": ""}}, "entry 'k' is no image"), ([1], "but a list")):
        with pytest.raises(DataError, match=message):
            raw_of(put(file, content), "via")
    with pytest.raises(DataError, match="is no object"):
        raw_of(put(file, {"_via_img_metadata": []}), "via")
    file.unlink()
    with pytest.raises(DataError, match="no VIA file was found"):
        raw_of(tmp_path, "via")
    with pytest.raises(DataError, match="has no columns of VIA"):
        raw_of(put(tmp_path / "a.csv", "a,b\n"), "via")


def test_the_sniffer_is_quiet_elsewhere(tmp_path: Path) -> None:
    assert sniff_via(put(tmp_path / "a.json", {"images": [], "annotations": []})) is None
    assert sniff_via(put(tmp_path / "b.json", {"k": {"filename": "a.png", "boxes": []}})) is None
    assert sniff_via(put(tmp_path / "c.csv", "filename,xmin,ymin,xmax,ymax,class\n")) is None
    assert sniff_via(put(tmp_path / "d.json", {})) is None and sniff_via(tmp_path) is None


def test_a_long_file_is_recognised_by_its_head(tmp_path: Path) -> None:
    entries = {f"{i}.png9": {"filename": f"{i}.png", "size": 9, "regions": [region(label="cat")]} for i in range(900)}
    assert sniff_via(put(tmp_path / "via.json", entries)) is not None
