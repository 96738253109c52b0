"""Create ML object detection JSON -> drafts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.documents import (
    are_shares,
    find_documents,
    group_documents,
    name_documents,
    read_each,
    settle_corners,
)
from boxtune.data.formats.image_names import choose_name, spell_link
from boxtune.data.formats.json_files import as_number, load_json, peek_json
from boxtune.data.formats.remarks import Remarks
from boxtune.data.places import ImageFinder, image_folders, name_contents
from boxtune.data.reading import Choice, choose_reading
from boxtune.errors import DataError, Level

EXPECTED = (
    "Create ML: a JSON list of objects with `image` and `annotations`, each of those with `label` and `coordinates`"
)

_IMAGE_KEYS = ("image", "imagefilename", "filename")
_BOX_KEYS = ("annotations", "annotation")
_SIDES = ("x", "y", "width", "height")
_READINGS = ("cxcywh_px", "cxcywh_unit")
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "createml.unlabelled": ("warn", "annotations without a label, left out", "give each a label"),
}


def sniff_createml(path: Path) -> str | None:
    """Why `path` looks like Create ML, judged by the first entries of .json files; None if it does not."""
    files = find_documents(path, ".json", _is_createml)
    return f"images with `coordinates` in {name_documents(path, files)}" if files else None


def read_createml(path: Path, options: Options) -> Raw:
    """The splits that Create ML files describe: SPLIT/_annotations.createml.json, or one .json beside the images.

    x and y are the centre, in pixels from the top left, as Create ML takes them unless its caller says otherwise (the
    file itself cannot): where every number lies within 0..1 they are shares of the sides. Every image that is listed
    without boxes is a negative. Raises DataError on a file that is none, and on an annotation without four numbers.
    Source: https://developer.apple.com/documentation/createml/building-an-object-detector-data-source
    """
    files = [path] if path.is_file() else find_documents(path, ".json", _is_createml)
    if not files:
        what = f"no Create ML file was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    read = read_each(group_documents(path, files), lambda split, file: _draft(split, file, options))
    choice = _choose([draft.xyxy for draft in read.drafts], options.boxes, str(path))
    for draft in read.drafts:
        settle_corners(draft, choice.reading)
    why = "; ".join(part for part in (f"Create ML in {name_documents(path, files)}", read.why, choice.why) if part)
    return Raw(drafts=read.drafts, why=why, read=files)


def _choose(numbers: list[Float[np.ndarray, "_ 4"]], asked: str | None, where: str) -> Choice:
    rows = np.concatenate([np.zeros((0, 4)), *numbers])
    shares = are_shares(rows)
    unit = "all numbers lie within 0..1" if shares else "in pixels"
    known = _READINGS[shares], f"Create ML's x and y are the centre, {unit}"
    sizes = np.zeros((len(rows), 2), dtype=np.int64)
    return choose_reading(rows, sizes, _READINGS, where=where, asked=asked, known=known)


def _is_createml(file: Path) -> bool:
    content = peek_json(file)
    entries = [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []
    return any(_looks_so(entry) and _image_of(entry) for entry in entries)


def _looks_so(entry: dict[str, Any]) -> bool:
    """Whether an entry has a box in Create ML's form, or none at all where only Create ML would have a list."""
    boxes = _boxes_of(entry)
    if not isinstance(boxes, list) or set(entry) - {
        *_IMAGE_KEYS,
        *_BOX_KEYS,
        "verified",
        "imageURL",
        "width",
        "height",
    }:
        return False
    return all(isinstance(box, dict) and isinstance(box.get("coordinates"), dict) for box in boxes)


def _image_of(entry: dict[str, Any]) -> str | None:
    names = [entry[key] for key in _IMAGE_KEYS if isinstance(entry.get(key), str) and entry[key]]
    return names[0] if names else None


def _boxes_of(entry: dict[str, Any]) -> Any:
    return next((entry[key] for key in _BOX_KEYS if key in entry), None)


def _draft(split: str, file: Path, options: Options) -> Draft:
    content = load_json(file, EXPECTED)
    if not isinstance(content, list):
        what = f"{file.name} is JSON, but a {type(content).__name__}"
        raise DataError(what, where=str(file), fix=f"expected is {EXPECTED}")
    draft, remarks = Draft(split, file), Remarks(file, _REMARKS)
    finder = ImageFinder(image_folders(file, split, options.images))
    for place, entry in enumerate(content):
        name = _image_of(entry) if isinstance(entry, dict) else None
        boxes = _boxes_of(entry) if isinstance(entry, dict) else None
        if name is None or not isinstance(boxes, list | None):
            lacks = "no image name" if name is None else "annotations that are no list"
            remarks.fault(f"entry {place} has {lacks}")
            continue
        image = draft.add_image(choose_name(spell_link(name), finder))
        for number, box in enumerate(boxes or ()):
            _add_box(draft, image, box, f"{name} annotation {number}", remarks)
    remarks.require_sound("entries that cannot be read", f"mend them; expected is {EXPECTED}")
    draft.findings += remarks.findings()
    return draft


def _add_box(draft: Draft, image: int, box: Any, called: str, remarks: Remarks) -> None:
    coordinates = box.get("coordinates") if isinstance(box, dict) else None
    values = coordinates if isinstance(coordinates, dict) else {}
    numbers = {side: as_number(values.get(side)) for side in _SIDES}
    missing = [side for side, number in numbers.items() if number is None]
    if missing:
        remarks.fault(f"{called} has no number for {' and '.join(missing)}")
        return
    label = box.get("label")
    if not isinstance(label, str) or not label.strip():
        remarks.add("createml.unlabelled", called)
        return
    draft.add_box(image, label, [number for number in numbers.values() if number is not None])
