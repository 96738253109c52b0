"""What the columns of a table of boxes are: by their names, or, where there are none, by what stands in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxtune.data.formats import csv_words as words
from boxtune.data.formats.csv_cells import ANY_ORDER, EMPTY_WORDS, find_prediction_shape, holds_outline, orders_in
from boxtune.data.formats.csv_table import Row
from boxtune.data.formats.image_names import spell_link
from boxtune.data.formats.json_files import as_number
from boxtune.data.formats.listing import is_image
from boxtune.data.places import splits_in_name
from boxtune.errors import DataError, name_some


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The place of each column that is read; `numbers` are those of a box's four numbers, `cell` is that of a cell
    with whole boxes, `predictions` that of a prediction string with its shape: one of the three is given.

    `orders` are what the four numbers may mean, `schema` whose table it is where all its columns tell that. `size` are
    width and height of the image.
    """

    file: int
    orders: tuple[str, ...]
    header: tuple[str, ...] | None
    numbers: tuple[int, int, int, int] | None = None
    cell: int | None = None
    predictions: tuple[int, str] | None = None
    label: int | None = None
    size: tuple[int, int] | None = None
    split: int | None = None
    crowd: int | None = None
    ignore: int | None = None
    schema: str | None = None

    @property
    def width(self) -> int:
        """How many cells a row must have."""
        places = [*(self.numbers or ()), *((self.predictions or ())[:1]), *(self.size or ())]
        singles = [self.file, self.cell, self.label, self.split, self.crowd, self.ignore]
        return 1 + max(place for place in [*places, *singles] if isinstance(place, int))

    def unread(self) -> list[str]:
        """The names of columns that are not read."""
        read = {self.file, self.cell, self.label, self.split, self.crowd, self.ignore}
        read |= {*(self.numbers or ()), *(self.size or ()), *((self.predictions or ())[:1])}
        return [name for place, name in enumerate(self.header or ()) if place not in read and name]


def find_columns(rows: Sequence[Row], file: Path) -> Columns | None:
    """The columns of a table that begins with these rows; None if it is no table of boxes.

    Raises DataError with the question to answer where it cannot be told which column is meant.
    """
    if len(rows) < 1:
        return None
    first = rows[0][1]
    if _is_header(first):
        return _by_name(first, [cells for _, cells in rows[1:]], file)
    return _by_content([cells for _, cells in rows], file)


def _is_header(cells: Sequence[str]) -> bool:
    return not any(as_number(cell) is not None or _is_image_text(cell) for cell in cells)


def _is_image_text(cell: str) -> bool:
    return any(is_image(Path(name)) for name in spell_link(cell)) if "." in cell else False


def _column(rows: Sequence[Sequence[str]], place: int) -> list[str]:
    return [row[place] for row in rows if place < len(row) and row[place].lower() not in EMPTY_WORDS]


def _by_name(header: Sequence[str], rows: Sequence[Sequence[str]], file: Path) -> Columns | None:
    plain = [words.plain(name) for name in header]
    image = _file_column(plain, rows)
    if image is None:
        return None
    sides = _sides(header, file)
    size = _pair(plain, words.IMAGE_WIDTH, words.IMAGE_HEIGHT)
    numbers, orders, left_over = _four(sides)
    cell, predictions = None, None
    if numbers is None:
        cell, orders = _box_cell(plain, rows, image)
        predictions = _prediction_column(plain, rows, image, file) if cell is None else None
        orders = ANY_ORDER if predictions is not None else orders
        if cell is None and predictions is None:
            return None
        left_over = (sides["w"][0], sides["h"][0]) if "w" in sides and "h" in sides else None
    schema, orders = _schema(plain, orders)
    taken = {image, cell, *(numbers or ()), *((predictions or ())[:1])}
    return Columns(
        file=image,
        orders=orders,
        header=tuple(header),
        numbers=numbers,
        cell=cell,
        predictions=predictions,
        label=_label_column(header, rows, taken, file),
        size=size or left_over,
        split=_first(plain, words.SPLITS, lambda place: place not in taken and _names_splits(_column(rows, place))),
        crowd=_first(plain, words.CROWDS),
        ignore=_first(plain, words.IGNORED),
        schema=schema,
    )


