"""Lists of images with their boxes behind them (Roboflow's YOLO Keras TXT, keras-yolo3, yolov4-pytorch) -> drafts."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import numpy as np

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
from boxtune.data.formats.listing import is_image, read_head
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.yolo_names import read_names
from boxtune.data.places import ImageFinder, image_folders, name_contents
from boxtune.data.reading import choose_reading
from boxtune.errors import DataError, Level, name_some

EXPECTED = "a .txt with an image in each line and its boxes behind it, as in `a.jpg 64,48,192,144,0`"

_NUMBER = r"[-+]?\d{1,9}(?:\.\d*)?"
_LINE = re.compile(rf"(?P<name>.+?)(?P<boxes>(?:\s+{_NUMBER}(?:,{_NUMBER}){{3}},\d{{1,6}})*)")
_HEAD, _LOOKED_AT = 65536, 20  # bytes of a list that a sniffer reads, and lines half of which must be images
_READINGS = ("xyxy_px", "xyxy_unit")
_NAME_FILES = ("_classes.txt", "classes.txt", "*_classes.txt", "*.names")
_NAME_FOLDERS = ("", "model_data", "data")
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "keras_txt.no_names": (
        "warn",
        "lists without a file of class names, so the classes are called by their numbers",
        "put a _classes.txt with one name a line beside the list: a model is asked for names",
    ),
}


def sniff_keras_txt(path: Path) -> str | None:
    """Why `path` looks like such lists, judged by the first lines of .txt files; None if it does not."""
    files = find_documents(path, ".txt", _is_list)
    return f"images with boxes in the same line in {name_documents(path, files)}" if files else None


def read_keras_txt(path: Path, options: Options) -> Raw:
    """The splits that lists describe: SPLIT/_annotations.txt with _classes.txt, or train.txt with a file of names.

    A box is x1, y1, x2, y2 in pixels, corners continuous (shares of the sides where every number lies within 0..1), and
    the number of its class. A line with an image alone is a negative. Raises DataError on a line that is none, on a
    class that the names do not have, and if several files of names differ.
    Source: https://github.com/qqwweee/keras-yolo3#training
    """
    files = [path] if path.is_file() else find_documents(path, ".txt", _is_list)
    if not files:
        what = f"no list of images with boxes was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    names = {file: _class_names(file) for file in files}
    read = read_each(group_documents(path, files), lambda split, file: _draft(split, file, names[file][1], options))
    numbers = np.concatenate([np.zeros((0, 4)), *(draft.xyxy for draft in read.drafts)])
    shares = are_shares(numbers)
    known = _READINGS[shares], "so these lists have them" + (", and all lie within 0..1" if shares else "")
    sizes = np.zeros((len(numbers), 2), dtype=np.int64)
    choice = choose_reading(numbers, sizes, _READINGS, where=str(path), asked=options.boxes, known=known)
    for draft in read.drafts:
        settle_corners(draft, choice.reading)
    told = (f"images with boxes in the same line in {name_documents(path, files)}", read.why, choice.why)
    return Raw(
        drafts=read.drafts,
        why="; ".join(part for part in told if part),
        classes=list(dict.fromkeys(name for _, listed in names.values() for name in listed or ())),
        read=[*files, *dict.fromkeys(file for file, _ in names.values() if file is not None)],
    )


def _is_list(file: Path) -> bool:
    head = read_head(file, _HEAD)
    lines = [line.strip() for line in head.decode("utf-8", "replace").splitlines()]
    if len(head) >= _HEAD:
        lines.pop()  # cut off
    found = [_LINE.fullmatch(line) for line in filter(None, lines[:_LOOKED_AT])]
    images = [one for one in found if one is not None and _is_image_name(one["name"])]
    if not images or 2 * len(images) < len(found):  # a broken line is the reader's to tell
        return False
    behind = (_LINE.fullmatch(line) for line in filter(None, lines[_LOOKED_AT:]))
    return any(one["boxes"] and _is_image_name(one["name"]) for one in chain(images, behind) if one)


def _is_image_name(name: str) -> bool:
    return is_image(Path(name.replace("\\", "/")))


def _class_names(file: Path) -> tuple[Path | None, list[str] | None]:
    """The file of names nearest to a list, and the names in it; None where there is none."""
    for home in (file.parent, file.parent.parent):
        for folder in (home / name for name in _NAME_FOLDERS):
            found = dict.fromkeys(other for name in _NAME_FILES for other in sorted(folder.glob(name)))
            listed = {other: list((read_names(other).by_id or {}).values()) for other in found if other != file}
            listed = {other: names for other, names in listed.items() if names}
            if not listed:
                continue
            first = next(iter(listed))
            if first.name not in _NAME_FILES and any(names != listed[first] for names in listed.values()):
                what = f"the classes have other names in each of {name_some(other.name for other in listed)}"
                raise DataError(what, where=str(folder), fix="put the right ones into _classes.txt beside the list")
            return first, listed[first]
    return None, None


def _draft(split: str, file: Path, names: list[str] | None, options: Options) -> Draft:
    draft, remarks = Draft(split, file), Remarks(file, _REMARKS)
    finder = ImageFinder(image_folders(file, split, options.images))
    places: dict[str, int] = {}
    for number, line in enumerate(_lines(file), start=1):
        found = _LINE.fullmatch(line) if line else None
        if not line:
            continue
        if found is None or not _is_image_name(found["name"]):
            remarks.fault(f"line {number} is {line[:60]!r}")
            continue
        name = found["name"]
        if name not in places:
            places[name] = draft.add_image(choose_name(spell_link(name), finder))
        for box in found["boxes"].split():
            *corners, code = box.split(",")
            if names is not None and not (int(code) < len(names) and names[int(code)]):
                remarks.fault(f"line {number} has class {code}, but {len(names)} are named, from 0")
                continue
            label = str(int(code)) if names is None else names[int(code)]
            draft.add_box(places[name], label, [float(corner) for corner in corners])
    remarks.require_sound(f"lines of {file.name} that cannot be read", f"mend them; expected is {EXPECTED}")
    if names is None:
        remarks.add("keras_txt.no_names", file.name)
    draft.findings += remarks.findings()
    return draft


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_bytes().decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as problem:
        raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save the file as UTF-8") from problem
