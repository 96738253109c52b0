"""Settings -> a data set that can be trained on: read, upright, classes chosen, split, limited, cut into tiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from boxtune.data.ask import check_negatives, has_targets
from boxtune.data.augment_geometry import LEAST_VISIBLE
from boxtune.data.broken import leave_out_broken
from boxtune.data.classes import require_descriptions, select_classes
from boxtune.data.formats import read_dataset
from boxtune.data.sample import Dataset, Sample
from boxtune.data.split import HELD_OUT, hold_out, limit_split, require_validation
from boxtune.data.tiles import TiledSamples, Tiling, tile_dataset
from boxtune.errors import ConfigError, DataError

if TYPE_CHECKING:
    from boxtune.settings import DataSettings  # pydantic, which `inspect` need not wait for


def prepare_data(data: DataSettings, *, seed: int) -> Dataset:
    """The data set with sound splits, as the settings ask for it.

    `train` is learned from, `valid` chooses the best adapter, `data.split` (one of `valid`, `test`) is scored, and by
    `held_out`, where there is one, scores are calibrated. The order matters: broken images go before the split, so that
    it does not depend on them; classes before it too, since what is left shows whether there is anything to learn.
    Raises DataError where a split has no box, ConfigError where a setting does not fit the data.
    """
    images = None if data.images is None else Path(data.images)
    dataset = read_dataset(data.path, format=data.format, images=images, boxes=data.boxes)
    dataset = leave_out_broken(dataset, frame=data.frame)
    if data.classes:
        dataset = select_classes(dataset, data.classes)
    require_descriptions(data.descriptions, dataset.classes)
    dataset = require_validation(dataset, seed=seed)
    if data.split not in dataset.splits:
        raise DataError(f"there is no split {data.split!r}", where=str(dataset.path), fix="leave data.split away")
    names = dict.fromkeys(("train", "valid", data.split))
    dataset = dataset.with_splits({name: limit_split(dataset.splits[name], data.limit) for name in names})
    # Behind the limit: of few images none are held out.
    dataset = hold_out(dataset, data.held_out, seed=seed)
    for name, samples in dataset.splits.items():
        if name != HELD_OUT and not has_targets(samples).any():
            raise DataError(
                f"not one image of the split {name!r} has a box",
                where=str(dataset.path),
                fix="there is nothing to learn or to measure; check the annotations with: boxtune inspect DATA",
            )
    return dataset


def build_tiling(data: DataSettings) -> Tiling | None:
    """How images are cut into tiles, or None where they are shown whole."""
    if data.tile is None:
        return None
    return Tiling(size=data.tile, overlap=data.tile_overlap, min_visible=LEAST_VISIBLE)


def build_samples(dataset: Dataset, data: DataSettings) -> Dataset:
    """The data set as it is trained on: its images, or their tiles. Scores are always those of whole images."""
    tiling = build_tiling(data)
    if tiling is not None:
        dataset = tile_dataset(dataset, tiling)
    return dataset.with_splits(dataset.splits, *check_negatives(has_targets(dataset.splits["train"]), data.negatives))


def choose_valid(samples: Sequence[Sample], num_images: int | None) -> Sequence[Sample]:
    """The samples, or tiles, of the first images; ConfigError where not one of them shows a box, since the best
    adapter would then be the one that answers "nothing" best."""
    if num_images is None or not isinstance(samples, TiledSamples):
        chosen = limit_split(samples, num_images)
    else:
        chosen = samples.take(np.flatnonzero(samples.owners < num_images))
    if not has_targets(chosen).any():
        what = f"not one of the first {num_images} images of valid has a box"
        raise ConfigError(what, where="eval.images", fix="give a larger number, or leave it away")
    return chosen
