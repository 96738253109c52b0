"""A data set in numbers: what `boxtune inspect` found, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from boxtune.data.audit import Audit
from boxtune.data.sample import Dataset
from boxtune.data.seen import Spread
from boxtune.errors import Finding


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What one split holds.

    `boxes` are those that an answer should hold; `crowd` and `ignored` ones are apart (a box that is both counts as
    crowd). `negatives` are images without boxes to find. `boxes_per_image` is least, median and most. `image_sizes`
    are the most frequent upright (width, height) in pixels with their counts, of `num_image_sizes` in all;
    `least_wh` and `most_wh` the least and most of each side.
    """

    images: int
    boxes: int
    negatives: int
    crowd: int
    ignored: int
    boxes_per_image: tuple[int, float, int]
    image_sizes: tuple[tuple[tuple[int, int], int], ...]
    num_image_sizes: int
    least_wh: tuple[int, int]
    most_wh: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A data set in numbers.

    `class_counts` maps each class to its boxes by split. `side_px` is the square root of a box's area in pixels of
    the upright original, `image_share` its area over that of its image; both are over all splits, and None where
    there are no boxes. `audit` is what one family sees of it. `dataset` is what was looked at: the boxes upright, and
    broken images left out if their headers were read.
    """

    path: str
    format: str
    why: str
    splits: Mapping[str, SplitCounts]
    class_counts: Mapping[str, Mapping[str, int]]
    side_px: Spread | None
    image_share: Spread | None
    audit: Audit
    findings: tuple[Finding, ...]
    dataset: Dataset

    def as_json(self) -> dict[str, Any]:
        """All of it but the data set itself as JSON values."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "dataset"}
        return {
            **values,
            "splits": {split: asdict(counts) for split, counts in self.splits.items()},
            "side_px": None if self.side_px is None else asdict(self.side_px),
            "image_share": None if self.image_share is None else asdict(self.image_share),
            "audit": asdict(self.audit),
            "findings": [finding.as_json() for finding in self.findings],
        }

    def as_text(self) -> str:
        """A page for the terminal, at most 40 lines of 100 characters."""
        from boxtune.data.inspect_text import lay_out  # which needs this class

        return "\n".join(lay_out(self))
