"""Training images -> training, validation and held-out images, where a data set brings no such splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from boxtune.data.alike import group_alike
from boxtune.data.sample import Dataset, Sample
from boxtune.data.table import take_samples
from boxtune.errors import ConfigError, DataError, Finding, Level, name_some

MOST_LOOKED_AT = 50_000
"""Training images that are decoded and compared before they are split: some ten minutes on two cores."""
MOST_SET_ASIDE = 5_000
"""Images that are set aside at most: more tell nothing more, and each has to be answered after training."""
HELD_OUT = "held_out"
"""The split of training images that are not trained on, by which scores are calibrated."""
MOST_HELD_OUT, LEAST_HELD_OUT = 64, 20
"""So many training images are held out where nothing else is asked for: a tenth, or none where that is too few to tell
more than other data sets have told (infer/calibrate.py)."""
_CHECK = {"valid": "data.split", HELD_OUT: "data.held_out"}
_WHY = {"valid": "no validation split: ", HELD_OUT: "to calibrate scores: "}
MOST_COMPARED_TO_HOLD_OUT = 2_000
"""Training images that are decoded and compared before some are held out: at the rate above, half a minute."""
_LARGEST_SHARE = 3  # one group may not be more than a third of the images, or there is little left to learn from


def require_validation(dataset: Dataset, *, seed: int, share: float = 0.1) -> Dataset:
    """The data set with a `valid` split: its own, or about `share` of the training images, at most 5,000.

    Images of the same bytes always stay together, and so do near-duplicates (frames of a video, copies): groups are
    the connected parts of "near", so a chain of similar frames is one group. Groups are drawn by a hash of
    (seed, names), so file order does not matter; at least one image is drawn and fewer than all. Images that cannot
    be opened are never drawn. Where everything looks alike, near-duplicates are parted, with a warning.

    Every training image is decoded once on all cores, and then all pairs are compared by a matrix product in tiles:
    10,000 images compare in about a second on two cores. More than 50,000 images are not looked at: they are drawn
    one by one, with a warning.

    Raises DataError without training images, with a single one, or if all have the same bytes.
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
    return _set_aside(dataset, "valid", seed, min(MOST_SET_ASIDE, max(1, round(share * len(train)))))


