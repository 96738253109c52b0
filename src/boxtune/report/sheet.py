"""An inspected data set -> contact sheets of the images that a person should look at before training."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from boxtune.artifacts import require_folder
from boxtune.boxes import Boxes, box_areas
from boxtune.data import Sample, SampleTable, as_table
from boxtune.data.inspection import Inspection
from boxtune.data.tiles import cut_boxes, open_sample
from boxtune.errors import DataError
from boxtune.pictures import MATTE, contact_sheet, draw_boxes

CELL_PX = 360
COLUMNS = 4
MOST_CLASSES = 24
_AROUND = 8  # a small box is shown in a window of so many times its longer side
_LEAST_WINDOW_PX = 64
_ALWAYS_SHOWN = ("image.exif_turned", "image.size_scaled")


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """One picture of a sheet: a sample, the boxes to draw on it, and perhaps the window of it that is shown."""

    sample: Sample
    boxes: Boxes
    caption: str
    window: tuple[int, int, int, int] | None = None


def write_sheets(folder: Path, inspection: Inspection, *, num_each: int = 12) -> list[Path]:
    """The contact sheets as JPEGs; returns those that there was something to show on.

    `smallest` (cut out and enlarged) and `largest` boxes, the most `crowded` images, `negatives` in equal steps, one
    image of each of the most frequent 24 `classes` with a box of its middle size, and the images that `findings` name.
    Truth alone is drawn, crowd and ignored boxes not. An image that cannot be opened is a grey cell that says why.
    """
    require_folder(folder, fix="give a folder that can be written as out=")
    tables = {split: as_table(samples) for split, samples in inspection.dataset.splits.items() if len(samples)}
    sheets: list[tuple[str, str, int, list[_Cell]]] = [
        ("smallest", "smallest boxes, cut out and enlarged", 1, _by_box(tables, num_each, smallest=True)),
        ("largest", "largest boxes by share of their image", 1, _by_box(tables, num_each, smallest=False)),
        # Twice as large, since many labels want room.
        ("crowded", "images with the most boxes", 2, _crowded(tables, num_each // 2)),
        ("negatives", "images without boxes to find", 1, _negatives(tables, num_each)),
        ("classes", "one image of each class, its other boxes left out", 1, _one_per_class(tables, inspection)),
        ("findings", "images that findings name", 1, _concerned(tables, inspection, num_each)),
    ]
    written = []
    for name, title, times, cells in sheets:
        if not cells:
            continue
        cell_px = times * CELL_PX
        pictures = [_draw(cell, cell_px) for cell in cells]
        sheet = contact_sheet(pictures, columns=min(COLUMNS // times, len(cells)), cell_px=cell_px, title=title)
        written.append(folder / f"{name}.jpg")
        sheet.save(written[-1], quality=90)
    return written


def _draw(cell: _Cell, cell_px: int) -> Image.Image:
    try:
        image = open_sample(cell.sample)
    except DataError as problem:
        blank = Image.new("RGB", (cell_px, cell_px // 2), MATTE)
        return draw_boxes(blank, None, None, caption=f"{cell.caption}: {problem.what}", max_side=cell_px)
    if cell.window is None:
        return draw_boxes(image, cell.boxes, None, caption=cell.caption, max_side=cell_px)
    boxes = cut_boxes(cell.boxes, cell.window, 0.0)
    return draw_boxes(image.crop(cell.window), boxes, None, caption=cell.caption, max_side=cell_px)


def _cell(split: str, sample: Sample, told: str) -> _Cell:
    return _Cell(sample=sample, boxes=sample.targets, caption=f"{sample.image.name} ({split}) {told}".rstrip())


def _by_box(tables: dict[str, SampleTable], num: int, *, smallest: bool) -> list[_Cell]:
    """The images of the smallest boxes in pixels, or of the largest by their share of the image; each image once."""
    found: list[tuple[float, str, int, int]] = []
    for split, table in tables.items():
        areas: Float[np.ndarray, " m"] = box_areas(table.xyxy_px)
        if not smallest:
            areas = areas / np.repeat(np.maximum(table.sizes_wh.prod(axis=1), 1), np.diff(table.starts))
        found += [(value, split, image, row) for value, image, row in _first_of_each(areas, table, num, smallest)]
    cells = []
    for value, split, image, row in sorted(found, reverse=not smallest)[:num]:
        table = tables[split]
        sample, label = table[image], table.names[int(table.codes[row])]
        x1, y1, x2, y2 = table.xyxy_px[row].tolist()
        told = f"{label} {x2 - x1:.0f} x {y2 - y1:.0f} px" if smallest else f"{label} {value:.0%}"
        window = _window_around((x1, y1, x2, y2), sample.size_wh) if smallest else None
        caption = f"{told}, {sample.image.name} ({split})"
        cells.append(_Cell(sample=sample, boxes=sample.targets, caption=caption, window=window))
    return cells


def _first_of_each(
    values: Float[np.ndarray, " m"], table: SampleTable, num: int, smallest: bool
) -> Iterable[tuple[float, int, int]]:
    """Value, image and row of the boxes to find with the least or the most, at most one of an image."""
    rows = np.flatnonzero(table.targets)
    order = rows[np.argsort(values[rows] if smallest else -values[rows], kind="stable")]
    owners = table.owners
    seen: set[int] = set()
    for row in order.tolist():
        image = int(owners[row])
        if image not in seen:
            seen.add(image)
            yield float(values[row]), image, row
        if len(seen) == num:
            return


def _window_around(xyxy: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square of whole pixels around a box, moved into the image and no larger than it."""
    x1, y1, x2, y2 = xyxy
    side = max(_LEAST_WINDOW_PX, round(_AROUND * max(x2 - x1, y2 - y1)))
    width, height = min(side, size_wh[0]), min(side, size_wh[1])
    left = min(max(0, round((x1 + x2 - width) / 2)), size_wh[0] - width)
    top = min(max(0, round((y1 + y2 - height) / 2)), size_wh[1] - height)
    return left, top, left + width, top + height


