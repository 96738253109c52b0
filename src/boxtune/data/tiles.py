"""Large images in overlapping tiles, so that small things are seen in full size; the same tiles in training and after.

Tiles are windows of whole pixels of the upright original. Cut a data set once it is split and its broken images are
left out: tiles of one image must not stand in two splits, and the declared sizes must be the real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.augment_geometry import is_visible, to_window
from boxtune.data.images import open_image, open_window
from boxtune.data.sample import Dataset, Sample
from boxtune.errors import ConfigError, DataError, Finding

Tile = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the upright original."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How images are cut: square tiles of `size` pixels that share at least `overlap` (0 to below 1) of a side.

    `min_visible` (0..1) is the share of a box's area that a tile must show for it to be asked there. Every box of at
    most `overlap * size` pixels a side is seen whole by one tile; make the overlap as large as the things to find.
    Raises ConfigError for values out of range.
    """

    size: int
    overlap: float
    min_visible: float

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < 1 or not 0 <= self.min_visible <= 1:
            raise ConfigError(
                f"tiles of size={self.size}, overlap={self.overlap}, min_visible={self.min_visible}",
                where="data.tile",
                fix="size is in pixels, overlap a share of it from 0 to below 1, min_visible a share from 0 to 1",
            )

    @property
    def stride(self) -> int:
        """Pixels from one tile to the next."""
        return max(1, self.size - math.ceil(self.overlap * self.size))


def tile_windows(size_wh: tuple[int, int], tiling: Tiling) -> list[Tile]:
    """The tiles that cover an image, row by row.

    All are of one size. The last of a row or column is moved back to end with the image, and overlaps more. A side
    no longer than a tile is not cut.
    """
    lefts, tops = (_starts(side, tiling) for side in size_wh)
    width, height = (min(side, tiling.size) for side in size_wh)
    return [(left, top, left + width, top + height) for top in tops for left in lefts]


def _starts(side: int, tiling: Tiling) -> list[int]:
    last = max(0, side - tiling.size)
    return [*range(0, last, tiling.stride), last]


def cut_boxes(boxes: Boxes, window: Tile, min_visible: float) -> Boxes:
    """The boxes that a tile shows, clipped to it and in its pixels; those with less than `min_visible` are dropped."""
    return to_window(boxes.take(is_visible(boxes.xyxy_px, window, min_visible)), window)


def open_sample(sample: Sample) -> Image.Image:
    """The sample's picture: its image upright, or its tile of it.

    Raises DataError if the image cannot be opened, or is not of the declared size.
    """
    image = open_image(sample.image) if sample.window is None else open_window(sample.image, sample.window)
    if image.size != sample.size_wh:
        raise DataError(
            f"the image is {image.width}x{image.height}, its annotation says {sample.size_wh[0]}x{sample.size_wh[1]}",
            where=str(sample.image),
            fix="annotate the image as it is, or put back the image that was annotated",
        )
    return image


def open_tiles(open_whole: Callable[[], Image.Image], windows: Sequence[Tile]) -> list[Callable[[], Image.Image]]:
    """One opener for each tile of an image, which is decoded on the first call and let go after the last.

    All tiles of an image are of one size, so whoever answers images of like length together asks for them in a row.
    """
    whole = _Whole(open_whole, len(windows))
    return [lambda window=window: whole.cut(window) for window in windows]  # type: ignore[misc]


class _Whole:
    """An image in memory for as long as tiles of it are wanted."""

    def __init__(self, open_whole: Callable[[], Image.Image], num_tiles: int) -> None:
        self.open_whole, self.num_left = open_whole, num_tiles
        self.image: Image.Image | None = None

    def cut(self, window: Tile) -> Image.Image:
        image = self.image = self.image or self.open_whole()
        self.num_left -= 1
        if self.num_left <= 0:
            self.image = None
        return image.crop(window)


