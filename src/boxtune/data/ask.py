"""What one epoch of training asks: which images, and of each which classes.

Everything is drawn from (seed, epoch, image id) alone, so that a resumed run and any number of workers see the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Bool, Int

from boxtune.data.sample import Sample
from boxtune.data.table import SampleTable
from boxtune.data.tiles import TiledSamples
from boxtune.errors import Finding


def sample_rng(seed: int, epoch: int, image_id: int) -> np.random.Generator:
    """The generator from which everything about one image in one epoch is drawn."""
    return np.random.default_rng((seed, epoch, zlib.crc32(str(image_id).encode())))


def ask_classes(
    classes: Sequence[str], present: Collection[str], rng: np.random.Generator, *, subset: float, absent: float
) -> tuple[str, ...] | None:
    """The classes that an image is asked for, in their order; None for all of them.

    A share of `subset` is asked for some of the classes, whatever is in the image: one up to all but one, each number
    as often. A share of `absent` is asked for classes that the image lacks, one up to all of those, so that "nothing"
    is the answer; an image that lacks none is asked for all. The rest is asked for all. `present` are the labels of
    every box of the image, crowd and ignored ones too (for a mosaic, of all its images): such a class is not absent.
    Raises ValueError for shares that are not in 0..1 together.
    """
    if min(subset, absent) < 0 or subset + absent > 1:
        raise ValueError(f"shares of subset={subset} and absent={absent} are not in 0..1 together")
    drawn = rng.random()
    if len(classes) < 2 or drawn >= subset + absent:
        return None
    if drawn < subset:
        chosen = rng.permutation(len(classes))[: int(rng.integers(1, len(classes)))]
    else:
        lacking = np.array([i for i, name in enumerate(classes) if name not in present], dtype=np.int64)
        if not len(lacking):
            return None
        chosen = rng.permutation(lacking)[: int(rng.integers(1, len(lacking) + 1))]
    return tuple(classes[i] for i in sorted(chosen.tolist()))


def has_targets(samples: Sequence[Sample]) -> Bool[np.ndarray, " n"]:
    """Which samples have boxes to find; the others are negatives."""
    if isinstance(samples, SampleTable):
        return np.bincount(samples.owners[samples.targets], minlength=len(samples)) > 0
    if isinstance(samples, TiledSamples):
        return samples.has_boxes
    return np.array([bool((~(sample.crowd | sample.ignore)).any()) for sample in samples], dtype=bool)


def epoch_places(
    with_boxes: Bool[np.ndarray, " n"], negatives: float | None, *, seed: int, epoch: int
) -> Int[np.ndarray, " k"]:
    """The places of the samples that one epoch goes through, ascending; as many in every epoch.

    Every sample with boxes is there once. Negatives are there as often as makes them a share of `negatives` (0 to below
    1) of the epoch, rounded: too many are thinned out, each epoch taking others, and too few are repeated, each as
    often as the others or once more. None leaves all as they are; so does a set with no negatives or nothing else.
    Raises ValueError for another share.
    """
    if negatives is not None and not 0 <= negatives < 1:
        raise ValueError(f"a share of negatives of {negatives} is not in 0 to below 1")
    found, empty = np.flatnonzero(with_boxes), np.flatnonzero(~with_boxes)
    if negatives is None or not len(found) or not len(empty):
        return np.arange(len(with_boxes))
    times, rest = divmod(round(negatives / (1 - negatives) * len(found)), len(empty))
    rng = np.random.default_rng((seed, epoch, zlib.crc32(b"negatives")))
    return np.sort(np.concatenate([found, np.tile(empty, times), rng.permutation(empty)[:rest]]))


def check_negatives(with_boxes: Bool[np.ndarray, " n"], negatives: float | None) -> list[Finding]:
    """A finding that says what `data.negatives` makes of the training images; none where it is not set."""
    if negatives is None:
        return []
    found, empty = int(with_boxes.sum()), int((~with_boxes).sum())
    used = len(epoch_places(with_boxes, negatives, seed=0, epoch=0)) - found
    asked = f"data.negatives={negatives:g}"
    if negatives > 0 and not empty:
        seen, fix = f"{asked}, but every one of {found:,} training images has boxes", "add images without any thing"
        return [Finding(check="data.negatives", level="warn", seen=seen, where="data.negatives", fix=fix)]
    how = (
        "as many as there are"
        if used == empty
        else "thinned out"
        if used < empty
        else f"each about {used / empty:.1f} times"
    )
    seen = f"{asked}: {used:,} of {empty:,} images without boxes beside {found:,} with, in every epoch ({how})"
    return [Finding(check="data.negatives", level="ok", seen=seen, where="data.negatives")]
