"""Samples by the million: columns instead of objects, each Sample made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample


@dataclass(frozen=True, kw_only=True)
class SampleTable(Sequence[Sample]):
    """A sequence of Samples held as columns: some 200 bytes an image and 40 a box.

    Of `n` images with `m` boxes in all: `files` the image files, `image_ids`, `sizes_wh` in upright pixels; the boxes
    of image `i` are rows `starts[i]` to `starts[i + 1]` of `xyxy_px` (pixels of the upright original), `codes` (places
    in `names`), `crowd` and `ignore`. `relative` says that the boxes were annotated as shares of the image, so that
    another true size moves them along instead of making them wrong. `measured` marks the images whose size was read
    from their file, since no annotation declares it (None: not one): such a size tells nothing of the boxes' frame.
    """

    files: Sequence[str]
    image_ids: Int[np.ndarray, " n"]
    sizes_wh: Int[np.ndarray, "n 2"]
    starts: Int[np.ndarray, " n_and_1"]
    xyxy_px: Float[np.ndarray, "m 4"]
    codes: Int[np.ndarray, " m"]
    names: tuple[str, ...]
    crowd: Bool[np.ndarray, " m"]
    ignore: Bool[np.ndarray, " m"]
    relative: bool = field(default=False)
    measured: Bool[np.ndarray, " n"] | None = field(default=None)

    def __post_init__(self) -> None:
        n, m = len(self.files), len(self.xyxy_px)
        lengths = (len(self.image_ids), len(self.sizes_wh), len(self.starts) - 1)
        rows = (len(self.codes), len(self.crowd), len(self.ignore), int(self.starts[-1]))
        if set(lengths) != {n} or set(rows) != {m}:
            raise ValueError(f"{n} images with columns of {lengths}, {m} boxes with columns of {rows}")

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> SampleTable: ...
    def __getitem__(self, at: int | slice) -> Sample | SampleTable:
        if isinstance(at, slice):
            return self.take(range(*at.indices(len(self))))
        place = range(len(self))[at]
        rows = slice(int(self.starts[place]), int(self.starts[place + 1]))
        width, height = self.sizes_wh[place].tolist()
        return Sample(
            image=Path(self.files[place]),
            image_id=int(self.image_ids[place]),
            size_wh=(width, height),
            boxes=Boxes(xyxy_px=self.xyxy_px[rows], labels=tuple(self.names[c] for c in self.codes[rows].tolist())),
            crowd=self.crowd[rows],
            ignore=self.ignore[rows],
        )

    @property
    def owners(self) -> Int[np.ndarray, " m"]:
        """The place of the image that each box belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def targets(self) -> Bool[np.ndarray, " m"]:
        """Which boxes an answer should hold: all but crowd and ignored ones."""
        return ~(self.crowd | self.ignore)

    def take(self, places: Iterable[int]) -> SampleTable:
        """The images at these places, in this order, with their boxes."""
        at = np.fromiter(places, dtype=np.int64)
        if len(at) == len(self) and bool((at == np.arange(len(self))).all()):
            return self
        counts = np.diff(self.starts)[at]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.repeat(self.starts[:-1][at] - starts[:-1], counts) + np.arange(int(starts[-1]))
        return SampleTable(
            files=[self.files[i] for i in at.tolist()],
            image_ids=self.image_ids[at],
            sizes_wh=self.sizes_wh[at],
            starts=starts,
            xyxy_px=self.xyxy_px[rows],
            codes=self.codes[rows],
            names=self.names,
            crowd=self.crowd[rows],
            ignore=self.ignore[rows],
            relative=self.relative,
            measured=None if self.measured is None else self.measured[at],
        )


def as_table(samples: Sequence[Sample]) -> SampleTable:
    """The samples as columns; a table is given back as it is."""
    if isinstance(samples, SampleTable):
        return samples
    if any(sample.window is not None for sample in samples):
        raise ValueError("a table holds whole images, no tiles of them")
    names = tuple(dict.fromkeys(label for sample in samples for label in sample.boxes.labels))
    code = {name: place for place, name in enumerate(names)}
    nothing: list[Bool[np.ndarray, " n"]] = [np.zeros(0, dtype=bool)]
    return SampleTable(
        files=[str(sample.image) for sample in samples],
        image_ids=np.array([sample.image_id for sample in samples], dtype=np.int64),
        sizes_wh=np.array([sample.size_wh for sample in samples], dtype=np.int64).reshape(-1, 2),
        starts=np.cumsum([0, *(len(sample.boxes) for sample in samples)]),
        xyxy_px=np.concatenate([np.zeros((0, 4)), *(sample.boxes.xyxy_px for sample in samples)]),
        codes=np.array([code[label] for sample in samples for label in sample.boxes.labels], dtype=np.int64),
        names=names,
        crowd=np.concatenate([*nothing, *(sample.crowd for sample in samples)]),
        ignore=np.concatenate([*nothing, *(sample.ignore for sample in samples)]),
    )


def take_samples(samples: Sequence[Sample], places: Sequence[int]) -> Sequence[Sample]:
    """The samples at these places; what has a `take` of its own stays what it is."""
    take = getattr(samples, "take", None)
    return take(places) if take is not None else [samples[i] for i in places]
