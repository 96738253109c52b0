"""Training images -> training and validation images, where a data set brings no validation split."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL.Image import Resampling

from boxtune.data.images import open_image
from boxtune.data.sample import Dataset, Sample
from boxtune.data.table import take_samples
from boxtune.errors import ConfigError, DataError, Finding, name_some

HASH_SIDE = 16
"""Rows, and steps in a row, of the grid that a picture is shrunk to before its brightness steps are taken."""
MIN_STEP = 2
"""Grey levels (of 255) that a step needs to count: noise of a plain sky or sheet of paper is no likeness."""
NEAR_SHARE = 0.3
"""Two pictures are near-duplicates if at most this share of the steps that either has differs between them.

Set on real sets: the one repeated field of BCCD differs in 0.21, its next pair in 0.57; JPEG quality 30, half the
size or a 20 % brighter copy stay below 0.25 nine times in ten. Half of the crops by 3 % lie above and are missed."""
MIN_STEPS = 8
"""Pictures with fewer steps between them (blank pages) are compared by their bytes only."""

_TILE = 2048
_LARGEST_SHARE = 3  # one group may not be more than a third of the images, or there is little left to learn from


def require_validation(dataset: Dataset, *, seed: int, share: float = 0.1) -> Dataset:
    """The data set with a `valid` split: its own, or about `share` of the training images.

    Images of the same bytes always stay together, and so do near-duplicates (frames of a video, copies): groups are
    the connected parts of "near", so a chain of similar frames is one group. Groups are drawn by a hash of
    (seed, names), so file order does not matter; at least one image is drawn and fewer than all. Images that cannot
    be opened are never drawn. Where everything looks alike, near-duplicates are parted, with a warning.

    Every training image is decoded once on all cores, and then all pairs are compared by a matrix product in tiles:
    10,000 images compare in about a second on two cores, 100,000 therefore in about two minutes.

    Raises DataError without training images, with a single one, or if all have the same bytes.
    Source of the difference hash: Neal Krawetz, "Kind of Like That" (2013); rising and falling steps are kept apart
    here and the distance is relative to their number, so that flat drawings do not all look alike.
    """
    train = dataset.splits.get("train", ())
    if not train:
        there = ", ".join(f"{split} ({len(samples)})" for split, samples in dataset.splits.items()) or "none"
        raise DataError(
            f"there are no training images; splits: {there}",
            where=str(dataset.path),
            fix="give a data set with a train split",
        )
    if dataset.splits.get("valid"):
        return dataset
    if len(train) < 2:
        raise DataError(
            "a single training image cannot be split", where=str(dataset.path), fix="add images or a valid split"
        )
    drawn, finding = _draw(dataset, train, seed, share)
    splits = {
        "train": take_samples(train, [i for i in range(len(train)) if i not in drawn]),
        "valid": take_samples(train, sorted(drawn)),
    }
    others = {split: samples for split, samples in dataset.splits.items() if split not in splits}
    return dataset.with_splits({**splits, **others}, finding)


def limit_split(samples: Sequence[Sample], n: int | None) -> Sequence[Sample]:
    """The first `n` samples, or all of them if `n` is None. Raises ConfigError if `n` is below 1."""
    if n is not None and n < 1:
        raise ConfigError(f"a limit of {n} leaves no image", where="data.limit", fix="give 1 or more, or leave it out")
    return samples if n is None else samples[:n]


def image_name(dataset: Dataset, sample: Sample) -> str:
    """The image's path below the data set's folder with forward slashes; its bare name if it lies elsewhere."""
    root = dataset.path if dataset.path.is_dir() else dataset.path.parent
    return sample.image.relative_to(root).as_posix() if sample.image.is_relative_to(root) else sample.image.name


def write_split(dataset: Dataset, path: Path) -> None:
    """A JSON file with the image names of each split in their order: {"train": [...], "valid": [...]}."""
    names = {split: [image_name(dataset, sample) for sample in samples] for split, samples in dataset.splits.items()}
    path.write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def group_alike(paths: Sequence[Path]) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Places of `paths` in groups of near-duplicates, in groups of identical bytes, and of those that do not open.

    Groups of near-duplicates are unions of groups of identical bytes. Every place is in one group of each kind.
    """
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        looks = list(pool.map(_look, paths))
    same: dict[str, list[int]] = {}
    for i, (digest, _) in enumerate(looks):
        same.setdefault(digest, []).append(i)
    exact = list(same.values())
    firsts = [members[0] for members in exact]
    blank = np.zeros(2 * HASH_SIDE**2, dtype=bool)  # for what does not open: like nothing else
    steps = np.array([blank if looks[i][1] is None else looks[i][1] for i in firsts], dtype=bool)
    near: dict[int, list[int]] = {}
    for label, members in zip(label_alike(steps).tolist(), exact, strict=True):
        near.setdefault(label, []).extend(members)
    return list(near.values()), exact, [i for i, (_, steps_of) in enumerate(looks) if steps_of is None]


