"""Tables as the Hugging Face hub keeps them -> rows: Parquet, Arrow (save_to_disk), ImageFolder's metadata files."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxtune.errors import DataError

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
_PICTURES = ("image", "img", "picture", "photo", "file_name", "image_file_name", "image_path", "filepath", "jpg", "png")
_ROWS = 32  # rows that are held at once: they may carry whole pictures
_HEAD = 65536

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One file of rows.

    `columns` maps each column to the names of the fields inside of it (of a struct, or of a list's structs);
    `features` is what the datasets library says of the columns; `picture` is the column of the picture or of its name,
    and `has_bytes` says that the pictures themselves may be in there.
    """

    file: Path
    columns: Mapping[str, tuple[str, ...]]
    features: Mapping[str, Any] = field(default_factory=dict)
    picture: str | None = None
    has_bytes: bool = False

    def rows(self, *, with_bytes: bool) -> Iterator[Row]:
        """The rows in the order of the file; a picture is {"bytes", "path"}, without `with_bytes` {"path"} alone."""
        kind = self.file.suffix.lower()
        if kind == ".jsonl":
            return (row for _, row in _json_lines(self.file))
        if kind == ".csv":
            return _csv_rows(self.file)
        return self._arrow_rows(with_bytes)

    def _arrow_rows(self, with_bytes: bool) -> Iterator[Row]:
        picture = self.picture
        inside = self.columns[picture] if picture is not None else ()
        for batch in _batches(self.file, None if with_bytes else self._without_bytes()):
            for start in range(0, batch.num_rows, _ROWS):
                piece = batch.slice(start, _ROWS)
                for place, row in enumerate(piece.drop_columns([picture] if picture else []).to_pylist()):
                    if picture is not None:
                        row[picture] = _picture(piece.column(picture), place, inside, with_bytes and self.has_bytes)
                    yield row

    def _without_bytes(self) -> list[str]:
        return [
            f"{name}.path" if name == self.picture and "bytes" in inside else name
            for name, inside in self.columns.items()
        ]


def _picture(column: Any, place: int, inside: tuple[str, ...], with_bytes: bool) -> dict[str, Any]:
    """The picture of a row of an Arrow column: a struct of bytes and path, bare bytes, or a path."""
    if inside:
        parts = [name for name in ("bytes", "path") if name in inside and (with_bytes or name == "path")]
        return {name: column.field(name)[place].as_py() for name in parts} if column[place].is_valid else {}
    value = column[place].as_py()
    return {"bytes" if isinstance(value, bytes) else "path": value}


def open_table(file: Path) -> Table | None:
    """The table in a file as far as its head tells, without its rows; None if it has no column of pictures."""
    kind = file.suffix.lower()
    if kind in (".parquet", ".arrow"):
        return _open_arrow(file)
    if kind == ".jsonl":
        row = next((row for _, row in _json_lines(file, _HEAD)), {})
    elif kind == ".csv":
        row = next(_csv_rows(file), {})
    else:
        return None
    picture = next((name for name in _PICTURES if isinstance(row.get(name), str)), None)
    if picture is None:
        return None
    return Table(file=file, columns={name: _inside(value) for name, value in row.items()}, picture=picture)


def _open_arrow(file: Path) -> Table | None:
    import pyarrow as pa

    schema = _schema(file)
    features: dict[str, Any] = {}
    if said := (schema.metadata or {}).get(b"huggingface"):
        features = (json.loads(said).get("info") or {}).get("features") or {}
    kinds = {column.name: column.type for column in schema}
    columns = {name: _fields(kind) for name, kind in kinds.items()}
    told = [name for name, one in features.items() if isinstance(one, dict) and one.get("_type") == "Image"]

    def holds(name: str) -> bool:
        kind = kinds.get(name)
        if kind is None:
            return False
        return "bytes" in columns[name] or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def is_text(name: str) -> bool:
        return name in kinds and (pa.types.is_string(kinds[name]) or pa.types.is_large_string(kinds[name]))

    names = [*told, *_PICTURES, *(name for name in kinds if "bytes" in columns[name] and "path" in columns[name])]
    picture = next((name for name in names if holds(name)), None) or next(filter(is_text, names), None)
    if picture is None:
        return None
    return Table(file=file, columns=columns, features=features, picture=picture, has_bytes=holds(picture))


def _schema(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix.lower() == ".parquet":
            return pq.read_schema(file)
        with pa.memory_map(str(file)) as source:
            return _arrow_reader(source).schema
    except (pa.ArrowException, OSError) as problem:
        raise _broken(file, problem) from problem


def _batches(file: Path, columns: list[str] | None) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix.lower() == ".parquet":
            with pq.ParquetFile(file) as opened:
                yield from opened.iter_batches(batch_size=_ROWS, columns=columns)
            return
        with pa.memory_map(str(file)) as source:
            reader = _arrow_reader(source)
            count = getattr(reader, "num_record_batches", None)
            yield from reader if count is None else (reader.get_batch(place) for place in range(count))
    except (pa.ArrowException, OSError) as problem:
        raise _broken(file, problem) from problem


def _arrow_reader(source: Any) -> Any:
    """Arrow's stream format, which save_to_disk writes, else its file format."""
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source)


def _broken(file: Path, problem: Exception) -> DataError:
    said = (str(problem).splitlines() or [type(problem).__name__])[0]
    return DataError(f"{file.name} cannot be read: {said}", where=str(file), fix="fetch or write the file again")


def _fields(kind: Any) -> tuple[str, ...]:
    """The names of the fields of a struct, or of the structs in a list."""
    import pyarrow as pa

    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return tuple(one.name for one in kind) if pa.types.is_struct(kind) else ()


def _inside(value: Any) -> tuple[str, ...]:
    value = parse_text(value) if isinstance(value, str) else value
    value = value[0] if isinstance(value, list) and value else value
    return tuple(value) if isinstance(value, dict) else ()


def parse_text(text: str) -> Any:
    """The list or object that a field of text holds, as JSON or as Python prints it; None if it is neither."""
    if text[:1] not in ("{", "["):
        return None
    for read in (json.loads, ast.literal_eval):  # pandas writes the latter into CSV files
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return None


def _json_lines(file: Path, head: int | None = None) -> Iterator[tuple[int, Row]]:
    """Line number and object of each line; of the first `head` bytes only, where a cut line is passed over."""
    with file.open("rb") as opened:
        lines = opened.read(head).splitlines() if head is not None else opened
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError as problem:
                if head is not None:
                    return
                fix = "mend the line, or write the file again"
                raise DataError(f"it is no JSON: {problem}", where=f"{file}, line {number}", fix=fix) from problem
            if not isinstance(row, dict):
                what = f"it is JSON, but a {type(row).__name__}"
                raise DataError(what, where=f"{file}, line {number}", fix="write one object a line")
            yield number, row


def _csv_rows(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        try:
            yield from csv.DictReader(opened)
        except (UnicodeDecodeError, csv.Error) as problem:
            raise DataError(
                f"{file.name} cannot be read: {problem}", where=str(file), fix="save it as UTF-8"
            ) from problem
