"""The files of the VGG Image Annotator, of all its versions -> pictures with regions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.data.formats.csv_table import Row, iter_rows, peek_rows
from boxtune.data.formats.json_files import as_numbers, load_json, peek_json
from boxtune.errors import DataError

EXPECTED = "a project or an export (JSON or CSV) of the VGG Image Annotator"

Attributes = Mapping[str, Mapping[str, str]]
"""The region attributes that a project defines, each with the options of its menu: id -> description."""

_PROJECT = "_via_img_metadata"
_CSV_2 = ("filename", "region_shape_attributes", "region_attributes")
_CSV_3 = ("metadata_id", "file_list", "flags", "temporal_coordinates", "spatial_coordinates", "metadata")
_IMAGE_TYPE = 2  # of a file of VIA 3; videos and sounds have others
_SHAPES_3 = {
    1: ("point", 2), 2: ("rect", 4), 3: ("circle", 3), 4: ("ellipse", 4), 5: ("line", None), 6: ("polyline", None),
    7: ("polygon", None), 8: ("extreme_rect", 8), 9: ("extreme_circle", 6),
}  # fmt: skip
_KEYS_3 = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A region: its shape as VIA 2 writes it (None if it has none), and its attributes."""

    shape: Mapping[str, Any] | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image of a VIA file; with `menu_by_id` the ids of options are never shown to people (VIA 3)."""

    name: str
    regions: Sequence[Region]
    menu_by_id: bool = False


def is_via(file: Path) -> bool:
    """Whether a file looks like VIA, judged by its first bytes."""
    if file.suffix.lower() == ".csv":
        rows = peek_rows(file)
        return bool(rows) and (_is_csv_2(rows[0][1]) or _is_csv_3(rows))
    content = peek_json(file)
    if not isinstance(content, dict):
        return False
    if _PROJECT in content or "_via_settings" in content or _is_project_3(content):
        return True
    entries = list(content.values())
    entries = entries[:-1] or entries  # the last may be cut off
    return bool(entries) and all(isinstance(one, dict) and "filename" in one and "regions" in one for one in entries)


def _is_project_3(content: Mapping[str, Any]) -> bool:
    project = content.get("project")
    return isinstance(project, dict) and "vid_list" in project and {"pid", "pname"} & set(project) != set()


def _is_csv_2(header: Sequence[str]) -> bool:
    return {name.lstrip("#") for name in header}.issuperset(_CSV_2)


def _is_csv_3(rows: Sequence[Row]) -> bool:
    """Whether each row has the six cells of VIA 3; its header is a remark, which is skipped."""
    return all(len(cells) == len(_CSV_3) and cells[1].startswith("[") and cells[4].startswith("[") for _, cells in rows)


def read_pictures(file: Path) -> tuple[list[Picture], Attributes]:
    """The images of a VIA file in its order, and the region attributes that it defines.

    Raises DataError if it is no such file, naming the entry or the line that is not as it should be.
    """
    if file.suffix.lower() == ".csv":
        rows = list(iter_rows(file))
        if rows and _is_csv_2(rows[0][1]):
            return _pictures_of_csv_2(file, rows), {}
        if rows and _is_csv_3(rows):
            return _pictures_of_csv_3(file, rows), {}
        raise DataError(f"{file.name} has no columns of VIA", where=str(file), fix=f"expected is {EXPECTED}")
    content = load_json(file, EXPECTED)
    if not isinstance(content, dict):
        what = f"{file.name} is JSON, but a {type(content).__name__}"
        raise DataError(what, where=str(file), fix=f"expected is {EXPECTED}")
    if _is_project_3(content):
        return _pictures_of_project_3(file, content)
    attributes = content.get("_via_attributes")
    defined = attributes.get("region") if isinstance(attributes, dict) else None
    metadata = content.get(_PROJECT, content)
    if not isinstance(metadata, dict):
        raise DataError(f"`{_PROJECT}` of {file.name} is no object", where=str(file), fix=f"expected is {EXPECTED}")
    return [_picture(file, key, entry) for key, entry in metadata.items()], _menus(defined)


def _menus(defined: Any) -> dict[str, dict[str, str]]:
    menus = {}
    for name, attribute in defined.items() if isinstance(defined, dict) else ():
        options = attribute.get("options") if isinstance(attribute, dict) else None
        pairs = options.items() if isinstance(options, dict) else ()
        menus[name] = {str(key): text for key, text in pairs if isinstance(text, str)}
    return menus


def _picture(file: Path, key: str, entry: Any) -> Picture:
    name = entry.get("filename") if isinstance(entry, dict) else None
    regions = entry.get("regions", []) if isinstance(entry, dict) else None
    # VIA 1 numbers regions by the keys of an object, VIA 2 lists them.
    listed = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(name, str) or not name or not isinstance(listed, list):
        raise DataError(f"{file.name} entry {key!r} is no image of VIA", where=str(file), fix=f"expected is {EXPECTED}")
    return Picture(name=name, regions=[_region(one) for one in listed])


def _region(one: Any) -> Region:
    values = one if isinstance(one, dict) else {}
    shape, attributes = values.get("shape_attributes"), values.get("region_attributes")
    return Region(
        shape=shape if isinstance(shape, dict) and shape else None,
        attributes=attributes if isinstance(attributes, dict) else {},
    )


def _pictures_of_csv_2(file: Path, rows: Sequence[Row]) -> list[Picture]:
    header = [name.lstrip("#") for name in rows[0][1]]
    at_name, at_shape, at_attributes = (header.index(name) for name in _CSV_2)
    pictures: dict[str, list[Region]] = {}
    for line, cells in rows[1:]:
        if len(cells) <= max(at_name, at_shape, at_attributes) or not cells[at_name]:
            raise _broken_row(file, line, "lacks cells")
        regions = pictures.setdefault(cells[at_name], [])
        shape = _json_cell(file, line, cells[at_shape], dict)
        if shape:
            regions.append(Region(shape=shape, attributes=_json_cell(file, line, cells[at_attributes], dict)))
    return [Picture(name=name, regions=regions) for name, regions in pictures.items()]


def _pictures_of_csv_3(file: Path, rows: Sequence[Row]) -> list[Picture]:
    pictures: dict[str, list[Region]] = {}
    for line, cells in rows:
        names = _json_cell(file, line, cells[1], list)
        if len(names) != 1 or not isinstance(names[0], str):
            raise _broken_row(file, line, "does not name one image")
        regions = pictures.setdefault(names[0], [])
        xy = _json_cell(file, line, cells[4], list)
        if xy:
            attributes = _json_cell(file, line, cells[5], dict)
            regions.append(Region(shape=_shape_3(xy, _json_cell(file, line, cells[3], list)), attributes=attributes))
    return [Picture(name=name, regions=regions, menu_by_id=True) for name, regions in pictures.items()]


def _json_cell(file: Path, line: int, cell: str, kind: type) -> Any:
    try:
        content = json.loads(cell) if cell else kind()
    except json.JSONDecodeError as problem:
        raise _broken_row(file, line, f"has a cell that is not JSON ({problem.msg})") from problem
    if not isinstance(content, kind):
        raise _broken_row(file, line, f"has a cell that is no {kind.__name__}")
    return content


def _broken_row(file: Path, line: int, what: str) -> DataError:
    fix = "export it again; a spreadsheet may have changed its quotes"
    return DataError(f"{file.name} has a row that {what}", where=f"{file}, line {line}", fix=fix)


def _pictures_of_project_3(file: Path, content: Mapping[str, Any]) -> tuple[list[Picture], Attributes]:
    attributes = {key: one for key, one in _objects(file, content, "attribute") if isinstance(one.get("aname"), str)}
    files = dict(_objects(file, content, "file"))
    regions: dict[str, list[Region]] = {view: [] for view, _ in _objects(file, content, "view")}
    for key, entry in _objects(file, content, "metadata"):
        values = entry.get("av")
        pairs = values.items() if isinstance(values, dict) else ()
        named = {attributes[number]["aname"]: value for number, value in pairs if number in attributes}
        if entry.get("xy"):
            view = str(entry.get("vid"))
            if view not in regions:
                raise _broken_project(file, f"metadata {key!r} of the view {view!r}, which is not there")
            regions[view].append(Region(shape=_shape_3(entry["xy"], entry.get("z")), attributes=named))
    pictures = []
    for view, entry in _objects(file, content, "view"):
        numbers = entry.get("fid_list")
        shown = [files.get(str(number)) for number in numbers] if isinstance(numbers, list) else [None]
        if None in shown:
            raise _broken_project(file, f"a view {view!r} of a file that is not there")
        images = [one for one in shown if one is not None and one.get("type") == _IMAGE_TYPE]
        if not images:
            continue  # a video or a sound
        name = images[0].get("fname")
        if len(images) > 1 or not isinstance(name, str) or not name:
            what = f"a view {view!r} of " + (f"{len(images)} images" if len(images) > 1 else "an image without a name")
            raise _broken_project(file, what)
        pictures.append(Picture(name=name, regions=regions[view], menu_by_id=True))
    return pictures, _menus({one["aname"]: one for one in attributes.values()})


def _broken_project(file: Path, what: str) -> DataError:
    fix = f"mend it, or export it again; expected is {EXPECTED} with one image a view"
    return DataError(f"{file.name} has {what}", where=str(file), fix=fix)


def _objects(file: Path, content: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    entries = content.get(key)
    if not isinstance(entries, dict) or not all(isinstance(one, dict) for one in entries.values()):
        raise _broken_project(file, f"no object of objects under `{key}`")
    return list(entries.items())


def _shape_3(xy: Any, moments: Any) -> Mapping[str, Any] | None:
    """A shape of VIA 3, a list of its kind's number and its coordinates, as VIA 2 would write it."""
    numbers = as_numbers(xy)
    kind, count = _SHAPES_3.get(int(numbers[0]), ("", None)) if numbers else ("", None)
    if not numbers or not kind or (count is not None and len(numbers) != count + 1):
        return None
    if moments:
        return {"name": "moment"}
    if kind in _KEYS_3:
        return {"name": kind, **dict(zip(_KEYS_3[kind], numbers[1:], strict=True))}
    shape = "polygon" if kind == "extreme_rect" else kind
    return {"name": shape, "all_points_x": numbers[1::2], "all_points_y": numbers[2::2]}
