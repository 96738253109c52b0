"""Tables of boxes (CSV of any shape: one box a row, or all boxes of an image in one cell) -> drafts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from boxtune.data.draft import Draft, Options, Raw, Size
from boxtune.data.formats.csv_cells import (
    EMPTY_WORDS,
    OUTLINE,
    Numbers,
    holds_outline,
    parse_boxes,
    parse_labels,
    parse_predictions,
)
from boxtune.data.formats.csv_columns import Columns, find_columns
from boxtune.data.formats.csv_table import column_places, iter_rows, peek_rows
from boxtune.data.formats.documents import are_shares, find_documents, group_documents, name_documents, settle_corners
from boxtune.data.formats.image_names import StemFinder, choose_name, spell_link
from boxtune.data.formats.json_files import as_number, as_size
from boxtune.data.formats.listing import is_image
from boxtune.data.formats.openimages import is_openimages
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.sizes import read_sizes
from boxtune.data.places import SPLITS, ImageFinder, image_folders, name_contents, splits_in_name
from boxtune.data.reading import Choice, choose_reading
from boxtune.errors import DataError, Level, name_some

EXPECTED = "a table with a column for the image, four for the box (or one with all four numbers), and one for the class"
NO_CLASS = "object"
"""What boxes are called where no column holds a class."""

_CLASS_FILES = ("classes", "class", "class_names", "class_list", "class_map", "class_mapping", "classlist", "labelmap")
_SAMPLE = 500  # images of a split whose sizes are looked at to tell what the numbers mean
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "csv.unlabelled": ("warn", "boxes without a class, left out", "give each a class"),
    "csv.no_class": (
        "warn",
        f"boxes of a table without a column for the class, called {NO_CLASS!r}",
        f"give the class its name with data.classes={{{NO_CLASS}: NAME}}",
    ),
    "csv.class_unlisted": ("warn", "boxes of classes that the class file does not list, kept", "add them to the file"),
    "csv.hull": ("ok", "cells with outlines of points, taken by their upright hull", ""),
    "csv.size_differs": ("warn", "rows that give an image another size than a row before; the first counts", ""),
}


def sniff_csv(path: Path) -> str | None:
    """Why `path` looks like a table of boxes, judged by the first rows of .csv files; None if it does not."""
    files = _find(path)
    return f"a column for images and some for boxes in {name_documents(path, files)}" if files else None


def _find(path: Path) -> list[Path]:
    """The tables of a data set, without the sheet on which Kaggle's answers are handed in."""

    def wanted(file: Path) -> bool:
        return (path.is_file() or "submission" not in file.stem.lower()) and _is_table(file)

    return find_documents(path, ".csv", wanted) or find_documents(path, ".tsv", wanted)


def _is_table(file: Path) -> bool:
    if is_openimages(file):
        return False
    rows = peek_rows(file)
    if rows and column_places(rows[0][1], ("MaskPath",)) is not None:
        return False  # boxes around the masks of Open Images
    try:
        return find_columns(rows, file) is not None
    except DataError:  # a table that asks a question, which its reader puts
        return True


def read_csv_boxes(path: Path, options: Options) -> Raw:
    """The splits that tables of boxes describe: the .csv files of a folder, or the one that is given.

    Columns are recognised by their names, in any spelling that is usual; a table without names by what stands in it.
    What four numbers mean is told by the names, else every possible reading is tried on the whole set. A row whose box
    is empty lists a negative; an image that no row lists is not part of the data set. A file of class names beside the
    table (classes.csv, NAME,ID) gives their order, and names to tables of ids. A column with the words train, valid or
    test parts the rows of one table. Raises DataError on rows that cannot be read, and, with the question to answer,
    where it cannot be told which column or which reading is meant.
    """
    files = [path] if path.is_file() else _find(path)
    if not files:
        what = f"no table of boxes was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    splits = group_documents(path, files)
    for split, members in splits.files.items():
        if len(members) > 1:
            raise DataError(
                f"{name_documents(path, members)} are {len(members)} tables of one `{split}` split",
                where=str(path),
                fix="give the one file that you mean, or name each for its split",
            )
    tables = [_read_table(split, members[0], options) for split, members in splits.files.items()]
    drafts = _merge_splits([draft for table in tables for draft in table.drafts])
    told = [f"table of boxes {name_documents(path, files)}", splits.why, *dict.fromkeys(table.why for table in tables)]
    told += _settle(tables, options, str(path))
    class_files = [table.classes for table in tables if table.classes is not None]
    listed = [name for classes in class_files for name in classes.names.values()]
    read = [*files, *(classes.file for classes in class_files)]
    return Raw(drafts=drafts, why="; ".join(part for part in told if part), classes=listed, read=read)