def _counts(table: SampleTable) -> Int[np.ndarray, " n"]:
    """Boxes to find in each image."""
    return np.bincount(table.owners[table.targets], minlength=len(table))


def _crowded(tables: dict[str, SampleTable], num: int) -> list[_Cell]:
    found = []
    for split, table in tables.items():
        counts = _counts(table)
        found += [(int(counts[i]), split, i) for i in np.argsort(-counts, kind="stable")[:num].tolist() if counts[i]]
    return [_cell(split, tables[split][i], "") for _, split, i in sorted(found, key=lambda row: -row[0])[:num]]


def _negatives(tables: dict[str, SampleTable], num: int) -> list[_Cell]:
    places = [(split, i) for split, table in tables.items() for i in np.flatnonzero(_counts(table) == 0).tolist()]
    step = max(1, -(-len(places) // num))
    return [_cell(split, tables[split][i], "") for split, i in places[::step]]


def _one_per_class(tables: dict[str, SampleTable], inspection: Inspection) -> list[_Cell]:
    """For each class the image with its box of middle area, in the first split that has one."""
    counts = {name: sum(by_split.values()) for name, by_split in inspection.class_counts.items()}
    frequent = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])[:MOST_CLASSES]
    cells = []
    for name in frequent:
        split = next(s for s in tables if inspection.class_counts[name].get(s))
        table = tables[split]
        rows = np.flatnonzero((table.codes == table.names.index(name)) & table.targets)
        areas = box_areas(table.xyxy_px[rows])
        row = int(rows[np.argsort(areas, kind="stable")[len(rows) // 2]])
        sample = table[int(np.searchsorted(table.starts, row, side="right")) - 1]
        boxes = sample.targets
        only = boxes.take([i for i, label in enumerate(boxes.labels) if label == name])
        cells.append(_Cell(sample=sample, boxes=only, caption=f"{name} ({counts[name]:,} boxes)"))
    return cells


def _concerned(tables: dict[str, SampleTable], inspection: Inspection, num: int) -> list[_Cell]:
    """The images whose file names stand in a finding that is not ok, or that says how boxes were moved."""
    told = [one for one in inspection.findings if one.level != "ok" or one.check in _ALWAYS_SHOWN]
    cells: list[_Cell] = []
    for split, table in tables.items():
        for place, name in enumerate(Path(file).name for file in table.files):
            checks = [one.check for one in told if name in one.seen and _stands_alone(name, one.seen)]
            if checks:
                cells.append(_cell(split, table[place], ", ".join(checks)))
    return cells[:num]


def _stands_alone(name: str, text: str) -> bool:
    """Whether the file name is all of a name in the text, and not the end of a longer one."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text) is not None
