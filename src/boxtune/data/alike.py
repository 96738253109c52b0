"""Images that are copies of each other, byte by byte or to the eye."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL.Image import Resampling

from boxtune.data.images import open_image
from boxtune.data.table import SampleTable
from boxtune.errors import DataError, Finding, name_some

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
MOST_COMPARED = 20_000
"""Images that `check_alike` decodes, in minutes, and compares in pairs, in seconds."""

_TILE = 2048
_SPLITS_IN_WORDS = "take them out of one of the splits, or scores show what was learned by heart"


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What images look like: `digests` of their bytes, `brightness_steps`, and which could be opened."""

    digests: Sequence[str]
    steps: Bool[np.ndarray, "n bits"]
    opened: Bool[np.ndarray, " n"]


def look_at(paths: Sequence[Path]) -> Looks:
    """What each image looks like; one that cannot be opened looks like nothing else."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        rows = list(pool.map(_look, paths))
    blank = np.zeros(2 * HASH_SIDE**2, dtype=bool)
    return Looks(
        digests=[digest for digest, _ in rows],
        steps=np.array([blank if steps is None else steps for _, steps in rows], dtype=bool).reshape(-1, len(blank)),
        opened=np.array([steps is not None for _, steps in rows], dtype=bool),
    )


def _look(path: Path) -> tuple[str, Bool[np.ndarray, " bits"] | None]:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest(), brightness_steps(path)
    except OSError:
        return f"unreadable {path}", None  # counted by the caller's finding; `leave_out_broken` says what it is
    except DataError:
        return f"undecodable {path}", None


def brightness_steps(path: Path) -> Bool[np.ndarray, " bits"]:
    """For each neighbouring pair of a 17 x 16 grey miniature: does it rise to the right, and then, does it fall.

    Source of the difference hash: Neal Krawetz, "Kind of Like That" (2013); rising and falling steps are kept apart
    here and the distance is relative to their number, so that flat drawings do not all look alike.
    """
    size_wh = (HASH_SIDE + 1, HASH_SIDE)
    small = np.asarray(open_image(path).convert("L").resize(size_wh, resample=Resampling.BOX), dtype=np.int16)
    step = small[:, 1:] - small[:, :-1]
    return np.concatenate([(step >= MIN_STEP).ravel(), (step <= -MIN_STEP).ravel()])


def group_alike(paths: Sequence[Path]) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Places of `paths` in groups of near-duplicates, in groups of identical bytes, and of those that do not open.

    Groups of near-duplicates are unions of groups of identical bytes. Every place is in one group of each kind.
    """
    looks = look_at(paths)
    exact = list(_same(looks.digests).values())
    near: dict[int, list[int]] = {}
    for label, members in zip(label_alike(looks.steps[[m[0] for m in exact]]).tolist(), exact, strict=True):
        near.setdefault(label, []).extend(members)
    return list(near.values()), exact, np.flatnonzero(~looks.opened).tolist()


