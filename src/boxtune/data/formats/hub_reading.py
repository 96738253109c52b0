"""What the four numbers of a hub data set mean: told by a known schema, by names, by areas beside them, or by trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from boxtune.data.draft import Size
from boxtune.data.formats.hub_objects import Place, Thing
from boxtune.data.formats.hub_tables import Table
from boxtune.data.reading import READINGS, Choice, choose_reading

_CANDIDATES = ("xywh_px", "xyxy_px", "xyxy_unit", "yxyx_unit", "xywh_unit", "cxcywh_unit")
_SIDE_SLACK = 0.02  # of a share of a side
_AREA_FITS = 0.99  # share of the boxes whose area must be the one beside them
_AREA_SLACK = 0.01  # relative, for areas that were rounded

# Open Food Facts: nutrition-table-detection and its siblings.
_OFF_COLUMNS = {"image_id", "image", "width", "height", "meta", "objects"}
_OFF_META = {"barcode", "off_image_id", "image_url"}
_OFF_OBJECTS = {"bbox", "category_id", "category_name"}


def choose_for_hub(
    things: Sequence[Sequence[Thing]],
    sizes_wh: Sequence[Size | None],
    tables: Sequence[tuple[Table, Place]],
    where: str,
    asked: str | None,
) -> Choice:
    """The reading of all boxes; `things` are those of each picture, `sizes_wh` the pictures' sizes where known.

    Raises DataError with the question if it stays open.
    """
    flat = [thing for row in things for thing in row]
    numbers = np.array([thing.numbers for thing in flat], dtype=np.float64).reshape(-1, 4)
    owners = np.repeat(np.arange(len(things)), [len(row) for row in things])
    sizes = np.array([size or (0, 0) for size in sizes_wh], dtype=np.int64).reshape(-1, 2)[owners]
    shares = bool(len(numbers)) and bool((numbers >= -_SIDE_SLACK).all() and (numbers <= 1 + _SIDE_SLACK).all())
    known = None
    if shares and all(_is_open_food_facts(table) for table, _ in tables):
        known = "yxyx_unit", "the columns are those of Open Food Facts, which writes y first"
    candidates, told = _named_order(flat)
    if not told:
        candidates, told = _orders_of_area(flat, numbers, sizes, candidates)
    choice = choose_reading(numbers, sizes, candidates, where=where, asked=asked, known=known)
    return Choice(reading=choice.reading, why=choice.why + told) if asked is None and known is None else choice


def _is_open_food_facts(table: Table) -> bool:
    columns = table.columns
    return (
        columns.keys() >= _OFF_COLUMNS and set(columns["meta"]) >= _OFF_META and set(columns["objects"]) >= _OFF_OBJECTS
    )


def _named_order(things: Sequence[Thing]) -> tuple[Sequence[str], str]:
    """The readings of the one order in which all numbers are named (x1, y1, ...), or all of them."""
    orders = {thing.order for thing in things}
    if len(orders) != 1 or None in orders:
        return _CANDIDATES, ""
    (order,) = orders
    return (f"{order}_px", f"{order}_unit"), "; their order is told by the names of the numbers"


def _orders_of_area(
    things: Sequence[Thing], numbers: Float[np.ndarray, "n 4"], sizes: Int[np.ndarray, "n 2"], candidates: Sequence[str]
) -> tuple[Sequence[str], str]:
    """The candidates by which the boxes have the areas that stand beside them, if some but not all have."""
    if not things or any(thing.area is None for thing in things):
        return candidates, ""
    areas = np.array([thing.area for thing in things], dtype=np.float64)
    fitting = []
    for name in candidates:
        reading = READINGS[name]
        xyxy = reading.to_xyxy(numbers)
        own = np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1)
        in_px = own if reading.scale is None else own * np.prod(sizes, axis=1)
        close = [np.abs(one - areas) <= _AREA_SLACK * areas + 1e-9 for one in (own, in_px)]
        if max(float(one.mean()) for one in close) >= _AREA_FITS:
            fitting.append(name)
    if not fitting or len(fitting) == len(candidates):
        return candidates, ""
    return fitting, f"; the areas beside the boxes are those of {' or '.join(fitting)}"