def hold_out(dataset: Dataset, num: int | None, *, seed: int) -> Dataset:
    """The data set with about `num` of the training images as the split `held_out`, drawn as in `require_validation`.

    None: a tenth of them, at most 64, and no such split where that is fewer than 20, nor where near-duplicates make
    such large groups that it would be fewer or many more. 0: none. Of more than 2,000 training images it is not looked
    which are near-duplicates. Raises DataError where there are not more training images than that.
    """
    train = dataset.splits["train"]
    if num is None:
        wanted = min(MOST_HELD_OUT, len(train) // 10)
        if wanted < LEAST_HELD_OUT:
            return dataset
        held = _set_aside(dataset, HELD_OUT, seed, wanted)
        if LEAST_HELD_OUT <= len(held.splits[HELD_OUT]) <= 1.5 * wanted and held.findings[-1].level == "ok":
            return held
        seen = "no training images are held out to calibrate scores: near-duplicates stay on one side, and their "
        seen += f"groups are too large to set about {wanted} of {len(train)} images apart"
        finding = Finding(check="data.held_out", level="ok", seen=seen, where=str(dataset.path))
        return dataset.with_splits(dataset.splits, finding)
    if not num:
        return dataset
    if num >= len(train):
        what = f"{num} of {len(train)} training images cannot be held out"
        raise DataError(what, where=str(dataset.path), fix="give a smaller data.held_out, or leave it away")
    return _set_aside(dataset, HELD_OUT, seed, num)


def _set_aside(dataset: Dataset, name: str, seed: int, num: int) -> Dataset:
    """About `num` of the training images as another split."""
    train = dataset.splits["train"]
    drawn, finding = _draw(dataset, train, seed, num, name)
    splits = {
        "train": take_samples(train, [i for i in range(len(train)) if i not in drawn]),
        name: take_samples(train, sorted(drawn)),
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
    """A JSON file with the image names of each split in their order: {"train": [...], "valid": [...]}.

    A name that several images have, in folders beside that of the annotations, is written with its whole path.
    """
    every = [sample for samples in dataset.splits.values() for sample in samples]
    paths = {name: {s.image for s in same} for name, same in _by_name(dataset, every).items()}

    def name_of(sample: Sample) -> str:
        name = image_name(dataset, sample)
        return name if len(paths[name]) == 1 else sample.image.as_posix()

    names = {split: [name_of(sample) for sample in samples] for split, samples in dataset.splits.items()}
    path.write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def find_by_name(dataset: Dataset, samples: Sequence[Sample]) -> dict[str, Sample]:
    """The samples under the names that `write_split` gives them; a name that several images have finds none of them."""
    found = {name: same[0] for name, same in _by_name(dataset, samples).items() if len({s.image for s in same}) == 1}
    return {**found, **{sample.image.as_posix(): sample for sample in samples}}


def _by_name(dataset: Dataset, samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(image_name(dataset, sample), []).append(sample)
    return found


def _draw(dataset: Dataset, train: Sequence[Sample], seed: int, target: int, name: str) -> tuple[set[int], Finding]:
    keys = [_key(seed, image_name(dataset, sample)) for sample in train]
    if len(train) > (MOST_LOOKED_AT if name == "valid" else MOST_COMPARED_TO_HOLD_OUT):
        return _draw_unseen(dataset, keys, target, seed, name)
    near, exact, unopened = group_alike([sample.image for sample in train])
    largest = max(1, len(train) // _LARGEST_SHARE, target)
    parted = not any(len(group) <= largest for group in _drawable(near, unopened))
    groups = _drawable(exact if parted else near, unopened)
    groups = [group for group in groups if len(group) < len(train)]
    if not groups:
        why = "hardly any can be opened" if unopened else "all have the same bytes"
        raise DataError(
            f"no training image can be set aside as {name}: {why}",
            where=str(dataset.path),
            fix=f"restore or add images, or {'give a valid split' if name == 'valid' else 'give data.held_out=0'}",
        )
    drawn: set[int] = set()
    for group in sorted(groups, key=lambda members: min(keys[i] for i in members)):
        if abs(len(drawn) + len(group) - target) < abs(len(drawn) - target) and len(drawn) + len(group) <= largest:
            drawn.update(group)
    if not drawn:
        smallest = min(groups, key=lambda group: (len(group), min(keys[i] for i in group)))
        drawn.update(smallest)
    return drawn, _say(dataset, train, drawn, seed, near, parted, len(unopened), name)


def _draw_unseen(
    dataset: Dataset, keys: Sequence[tuple[str, str]], target: int, seed: int, name: str
) -> tuple[set[int], Finding]:
    drawn = sorted(range(len(keys)), key=keys.__getitem__)[:target]
    seen = (
        f"{_WHY[name]}{target:,} of {len(keys):,} training images set aside with seed {seed}; so many were "
        "not compared, so that near-duplicates may be in both splits"
    )
    fix = "give a valid split, or scores may show what was learned by heart" if name == "valid" else ""
    level: Level = "warn" if name == "valid" else "ok"
    return set(drawn), Finding(check=_CHECK[name], level=level, seen=seen, where=str(dataset.path), fix=fix)


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
    name: str,
) -> Finding:
    several = [group for group in near if len(group) > 1]
    names = name_some(sorted(image_name(dataset, train[i]) for i in drawn))
    num_alike = sum(len(group) for group in several)
    seen = f"{_WHY[name]}{len(drawn)} of {len(train)} training images set aside with seed {seed} ({names})"
    if parted:
        seen += f"; nearly all images look alike ({len(near)} groups), so near-duplicates are in both splits"
    elif several:
        seen += f"; {num_alike} near-duplicates in {len(several)} groups kept together"
    if num_unopened:
        seen += f"; {num_unopened} that do not open stay in train"
    if name == HELD_OUT:
        fix = "data.held_out=0 trains on all of them, and takes the weights of other data sets" if parted else ""
    else:
        fix = "give a valid split of other scenes, or scores show what was learned by heart" if parted else ""
    level: Level = "warn" if parted else "ok"
    return Finding(check=_CHECK[name], level=level, seen=seen, where=str(dataset.path), fix=fix)
