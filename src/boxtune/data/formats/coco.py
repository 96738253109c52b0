"""COCO annotations -> drafts."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from boxtune.boxes import xywh_to_xyxy
from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.coco_document import Document, Id, Ids, read_document
from boxtune.data.formats.coco_layout import require_layout
from boxtune.errors import DataError, Finding, Level, name_some

_REMARKS: dict[str, tuple[Level, str, str]] = {
    "coco.id_types": (
        "warn",
        "annotations that name an image or category as text where its id is a number, or the other way round; matched",
        "write an id the same way on both sides",
    ),
    "coco.image_unknown": (
        "warn",
        "annotations of images that are not listed, left out",
        "add the images or remove the annotations",
    ),
    "coco.category_unknown": (
        "warn",
        "annotations of categories that are not listed, left out",
        "add the categories or remove the annotations",
    ),
    "coco.annotation_twice": ("warn", "annotation ids used twice (the very same entry counts once)", ""),
    "coco.category_twice": ("warn", "category names with several ids, merged", "give each class one name"),
    "coco.box_from_polygon": ("ok", "annotations without bbox, boxed by their polygons", ""),
    "coco.mask_only": ("warn", "annotations with a mask but no bbox, left out", "add their bbox"),
}
_MOST_UNKNOWN = 0.5  # from this share of annotations on, the categories or images belong to another file


def read_coco(path: Path, options: Options) -> Raw:
    """The splits that a COCO folder or file describes.

    `path` is a folder with SPLIT/_annotations.coco.json beside its images, a folder with annotations/*.json (or the
    .json files themselves) and image folders, or one .json.

    bbox is read as x, y, width, height in pixels of the upright image, corners continuous. What is left out stands in
    the findings. Raises DataError if there is no COCO file, if it is broken, if a split cannot be told, if half of the
    annotations have an unknown category or image, or one has a bbox that is not four numbers.
    Source: https://cocodataset.org/#format-data
    """
    layout = require_layout(path)
    documents = {split: read_document(file) for split, file in layout.files.items()}
    return Raw(
        drafts=[_draft(split, document) for split, document in documents.items()],
        why=layout.why,
        classes=_names_by_id(documents),
        read=tuple(layout.files.values()),
        findings=tuple(_check_categories(documents)),
    )


def _draft(split: str, document: Document) -> Draft:
    draft = Draft(split, document.path)
    draft.files = list(document.file_names)
    draft.sizes_wh = list(document.sizes_wh)
    draft.image_ids = list(document.image_ids)
    said: dict[str, tuple[int, list[str]]] = {}
    annotations = document.annotations
    place_of_id = {number: place for place, number in enumerate(document.image_ids)}
    owners, respelled_owners = _numbers(annotations.image_ids, place_of_id)
    code_of_id = {number: draft.code(name) for number, name in document.categories.items()}
    codes, respelled_codes = _numbers(annotations.category_ids, code_of_id)
    ids = annotations.ids
    starts = np.cumsum([0, *map(len, ids)])

    def call(row: int) -> str:
        piece = int(np.searchsorted(starts, row, side="right")) - 1
        number = next(_values([ids[piece][row - int(starts[piece]) :][:1]]))
        return f"annotations[{row}]" if number is None else f"annotation {number!r}"

    def note(check: str, rows: Sequence[int] | Int[np.ndarray, " n"], with_image: bool = True) -> None:
        names = [
            (f"{draft.files[owners[row]]} " if with_image and owners[row] >= 0 else "") + call(row) for row in rows[:3]
        ]
        said[check] = len(rows), names

    nowhere = np.flatnonzero(owners < 0)
    if len(nowhere):
        _note_homeless(document, nowhere, len(owners), call, said)
    strangers = np.flatnonzero(codes < 0)
    if len(strangers):
        _note_strangers(document, strangers, len(codes), call, said)
    note("coco.id_types", np.union1d(respelled_owners, respelled_codes).tolist(), with_image=False)
    repeated, copies = _repeats(document, owners, codes)
    note("coco.annotation_twice", repeated, with_image=False)
    note("coco.box_from_polygon", annotations.from_polygon)
    spelled = {} if all(i in place_of_id for i, _ in annotations.mask_only) else _spelled(place_of_id)
    homes = [(place_of_id.get(i, spelled.get(str(i), -1)), named) for i, named in annotations.mask_only]
    masks = [f"{draft.files[place]} {named}" for place, named in homes if place >= 0]
    said["coco.mask_only"] = len(masks), masks[:3]
    twice = [name for name, count in Counter(document.categories.values()).items() if count > 1]
    said["coco.category_twice"] = len(twice), twice[:3]

    kept = np.flatnonzero((owners >= 0) & (codes >= 0) & ~copies)
    xywh = np.concatenate([np.zeros((0, 4)), *annotations.xywh])
    annotations.xywh.clear()
    draft.owners = array("q", owners[kept].astype(np.int64).tobytes())
    draft.codes = array("i", codes[kept].astype(np.int32).tobytes())
    draft.corners = array("d")
    draft.corners.frombytes(xywh_to_xyxy(xywh[kept]).tobytes())
    nothing: list[Bool[np.ndarray, " n"]] = [np.zeros(0, dtype=bool)]
    draft.crowd = bytearray(np.concatenate([*nothing, *annotations.crowd])[kept].tobytes())
    draft.ignore = bytearray(np.concatenate([*nothing, *annotations.ignore])[kept].tobytes())
    draft.called = lambda row: call(int(kept[row]))
    for check, (level, counted, fix) in _REMARKS.items():
        count, names = said.get(check, (0, []))
        if count:
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            seen = f"{counted}: {count:,} ({', '.join(names)}{more})"
            draft.findings.append(Finding(check=check, level=level, seen=seen, where=str(document.path), fix=fix))
    return draft


def _numbers(pieces: Sequence[Ids], number_of: Mapping[Id, int]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """The number of each id, -1 where there is none, and the rows whose id is only spelled like a known one: "0", 0."""
    count = sum(map(len, pieces))
    found = np.fromiter((number_of.get(i, -1) for i in _values(pieces)), np.int64, count)
    unknown = found < 0
    if not unknown.any():
        return found, np.zeros(0, dtype=np.int64)
    spelled = _spelled(number_of)
    for row, i in enumerate(_values(pieces)):
        if unknown[row]:
            found[row] = spelled.get(str(i), -1)
    return found, np.flatnonzero(unknown & (found >= 0))


def _spelled(number_of: Mapping[Id, int]) -> dict[str, int]:
    """The number of each id by its text, without texts that two ids share."""
    counts = Counter(map(str, number_of))
    return {str(i): number for i, number in number_of.items() if counts[str(i)] == 1}


def _values(pieces: Sequence[Ids]) -> Iterator[Any]:
    """The ids one by one, as Python's own numbers."""
    for piece in pieces:
        yield from piece.tolist() if isinstance(piece, np.ndarray) else piece


def _note_homeless(
    document: Document,
    rows: Int[np.ndarray, " n"],
    num_rows: int,
    call: Callable[[int], str],
    said: dict[str, tuple[int, list[str]]],
) -> None:
    refs = list(_values(document.annotations.image_ids))
    names = [f"{call(row)} of image {refs[row]!r}" for row in rows[:3].tolist()]
    if len(rows) >= _MOST_UNKNOWN * num_rows:
        raise DataError(
            f"annotations of images that are not listed: {len(rows)} of {num_rows} ({name_some(names)})",
            where=str(document.path),
            fix=f"image ids there are: {name_some((repr(i) for i in document.image_ids), limit=6) or 'none'}",
        )
    said["coco.image_unknown"] = len(rows), names


def _note_strangers(
    document: Document,
    rows: Int[np.ndarray, " n"],
    num_rows: int,
    call: Callable[[int], str],
    said: dict[str, tuple[int, list[str]]],
) -> None:
    refs = list(_values(document.annotations.category_ids))
    names = [f"{call(row)} has category {refs[row]!r}" for row in rows[:3].tolist()]
    if len(rows) >= _MOST_UNKNOWN * num_rows:
        raise DataError(
            f"annotations of unknown categories: {len(rows)} of {num_rows} ({name_some(names)})",
            where=str(document.path),
            fix=f"category ids there are: {name_some((repr(i) for i in document.categories), limit=20) or 'none'}",
        )
    said["coco.category_unknown"] = len(rows), names


def _repeats(
    document: Document, owners: Int[np.ndarray, " n"], codes: Int[np.ndarray, " n"]
) -> tuple[list[int], Bool[np.ndarray, " n"]]:
    """Rows whose id an earlier row has, and which of them say the very same."""
    annotations = document.annotations
    copies: Bool[np.ndarray, " n"] = np.zeros(len(owners), dtype=bool)
    ids = annotations.ids
    if not len(owners):
        return [], copies
    if all(isinstance(piece, np.ndarray) for piece in ids):
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *ids])
        flat.sort()
        if not (flat[1:] == flat[:-1]).any():
            return [], copies
    xywh = np.concatenate([np.zeros((0, 4)), *annotations.xywh])
    crowd, ignore = np.concatenate(annotations.crowd), np.concatenate(annotations.ignore)
    first: dict[Id, list[tuple[Any, ...]]] = {}
    repeated = []
    for row, number in enumerate(_values(ids)):
        if number is None:
            continue
        says = (owners[row], codes[row], *xywh[row].tolist(), crowd[row], ignore[row])
        earlier = first.setdefault(number, [])
        if earlier:
            repeated.append(row)
        copies[row] = says in earlier
        earlier.append(says)
    return repeated, copies


def _names_by_id(documents: Mapping[str, Document]) -> list[str]:
    """Every category name of any split once, in the order of the smallest id it has."""
    pairs = {pair for document in documents.values() for pair in document.categories.items()}
    return list(dict.fromkeys(name for _, name in sorted(pairs, key=lambda pair: (isinstance(pair[0], str), *pair))))


def _check_categories(documents: Mapping[str, Document]) -> list[Finding]:
    names_of_id: dict[Id, dict[str, str]] = {}
    for split, document in documents.items():
        for number, name in document.categories.items():
            names_of_id.setdefault(number, {}).setdefault(name, split)
    differ = [
        f"{number!r} is " + " but ".join(f"{name} in {split}" for name, split in names.items())
        for number, names in names_of_id.items()
        if len(names) > 1
    ]
    if not differ:
        return []
    seen = f"category ids with other names in other splits, taken by name: {len(differ)} ({name_some(differ)})"
    fix = "check that every split means the same classes"
    return [Finding(check="coco.category_ids_differ", level="warn", seen=seen, fix=fix)]
