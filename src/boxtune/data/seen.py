"""Images and boxes as a model family sees them, after its resize; the rule is asked once for each size that occurs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from boxtune.boxes import box_areas
from boxtune.data.table import SampleTable
from boxtune.data.target import Target
from boxtune.families import Frame


@dataclass(frozen=True, kw_only=True)
class Spread:
    """5th percentile, median and 95th percentile."""

    p5: float
    median: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The image sizes that occur in a split, and the sizes that they are seen in.

    Of `n` images with `k` sizes in all, `of` is the place of each image's size in `sizes_wh`, and `counts` how often
    each occurs. `seen_wh` is NaN where the family refuses the size (`refused` says why) or nobody knows it.
    """

    sizes_wh: Int[np.ndarray, "k 2"]
    of: Int[np.ndarray, " n"]
    counts: Int[np.ndarray, " k"]
    seen_wh: Float[np.ndarray, "k 2"]
    refused: Mapping[int, str]

    @property
    def scale(self) -> Float[np.ndarray, " k"]:
        """Seen side by real side, as the root of the areas' ratio."""
        return np.sqrt(self.seen_wh.prod(axis=1) / np.maximum(self.sizes_wh.prod(axis=1), 1))

    def measure(self, what: Callable[[Frame], tuple[float, ...]], num: int) -> Float[np.ndarray, "k num"]:
        """`num` values of what a frame of each size gives, NaN where the size is not seen."""
        values: Float[np.ndarray, "k num"] = np.full((len(self.counts), num), np.nan)
        for place in np.flatnonzero(np.isfinite(self.seen_wh[:, 0])).tolist():
            (width, height), (seen_w, seen_h) = self.sizes_wh[place].tolist(), self.seen_wh[place].tolist()
            values[place] = what(Frame(original_wh=(width, height), seen_wh=(int(seen_w), int(seen_h))))
        return values


def look(table: SampleTable, target: Target) -> Seen:
    """How the family sees the images of a split."""
    sizes, of, counts = unique_sizes(table.sizes_wh)
    seen: Float[np.ndarray, "k 2"] = np.full(sizes.shape, np.nan)
    refused = {}
    for place, (width, height) in enumerate(sizes.tolist()):
        if width < 1 or height < 1:
            continue
        try:
            seen[place] = target.family.seen_wh((width, height), target.min_pixels, target.max_pixels)
        except ValueError as error:
            refused[place] = str(error)
    return Seen(sizes_wh=sizes, of=of, counts=counts, seen_wh=seen, refused=refused)


def unique_sizes(
    sizes_wh: Int[np.ndarray, "n 2"],
) -> tuple[Int[np.ndarray, "k 2"], Int[np.ndarray, " n"], Int[np.ndarray, " k"]]:
    """The sizes that occur, the place of each image's among them, and how often each occurs."""
    keys = (sizes_wh[:, 0].astype(np.int64) << 32) | sizes_wh[:, 1].astype(np.int64)
    found, of, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.column_stack([found >> 32, found & 0xFFFFFFFF]), of, counts


def seen_sides(table: SampleTable, seen: Seen) -> Float[np.ndarray, " m"]:
    """For each box to find the square root of its area in seen pixels."""
    wanted = table.targets
    sides = np.sqrt(box_areas(table.xyxy_px))[wanted]
    sides *= np.repeat(seen.scale[seen.of], np.diff(table.starts))[wanted]
    return sides


def count_thin(table: SampleTable, seen: Seen, target: Target) -> int:
    """Boxes to find that are thinner than a step of the grammar's numbers, and so are written one step thick."""
    steps = seen.measure(target.family.bin_px, 2)
    thin = np.zeros(len(table.xyxy_px), dtype=bool)
    for axis in (0, 1):
        side = table.xyxy_px[:, axis + 2] - table.xyxy_px[:, axis]
        thin |= side < np.repeat(steps[seen.of, axis], np.diff(table.starts))
    return int((thin & table.targets).sum())


def spread(values: Float[np.ndarray, " n"]) -> Spread | None:
    """The spread of all values that are numbers, None if there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    return Spread(p5=float(p5), median=float(median), p95=float(p95))
