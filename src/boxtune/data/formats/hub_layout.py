"""Which files of a hub data set hold its rows, and which split each of them is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from boxtune.data.formats.hub_objects import Place, find_objects
from boxtune.data.formats.hub_tables import METADATA, Table, open_table
from boxtune.data.formats.shards import find_files, group_by_split
from boxtune.data.places import SPLITS, split_of_folder, splits_in_name
from boxtune.errors import DataError, name_some


def find_tables(path: Path) -> list[tuple[Table, Place]]:
    """The tables with pictures and boxes at `path`, a folder or one file, with the place of the boxes in each.

    A folder is save_to_disk's (state.json and .arrow), or holds Parquet files, or ImageFolder's metadata files, looked
    for in this order; the first kind that is there is taken.
    """
    if path.is_file():
        # Another .csv is a table of boxes: one row a box, or the like.
        named = path.suffix.lower() in (".parquet", ".arrow", ".jsonl") or path.name in METADATA
        return _with_boxes([path]) if named else []
    if not path.is_dir():
        return []
    files = find_files(path, lambda name: name.lower().endswith((".parquet", ".arrow")) or name in METADATA)
    saved = [file for file in files if file.suffix.lower() == ".arrow" and (file.parent / "state.json").is_file()]
    saved = [file for file in saved if file.name in _data_files(file.parent)]
    parquet = [file for file in files if file.suffix.lower() == ".parquet" and file.name not in METADATA]
    metadata = [file for file in files if file.name in METADATA]
    return next((found for kind in (saved, parquet, metadata) if (found := _with_boxes(kind))), [])


def split_tables(tables: Sequence[tuple[Table, Place]], root: Path) -> dict[str, list[tuple[Table, Place]]]:
    """The tables of each split, told by the names of files and folders, or by state.json where it alone says one."""
    of_file = {table.file: (table, place) for table, place in tables}
    files = list(of_file)
    metadata = all(file.name in METADATA for file in files)
    groups = group_by_split(files, root, one_home=not metadata)
    folders = {file.parent for file in files}
    if list(groups) == ["train"] and len(folders) == 1 and files[0].suffix.lower() == ".arrow":
        said = splits_in_name(str(_state(files[0].parent).get("_split") or ""))
        groups = {said[0] if len(said) == 1 else "train": files}
    return {split: [of_file[file] for file in members] for split, members in groups.items()}


def split_of_row(name: str) -> str | None:
    """The split that the first folder in the name of a picture stands for, for a metadata file above the splits."""
    parts = Path(name.replace("\\", "/")).parts
    return split_of_folder(Path(parts[0])) if len(parts) > 1 else None


def require_one_way(splits: Sequence[str | None], file: Path) -> None:
    """DataError if some pictures of a metadata file lie in folders named for splits and others do not."""
    without = sum(split is None for split in splits)
    if 0 < without < len(splits):
        raise DataError(
            f"{without} of {len(splits)} pictures lie in no folder named for a split, the others do",
            where=str(file),
            fix=f"put every picture into one of {', '.join(SPLITS)}, or none",
        )


def _with_boxes(files: Sequence[Path]) -> list[tuple[Table, Place]]:
    found = []
    for file in files:
        table = open_table(file)
        place = find_objects(table) if table is not None else None
        if table is not None and place is not None:
            found.append((table, place))
    return found


def name_beside(files: Sequence[Path]) -> list[Path]:
    """The files that save_to_disk writes beside its tables and above them."""
    folders = dict.fromkeys(file.parent for file in files if file.suffix.lower() == ".arrow")
    inner = [folder / name for folder in folders for name in ("state.json", "dataset_info.json")]
    return inner + [folder.parent / "dataset_dict.json" for folder in folders]


def _state(folder: Path) -> dict[str, object]:
    file = folder / "state.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise DataError(
            f"state.json is not JSON: {problem}", where=str(file), fix="save the data set again"
        ) from problem
    return state if isinstance(state, dict) else {}


def _data_files(folder: Path) -> list[str]:
    listed = _state(folder).get("_data_files")
    return [str(one["filename"]) for one in listed if "filename" in one] if isinstance(listed, list) else []


def name_tables(tables: Sequence[tuple[Table, Place]], root: Path) -> str:
    """The files and columns for people: "data/train-0.parquet with image and objects.bbox"."""
    table, place = tables[0]
    names = (t.file.relative_to(root).as_posix() if t.file.is_relative_to(root) else t.file.name for t, _ in tables)
    return f"{name_some(names)} with {table.picture} and {place}"
