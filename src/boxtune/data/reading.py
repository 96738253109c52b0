"""What four numbers mean: every reading that a format knows is tried on the whole set, the impossible ones are named.

A box can be two corners, a corner and a size, or a centre and a size; x or y can come first; numbers can be pixels,
shares of the sides, percent, or thousandths. One box fits several of these, a set hardly ever does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from boxtune.errors import ConfigError, DataError

FITS = 0.995
"""Share of the boxes that must be possible for a reading to be considered."""
CRAMPED, NATURAL, LEAST_BOXES = 0.7, 0.9, 10
"""A reading by which not one of at least 10 boxes gets beyond 0.7 of the width or height is set aside, if by another
some get beyond 0.9: objects do not all keep to one corner of their pictures."""
_SLACK = 0.02  # share of a side that a corner may lie outside; 2 px at least, as annotation tools do

_ORDERS = {
    "xyxy": "x1, y1, x2, y2",
    "yxyx": "y1, x1, y2, x2",
    "xywh": "x, y, width, height",
    "cxcywh": "centre x, centre y, width, height",
}
_UNITS: dict[str, tuple[float | None, str]] = {
    "px": (None, "pixels"),
    "unit": (1.0, "shares of the image's sides (0..1)"),
    "percent": (100.0, "percent of the image's sides"),
    "bin1000": (1000.0, "thousandths of the image's sides (0..1000)"),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One meaning of four numbers: their order and their unit."""

    order: str
    unit: str

    @property
    def name(self) -> str:
        """As it is written in `data.boxes`, such as `xywh_px`."""
        return f"{self.order}_{self.unit}"

    @property
    def scale(self) -> float | None:
        """Into how many parts a side of the image is divided; None for pixels."""
        return _UNITS[self.unit][0]

    def __str__(self) -> str:
        return f"{_ORDERS[self.order]} in {_UNITS[self.unit][1]}"

    def to_xyxy(self, numbers: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """x1, y1, x2, y2 in the same unit."""
        first, second = numbers[:, :2], numbers[:, 2:]
        if self.order == "xywh":
            return np.concatenate([first, first + second], axis=1)
        if self.order == "cxcywh":
            return np.concatenate([first - second / 2, first + second / 2], axis=1)
        return numbers[:, [1, 0, 3, 2]] if self.order == "yxyx" else np.array(numbers)


READINGS = {one.name: one for one in (Reading(order=order, unit=unit) for order in _ORDERS for unit in _UNITS)}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The reading that was taken, and why, with the key that overrides it."""

    reading: Reading
    why: str


def choose_reading(
    numbers: Float[np.ndarray, "n 4"],
    sizes_wh: Int[np.ndarray, "n 2"],
    candidates: Sequence[str],
    *,
    where: str,
    asked: str | None = None,
    known: tuple[str, str] | None = None,
) -> Choice:
    """The one reading of the candidates that fits at least 99.5 % of the boxes.

    `sizes_wh` are the upright sizes of each box's image in pixels, (0, 0) where unknown. `asked` is what the user says
    (`data.boxes`), `known` a reading and the evidence for it where the format's own schema decides. Raises DataError
    with the question to answer if several readings fit or none does, ConfigError if `asked` is no reading.
    """
    if asked is not None:
        if asked not in READINGS:
            fix = f"one of {', '.join(READINGS)}"
            raise ConfigError(f"{asked!r} is no way to read a box", where="data.boxes", fix=fix)
        return Choice(reading=READINGS[asked], why=f"boxes read as {READINGS[asked]}, as boxes={asked} asks")
    if known is not None:
        reading = READINGS[known[0]]
        return Choice(reading=reading, why=f"boxes read as {reading} ({known[1]}; boxes=... overrides it)")
    if not len(numbers):
        reading = READINGS[candidates[0]]
        return Choice(reading=reading, why="there are no boxes to read")
    fits = {name: _share_that_fits(numbers, sizes_wh, READINGS[name]) for name in candidates}
    possible = [name for name in candidates if fits[name] >= FITS]
    impossible = ", ".join(f"{name} {fits[name]:.1%}" for name in candidates if name not in possible)
    possible, cramped = _set_aside_cramped(numbers, sizes_wh, possible)
    if len(possible) != 1:
        untried = ", ".join(name for name in READINGS if name not in candidates)
        raise _question(possible, impossible, untried, len(numbers), where)
    reading = READINGS[possible[0]]
    others = f"; others do not fit: {impossible}" if impossible else ""
    why = f"boxes read as {reading}: {fits[reading.name]:.1%} of {len(numbers):,} boxes are possible so{others}"
    return Choice(reading=reading, why=f"{why}{cramped} (boxes={reading.name} says so, another name overrides it)")


def _question(possible: Sequence[str], impossible: str, untried: str, num: int, where: str) -> DataError:
    if possible:
        ways = " or ".join(f"{name} ({READINGS[name]})" for name in possible)
        what = f"the four numbers of {num:,} boxes can be read in {len(possible)} ways: {ways}"
        say = " or ".join(f"boxes={name}" for name in possible)
        return DataError(what, where=where, fix=f"say which: {say}; or, if it is none of them, one of {untried}")
    what = f"no reading fits the four numbers of {num:,} boxes; possible would be: {impossible}"
    fix = f"mend the annotations, or say how they are meant: boxes= one of {', '.join(READINGS)}"
    return DataError(what, where=where, fix=fix)


def _limits(sizes_wh: Int[np.ndarray, "n 2"], reading: Reading) -> Float[np.ndarray, "n 2"]:
    if reading.scale is not None:
        return np.full(sizes_wh.shape, reading.scale)
    return np.where(sizes_wh > 0, sizes_wh, np.inf).astype(np.float64)


def _share_that_fits(numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], reading: Reading) -> float:
    """Share of the boxes with ordered corners inside their image.

    In pixels a set whose numbers all lie within 0..1 does not fit: nobody annotates the first pixel alone. In parts of
    the sides one that is all below a hundredth of them does not fit either.
    """
    xyxy, limits = reading.to_xyxy(numbers), _limits(sizes_wh, reading)
    slack = np.maximum(_SLACK * limits, 2.0 if reading.scale is None else 0.0)
    slack = np.where(np.isinf(limits), 0.0, slack)
    ordered = (xyxy[:, 2:] > xyxy[:, :2]).all(axis=1)
    inside = (xyxy[:, :2] >= -slack).all(axis=1) & (xyxy[:, 2:] <= limits + slack).all(axis=1)
    too_small = np.abs(numbers).max() <= (1.0 if reading.scale is None else reading.scale / 100)
    return 0.0 if too_small else float((ordered & inside).mean())


def _set_aside_cramped(
    numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], possible: list[str]
) -> tuple[list[str], str]:
    if len(possible) < 2 or len(numbers) < LEAST_BOXES:
        return possible, ""
    reach = {}
    for name in possible:
        shares = READINGS[name].to_xyxy(numbers)[:, 2:] / _limits(sizes_wh, READINGS[name])
        reach[name] = float(shares.max())
    cramped = [name for name in possible if reach[name] < CRAMPED]
    if not cramped or max(reach.values()) < NATURAL:
        return possible, ""
    told = ", ".join(f"by {name} no box would get beyond {reach[name]:.0%} of a side" for name in cramped)
    return [name for name in possible if name not in cramped], f"; {told}"
