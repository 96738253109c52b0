"""LabelMe JSON, one file an image (labelme, AnyLabeling, X-AnyLabeling) -> drafts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.embedded import PictureStore, say_embedded
from boxtune.data.formats.json_files import as_numbers, as_size, load_json, peek_json
from boxtune.data.formats.listing import list_files, peek_files, read_head
from boxtune.data.formats.outline import Corners, box_around
from boxtune.data.formats.pairs import PairFinder, group_by_split, lies_near
from boxtune.data.formats.remarks import Remarks
from boxtune.data.places import name_contents
from boxtune.errors import DataError, Level, name_some

EXPECTED = "a LabelMe file: a JSON object with `shapes` and `imagePath`"

_REMARKS: dict[str, tuple[Level, str, str]] = {
    "labelme.image_by_stem": (
        "warn",
        "images found by the name of their .json, as the imagePath in it leads nowhere",
        "check that these pictures and boxes belong together",
    ),
    "labelme.hull": ("ok", "polygons, circles, turned boxes and masks, taken by their upright hull", ""),
    "labelme.grouped": ("ok", "polygons that belong to another one by their group_id, boxed together", ""),
    "labelme.left_out": ("warn", "points, lines and other shapes that are no boxes, left out", ""),
    "labelme.difficult": ("ok", "shapes marked difficult, neither trained on nor counted as missed", ""),
    "labelme.unlabelled": ("warn", "shapes without a label, left out", "label them"),
}
_CORNERS = ("rectangle", "mask")  # a mask's two points are the corners of the pixels it covers
_HULLS = ("polygon", "rotation", "oriented_rectangle", "quadrilateral", "cuboid")


def sniff_labelme(path: Path) -> str | None:
    """Why `path` looks like LabelMe: .json files with `shapes` and `imagePath`, judged by their heads."""
    if path.is_file():
        return "a .json with shapes and imagePath" if path.suffix.lower() == ".json" and _is_labelme(path) else None
    if not path.is_dir():
        return None
    for files in peek_files(path, {".json"}):
        if lies_near(files[0], path) and _is_labelme(files[0]):
            return f".json files with shapes and imagePath in {_folders(files[:1], path)[0]}"
    return None


def _is_labelme(file: Path) -> bool:
    content = peek_json(file)
    if not isinstance(content, dict):
        return False
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(one, dict) for one in shapes):
        # The picture may stand first, as one text that is longer than any head.
        head = read_head(file)
        return b'"imageData"' in head and b'"annotations"' not in head
    return "imagePath" in content or "imageData" in content or any("points" in one and "label" in one for one in shapes)


def read_labelme(path: Path, options: Options) -> Raw:
    """The splits of a folder of LabelMe files, or the one image of such a file.

    Splits are the folders named for them, else all is `train`. The two points of a rectangle are opposite corners in
    any order, as in LabelMe itself. Polygons, circles (centre and a point on the rim), turned boxes and masks are taken
    by their hull; points and lines are left out. An image without .json is no part of the data set. Where the image is
    not there but the .json holds it (imageData), it is copied out into the cache. Raises DataError on broken JSON and
    on shapes without the points that they need.
    Source: https://github.com/wkentaro/labelme (labelme/_label_file.py and _shape.py)
    """
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else [file for file in list_files(path, {".json"}) if _is_labelme(file)]
    files = [file for file in files if lies_near(file, root)] or files
    if not files:
        fix = "it may hold one .json with shapes and imagePath for each image"
        raise DataError(f"no LabelMe file was found, only {name_contents(path)}", where=str(path), fix=fix)
    groups, findings = group_by_split(files, root, "labelme")
    why = f"{len(files):,} .json with shapes in {name_some(_folders(files, root))}"
    finder = PairFinder(root, options.images)
    return Raw(
        drafts=[_draft(split, members, root, finder) for split, members in groups.items()],
        why=f"{path.name} given" if path.is_file() else why,
        read=[file for members in groups.values() for file in members],
        findings=tuple(findings),
    )


def _folders(files: Sequence[Path], path: Path) -> list[str]:
    folders = [folder.relative_to(path).as_posix() for folder in dict.fromkeys(file.parent for file in files)]
    return ["the folder itself" if folder == "." else f"{folder}/" for folder in folders]


def _draft(split: str, files: Sequence[Path], root: Path, finder: PairFinder) -> Draft:
    draft = Draft(split, files[0] if len(files) == 1 else files[0].parent)
    remarks = Remarks(root, _REMARKS)
    stores: list[PictureStore] = []
    for file in files:
        called = file.relative_to(root).as_posix()
        try:
            content = load_json(file, EXPECTED)
            name, shapes = _require_parts(content, file)
            image = _image(file, name, content, finder, remarks, stores)
        except DataError as problem:
            remarks.fault(f"{problem.what} ({problem.where})")
            continue
        size_wh = as_size(content.get("imageWidth"), content.get("imageHeight"))
        place = draft.add_image(name or file.stem, size_wh=size_wh, path=image)
        for number, shape in enumerate(_merge_groups(shapes, remarks, called), start=1):
            _add_shape(draft, place, shape, remarks, f"{called} shape {number}")
    remarks.require_sound("LabelMe files or shapes that cannot be used", f"mend them; expected is {EXPECTED}")
    draft.findings += [*remarks.findings(), *say_embedded(stores, root)]
    return draft


def _require_parts(content: Any, file: Path) -> tuple[str, list[Any]]:
    """imagePath ("" if it has none) and shapes."""
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise DataError(f"{file.name} has no list of shapes", where=str(file), fix=f"expected is {EXPECTED}")
    name = content.get("imagePath")
    return name if isinstance(name, str) else "", shapes


def _image(
    file: Path,
    name: str,
    content: Mapping[str, Any],
    finder: PairFinder,
    remarks: Remarks,
    stores: list[PictureStore],
) -> Path | None:
    match = finder.find(file, name, stem_first=False)
    if match is not None:
        if match.by_stem:
            remarks.add("labelme.image_by_stem", f"{file.name} says {name}, taken is {match.path.name}")
        return match.path
    data = content.get("imageData")
    if not isinstance(data, str) or not data:
        return None
    try:
        picture = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise DataError(f"imageData of {file.name} is broken: {problem}", where=str(file)) from problem
    store = PictureStore(file)
    stores.append(store)
    return store.keep(0, name.replace("\\", "/").rpartition("/")[2] or file.stem, picture)


def _merge_groups(shapes: Sequence[Any], remarks: Remarks, called: str) -> list[Any]:
    """The shapes, with polygons of one label and group_id made one: they are parts of one object."""
    merged: list[Any] = []
    place_of: dict[tuple[str, str], int] = {}
    for shape in shapes:
        group = shape.get("group_id") if isinstance(shape, dict) else None
        is_polygon = isinstance(shape, dict) and shape.get("shape_type") in (None, "polygon")
        if group is None or not is_polygon or not isinstance(shape.get("points"), list):
            merged.append(shape)
            continue
        key = str(shape.get("label")), str(group)
        place = place_of.setdefault(key, len(merged))
        if place == len(merged):
            merged.append(shape)
        else:
            merged[place] = {**merged[place], "points": [*merged[place]["points"], *shape["points"]]}
            remarks.add("labelme.grouped", f"{called} ({key[0]}, group {key[1]})")
    return merged


def _add_shape(draft: Draft, image: int, shape: Any, remarks: Remarks, place: str) -> None:
    if not isinstance(shape, dict):
        remarks.fault(f"{place} is no object")
        return
    label = shape.get("label")
    label = label if isinstance(label, str) else "" if label is None else str(label)
    called = f"{place} ({label})" if label else place
    # Files of labelme 2 have no shape_type, since all they could hold was polygons.
    kind = shape.get("shape_type") or "polygon"
    if kind not in (*_CORNERS, *_HULLS, "circle"):
        remarks.add("labelme.left_out", f"{called} is a {kind}")
        return
    corners = _corners(str(kind), shape.get("points"))
    if isinstance(corners, str):
        remarks.fault(f"{called}: {corners}")
    elif not label:
        remarks.add("labelme.unlabelled", place)
    else:
        difficult = shape.get("difficult") is True
        if kind != "rectangle":
            remarks.add("labelme.hull", f"{called} is a {kind}")
        if difficult:
            remarks.add("labelme.difficult", called)
        draft.add_box(image, label, corners, ignore=difficult)


def _corners(kind: str, points: Any) -> Corners | str:
    """The upright hull of a shape, or what is wrong with it, in words."""
    rows = [as_numbers(point, 2) for point in points] if isinstance(points, list) else []
    pairs = [row for row in rows if row is not None]
    if len(pairs) < len(rows):
        return f"a point is {points[rows.index(None)]!r}"
    # X-AnyLabeling writes all four corners of a rectangle.
    least = 3 if kind in _HULLS else 2
    if len(pairs) < least or (kind == "circle" and len(pairs) != 2):
        return f"a {kind} of {len(pairs)} points"
    if kind == "circle":
        (cx, cy), (x, y) = pairs
        radius = ((x - cx) ** 2 + (y - cy) ** 2) ** 0.5
        return cx - radius, cy - radius, cx + radius, cy + radius
    return box_around(pairs)
