"""Data sets as the Hugging Face hub keeps them -> drafts: Parquet, save_to_disk, ImageFolder with metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boxtune.data.draft import Draft, Options, Raw, Size
from boxtune.data.formats.embedded import PictureStore, say_embedded
from boxtune.data.formats.hub_layout import (
    find_tables,
    name_beside,
    name_tables,
    require_one_way,
    split_of_row,
    split_tables,
)
from boxtune.data.formats.hub_names import ClassNames
from boxtune.data.formats.hub_objects import Place, Thing, iter_things
from boxtune.data.formats.hub_reading import choose_for_hub
from boxtune.data.formats.hub_tables import METADATA, Row, Table
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.shards import check_shards, split_of_file
from boxtune.data.formats.sizes import read_sizes
from boxtune.data.reading import Reading
from boxtune.errors import DataError, Level

_SHARES = 1.5  # numbers that are all below this are shares of the sides, not pixels
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "hf.unlabelled": ("warn", "objects without a class, left out", "give each a class"),
    "hf.no_names": (
        "warn",
        "objects whose class is a number that nothing names; they are called by it",
        "put the names in their order into classes.json",
    ),
    "hf.size_differs": (
        "warn",
        "images whose width and height columns are not those of the picture, which count, as boxes are shares of them",
        "mend the columns, or restore the pictures that were annotated",
    ),
}


def sniff_hub(path: Path) -> str | None:
    """Why `path` looks like a data set of the hub, judged by names and schemas; None if it does not."""
    tables = find_tables(path)
    return name_tables(tables, path if path.is_dir() else path.parent) if tables else None


def read_hub(path: Path, options: Options) -> Raw:
    """The splits of a hub data set that lies in a folder, or of one Parquet, Arrow or metadata file.

    A row is a picture, or its file's name, with its objects: a struct of lists, a list of structs, or columns. The
    order and unit of four numbers are told from all boxes (`reading`), from an `area` beside them, or from a schema
    that is known. Pictures inside of the files are copied into the cache. Classes are names, or numbers that the
    schema, the card or classes.json name. Raises DataError if there is none, or if a row or its boxes are not whole.
    Source: huggingface.co/docs/datasets/image_dataset; the dataset card of openfoodfacts/nutrition-table-detection
    """
    root = path if path.is_dir() else path.parent
    tables = find_tables(path)
    if not tables:
        fix = "give a folder with Parquet files, metadata.jsonl, or what save_to_disk wrote"
        raise DataError("no table with pictures and boxes was found", where=str(path), fix=fix)
    names = ClassNames(root)
    parts: dict[str, _Part] = {}
    for split, members in split_tables(tables, root).items():
        for table, place in members:
            _read_table(table, place, split, names, root, parts)
    rows = [row for part in parts.values() for row in part.rows]
    relative = all(abs(number) <= _SHARES for row in rows for thing in row.things for number in thing.numbers)
    for part in parts.values():
        part.measure(options.images, all_of_them=relative)
    sizes = [row.true_wh or row.size_wh for row in rows]
    choice = choose_for_hub([row.things for row in rows], sizes, tables, str(path), options.boxes)
    files = [table.file for table, _ in tables]
    return Raw(
        drafts=[part.draft(choice.reading) for part in parts.values()],
        why=f"{name_tables(tables, root)}; {choice.why}" + (f"; class names by {names.source}" if names.source else ""),
        classes=names.in_order(),
        read=(*files, *names.read, *name_beside(files)),
        findings=tuple(check_shards(files)),
    )


@dataclass(kw_only=True)
class _Row:
    """One picture; `size_wh` is what the row declares, `true_wh` what the file's header says, where it was asked."""

    name: str
    path: Path | None
    size_wh: Size | None
    image_id: int | None
    things: list[Thing] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    true_wh: Size | None = None


