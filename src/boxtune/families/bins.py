"""Corners as whole numbers and back: how many steps a side has, how a corner is rounded, where a number lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from boxtune.boxes import Boxes
from boxtune.families.frame import Frame

Numbers = tuple[float, float, float, float]
"""x1, y1, x2, y2 as a grammar has them; whole numbers when written, whatever the model wrote when read."""


Places = tuple[int | None, int | None, int | None, int | None]
"""x1, y1, x2, y2 of a box of which some are not known yet."""


class Scale(Protocol):
    """A grammar's numbers for corners."""

    def bin_px(self, frame: Frame) -> tuple[float, float]:
        """Width and height of one step, in pixels of the upright original."""
        ...

    def to_bins(self, boxes: Boxes, frame: Frame) -> Int[np.ndarray, "n 4"]:
        """x1, y1, x2, y2 of each box as whole numbers; no side is without extent."""
        ...

    def find_fault(self, numbers: Numbers, frame: Frame) -> str:
        """Why four numbers that were read are no box (a kind of Problem), or ""."""
        ...

    def allowed(self, place: int, corners: Places, frame: Frame) -> range:
        """The numbers that can stand at a place of x1, y1, x2, y2 beside those that are known, so that there is a box
        without a fault.
        """
        ...

    def to_px(self, rows: Sequence[Numbers], frame: Frame) -> Float[np.ndarray, "n 4"]:
        """Corners in pixels of the upright original, inside the image, of numbers without a fault."""
        ...


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Corners as multiples of a step, each side on its own.

    A side has `per_side` steps; None: as many as it has pixels in the seen image. The largest number is that many
    less `short_by`; larger ones are clamped to it. `rounds` to the nearest whole number (halves to even) or down;
    numbers rounded down are read as the middle of their step, so that either way a corner moves by half a step at most.
    A side thinner than a step is written one step wide.
    """

    per_side: int | None
    short_by: int = 0
    rounds: bool = True

    def _steps(self, frame: Frame) -> Float[np.ndarray, 4]:
        sides = frame.seen_wh if self.per_side is None else (self.per_side, self.per_side)
        return np.array([*sides, *sides], dtype=np.float64)

    def bin_px(self, frame: Frame) -> tuple[float, float]:
        """Width and height of one step, in pixels of the upright original."""
        across, down = (np.array(frame.original_wh) / self._steps(frame)[:2]).tolist()
        return across, down

    def to_bins(self, boxes: Boxes, frame: Frame) -> Int[np.ndarray, "n 4"]:
        """x1, y1, x2, y2 of each box as whole numbers; no side is without extent."""
        steps, top = self._steps(frame), self._steps(frame) - self.short_by
        exact = boxes.xyxy_px / np.array(frame.original_wh * 2, dtype=np.float64) * steps
        # Rounding down must not fall one short where a division left 0.9999999999 of a step.
        whole = np.rint(exact) if self.rounds else np.floor(exact + 1e-9)
        bins = np.clip(whole, 0, top).astype(int)
        for low, high in ((0, 2), (1, 3)):
            thin = bins[:, low] == bins[:, high]
            bins[:, low] -= thin & (bins[:, high] == top[high])
            bins[:, high] = np.maximum(bins[:, high], bins[:, low] + thin)
        return bins

    def find_fault(self, numbers: Numbers, frame: Frame) -> str:
        """out_of_range, inverted, no_area, or ""."""
        x1, y1, x2, y2 = numbers
        top = self._steps(frame) - self.short_by
        if min(numbers) < 0 or x1 > top[0] or x2 > top[0] or y1 > top[1] or y2 > top[1]:
            return "out_of_range"
        if x2 < x1 or y2 < y1:
            return "inverted"
        return "no_area" if x2 == x1 or y2 == y1 else ""

    def allowed(self, place: int, corners: Places, frame: Frame) -> range:
        """From 0 to the largest number, and beyond the corner on the other side, which room is left for."""
        top, other = int(self._steps(frame)[place]) - self.short_by, corners[(place + 2) % 4]
        if place < 2:
            return range(top if other is None else other)
        return range(1 if other is None else other + 1, top + 1)

    def to_px(self, rows: Sequence[Numbers], frame: Frame) -> Float[np.ndarray, "n 4"]:
        """Corners in pixels of the upright original, inside the image."""
        original = np.array(frame.original_wh * 2, dtype=np.float64)
        middle = 0.0 if self.rounds else 0.5
        numbers = np.array(rows, dtype=np.float64).reshape(-1, 4)
        return np.minimum((numbers + middle) / self._steps(frame) * original, original)


def order_boxes(boxes: Boxes, bins: Int[np.ndarray, "n 4"], classes: Sequence[str]) -> list[int]:
    """Places of the boxes in the order they are written: by class as asked, then top to bottom, then left to right.

    Decided by the numbers that are written, so that an answer has one order only. Raises ValueError on a label that
    was not asked for.
    """
    unknown = sorted(set(boxes.labels) - set(classes))
    if unknown:
        raise ValueError(f"labels {unknown} are not among the classes asked for")
    rank = {name: place for place, name in enumerate(classes)}
    rows = bins.tolist()
    return sorted(range(len(boxes)), key=lambda i: (rank[boxes.labels[i]], rows[i][1], rows[i][0], rows[i]))