def _schema(plain: Sequence[str], orders: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Whose table it is, if all its columns are there, and the one order of its numbers; else what is open stays so."""
    for name, (columns, order) in words.SCHEMAS.items():
        if columns <= set(plain) and order in orders:
            return name, (order,)
    return None, orders


def _first(
    plain: Sequence[str], wanted: frozenset[str], fits: Callable[[int], bool] = lambda place: True
) -> int | None:
    return next((place for place, name in enumerate(plain) if name in wanted and fits(place)), None)


def _pair(plain: Sequence[str], first: frozenset[str], second: frozenset[str]) -> tuple[int, int] | None:
    one, other = _first(plain, first), _first(plain, second)
    return (one, other) if one is not None and other is not None else None


def _names_splits(values: Sequence[str]) -> bool:
    told = [splits_in_name(value) for value in values if value.lower() != "unassigned"]
    return bool(values) and all(len(splits) < 2 for splits in told) and (any(told) or not told)


def _file_column(plain: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    """The clearest of the columns that are named for the image, one with names of image files before one without."""
    named = sorted((words.FILES.index(name), place) for place, name in enumerate(plain) if name in words.FILES)
    places = [place for _, place in named]
    with_files = [place for place in places if any(map(_is_image_text, _column(rows, place)))]
    clear = [place for place in places if plain[place] not in words.VAGUE]
    if with_files or clear:
        return (with_files or clear)[0]
    others = [place for place in range(len(plain)) if any(map(_is_image_text, _column(rows, place)))]
    return others[0] if len(others) == 1 else None


def _sides(header: Sequence[str], file: Path) -> dict[str, list[int]]:
    """The places of the columns that are named for a side of the box; those that say so themselves come first."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(header):
        side = words.coordinate_of(name)
        if side is not None:
            found[side].append(place)
    for places in found.values():
        places.sort(key=lambda place: (not words.speaks_of_box(header[place]), place))
    if "x0" in found and "y0" in found:  # a count that begins at nought: what is called x1 is the other corner
        found["x2"], found["y2"] = found.get("x1", []), found.get("y1", [])
        found["x1"], found["y1"] = found.pop("x0"), found.pop("y0")
    for side, places in found.items():
        allowed = 2 if side in ("w", "h") else 1
        same = [header[place] for place in places]
        if len(same) > allowed and words.speaks_of_box(same[0]) == words.speaks_of_box(same[1]):
            what = f"{file.name} has {len(same)} columns for one side of a box: {', '.join(same)}"
            raise DataError(what, where=str(file), fix="take all but one of them out")
    return {side: places for side, places in found.items() if places}


_FOUR = (
    (("x1", "y1", "x2", "y2"), ("xyxy",)),
    (("cx", "cy", "w", "h"), ("cxcywh",)),
    (("x1", "y1", "w", "h"), ("xywh",)),
    (("x", "y", "w", "h"), ("xywh", "cxcywh")),
)


def _four(
    sides: dict[str, list[int]],
) -> tuple[tuple[int, int, int, int] | None, tuple[str, ...], tuple[int, int] | None]:
    """The places of a box's numbers, what they may mean, and the width and height that are left for the image."""
    for names, orders in _FOUR:
        if all(name in sides for name in names):
            a, b, c, d = (sides[name][0] for name in names)
            rest = [sides.get(side, [])[1 if side in names else 0 :][:1] for side in ("w", "h")]
            size = (rest[0][0], rest[1][0]) if all(rest) else None
            return (a, b, c, d), orders, size
    return None, (), None


def _box_cell(plain: Sequence[str], rows: Sequence[Sequence[str]], image: int) -> tuple[int | None, tuple[str, ...]]:
    """The column whose cells are boxes, and what their numbers may mean; most must be, so that a broken one is told."""
    for place, name in enumerate(plain):
        values = _column(rows, place) if name in words.BOX_CELLS and place != image else None
        if values is None:
            continue
        # Outlines among boxes are the reader's to refuse; alone they are a column of their own.
        judged = [value for value in values if not holds_outline(value)] or values
        told = [orders for value in judged if (orders := orders_in(value)) is not None] if judged else [ANY_ORDER]
        if len(set(told)) == 1 and 2 * len(told) > len(judged):
            return place, told[0]
    return None, ()


def _prediction_column(
    plain: Sequence[str], rows: Sequence[Sequence[str]], image: int, file: Path
) -> tuple[int, str] | None:
    for place, name in enumerate(plain):
        shapes = find_prediction_shape(_column(rows, place)) if name in words.PREDICTIONS and place != image else ()
        if len(shapes) == 1:
            return place, shapes[0]
        if shapes:
            what = (
                f"the strings of {plain[place]} in {file.name} can be read in {len(shapes)} ways: {', '.join(shapes)}"
            )
            raise DataError(what, where=str(file), fix="write each box as a row of its own, with named columns")
    return None


def _label_column(
    header: Sequence[str], rows: Sequence[Sequence[str]], taken: set[int | None], file: Path
) -> int | None:
    for rank in words.LABELS:
        places = [place for place, name in enumerate(header) if words.plain(name) in rank and place not in taken]
        filled = [place for place in places if _column(rows, place)] or places
        different = {tuple(row[place] for row in rows if place < len(row)): place for place in reversed(filled)}
        if len(different) == 1:
            return filled[0]
        in_words = [place for place in different.values() if any(as_number(v) is None for v in _column(rows, place))]
        if len(in_words) == 1:  # the others hold its number
            return in_words[0]
        if different:
            told = "; ".join(
                f"{header[place]} ({name_some(dict.fromkeys(_column(rows, place)))})" for place in sorted(filled)
            )
            raise DataError(
                f"{file.name} has {len(filled)} columns that may hold the class: {told}",
                where=str(file),
                fix="name the right one `class` and give the others names like `note`, or take them out",
            )
    return None


def _by_content(rows: Sequence[Sequence[str]], file: Path) -> Columns | None:
    """The columns of a table without a header: a file, its class, and runs of numbers that are box or image size."""
    for with_empty in (False, True):  # AutoML leaves columns empty; elsewhere an empty one is a comma too many
        found = _by_content_of(rows, file, with_empty)
        if found is not None:
            return found
    return None


def _by_content_of(rows: Sequence[Sequence[str]], file: Path, with_empty: bool) -> Columns | None:
    columns = {place: _column(rows, place) for place in range(max(map(len, rows)))}
    columns = {place: cells for place, cells in columns.items() if cells or with_empty}
    files = [place for place, cells in columns.items() if cells and all(map(_is_image_text, cells))]
    if len(files) != 1:
        return None
    numeric = [place for place, cells in columns.items() if all(as_number(cell) is not None for cell in cells)]
    texts = [place for place in columns if place not in numeric and place != files[0]]
    split = next((place for place in texts if place < files[0] and _names_splits(columns[place])), None)
    labels = [place for place in texts if place != split]
    runs = _runs(numeric)
    choice = _runs_meant(runs, labels[0] if labels else None, rows, files[0]) if len(labels) < 2 else None
    if choice is None:
        return None
    numbers, size, label = choice
    if numbers is None:
        lengths = " and ".join(str(len(run)) for run in runs)
        what = f"{file.name} has no header, and it cannot be told which of its numbers ({lengths} in a row) are the box"
        fix = "put a first line with names, such as filename,xmin,ymin,xmax,ymax,class"
        raise DataError(what, where=str(file), fix=fix)
    orders = ("xyxy",) if len(runs) == 1 and len(runs[0]) == 8 else ("xyxy", "xywh", "cxcywh")
    return Columns(file=files[0], orders=orders, header=None, numbers=numbers, label=label, size=size, split=split)


def _runs(places: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


Four = tuple[int, int, int, int]


def _runs_meant(
    runs: Sequence[Sequence[int]], label: int | None, rows: Sequence[Sequence[str]], image: int
) -> tuple[Four | None, tuple[int, int] | None, int | None] | None:
    """Box, image size and class among runs of numbers; None if there is no box, a box of None if it cannot be told."""
    by_length = {len(run): run for run in runs}
    lengths = sorted(len(run) for run in runs)
    if lengths == [4] or lengths == [2, 4]:
        size = by_length.get(2)
        return _four_of(by_length[4]), (size[0], size[1]) if size else None, label
    if lengths == [1, 4] and label is None:
        return _four_of(by_length[4]), None, by_length[1][0]
    if lengths == [8]:  # four corners, two of which may be empty (AutoML): the first and the third are apart
        run = by_length[8]
        return (run[0], run[1], run[4], run[5]), None, label
    if lengths == [6] and label is not None:
        run = by_length[6]
        sizes = [(run[:2], run[2:]), (run[4:], run[:4])]
        sizes = [(size, box) for size, box in sizes if _can_be_size(size, box, rows, image)]
        if len(sizes) != 1:
            return None, None, label
        return _four_of(sizes[0][1]), (sizes[0][0][0], sizes[0][0][1]), label
    if lengths == [5] and label is None:
        run = by_length[5]
        classes = [(run[4], run[:4]), (run[0], run[1:])]
        classes = [(one, box) for one, box in classes if _can_be_class(one, box, rows)]
        return (_four_of(classes[0][1]), None, classes[0][0]) if len(classes) == 1 else (None, None, label)
    return None


def _four_of(run: Sequence[int]) -> Four:
    return run[0], run[1], run[2], run[3]


def _values(rows: Sequence[Sequence[str]], places: Sequence[int]) -> list[list[float]]:
    found = [[as_number(row[place]) if place < len(row) else None for place in places] for row in rows]
    return [[value for value in values if value is not None] for values in found if None not in values]


def _can_be_size(size: Sequence[int], box: Sequence[int], rows: Sequence[Sequence[str]], image: int) -> bool:
    """Whether two columns are whole numbers that are the same in all rows of an image and that no corner exceeds."""
    sizes: dict[str, set[tuple[float, ...]]] = defaultdict(set)
    for row in rows:
        for values in _values([row], size):
            sizes[row[image]].add(tuple(values))
    whole = all(value >= 1 and value == int(value) for one in sizes.values() for values in one for value in values)
    inside = all(v[0] <= v[4] and v[1] <= v[5] for v in _values(rows, [*box, *size]))
    return whole and inside and all(len(one) == 1 for one in sizes.values())


def _can_be_class(one: int, box: Sequence[int], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a column holds whole numbers from nought, and the four others are corners in order."""
    classes, boxes = _values(rows, [one]), _values(rows, box)
    whole = all(values[0] >= 0 and values[0] == int(values[0]) for values in classes)
    return whole and all(v[2] > v[0] and v[3] > v[1] for v in boxes)