@dataclass(frozen=True, kw_only=True)
class TiledSamples(Sequence[Sample]):
    """The tiles of samples, each made when it is asked for.

    Tile `i` shows `windows[i]` of the image of `samples[owners[i]]` and has the image id `tile_ids[i]`, which counts
    all tiles of the split; `has_boxes[i]` says whether it holds boxes to find. Boxes of which a tile shows a part, but
    less than `min_visible`, are marked as ignored: not to be learned, and no fault if found. A tile that is a whole
    image keeps no window.
    """

    samples: Sequence[Sample]
    owners: Int[np.ndarray, " n"]
    windows: Int[np.ndarray, "n 4"]
    tile_ids: Int[np.ndarray, " n"]
    has_boxes: Bool[np.ndarray, " n"]
    min_visible: float

    def __len__(self) -> int:
        return len(self.owners)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> TiledSamples: ...
    def __getitem__(self, at: int | slice) -> Sample | TiledSamples:
        if isinstance(at, slice):
            return self.take(range(*at.indices(len(self))))
        place = range(len(self))[at]
        whole = self.samples[int(self.owners[place])]
        left, top, right, bottom = self.windows[place].tolist()
        window = (left, top, right, bottom)
        seen = is_visible(whole.boxes.xyxy_px, window, 0.0)
        enough = is_visible(whole.boxes.xyxy_px, window, self.min_visible)
        return Sample(
            image=whole.image,
            image_id=int(self.tile_ids[place]),
            size_wh=(right - left, bottom - top),
            boxes=to_window(whole.boxes.take(seen), window),
            crowd=whole.crowd[seen],
            ignore=(whole.ignore | ~enough)[seen],
            window=None if window == (0, 0, *whole.size_wh) else window,
        )

    def take(self, places: Sequence[int] | Int[np.ndarray, " k"]) -> TiledSamples:
        """The tiles at these places, in this order."""
        at = np.asarray(places, dtype=np.int64)
        return TiledSamples(
            samples=self.samples,
            owners=self.owners[at],
            windows=self.windows[at],
            tile_ids=self.tile_ids[at],
            has_boxes=self.has_boxes[at],
            min_visible=self.min_visible,
        )


def tile_dataset(dataset: Dataset, tiling: Tiling) -> Dataset:
    """The data set with tiles for images, all of them, and a finding that says how many and what they show.

    How many tiles without boxes an epoch shows is for `ask.epoch_places` to say, as of images.
    """
    splits, findings = {}, []
    for split, samples in dataset.splits.items():
        cut = _cut(samples, tiling)
        splits[split] = cut.tiles
        findings.append(_tell(split, len(samples), cut, tiling))
    return dataset.with_splits(splits, *findings)


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """All tiles of a split; of its boxes to find how many are seen whole by a tile, and shown well enough by none."""

    tiles: TiledSamples
    num_boxes: int
    num_whole: int
    num_lost: int


def _cut(samples: Sequence[Sample], tiling: Tiling) -> _Cut:
    owners: list[int] = []
    windows: list[Tile] = []
    has_boxes: list[bool] = []
    num_boxes = num_whole = num_lost = 0
    for place, sample in enumerate(samples):
        if sample.window is not None:
            raise ValueError(f"{sample.image} is cut into tiles already")
        found = tile_windows(sample.size_wh, tiling)
        owners += [place] * len(found)
        windows += found
        xyxy = sample.targets.xyxy_px
        shown = np.array([is_visible(xyxy, window, tiling.min_visible) for window in found])
        whole = np.array([is_inside(xyxy, window) for window in found])
        has_boxes += [bool(row.any()) for row in shown]
        num_boxes += len(xyxy)
        num_whole += int(whole.any(axis=0).sum())
        num_lost += int((~shown.any(axis=0)).sum())
    tiles = TiledSamples(
        samples=samples,
        owners=np.array(owners, dtype=np.int64),
        windows=np.array(windows, dtype=np.int64).reshape(-1, 4),
        tile_ids=np.arange(len(owners)),
        has_boxes=np.array(has_boxes, dtype=np.bool_),
        min_visible=tiling.min_visible,
    )
    return _Cut(tiles=tiles, num_boxes=num_boxes, num_whole=num_whole, num_lost=num_lost)


def is_inside(xyxy_px: Float[np.ndarray, "n 4"], window: Tile) -> Bool[np.ndarray, " n"]:
    """Which boxes lie wholly inside the window, its border included."""
    left, top, right, bottom = window
    x1, y1, x2, y2 = xyxy_px.T
    return (x1 >= left) & (y1 >= top) & (x2 <= right) & (y2 <= bottom)


def _tell(split: str, num_images: int, cut: _Cut, tiling: Tiling) -> Finding:
    with_boxes = int(cut.tiles.has_boxes.sum())
    num_cut, enough = cut.num_boxes - cut.num_whole, f"{tiling.min_visible:.0%} of their area"
    seen = (
        f"{split}: {num_images:,} images in {len(cut.tiles):,} tiles of {tiling.size} pixels, {with_boxes:,} of them "
        f"with boxes; of {cut.num_boxes:,} boxes {cut.num_whole:,} "
        f"are seen whole by a tile, {num_cut:,} by none; {cut.num_lost:,} have {enough} in no tile and are not learned"
    )
    fix = "make the tiles or their overlap larger: boxes should fit into the overlap" if cut.num_lost else ""
    return Finding(check="data.tiles", level="warn" if cut.num_lost else "ok", seen=seen, fix=fix)