def label_alike(steps: Bool[np.ndarray, "n bits"]) -> Int[np.ndarray, " n"]:
    """One number for each row, the same for rows that a chain of near-duplicates links (NEAR_SHARE, MIN_STEPS)."""
    labels: Int[np.ndarray, " n"] = np.arange(len(steps))
    counts: Float[np.ndarray, " n"] = steps.sum(axis=1).astype(np.float32)
    for top in range(0, len(steps), _TILE):
        upper = slice(top, top + _TILE)
        for start in range(top, len(steps), _TILE):
            lower = slice(start, start + _TILE)
            both = steps[upper].astype(np.float32) @ steps[lower].astype(np.float32).T
            either = counts[upper, None] + counts[None, lower] - both
            labels = _join((either - both <= NEAR_SHARE * either) & (either >= MIN_STEPS), top, start, labels)
    return labels


def _join(
    near: Bool[np.ndarray, "rows columns"], top: int, start: int, labels: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """The labels after the links of one tile.

    In each round every row and every column joins one neighbour of another group, and links inside a group are
    struck out: thousands of frames of one scene would otherwise be millions of links to follow one by one.
    """
    rows, columns = near.shape
    while near.any():
        near &= labels[top : top + rows, None] != labels[None, start : start + columns]
        for row in np.flatnonzero(near.any(axis=1)):
            _link(labels, top + int(row), start + int(near[row].argmax()))
        for column in np.flatnonzero(near.any(axis=0)):
            _link(labels, top + int(near[:, column].argmax()), start + int(column))
        while (labels[labels] != labels).any():
            labels = labels[labels]
    return labels


def _link(labels: Int[np.ndarray, " n"], left: int, right: int) -> None:
    first, second = sorted((_root(labels, left), _root(labels, right)))
    labels[second] = first


def _root(labels: Int[np.ndarray, " n"], place: int) -> int:
    while labels[place] != place:
        labels[place] = labels[labels[place]]
        place = int(labels[place])
    return place


def brightness_steps(path: Path) -> Bool[np.ndarray, " bits"]:
    """For each neighbouring pair of a 17 x 16 grey miniature: does it rise to the right, and then, does it fall."""
    size_wh = (HASH_SIDE + 1, HASH_SIDE)
    small = np.asarray(open_image(path).convert("L").resize(size_wh, resample=Resampling.BOX), dtype=np.int16)
    step = small[:, 1:] - small[:, :-1]
    return np.concatenate([(step >= MIN_STEP).ravel(), (step <= -MIN_STEP).ravel()])


def _look(path: Path) -> tuple[str, Bool[np.ndarray, " bits"] | None]:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest(), brightness_steps(path)
    except OSError:
        return f"unreadable {path}", None  # counted by the caller's finding; `leave_out_broken` says what it is
    except DataError:
        return f"undecodable {path}", None


def _draw(dataset: Dataset, train: Sequence[Sample], seed: int, share: float) -> tuple[set[int], Finding]:
    near, exact, unopened = group_alike([sample.image for sample in train])
    keys = [_key(seed, image_name(dataset, sample)) for sample in train]
    target = max(1, round(share * len(train)))
    largest = max(1, len(train) // _LARGEST_SHARE, target)
    parted = not any(len(group) <= largest for group in _drawable(near, unopened))
    groups = _drawable(exact if parted else near, unopened)
    groups = [group for group in groups if len(group) < len(train)]
    if not groups:
        why = "hardly any can be opened" if unopened else "all have the same bytes"
        raise DataError(
            f"no training image can be set aside for validation: {why}",
            where=str(dataset.path),
            fix="restore or add images, or give a valid split",
        )
    drawn: set[int] = set()
    for group in sorted(groups, key=lambda members: min(keys[i] for i in members)):
        if abs(len(drawn) + len(group) - target) < abs(len(drawn) - target) and len(drawn) + len(group) <= largest:
            drawn.update(group)
    if not drawn:
        smallest = min(groups, key=lambda group: (len(group), min(keys[i] for i in group)))
        drawn.update(smallest)
    return drawn, _say(dataset, train, drawn, seed, near, parted, len(unopened))


def _drawable(groups: Sequence[list[int]], unopened: Sequence[int]) -> list[list[int]]:
    kept_back = set(unopened)
    return [group for group in groups if not kept_back.intersection(group)]


def _key(seed: int, name: str) -> tuple[str, str]:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), name


def _say(
    dataset: Dataset,
    train: Sequence[Sample],
    drawn: set[int],
    seed: int,
    near: Sequence[list[int]],
    parted: bool,
    num_unopened: int,
) -> Finding:
    several = [group for group in near if len(group) > 1]
    names = name_some(sorted(image_name(dataset, train[i]) for i in drawn))
    num_alike = sum(len(group) for group in several)
    seen = f"no validation split: {len(drawn)} of {len(train)} training images set aside with seed {seed} ({names})"
    if parted:
        seen += f"; nearly all images look alike ({len(near)} groups), so near-duplicates are in both splits"
    elif several:
        seen += f"; {num_alike} near-duplicates in {len(several)} groups kept together"
    if num_unopened:
        seen += f"; {num_unopened} that do not open stay in train"
    fix = "give a valid split of other scenes, or scores show what was learned by heart" if parted else ""
    return Finding(check="data.split", level="warn" if parted else "ok", seen=seen, where=str(dataset.path), fix=fix)
