"""VGG Image Annotator (VIA 1, 2 and 3: projects, JSON and CSV exports) -> drafts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.documents import find_documents, group_documents, name_documents, read_each
from boxtune.data.formats.image_names import choose_name, spell_link
from boxtune.data.formats.json_files import as_number, as_numbers
from boxtune.data.formats.outline import Corners, box_around, box_around_ellipse
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.via_files import EXPECTED, Attributes, Picture, is_via, read_pictures
from boxtune.data.places import ImageFinder, image_folders, name_contents
from boxtune.errors import DataError, Level, name_some

NO_CLASS = "object"
"""What boxes are called where nothing in the file names a class."""

_CLASS_WORDS = ("class", "label", "name", "category", "object", "type", "class_name", "classname", "object_name", "tag")
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "via.unlabelled": ("warn", "regions without a class, left out", "give each a class"),
    "via.several_classes": ("ok", "regions with several classes, one box for each class", ""),
    "via.hull": ("ok", "polygons, circles and ellipses, taken as the upright box around each", ""),
    "via.no_box": ("warn", "points, lines and moments of videos, left out", ""),
    "via.no_class": (
        "warn",
        f"regions of a file in which nothing names a class, called {NO_CLASS!r}",
        f"give the class its name with data.classes={{{NO_CLASS}: NAME}}",
    ),
}


def sniff_via(path: Path) -> str | None:
    """Why `path` looks like VIA, judged by the first bytes of .json and .csv files; None if it does not."""
    files = _find(path)
    return f"regions of VIA in {name_documents(path, files)}" if files else None


def _find(path: Path) -> list[Path]:
    return find_documents(path, ".json", is_via) or find_documents(path, ".csv", is_via)


def read_via(path: Path, options: Options) -> Raw:
    """The splits that VIA files describe; a project and its exports that say the same may lie side by side.

    Coordinates are pixels of the image. Polygons, circles and ellipses become their hull. The class is the one region
    attribute that is used, or the one of several that is called class, label, name or the like; options of a menu go
    by their description where their ids are mere numbers. Every image that is listed without regions is a negative.
    Raises DataError on a file that is none, on regions without numbers, and if it cannot be told which attribute holds
    the class.
    Source: https://gitlab.com/vgg/via (CodeDoc.md of each version)
    """
    files = [path] if path.is_file() else _find(path)
    if not files:
        what = f"no VIA file was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    contents = {file: read_pictures(file) for file in files}
    attribute, why = _class_attribute(contents, str(path))
    # An export does not hold the menus of its project, which may lie beside it.
    menus = [attributes.get(attribute or "", {}) for _, attributes in contents.values()]
    menu = next((one for one in menus if one), {})

    def read(split: str, file: Path) -> Draft:
        return _draft(split, file, contents[file][0], attribute, menu, options)

    drafts = read_each(group_documents(path, files), read)
    told = [f"VIA regions in {name_documents(path, files)}", drafts.why, why]
    return Raw(drafts=drafts.drafts, why="; ".join(part for part in told if part), read=files)


def _class_attribute(contents: Mapping[Path, tuple[list[Picture], Attributes]], where: str) -> tuple[str | None, str]:
    """The region attribute that holds the class, None if no region has one, and why."""
    used: Counter[str] = Counter()
    values: dict[str, Counter[str]] = {}
    for pictures, _ in contents.values():
        for picture in pictures:
            for region in picture.regions:
                for name, value in region.attributes.items():
                    for label in _labels(value, {}):
                        used[name] += 1
                        values.setdefault(name, Counter())[label] += 1
    if not used:
        return None, "no region has an attribute"
    if len(used) == 1:
        return next(iter(used)), f"the class is the region attribute {next(iter(used))!r}"
    words = [name for name in used if name.strip().lower().replace(" ", "_") in _CLASS_WORDS]
    others = ", ".join(repr(name) for name in used if name not in words)
    if len(words) == 1:
        return words[0], f"the class is the region attribute {words[0]!r} (by its name; there are also {others})"
    told = "; ".join(f"{name!r} ({name_some(values[name], limit=4)})" for name in used)
    raise DataError(
        f"regions have {len(used)} attributes, and it cannot be told which of them is the class: {told}",
        where=where,
        fix="name that attribute `class` in the file, or take the others out",
    )


def _labels(value: Any, menu: Mapping[str, str]) -> list[str]:
    """The class names that an attribute's value stands for: a text, or the options of a menu that are ticked."""
    chosen = [key for key, ticked in value.items() if ticked] if isinstance(value, Mapping) else [value]
    names = [str(one) for one in chosen if isinstance(one, str | int | float) and not isinstance(one, bool)]
    return [menu.get(name, name) for name in names if name.strip()]


def _menu(options: Mapping[str, str], by_id: bool) -> Mapping[str, str]:
    """What to call the options of a menu, where not by their ids."""
    told = {key: text for key, text in options.items() if text.strip()}
    return told if by_id or all(key.strip().isdigit() for key in options) else {}


def _draft(
    split: str,
    file: Path,
    pictures: Sequence[Picture],
    attribute: str | None,
    menu_options: Mapping[str, str],
    options: Options,
) -> Draft:
    draft, remarks = Draft(split, file), Remarks(file, _REMARKS)
    finder = ImageFinder(image_folders(file, split, options.images))
    for picture in pictures:
        menu = _menu(menu_options, picture.menu_by_id)
        image = draft.add_image(choose_name(spell_link(picture.name), finder))
        for place, region in enumerate(picture.regions):
            called = f"{picture.name} region {place}"
            if region.shape is None:
                remarks.fault(f"{called} has no shape")
                continue
            kind = str(region.shape.get("name"))
            if kind in _SHAPES_WITHOUT_BOX:
                remarks.add("via.no_box", f"{called} ({kind})")
                continue
            corners = _corners(kind, region.shape)
            if corners is None:
                remarks.fault(f"{called} is no {kind} of numbers")
                continue
            labels = _labels(region.attributes.get(attribute), menu) if attribute is not None else [NO_CLASS]
            if attribute is None:
                remarks.add("via.no_class", called)
            if not labels:
                remarks.add("via.unlabelled", called)
                continue
            if kind != "rect":
                remarks.add("via.hull", f"{called} ({kind})")
            if len(labels) > 1:
                remarks.add("via.several_classes", f"{called} ({', '.join(labels)})")
            for label in labels:
                draft.add_box(image, label, corners)
    remarks.require_sound("regions that cannot be read", f"mend them; expected is {EXPECTED}")
    draft.findings += remarks.findings()
    return draft


_SHAPES_WITHOUT_BOX = ("point", "line", "polyline", "extreme_circle", "moment")


def _corners(kind: str, shape: Mapping[str, Any]) -> Corners | None:
    if kind in ("polygon", "polyline"):
        xs, ys = as_numbers(shape.get("all_points_x")), as_numbers(shape.get("all_points_y"))
        return box_around(list(zip(xs, ys, strict=True))) if xs and ys and len(xs) == len(ys) else None
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": ("cx", "cy", "rx", "ry")}
    numbers = as_numbers([shape.get(key) for key in keys[kind]]) if kind in keys else None
    if numbers is None:
        return None
    if kind == "rect":
        x, y, width, height = numbers
        return x, y, x + width, y + height
    rx, ry = (numbers[2], numbers[2]) if kind == "circle" else (numbers[2], numbers[3])
    return box_around_ellipse(numbers[0], numbers[1], rx, ry, as_number(shape.get("theta")) or 0.0)
