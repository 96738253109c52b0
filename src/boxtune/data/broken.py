"""What becomes of images that are missing, broken, or not of the size that was declared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from boxtune.data.images import open_image, read_header
from boxtune.data.sample import Dataset, Sample
from boxtune.data.table import take_samples
from boxtune.errors import DataError, Finding, name_some

_NAMED = 5  # unusable images that an error names one by one


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What opening one image showed: what is wrong with it ("" if nothing), and its EXIF orientation."""

    problem: str
    orientation: int = 1


MAX_LEFT_OUT = 0.01
"""Share of the training images or samples that may be left out, by name (DESIGN section 4)."""


def leave_out_broken(dataset: Dataset, *, open_all: bool = False, max_share: float = MAX_LEFT_OUT) -> Dataset:
    """The data set without its unusable training images, each of them named in a finding.

    Unusable is an image that is missing, cannot be identified, or whose upright size is not the declared one. Only
    headers are read, well under a millisecond an image; with `open_all` every image is decoded to its last pixel.

    Raises DataError that names the images if more than `max_share` (0..1) of the training images are unusable, or a
    single one of another split: validation never changes silently.
    """
    seen = {split: _map_images(_opened if open_all else _header, samples) for split, samples in dataset.splits.items()}
    for split, samples in dataset.splits.items():
        bad = [one.problem for one in seen[split] if one.problem]
        allowed = max_share * len(samples) + 1e-9 if split == "train" else 0
        if len(bad) > allowed:
            raise _too_many(dataset, split, bad, len(samples), max_share)
    splits = {
        split: take_samples(samples, [place for place, one in enumerate(seen[split]) if not one.problem])
        for split, samples in dataset.splits.items()
    }
    return dataset.with_splits(splits, *_findings(dataset, seen, open_all))


def _too_many(dataset: Dataset, split: str, bad: Sequence[str], num_images: int, max_share: float) -> DataError:
    rule = f"up to {max_share:.0%} may be left out" if split == "train" else f"{split} never changes silently"
    more = [f"and {len(bad) - _NAMED} more"] if len(bad) > _NAMED else []
    rows = [f"{len(bad)} of {num_images} images of the {split} split cannot be used ({rule}):", *bad[:_NAMED], *more]
    return DataError(
        "\n    ".join(rows),
        where=str(dataset.path),
        fix="restore these images, or take them out of the annotations",
    )


def _findings(dataset: Dataset, seen: Mapping[str, Sequence[Seen]], open_all: bool) -> list[Finding]:
    everything = [one for rows in seen.values() for one in rows]
    bad = [one.problem for one in seen.get("train", ()) if one.problem]
    how = "decoded" if open_all else "headers read"
    findings = []
    if bad:
        seen_text = f"{len(bad)} of {len(seen['train'])} training images left out: {name_some(bad, limit=20)}"
        fix = "restore them or take them out of the annotations"
        findings.append(Finding(check="image.left_out", level="warn", seen=seen_text, where=str(dataset.path), fix=fix))
    else:
        all_sound = f"{len(everything)} images are there and of the declared size ({how})"
        findings.append(Finding(check="image.left_out", level="ok", seen=all_sound))
    turned = [one.orientation for one in everything if one.orientation != 1 and not one.problem]
    if turned:
        # Only a quarter turn swaps the sides, so only there does the declared size show the frame of the boxes.
        proved = any(turn >= 5 for turn in turned)
        findings.append(
            Finding(
                check="image.exif_turned",
                level="ok" if proved else "cannot_tell",
                seen=f"{len(turned)} images are turned by EXIF; boxes are taken to be in the upright picture"
                + (", as declared sizes show" if proved else ", which no declared size can show here"),
                fix="" if proved else "look at some of them on the contact sheet",
            )
        )
    return findings


def _map_images(look: Callable[[Sample], Seen], samples: Sequence[Sample]) -> list[Seen]:
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(look, samples))


def _header(sample: Sample) -> Seen:
    try:
        size_wh, orientation = read_header(sample.image)
    except DataError as problem:
        return Seen(problem=problem.what)
    return Seen(problem=_size_problem(sample, size_wh, orientation), orientation=orientation)


def _opened(sample: Sample) -> Seen:
    seen = _header(sample)
    if seen.problem:
        return seen
    try:
        open_image(sample.image)
    except DataError as problem:
        return Seen(problem=problem.what)
    return seen


def _size_problem(sample: Sample, size_wh: tuple[int, int], orientation: int) -> str:
    if size_wh == sample.size_wh:
        return ""
    declared, upright = (f"{width} x {height}" for width, height in (sample.size_wh, size_wh))
    if sample.size_wh == size_wh[::-1]:
        turn = f"its EXIF orientation is {orientation}" if orientation >= 5 else "it has no EXIF turn"
        cause = (
            "the boxes seem to be drawn on the picture before its EXIF turn"
            if orientation >= 5
            else "the annotation swaps width and height, or the picture lost its EXIF orientation"
        )
        return f"{sample.image} is {upright} upright but declared as {declared}, sides swapped ({turn}): {cause}"
    return f"{sample.image} is {upright} but declared as {declared}"
