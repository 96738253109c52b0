"""What the numbers in answers mean where the grammar leaves it open, and boxes as shares of the picture's sides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.data.reading import FITS, READINGS, choose_reading
from boxtune.errors import DataError

PADDED = "xyxy_padded"
"""LLaVA-1.5's reading: shares of the square that the picture is padded to, itself in the middle."""

_CANDIDATES = ("xyxy_px", "xyxy_bin1000", "xyxy_unit")
_SLACK = 0.01  # share of the square that a corner may reach into the padding: three decimals, and edges drawn by hand
_TOUCHES = 0.001  # of the square: so near to the padding a corner lies on the edge of the picture, at three decimals
_LEAST_TOUCHING, _TOUCHING_SHARE = 3, 0.05  # boxes that must end there before a square is told by them


def choose_unit(
    numbers: Float[np.ndarray, "n 4"],
    sizes_wh: Int[np.ndarray, "n 2"],
    *,
    bare: bool,
    where: str,
    asked: str | None,
) -> tuple[str, str]:
    """The name of the reading of all boxes, one of `reading.READINGS` or PADDED, and why.

    `sizes_wh` are the sizes of each box's picture, (0, 0) where unknown. `bare`: the numbers stand in brackets alone,
    as LLaVA writes them, so that shares may be of the padded square. Raises DataError with the question if it stays
    open.
    """
    if asked == PADDED:
        return PADDED, f"boxes read as shares of the padded square, as boxes={asked} asks"
    shares = bool(len(numbers)) and float(numbers.max()) <= 1 + 2 * _SLACK
    if bare and shares and asked is None:
        return _choose_padding(numbers, sizes_wh, where)
    choice = choose_reading(numbers, sizes_wh, _CANDIDATES, where=where, asked=asked)
    return choice.reading.name, choice.why


def _choose_padding(numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], where: str) -> tuple[str, str]:
    """Shares of the picture, or of the square it is padded to: told by what lies in the padding, and at its edge.

    Objects that their picture cuts off end at its edge, which inside a square is a place where nothing else ends.
    Raises DataError with the question where neither is seen.
    """
    oblong = (sizes_wh[:, 0] != sizes_wh[:, 1]) & (sizes_wh > 0).all(axis=1)
    if not oblong.any():
        return (
            "xyxy_unit",
            "boxes read as x1, y1, x2, y2 in shares of the sides (0..1); no picture is known to be oblong",
        )
    # With less padding than the slack the edge of the picture and that of the square are one.
    telling = oblong & (1 - sizes_wh.min(axis=1) / np.maximum(sizes_wh.max(axis=1), 1) > 2 * _SLACK)
    count = f"{int(telling.sum()):,} boxes in pictures that are not square"
    out = _out_of_picture(numbers[telling], sizes_wh[telling])
    inside = float((out <= _SLACK).mean()) if len(out) else 1.0
    if inside < FITS:
        why = f"{1 - inside:.1%} of {count} reach into what would be padding, so they are shares of the picture itself"
        return "xyxy_unit", f"boxes read as x1, y1, x2, y2 in shares of the sides: {why} (boxes={PADDED} overrides it)"
    touching = int((np.abs(out) <= _TOUCHES).sum())
    near = int(((out < -_TOUCHES) & (out >= -10 * _TOUCHES)).sum())
    told = f"none of {count} reaches into the padding, {touching} end at its edge, {near} just before it"
    coarse = bool((np.abs(numbers * 100 - np.round(numbers * 100)) < 1e-6).all())  # a round 0.25 is no edge
    if coarse or touching < max(_LEAST_TOUCHING, _TOUCHING_SHARE * len(out)) or touching <= near:
        raise DataError(
            f"the boxes can be shares of the picture or of the square it is padded to ({told})",
            where=where,
            fix=f"say which: boxes={PADDED} (as LLaVA-1.5 pads) or boxes=xyxy_unit",
        )
    return PADDED, (
        "boxes read as x1, y1, x2, y2 in shares of the square that LLaVA-1.5 pads a picture to: "
        f"{told} (boxes=xyxy_unit overrides it)"
    )


def _out_of_picture(numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """How far each box reaches out of the picture into the padding, in shares of the square; below 0: not at all."""
    band = (1 - sizes_wh / sizes_wh.max(axis=1, keepdims=True)) / 2
    out = np.concatenate([band - numbers[:, :2], numbers[:, 2:] - (1 - band)], axis=1)
    padded: Bool[np.ndarray, "n 4"] = np.concatenate([band, band], axis=1) > 0
    return np.where(padded, out, -np.inf).max(axis=1)


def to_shares(
    numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], reading: str
) -> Float[np.ndarray, "n 4"]:
    """x1, y1, x2, y2 in shares of the picture's sides, of numbers in any reading; sizes of 0 must not be in it.

    For PADDED a picture of unknown size is taken for a square: its file is not there, so nothing will be made of it.
    """
    sides = np.concatenate([sizes_wh, sizes_wh], axis=1).astype(np.float64)
    if reading == PADDED:
        square = sides.max(axis=1, keepdims=True)
        sides = np.where(square > 0, sides, 1.0)
        square = np.where(square > 0, square, 1.0)
        return (numbers * square - (square - sides) / 2) / sides
    known = READINGS[reading]
    return known.to_xyxy(numbers) / (sides if known.scale is None else known.scale)
