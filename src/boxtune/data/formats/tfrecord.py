"""TFRecord files of the TF Object Detection API -> drafts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boxtune.data.draft import Draft, Options, Raw, Size
from boxtune.data.formats.embedded import PictureStore, say_embedded
from boxtune.data.formats.label_map import Label, read_label_map
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.shards import check_shards, find_files, group_by_split, name_groups
from boxtune.data.formats.tfrecord_records import Example, begins_like_tfrecord, iter_records, parse_example
from boxtune.data.reading import Choice, choose_reading
from boxtune.errors import DataError, Level, name_some

_NAMED_SO = re.compile(r"\.(tfrecords?|tfrec|records?)(?![a-z])|-\d{3,6}-of-\d{3,6}$", re.IGNORECASE)
_EDGES = tuple(f"image/object/bbox/{edge}" for edge in ("xmin", "ymin", "xmax", "ymax"))
_TEXT, _LABEL = "image/object/class/text", "image/object/class/label"
_PIXELS_FROM = 2.0  # a share of a side beyond this is no share, whatever else is wrong with it
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "tfrecord.unlabelled": ("warn", "boxes without a class, left out", "give each a class/text or class/label"),
    "tfrecord.text_differs": (
        "warn",
        "boxes whose class text is not what the label map calls their id; the text counts",
        "use the label map that the records were written with",
    ),
    "tfrecord.difficult": ("ok", "boxes marked difficult, neither trained on nor counted as missed", ""),
}


def sniff_tfrecord(path: Path) -> str | None:
    """Why `path` looks like TFRecord files, judged by names and the first twelve bytes; None if it does not."""
    path = _above(path)
    if path.is_file():
        return "a length and its checksum at the start" if begins_like_tfrecord(path) else None
    files = _find(path) if path.is_dir() else []
    return name_some(file.relative_to(path).as_posix() for file in files) or None


def read_tfrecord(path: Path, options: Options) -> Raw:
    """The splits in a folder of TFRecord files, or in one such file, with a label map (`*.pbtxt`) beside or above it.

    Records are tf.train.Example with the keys of the TF Object Detection API; corners are shares of the sides. A class
    is told by its text, else by its id in the label map. Pictures inside of the records are copied into the cache.
    Raises DataError if there is none, if a file is damaged, or if a record lacks numbers or has an unknown class.
    Source: object_detection/data_decoders/tf_example_decoder.py of tensorflow/models
    """
    path = _above(path)
    files = [path] if path.is_file() else _find(path)
    if not files:
        raise DataError(
            "no TFRecord file was found", where=str(path), fix="give a .tfrecord, or a folder with train-00000-of-00001"
        )
    root = path if path.is_dir() else path.parent
    groups = group_by_split(files, root)
    maps = {file: _LabelMap(file, root) for file in files}
    parts = [_Part(split, members) for split, members in groups.items()]
    for part in parts:
        for file in part.files:
            _read_file(file, maps[file], part)
    choice = _choose(parts, path, options)
    drafts = [part.draft(choice) for part in parts]
    used = {one.path: one.labels for one in maps.values() if one.path is not None and one.labels}
    why = f"TFRecord, {name_groups(groups, root)}, lengths and contents checked by their CRC-32C; {choice.why}"
    if used:
        why += f"; class ids by {name_some(file.name for file in used)}"
    return Raw(
        drafts=drafts,
        why=why,
        classes=_in_order([*used.values()], drafts),
        read=(*files, *used),
        findings=tuple(check_shards(files)),
    )


def _above(path: Path) -> Path:
    """The folder of a label map, since a label map stands for the records beside it; any other path as it is."""
    return path.parent if path.suffix.lower() == ".pbtxt" and path.is_file() else path


def _find(path: Path) -> list[Path]:
    return [
        file for file in find_files(path, lambda name: _NAMED_SO.search(name) is not None) if begins_like_tfrecord(file)
    ]


class _LabelMap:
    """The classes by id that belong to a data file; `path` is the map beside or above it, None where there is none."""

    def __init__(self, file: Path, root: Path) -> None:
        folders = dict.fromkeys((file.parent, root, file.parent.parent))
        found = next((maps for folder in folders if (maps := sorted(folder.glob("*.pbtxt")))), [])
        found = [one for one in found if one.name == "label_map.pbtxt"] or found
        self.several = found if len(found) > 1 else []
        self.path = found[0] if len(found) == 1 else None
        self.labels: Mapping[int, Label] = read_label_map(self.path) if self.path is not None else {}

    def require(self, number: int, where: str) -> str:
        """The class of that id, as people call it."""
        if number in self.labels:
            return self.labels[number].shown
        if self.path is not None:
            ids = name_some(self.labels, limit=20)
            raise DataError(f"class id {number} is not in {self.path.name}", where=where, fix=f"ids there are: {ids}")
        if self.several:
            named = name_some(one.name for one in self.several)
            raise DataError(
                f"class id {number} has no text, and there are {len(self.several)} label maps: {named}",
                where=where,
                fix="leave only the right one, or call it label_map.pbtxt",
            )
        raise DataError(
            f"class id {number} has no text, and there is no label map",
            where=where,
            fix="put label_map.pbtxt beside it",
        )


@dataclass(kw_only=True)
class _Row:
    """One record: what it says of its picture, and its boxes as they stand there."""

    name: str
    size_wh: Size | None
    path: Path | None
    boxes: list[tuple[str, tuple[float, ...], bool, bool]] = field(default_factory=list)


class _Part:
    """What the files of one split say."""

    def __init__(self, split: str, files: Sequence[Path]) -> None:
        self.split, self.files = split, files
        self.rows: list[_Row] = []
        self.stores: list[PictureStore] = []
        self.remarks = Remarks(files[0], _REMARKS)

    def draft(self, choice: Choice) -> Draft:
        draft = Draft(self.split, self.files[0], scale=choice.reading.scale)
        for row in self.rows:
            image = draft.add_image(row.name, size_wh=row.size_wh, path=row.path)
            numbers = np.array([box[1] for box in row.boxes], dtype=np.float64).reshape(-1, 4)
            corners = choice.reading.to_xyxy(numbers).tolist()
            for (label, _, crowd, ignore), xyxy in zip(row.boxes, corners, strict=True):
                draft.add_box(image, label, xyxy, crowd=crowd, ignore=ignore)
        draft.findings += say_embedded(self.stores, self.files[0])
        draft.findings += self.remarks.findings()
        return draft


def _read_file(file: Path, labels: _LabelMap, part: _Part) -> None:
    store = PictureStore(file)
    part.stores.append(store)
    for number, record in enumerate(iter_records(file)):
        where = f"{file}, record {number}"
        try:
            example = parse_example(record)
        except ValueError as problem:
            fix = "write tf.train.Example records with the keys of the TF Object Detection API"
            raise DataError(f"the record is no tf.train.Example: {problem}", where=where, fix=fix) from problem
        row = _row(example, number, where)
        if picture := _bytes(example, "image/encoded", where):
            row.path = store.keep(number, row.name, picture)
        _add_boxes(row, example, labels, where, part)
        part.rows.append(row)


def _row(example: Example, number: int, where: str) -> _Row:
    """The picture of a record: its name and declared size."""
    if not any(key.startswith("image/") for key in example):
        raise DataError(
            f"the record has no key of the TF Object Detection API, only {name_some(sorted(example)) or 'nothing'}",
            where=where,
            fix="write image/filename, image/encoded, image/object/bbox/xmin and so on",
        )
    names = (_bytes(example, key, where).decode("utf-8", "replace") for key in ("image/filename", "image/source_id"))
    name = next((name for name in names if name), "")
    if not name and not _bytes(example, "image/encoded", where):
        raise DataError("the record has neither a picture nor the name of one", where=where, fix="add image/filename")
    sides = [_numbers(example, key, where) for key in ("image/width", "image/height")]
    size = [int(side[0]) for side in sides if side and side[0] > 0]
    return _Row(name=name or f"record-{number}", size_wh=(size[0], size[1]) if len(size) == 2 else None, path=None)


def _add_boxes(row: _Row, example: Example, labels: _LabelMap, where: str, part: _Part) -> None:
    edges = [_numbers(example, key, where) for key in _EDGES]
    if len({len(edge) for edge in edges}) > 1:
        counts = ", ".join(f"{len(edge)} {key.rsplit('/', 1)[1]}" for key, edge in zip(_EDGES, edges, strict=True))
        raise DataError(f"the boxes of {row.name} are not whole: {counts}", where=where, fix="write all four edges")
    count = len(edges[0])
    texts = [text.decode("utf-8", "replace") for text in _texts(example, _TEXT, where)]
    ids, crowds, groups, difficults = (
        [int(value) for value in _numbers(example, key, where)]
        for key in (_LABEL, "image/object/is_crowd", "image/object/group_of", "image/object/difficult")
    )
    for key, values in ((_TEXT, texts), (_LABEL, ids)):
        if values and len(values) != count:
            raise DataError(f"{row.name} has {count} boxes but {len(values)} {key}", where=where, fix="write one a box")
    for place, corners in enumerate(zip(*edges, strict=True)):
        named = f"{row.name} box {place}"
        if not all(math.isfinite(value) for value in corners):
            raise DataError(f"{named} has corners {corners}", where=where, fix="write finite numbers")
        text, number = texts[place] if texts else "", ids[place] if ids else 0
        known = labels.labels.get(number)
        if not text and number == 0 and known is None:  # ids begin at 1: 0 is the background
            part.remarks.add("tfrecord.unlabelled", named)
            continue
        if text and ids and known is not None and text not in (known.name, known.shown):
            part.remarks.add("tfrecord.text_differs", f"{named} is {text!r}, id {number} is {known.name!r}")
        crowd = bool(crowds[place : place + 1] == [1] or groups[place : place + 1] == [1])
        ignore = difficults[place : place + 1] == [1]
        if ignore:
            part.remarks.add("tfrecord.difficult", named)
        row.boxes.append((text or labels.require(number, where), corners, crowd, ignore))


def _choose(parts: Sequence[_Part], path: Path, options: Options) -> Choice:
    """Shares of the sides, as the API has it, unless most of the numbers are far too large for that."""
    rows = [row for part in parts for row in part.rows]
    numbers = np.array([box[1] for row in rows for box in row.boxes], dtype=np.float64).reshape(-1, 4)
    sizes = np.array([row.size_wh or (0, 0) for row in rows for _ in row.boxes], dtype=np.int64).reshape(-1, 2)
    large = float((np.abs(numbers).max(axis=1) > _PIXELS_FROM).mean()) if len(numbers) else 0.0
    known = None if large > 0.5 else ("xyxy_unit", "the TF Object Detection API keeps shares")
    return choose_reading(numbers, sizes, ["xyxy_unit", "xyxy_px"], where=str(path), asked=options.boxes, known=known)


def _in_order(maps: Sequence[Mapping[int, Label]], drafts: Sequence[Draft]) -> list[str]:
    """The class names in the order of the label maps' ids, each as the boxes write it."""
    used = {name for draft in drafts for name in draft.name_codes}
    labels = [labels[number] for labels in maps for number in sorted(labels)]
    return list(dict.fromkeys(one.name if one.name in used else one.shown for one in labels))


def _texts(example: Example, key: str, where: str) -> list[bytes]:
    values = example.get(key, [])
    texts = [value for value in values if isinstance(value, bytes)]
    if len(texts) < len(values):
        raise DataError(f"{key} holds numbers", where=where, fix="write it as a list of bytes")
    return texts


def _bytes(example: Example, key: str, where: str) -> bytes:
    return next(iter(_texts(example, key, where)), b"")


def _numbers(example: Example, key: str, where: str) -> list[float]:
    values = example.get(key, [])
    numbers = [float(value) for value in values if not isinstance(value, bytes)]
    if len(numbers) < len(values):
        raise DataError(f"{key} holds bytes", where=where, fix="write it as a list of numbers")
    return numbers
