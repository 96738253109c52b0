"""One record for a sample, and the data set that holds them by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from boxtune.boxes import Boxes
from boxtune.errors import Finding


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image with its truth.

    `image` is the file; `image_id` is unique within the split and names the image in predictions (COCO's own id
    where there is one); `size_wh` the size in pixels after the EXIF turn, as the annotation declares it; `boxes`
    the truth in that frame. `crowd` and `ignore` mark boxes that are neither trained on nor counted as missed.

    With a `window` (x1, y1, x2, y2 in pixels of the upright image) the sample is that tile of the image alone:
    `size_wh` and `boxes` are then in the tile's own frame.
    """

    image: Path
    image_id: int
    size_wh: tuple[int, int]
    boxes: Boxes
    crowd: Bool[np.ndarray, " n"]
    ignore: Bool[np.ndarray, " n"]
    window: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("crowd", "ignore"):
            flags = np.asarray(getattr(self, name), dtype=bool)
            if flags.shape != (len(self.boxes),):
                raise ValueError(f"{self.image}: {len(self.boxes)} boxes but {name} of shape {flags.shape}")
            object.__setattr__(self, name, flags)

    @property
    def targets(self) -> Boxes:
        """The boxes an answer should hold: all but crowd and ignored ones."""
        return self.boxes.take(~(self.crowd | self.ignore))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images with boxes, by split.

    `classes` are the class names in use, in the order of their ids; `splits` maps `train`, `valid`, `test` to
    their samples in file order; `findings` is what reading saw; `format` which reader read it and `why`.
    """

    path: Path
    format: str
    why: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Sample]]
    findings: tuple[Finding, ...] = field(default=())

    def with_splits(self, splits: Mapping[str, Sequence[Sample]], *findings: Finding) -> Dataset:
        """The same data set with other splits and further findings."""
        return replace(self, splits=splits, findings=(*self.findings, *findings))
