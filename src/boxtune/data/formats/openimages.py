"""Open Images V1 to V7 box files -> drafts."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from boxtune.data.draft import Draft, Options, Raw, Size
from boxtune.data.formats.csv_table import column_places, iter_rows, peek_rows
from boxtune.data.formats.documents import find_documents, group_documents, name_documents
from boxtune.data.formats.image_names import StemFinder
from boxtune.data.formats.json_files import as_number, as_size
from boxtune.data.formats.remarks import Remarks
from boxtune.data.places import image_folders, name_contents
from boxtune.errors import DataError, Level, name_some

EXPECTED = "an Open Images box file: .csv with the columns ImageID, LabelName, XMin, XMax, YMin and YMax"

_EDGES = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = ("ImageID", "LabelName", *_EDGES)
_NAME_FILES = ("class-descriptions", "class_descriptions", "classes")
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "openimages.unnamed": (
        "warn",
        "boxes of labels that no class description names, kept under their id",
        "put class-descriptions-boxable.csv beside the box file",
    ),
    "openimages.unlabelled": ("warn", "boxes without LabelName, left out", "give each a LabelName"),
    "openimages.not_boxed": (
        "warn",
        "images in the folder without a row in the box file, left out: Open Images has boxes for some images only, so "
        "they need not be empty",
        "",
    ),
}


def sniff_openimages(path: Path) -> str | None:
    """Why `path` looks like Open Images, judged by the header of .csv files; None if it does not."""
    files = find_documents(path, ".csv", is_openimages)
    return f"columns ImageID, LabelName, XMin in {name_documents(path, files)}" if files else None


def is_openimages(file: Path) -> bool:
    """Whether a .csv has the header of an Open Images box file."""
    rows = peek_rows(file)
    return bool(rows) and column_places(rows[0][1], _COLUMNS) is not None


def read_openimages(path: Path, options: Options) -> Raw:
    """The splits whose `*-annotations-bbox.csv` lie in a folder (or its annotations/), or the one that is given.

    Corners are shares of the sides. Labels get the names of `class-descriptions*.csv` around the box file. An image
    without rows has not been looked at for boxes, so it is left out and counted. IsGroupOf makes a crowd box. Sizes in
    `images.meta` count only for images that are not there. Raises DataError on rows that lack a number.
    Source: https://storage.googleapis.com/openimages/web/download_v7.html
    """
    files = [path] if path.is_file() else find_documents(path, ".csv", is_openimages)
    if not files:
        what = f"no Open Images box file was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    splits = group_documents(path, files)
    name_files = sorted({file for box_file in files for file in _name_files(box_file)})
    names = _read_names(name_files)
    drafts, remarks = [], []
    for split, members in splits.files.items():
        draft, said = _draft(split, members, names, options)
        drafts.append(draft)
        remarks.append(said)
    _count_not_boxed(drafts, remarks)
    for draft, said in zip(drafts, remarks, strict=True):
        draft.findings += said.findings()
    told = [f"Open Images boxes in {name_documents(path, files)}", splits.why]
    told.append(f"names of {name_some(file.name for file in name_files)}" if name_files else "no class descriptions")
    used = {label for draft in drafts for label in draft.name_codes}
    return Raw(
        drafts=drafts,
        why="; ".join(part for part in told if part),
        classes=[name for name in dict.fromkeys(names.values()) if name in used],
        read=[*files, *name_files],
    )


def _name_files(box_file: Path) -> list[Path]:
    """The class descriptions of a box file; those of the boxable classes alone, if there are any."""
    home = box_file.parent
    for folder in (home, home / "metadata", home.parent, home.parent / "metadata"):
        files = sorted(folder.glob("*.csv")) if folder.is_dir() else []
        found = [file for file in files if any(word in file.stem.lower() for word in _NAME_FILES)]
        if found:
            return [file for file in found if "boxable" in file.stem.lower()] or found
    return []


def _read_names(files: Iterable[Path]) -> dict[str, str]:
    names: dict[str, str] = {}
    for file in files:
        for line, cells in iter_rows(file):
            if len(cells) < 2:
                fix = "expected are two columns: the id of a label and its name"
                raise DataError(f"{file.name} has a row of one cell", where=f"{file}, line {line}", fix=fix)
            if cells[0] != "LabelName" and cells[1]:
                names.setdefault(cells[0], cells[1])
    return names


def _draft(split: str, files: Sequence[Path], names: Mapping[str, str], options: Options) -> tuple[Draft, Remarks]:
    draft, remarks = Draft(split, files[0], scale=1.0), Remarks(files[0], _REMARKS)
    folders = [folder for file in files for folder in image_folders(file, split, options.images)]
    finder, sizes = StemFinder(dict.fromkeys(folders)), _read_sizes(files[0].parent / "images.meta")
    places: dict[str, int] = {}
    for file in files:
        columns: dict[str, int] = {}
        group_of = -1
        for line, cells in iter_rows(file):
            if not columns:
                columns = _require_columns(file, cells)
                group_of = cells.index("IsGroupOf") if "IsGroupOf" in cells else -1
                continue
            if len(cells) <= max(columns.values()):
                remarks.fault(f"{file.name} line {line} has {len(cells)} cells")
                continue
            number, label = cells[columns["ImageID"]], cells[columns["LabelName"]]
            corners = [as_number(cells[columns[edge]]) for edge in _EDGES]
            if not number or None in corners:
                remarks.fault(f"{file.name} line {line} lacks {'ImageID' if not number else 'a number'}")
                continue
            if number not in places:
                found = finder.find(number)
                size_wh = None if found is not None else sizes.get(number)
                places[number] = draft.add_image(f"{number}.jpg", size_wh=size_wh, path=found)
            if not label:
                remarks.add("openimages.unlabelled", f"{number} line {line}")
                continue
            if label not in names:
                remarks.add("openimages.unnamed", f"{label} of {number}")
            crowd = 0 <= group_of < len(cells) and cells[group_of] == "1"
            draft.add_box(places[number], names.get(label, label), [c for c in corners if c is not None], crowd=crowd)
    remarks.require_sound("rows that cannot be read", f"mend them; expected is {EXPECTED}")
    return draft, remarks


def _require_columns(file: Path, header: Sequence[str]) -> dict[str, int]:
    columns = column_places(header, _COLUMNS)
    if columns is None:
        lacks = ", ".join(name for name in _COLUMNS if name not in header)
        raise DataError(f"{file.name} lacks the columns {lacks}", where=str(file), fix=f"expected is {EXPECTED}")
    return columns


def _read_sizes(file: Path) -> dict[str, Size]:
    """The sizes of an `images.meta`: rows of id, height, width; `#` begins a remark."""
    sizes: dict[str, Size] = {}
    if not file.is_file():
        return sizes
    for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            words = shlex.split(text, comments=True)
        except ValueError:
            words = ["?"]
        if not words:
            continue
        size_wh = as_size(words[2], words[1]) if len(words) >= 3 else None
        if size_wh is None:
            fix = "expected are an image id, its height and its width"
            raise DataError(f"{file.name} has a row without sizes", where=f"{file}, line {line}", fix=fix)
        sizes[words[0]] = size_wh
    return sizes


def _count_not_boxed(drafts: Sequence[Draft], remarks: Sequence[Remarks]) -> None:
    """Note the images that lie among those of a split but in no split's box file."""
    listed = {path for draft in drafts for path in draft.paths.values()}
    for draft, said in zip(drafts, remarks, strict=True):
        finder = StemFinder(())
        for folder in sorted({path.parent for path in draft.paths.values()}):
            for file in finder.files(folder).values():
                if file not in listed:
                    said.add("openimages.not_boxed", file.name)
                    listed.add(file)