class _Part:
    """What the tables of one split say; `first` is the first of their files."""

    def __init__(self, split: str, first: Path) -> None:
        self.split, self.first = split, first
        self.rows: list[_Row] = []
        self.stores: list[PictureStore] = []
        self.remarks = Remarks(first, _REMARKS)

    def measure(self, images: Path | None, *, all_of_them: bool) -> None:
        """Ask the files for the sizes that nobody declares, or for those of all pictures."""
        rows = [row for row in self.rows if all_of_them or row.size_wh is None]
        sizes = read_sizes([row.name for row in rows], [row.path for row in rows], self.first, self.split, images)
        for row, size_wh in zip(rows, sizes, strict=True):
            row.true_wh = size_wh

    def draft(self, reading: Reading) -> Draft:
        draft = Draft(self.split, self.first, scale=reading.scale)
        ids = [row.image_id for row in self.rows]
        unique = len(set(ids)) == len(ids)
        for row in self.rows:
            if reading.scale is not None and None not in (row.size_wh, row.true_wh) and row.size_wh != row.true_wh:
                self.remarks.add("hf.size_differs", f"{row.name}: {_by(row.size_wh)} declared, {_by(row.true_wh)} real")
            # Of shares the true size is asked for again, so that it is known to be no declared one.
            size_wh = row.size_wh if reading.scale is None else None
            image = draft.add_image(row.name, size_wh=size_wh, image_id=row.image_id if unique else None, path=row.path)
            numbers = np.array([thing.numbers for thing in row.things], dtype=np.float64).reshape(-1, 4)
            corners = reading.to_xyxy(numbers).tolist()
            for thing, label, xyxy in zip(row.things, row.labels, corners, strict=True):
                if label is not None:
                    draft.add_box(image, label, xyxy, crowd=thing.crowd)
        draft.findings += say_embedded(self.stores, self.first)
        draft.findings += self.remarks.findings()
        return draft


def _read_table(table: Table, place: Place, split: str, names: ClassNames, root: Path, parts: dict[str, _Part]) -> None:
    """The rows of one table, put into its split, or, for a metadata file above the splits, into that of each row."""
    store = PictureStore(table.file) if table.has_bytes else None
    copied = store is not None and store.load()
    by_row = table.file.name in METADATA and split_of_file(table.file, root) is None
    splits: list[str | None] = []
    for number, row in enumerate(table.rows(with_bytes=not copied)):
        where = f"{table.file}, row {number}"
        one = _picture(row, table, number, where, store)
        splits.append(split_of_row(one.name) if by_row else split)
        part = parts.setdefault(splits[-1] or split, _Part(splits[-1] or split, table.file))
        for at, thing in enumerate(iter_things(row, place, where)):
            label = _label(thing, table, names, f"{one.name} object {at}", part)
            one.things.append(thing)
            one.labels.append(label)
        part.rows.append(one)
    require_one_way(splits, table.file)
    if store is not None:
        store.finish()
        parts.setdefault(split, _Part(split, table.file)).stores.append(store)


def _picture(row: Row, table: Table, number: int, where: str, store: PictureStore | None) -> _Row:
    """The picture of a row, copied into the cache where it lies inside of the table."""
    value = row.get(table.picture or "")
    picture: Row = {"path": value} if isinstance(value, str) else value or {}
    said, data = picture.get("path") or "", picture.get("bytes")
    name = said or f"{table.file.stem}-{number}"
    if store is not None and number in store.kept:
        path: Path | None = store.kept[number]
    elif store is not None and data:
        path = store.keep(number, name, data)
    elif said:
        path = beside if (beside := table.file.parent / said).is_file() else None
    else:
        raise DataError("the row has neither a picture nor the name of one", where=where, fix="add it, or drop the row")
    sides = [side for key in ("width", "height") if (side := _count(row.get(key))) is not None]
    image_id = row.get("image_id")
    return _Row(
        name=name,
        path=path,
        size_wh=(sides[0], sides[1]) if len(sides) == 2 else None,
        image_id=image_id if isinstance(image_id, int) else None,
    )


def _count(side: object) -> int | None:
    """A declared width or height in pixels; None if it is no positive whole number."""
    whole = isinstance(side, int) or (isinstance(side, float) and side.is_integer())
    return int(side) if whole and side > 0 else None  # type: ignore[call-overload,operator]


def _label(thing: Thing, table: Table, names: ClassNames, where: str, part: _Part) -> str | None:
    """The class of an object, None if it has none; -1 is the number that the datasets library gives those."""
    if thing.label is None or thing.label == -1:
        part.remarks.add("hf.unlabelled", where)
        return None
    if isinstance(thing.label, str):
        return thing.label
    known = names.of(table, thing.label_key)
    if not known:
        part.remarks.add("hf.no_names", f"{where} is {thing.label}")
        return str(thing.label)
    if thing.label not in known:
        raise DataError(
            f"{where} is of class {thing.label}, but {names.source} names {len(known)} classes from {min(known)}",
            where=str(table.file),
            fix="name the class, or remove the object",
        )
    return known[thing.label]


def _by(size_wh: Size | None) -> str:
    return "unknown" if size_wh is None else f"{size_wh[0]} x {size_wh[1]}"