def _merge_splits(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts, of which several tables may not be of one split."""
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.split in first:
            names = f"{first[draft.split].annotation.name} and {draft.annotation.name}"
            raise DataError(
                f"{names} both hold rows of the {draft.split} split",
                where=str(draft.annotation.parent),
                fix="give the one file that you mean",
            )
        first[draft.split] = draft
    return list(first.values())


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """A file of class names, by id, in the order of the ids."""

    file: Path
    names: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The drafts of a table, their four numbers not yet settled."""

    file: Path
    columns: Columns
    drafts: Sequence[Draft]
    classes: _Classes | None
    why: str


def _read_table(split: str, file: Path, options: Options) -> _Table:
    columns = find_columns(peek_rows(file), file)
    if columns is None:
        raise DataError(f"{file.name} is no table of boxes", where=str(file), fix=f"expected is {EXPECTED}")
    classes = _read_classes(file)
    filler = _Filler(split, file, columns, classes, options)
    for place, (line, cells) in enumerate(iter_rows(file)):
        if place or columns.header is None:
            filler.add_row(line, cells)
    why = "no header, so the columns are told by what they hold" if columns.header is None else ""
    unread = columns.unread()
    why += f"columns not read: {name_some(unread, limit=6)}" if unread else ""
    return _Table(file=file, columns=columns, drafts=filler.finish(), classes=classes, why=why)


def _read_classes(file: Path) -> _Classes | None:
    """The class file beside a table: rows of a name and a whole number, in either order, with or without a header."""
    for other in sorted(file.parent.glob("*.csv")):
        if other == file or other.stem.lower() not in _CLASS_FILES:
            continue
        names: dict[int, str] = {}
        for line, cells in iter_rows(other):
            numbers = [cell for cell in cells if cell.isdigit()]
            texts = [cell for cell in cells if cell and not cell.isdigit()]
            if len(numbers) == 1 and len(texts) == 1:
                names[int(numbers[0])] = texts[0]
            elif names or numbers:
                fix = "expected are two cells: the name of a class and its number"
                raise DataError(f"{other.name} has a row that is no class", where=f"{other}, line {line}", fix=fix)
        if names:
            return _Classes(file=other, names=dict(sorted(names.items())))
    return None


class _Filler:
    """Fills the drafts of one table, one for each split that its rows name."""

    def __init__(self, split: str, file: Path, columns: Columns, classes: _Classes | None, options: Options) -> None:
        self.split, self.file, self.columns, self.classes, self.options = split, file, columns, classes, options
        self.drafts: dict[str, Draft] = {}
        self.remarks = Remarks(file, _REMARKS)
        self._width = columns.width
        self._sizes: dict[tuple[str, str], Size | None] = {}
        self._places: dict[tuple[str, str], int] = {}
        self._finders: dict[str, tuple[ImageFinder, StemFinder]] = {}

    def finish(self) -> list[Draft]:
        """The drafts in the order train, valid, test; DataError if a row could not be read."""
        self.remarks.require_sound(f"rows of {self.file.name} that cannot be read", "mend or remove them")
        if not self.drafts:
            self.drafts[self.split] = Draft(self.split, self.file)
        drafts = [self.drafts[split] for split in SPLITS if split in self.drafts]
        drafts[0].findings += self.remarks.findings()
        return drafts

    def add_row(self, line: int, cells: Sequence[str]) -> None:
        """The image of a row, and its boxes."""
        columns = self.columns
        if len(cells) < self._width:
            self.remarks.fault(f"line {line} has {len(cells)} cells of {self._width}")
            return
        if not cells[columns.file]:
            self.remarks.fault(f"line {line} names no image")
            return
        try:
            boxes = self._boxes(line, cells)
        except ValueError as problem:
            self.remarks.fault(f"line {line}: {problem}")
            return
        draft, image = self._image(line, cells)
        crowd = columns.crowd is not None and _is_set(cells[columns.crowd])
        ignore = columns.ignore is not None and _is_set(cells[columns.ignore])
        for label, numbers in boxes:
            name = self._name(label, line)
            if name is not None:
                draft.add_box(image, name, numbers, crowd=crowd, ignore=ignore)

    def _boxes(self, line: int, cells: Sequence[str]) -> list[tuple[str | None, Numbers]]:
        """Label (None where the table has none) and four numbers of each box of a row."""
        columns = self.columns
        label = cells[columns.label] if columns.label is not None else None
        if columns.predictions is not None:
            place, shape = columns.predictions
            found = parse_predictions(cells[place], shape)
            return [(label if own is None else own, numbers) for own, numbers in found]
        if columns.cell is not None:
            boxes = parse_boxes(cells[columns.cell])
            if holds_outline(cells[columns.cell]):
                if columns.orders != OUTLINE:
                    raise ValueError("an outline of points stands among boxes of four numbers")
                self.remarks.add("csv.hull", f"line {line}")
            if label is None:
                return [(None, numbers) for numbers in boxes]
            return list(zip(parse_labels(label, len(boxes)), boxes, strict=True)) if boxes else []
        texts = [cells[place] for place in columns.numbers or ()]
        if all(text.lower() in EMPTY_WORDS for text in texts):
            return []
        values = [as_number(text) for text in texts]
        if None in values:
            wrong = next(text for text, value in zip(texts, values, strict=True) if value is None)
            raise ValueError(f"{wrong!r} is no number")
        return [(label, [value for value in values if value is not None])]

    def _name(self, label: str | None, line: int) -> str | None:
        """What a class is called; None if a box has none and is left out."""
        if label is None:
            self.remarks.add("csv.no_class", f"line {line}")
            return NO_CLASS
        if label.lower() in EMPTY_WORDS:
            self.remarks.add("csv.unlabelled", f"line {line}")
            return None
        if self.classes is None or label in self.classes.names.values():
            return label
        number = as_number(label)
        if number is not None and number == int(number):
            if int(number) in self.classes.names:
                return self.classes.names[int(number)]
            self.remarks.fault(f"line {line}: class {label} is not in {self.classes.file.name}")
            return None
        self.remarks.add("csv.class_unlisted", f"{label} on line {line}")
        return label

    def _image(self, line: int, cells: Sequence[str]) -> tuple[Draft, int]:
        columns, text = self.columns, cells[self.columns.file]
        told = splits_in_name(cells[columns.split]) if columns.split is not None else ()
        split = told[0] if len(told) == 1 else self.split
        draft = self.drafts.setdefault(split, Draft(split, self.file))
        size_wh = self._size(cells[columns.size[0]], cells[columns.size[1]]) if columns.size is not None else None
        place = self._places.get((split, text))
        if place is None:
            name, path = self._find(split, text)
            place = self._places[split, text] = draft.add_image(name, size_wh=size_wh, path=path)
        elif size_wh is not None and draft.sizes_wh[place] != size_wh:
            self.remarks.add("csv.size_differs", f"{text} on line {line}")
        return draft, place

    def _size(self, width: str, height: str) -> Size | None:
        if (width, height) not in self._sizes:
            self._sizes[width, height] = as_size(width, height)
        return self._sizes[width, height]

    def _find(self, split: str, text: str) -> tuple[str, Path | None]:
        """The name of an image, which may lack its suffix (Kaggle's ids), and its file where only that is found."""
        if split not in self._finders:
            folders = image_folders(self.file, split, self.options.images)
            self._finders[split] = ImageFinder(folders), StemFinder(folders)
        files, stems = self._finders[split]
        name = choose_name(spell_link(text), files)
        if is_image(Path(name)) or files.find(name) is not None:
            return name, None
        path = stems.find(text)
        return (text, path) if path is not None else (f"{text}.jpg", None)


def _is_set(cell: str) -> bool:
    return cell.lower() in ("1", "1.0", "true", "yes")


def _settle(tables: Sequence[_Table], options: Options, where: str) -> list[str]:
    """Turn the numbers of all drafts into corners; tables whose columns leave the same open are judged together."""
    groups: dict[tuple[tuple[str, ...], bool], list[_Table]] = {}
    for table in tables:
        schema = table.columns.header is None and table.classes is not None
        groups.setdefault((table.columns.orders, schema), []).append(table)
    told = []
    for (orders, schema), members in groups.items():
        drafts = [draft for table in members for draft in table.drafts]
        choice = _choose(orders, schema, members, drafts, options, where)
        for draft in drafts:
            settle_corners(draft, choice.reading)
        told.append(choice.why)
    return list(dict.fromkeys(told))


def _choose(
    orders: Sequence[str],
    schema: bool,
    tables: Sequence[_Table],
    drafts: Sequence[Draft],
    options: Options,
    where: str,
) -> Choice:
    numbers = np.concatenate([np.zeros((0, 4)), *(draft.xyxy for draft in drafts)])
    shares = are_shares(numbers)
    unit = "unit" if shares else "px"
    lie = "all lie within 0..1" if shares else "not all lie within 0..1, so they are pixels"
    known: tuple[str, str] | None = None
    if schema:
        known = f"xyxy_{unit}", f"path,x1,y1,x2,y2,class with a class file beside it; {lie}"
    elif len(orders) == 1:
        known = f"{orders[0]}_{unit}", f"{_told_by(tables[0].columns)}; {lie}"
    candidates = [f"{order}_{one}" for one in ("px", "unit") for order in orders]
    if known is not None or options.boxes is not None:
        sizes = np.zeros((len(numbers), 2), dtype=np.int64)
        return choose_reading(numbers, sizes, candidates, where=where, asked=options.boxes, known=known)
    samples = [_sample(draft, options) for draft in drafts]
    measured = [(rows, sizes) for rows, sizes in samples if len(rows)]
    if measured:
        numbers = np.concatenate([rows for rows, _ in measured])
    sizes = (
        np.concatenate([sizes for _, sizes in measured]) if measured else np.zeros((len(numbers), 2), dtype=np.int64)
    )
    return choose_reading(numbers, sizes, candidates, where=where)


def _told_by(columns: Columns) -> str:
    """What says the order of the four numbers."""
    if columns.schema is not None:
        return f"the columns are those of {columns.schema}"
    if columns.header is None:
        return "two corners, with room for two more, as AutoML has them"
    if columns.numbers is None:
        return "by the names, or the points, inside the cells"
    return f"by the columns {', '.join(columns.header[place] for place in columns.numbers)}"


def _sample(draft: Draft, options: Options) -> tuple[Float[np.ndarray, "k 4"], Int[np.ndarray, "k 2"]]:
    """The numbers of the boxes of some images, spread over the split, whose sizes are declared or can be measured."""
    owners = draft.box_owners
    with_boxes = np.unique(owners)
    chosen = with_boxes[np.linspace(0, len(with_boxes) - 1, min(_SAMPLE, len(with_boxes))).astype(np.int64)].tolist()
    sizes: dict[int, Size] = {}
    unknown = []
    for place in chosen:
        declared = draft.sizes_wh[place]
        if declared is None:
            unknown.append(place)
        else:
            sizes[place] = declared
    names, paths = [draft.files[place] for place in unknown], [draft.paths.get(place) for place in unknown]
    measured = read_sizes(names, paths, draft.annotation, draft.split, options.images) if unknown else []
    sizes.update({place: size for place, size in zip(unknown, measured, strict=True) if size is not None})
    rows = [row for row, owner in enumerate(owners.tolist()) if owner in sizes]
    known = np.array([sizes[int(owners[row])] for row in rows], dtype=np.int64).reshape(-1, 2)
    return draft.xyxy[rows], known