def _same(digests: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, digest in enumerate(digests):
        places.setdefault(digest, []).append(i)
    return places


def label_alike(steps: Bool[np.ndarray, "n bits"]) -> Int[np.ndarray, " n"]:
    """One number for each row, the same for rows that a chain of near-duplicates links (NEAR_SHARE, MIN_STEPS)."""
    labels: Int[np.ndarray, " n"] = np.arange(len(steps))
    for top in range(0, len(steps), _TILE):
        for start in range(top, len(steps), _TILE):
            labels = _join(_near(steps[top : top + _TILE], steps[start : start + _TILE]), top, start, labels)
    return labels


def first_alike(left: Bool[np.ndarray, "n bits"], right: Bool[np.ndarray, "m bits"]) -> Int[np.ndarray, " n"]:
    """For each row on the left the first near-duplicate on the right, -1 where there is none."""
    found: Int[np.ndarray, " n"] = np.full(len(left), -1)
    for top in range(0, len(left), _TILE):
        rows = slice(top, top + _TILE)
        for start in range(0, len(right), _TILE):
            near = _near(left[rows], right[start : start + _TILE])
            new = near.any(axis=1) & (found[rows] < 0)
            found[rows][new] = start + near.argmax(axis=1)[new]
    return found


def _near(left: Bool[np.ndarray, "n bits"], right: Bool[np.ndarray, "m bits"]) -> Bool[np.ndarray, "n m"]:
    counts: list[Float[np.ndarray, " k"]] = [rows.sum(axis=1).astype(np.float32) for rows in (left, right)]
    both = left.astype(np.float32) @ right.astype(np.float32).T
    either = counts[0][:, None] + counts[1][None, :] - both
    return (either - both <= NEAR_SHARE * either) & (either >= MIN_STEPS)


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


def check_alike(tables: Mapping[str, SampleTable], *, most: int = MOST_COMPARED) -> list[Finding]:
    """Findings about copies, inside a split and across splits, by bytes and by look.

    Decodes every image that is compared. Of more than `most` images the smaller splits are taken whole, as far as
    they go into half of it, and the rest in equal steps; the findings then say how many were looked at. Files that
    stand in two splits by name are left to reading, which names them.
    """
    places = _choose({split: len(table) for split, table in tables.items()}, most)
    looks = {split: look_at([Path(tables[split].files[i]) for i in at.tolist()]) for split, at in places.items()}
    num_seen, num_all = sum(map(len, places.values())), sum(map(len, tables.values()))
    among = f"of {num_seen:,} images looked at" + (f" ({num_all:,} there are)" if num_seen < num_all else "")
    unopened = sum(int((~one.opened).sum()) for one in looks.values())
    among += f", {unopened:,} of which do not open" if unopened else ""
    files = {split: [tables[split].files[i] for i in at.tolist()] for split, at in places.items()}
    findings = [*_check_inside(files, looks, among)]
    for left, right in combinations(files, 2):
        # Of train and valid it is valid whose score is not to be believed.
        findings += _check_across(files, looks, (right, left) if left == "train" else (left, right), among)
    if not findings:
        seen = f"no copies or near-duplicates {among}"
        findings.append(Finding(check="image.alike", level="ok", seen=seen))
    return findings


def _choose(counts: Mapping[str, int], most: int) -> dict[str, Int[np.ndarray, " k"]]:
    """The places of each split to look at: all if they are at most `most` together."""
    chosen = dict(counts)
    if sum(counts.values()) > most:
        left = most
        for split in sorted(counts, key=lambda split: counts[split]):
            chosen[split] = min(counts[split], left if split == max(counts, key=lambda s: counts[s]) else left // 2)
            left -= chosen[split]
    return {s: np.linspace(0, counts[s], num=n, endpoint=False).astype(np.int64) for s, n in chosen.items()}


def _check_inside(files: Mapping[str, Sequence[str]], looks: Mapping[str, Looks], among: str) -> list[Finding]:
    copies, groups, num_near = [], 0, 0
    for split, one in looks.items():
        called = [Path(file).name for file in files[split]]
        for members in _same(one.digests).values():
            copies += [f"{called[i]} = {called[members[0]]} ({split})" for i in members[1:]]
        sizes = np.bincount(label_alike(one.steps)) if len(one.steps) else np.zeros(1, dtype=np.int64)
        groups += int((sizes > 1).sum())
        num_near += int(sizes[sizes > 1].sum())
    findings = []
    if copies:
        seen = f"images with the bytes of another one of their split: {len(copies):,} {among} ({name_some(copies)})"
        fix = "keep one of each: copies count twice, and may be annotated differently"
        findings.append(Finding(check="image.copies", level="warn", seen=seen, fix=fix))
    if num_near:
        seen = f"near-duplicates inside splits (copies, frames of a video): {num_near:,} in {groups:,} groups {among}"
        findings.append(Finding(check="image.near_duplicates", level="ok", seen=seen))
    return findings


def _check_across(
    files: Mapping[str, Sequence[str]], looks: Mapping[str, Looks], pair: tuple[str, str], among: str
) -> list[Finding]:
    judged, other = pair
    left, right, elsewhere = files[judged], files[other], set(files[other])
    digests = {digest: i for i, digest in reversed(list(enumerate(looks[other].digests)))}
    near = first_alike(looks[judged].steps, looks[other].steps).tolist()
    same = [digests.get(digest, -1) for digest in looks[judged].digests]
    rows = {
        "image.copy_in_two_splits": ("the bytes of", same),
        "image.near_in_two_splits": ("the look of", [-1 if s >= 0 else n for s, n in zip(same, near, strict=True)]),
    }
    findings = []
    for check, (what, twins) in rows.items():
        found = [
            f"{Path(left[i]).name} ~ {Path(right[twin]).name}"
            for i, twin in enumerate(twins)
            if twin >= 0 and left[i] not in elsewhere
        ]
        if found:
            seen = f"{judged} images with {what} one in {other}: {len(found):,} of {len(left):,} ({name_some(found)})"
            seen += f" {among}"
            findings.append(Finding(check=check, level="warn", seen=seen, fix=_SPLITS_IN_WORDS))
    return findings
