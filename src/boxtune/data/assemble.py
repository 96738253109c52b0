"""Drafts -> Dataset: images found, sizes known, boxes in pixels and inside, every defect counted and named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.data.draft import Draft, Raw
from boxtune.data.images import read_size
from boxtune.data.places import SPLITS, Found, ImageFinder, image_folders, name_unread
from boxtune.data.sample import Dataset
from boxtune.data.table import SampleTable
from boxtune.errors import DataError, Finding, Level, name_some

# Check id -> level, what the count counts, what to do. The order is the order in the report.
_CHECKS: dict[str, tuple[Level, str, str]] = {
    "image.missing": ("warn", "image files that are not there", "restore them or give images=FOLDER"),
    "image.found_by_name": (
        "warn",
        "image files found by their bare name, since the folders that the annotations name are not there",
        "give images=FOLDER if these are the wrong files",
    ),
    "image.twice": ("warn", "images listed twice, merged into one", ""),
    "image.renumbered": ("ok", "images numbered by their place, since their ids are no whole numbers", ""),
    "image.size_from_file": ("ok", "images without declared width and height, measured in the file's header", ""),
    "image.size_unknown": (
        "fail",
        "images without width and height whose file gives none either",
        "restore the files or state width and height",
    ),
    "box.without_area": ("warn", "boxes without area inside their image, left out", "remove or redraw them"),
    "box.clipped": ("warn", "boxes that reach out of their image, cut to it", ""),
    "box.relative": ("fail", "boxes, all of them within 0..1", "they should be pixels: say how they are meant"),
    "box.twice": ("warn", "boxes given twice (same image, class and corners), both kept", "remove the copies"),
    "box.crowd": ("ok", "crowd or ignored boxes, neither trained on nor counted as missed", ""),
    "image.no_boxes": ("ok", "images without boxes, kept as negatives", ""),
}
_NAMED = 20  # names kept of each check; the count is of all
_ROUNDING_PX = 0.01  # what float32 and two decimals do to a corner; cut off without a word
_SLIGHT_PX = 1.0  # off by one, as corner formats that count pixels write it
_FAR_OUT_SHARE, _FAR_OUT_LEAST = 0.2, 10  # from here on it is the format that is misread, not single boxes


class Notes:
    """How often each check fired, and the first names."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}
        self.levels: dict[str, tuple[Level, str]] = {}

    def add(self, check: str, places: Iterable[int] | Int[np.ndarray, " n"], call: Callable[[int], str]) -> None:
        """Note a check for each of the places; only the first ones are called by name."""
        rows = places.tolist() if isinstance(places, np.ndarray) else list(places)
        names = self.names.setdefault(check, [])
        names += [call(row) for row in rows[: _NAMED - len(names)]]
        self.counts[check] += len(rows)

    def findings(self) -> list[Finding]:
        """One finding for each check that fired, in the order of the report."""
        rows = []
        for check, (level, counted, fix) in _CHECKS.items():
            if self.counts[check]:
                level, fix = self.levels.get(check, (level, fix))
                more = self.counts[check] - len(self.names[check][:3])
                named = ", ".join(self.names[check][:3]) + (f" and {more:,} more" if more else "")
                seen = f"{counted}: {self.counts[check]:,} ({named})"
                rows.append(Finding(check=check, level=level, seen=seen, where=str(self.where), fix=fix))
        return rows


def assemble(path: Path, format: str, raw: Raw, *, images: Path | None, need_images: bool = True) -> Dataset:
    """The data set of what a reader found, with a finding for everything that was left out, cut or merged.

    Boxes come out in pixels of the upright image, cut to the declared size. Images are opened only where nobody
    declares their size. Classes are the names that a kept box uses, in the reader's order. Raises DataError if no
    image is listed, or, with `need_images`, not one of a split's images is there.
    """
    splits: dict[str, SampleTable] = {}
    findings: list[Finding] = [*raw.findings]
    for draft in sorted(raw.drafts, key=lambda draft: list(SPLITS).index(draft.split)):
        findings += draft.findings
        if not draft.files:
            seen = f"the {draft.split} split lists no images; it is left out"
            findings.append(Finding(check="data.empty_split", level="warn", seen=seen, where=str(draft.annotation)))
            continue
        notes = Notes(draft.annotation)
        splits[draft.split] = build_table(draft, images, notes, need_images)
        findings += notes.findings()
    if not splits:
        raise DataError("no image is listed", where=str(path), fix="export the data set again")
    used = {name for table in splits.values() for name in (table.names[c] for c in np.unique(table.codes).tolist())}
    ordered = [*dict.fromkeys(raw.classes), *sorted(used.difference(raw.classes))]
    if unused := [name for name in ordered if name not in used]:
        seen = f"classes that no box uses, left aside: {len(unused)} ({name_some(unused, limit=20)})"
        findings.append(Finding(check="class.unused", level="ok", seen=seen))
    unread = name_unread(path, raw.read)
    return Dataset(
        path=path,
        format=format,
        why=raw.why + (f"; not read: {unread}" if unread else ""),
        classes=tuple(name for name in ordered if name in used),
        splits=splits,
        findings=(*findings, *_check_shared_images(splits)),
    )


def build_table(draft: Draft, images: Path | None, notes: Notes, need_images: bool = True) -> SampleTable:
    """The samples of one split; what was noticed on the way goes into `notes`."""
    paths = _find_images(draft, images, notes, need_images)
    firsts, place_of = _merge_repeated(draft, paths, notes)
    files = [paths[i] for i in firsts]
    sizes, measured = _sizes(draft, firsts, files, notes)
    owners = place_of[draft.box_owners]
    limits = sizes[owners].astype(np.float64)
    xyxy = draft.xyxy if draft.scale is None else draft.xyxy / draft.scale * np.concatenate([limits, limits], axis=1)
    rows, cut = _check_boxes(draft, xyxy, limits, notes)
    order = rows[np.argsort(owners[rows], kind="stable")]
    owners, codes = owners[order], np.array(draft.codes, dtype=np.int32)[order]
    flags = [np.frombuffer(bytes(flag), dtype=bool)[order] for flag in (draft.crowd, draft.ignore)]
    _note_repeats(draft, order, owners, codes, cut[order], notes)
    counts = np.bincount(owners, minlength=len(files))
    notes.add("box.crowd", order[flags[0] | flags[1]], draft.call)
    notes.add("image.no_boxes", np.flatnonzero(counts == 0), lambda i: Path(files[i]).name)
    if not len(order):
        notes.levels["image.no_boxes"] = ("fail", "there is nothing to learn or measure here: check the annotations")
    return SampleTable(
        files=files,
        image_ids=_image_numbers([draft.image_ids[i] for i in firsts], notes),
        sizes_wh=sizes,
        starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        xyxy_px=cut[order],
        codes=codes,
        names=tuple(draft.name_codes),
        crowd=flags[0],
        ignore=flags[1],
        relative=draft.scale is not None,
        measured=measured,
    )


def _find_images(draft: Draft, images: Path | None, notes: Notes, need_images: bool) -> list[str]:
    """The file of each image in file order; where it is not there, the path at which it was to be expected."""
    if len(draft.paths) == len(draft.files):
        return [str(draft.paths[i]) for i in range(len(draft.files))]
    finder = ImageFinder(image_folders(draft.annotation, draft.split, images))
    found = [
        Found(path=str(draft.paths[i]), folder=str(draft.paths[i].parent)) if i in draft.paths else finder.find(name)
        for i, name in enumerate(draft.files)
    ]
    folders = Counter(one.folder for one in found if one is not None)
    if not folders and need_images:
        raise DataError(
            f"none of the {len(found)} images of {draft.annotation.name} is there, such as {draft.files[0]}",
            where=f"looked in {name_some(finder.folders, limit=6)}",
            fix=f"put the images beside {draft.annotation.name} or into images/, or give images=FOLDER",
        )
    names_by_bare_path: dict[str, set[str]] = {}
    for name, one in zip(draft.files, found, strict=True):
        if one is not None and one.by_bare_name:
            names_by_bare_path.setdefault(one.path, set()).add(name)
    exact = {one.path for one in found if one is not None and not one.by_bare_name} if names_by_bare_path else set()
    # Where they were to be expected.
    expected = folders.most_common(1)[0][0] if folders else str(draft.annotation.parent)
    paths, missing, by_name = [], [], []
    for place, (name, one) in enumerate(zip(draft.files, found, strict=True)):
        # A bare name that fits two different entries tells nothing: cam1/0001.jpg is not cam2/0001.jpg.
        if one is None or (one.by_bare_name and (len(names_by_bare_path[one.path]) > 1 or one.path in exact)):
            missing.append(place)
            paths.append(os.path.join(expected, name))
            continue
        if one.by_bare_name:
            by_name.append(place)
        paths.append(one.path)
    notes.add("image.missing", missing, lambda i: draft.files[i])
    notes.add("image.found_by_name", by_name, lambda i: draft.files[i])
    return paths


def _merge_repeated(draft: Draft, paths: Sequence[str], notes: Notes) -> tuple[list[int], Int[np.ndarray, " n"]]:
    """The first entry of each file, and for every entry the place of its file among them."""
    place_of_path: dict[str, int] = {}
    firsts: list[int] = []
    place_of: Int[np.ndarray, " n"] = np.empty(len(paths), dtype=np.int64)
    repeated = []
    for i, path in enumerate(paths):
        place = place_of_path.setdefault(path, len(firsts))
        if place == len(firsts):
            firsts.append(i)
        else:
            repeated.append(i)
        place_of[i] = place

    def call(i: int) -> str:
        return draft.files[i] + ("" if draft.image_ids[i] is None else f" (id {draft.image_ids[i]!r})")

    notes.add("image.twice", repeated, call)
    return firsts, place_of


def _sizes(
    draft: Draft, firsts: Sequence[int], files: Sequence[str], notes: Notes
) -> tuple[Int[np.ndarray, "n 2"], Bool[np.ndarray, " n"] | None]:
    """Declared widths and heights, or the upright ones of the file, and which are the latter.

    (0, 0) where neither file nor annotation tells, which no sound image has.
    """
    declared = [draft.sizes_wh[i] for i in firsts]
    unknown = [place for place, size_wh in enumerate(declared) if size_wh is None]
    if unknown:
        with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
            measured = dict(zip(unknown, pool.map(_measure, (files[place] for place in unknown)), strict=True))
        failed = [place for place in unknown if measured[place] == (0, 0)]
        declared = [measured.get(place, size_wh) for place, size_wh in enumerate(declared)]
        told = [place for place in unknown if measured[place] != (0, 0)] if draft.scale is None else []
        notes.add("image.size_unknown", failed, lambda place: Path(files[place]).name)
        notes.add("image.size_from_file", told, lambda place: Path(files[place]).name)
    asked = np.zeros(len(declared), dtype=bool)
    asked[unknown] = True
    return np.array(declared, dtype=np.int64).reshape(-1, 2), asked if unknown else None


def _measure(file: str) -> tuple[int, int]:
    try:
        return read_size(file)
    except DataError:  # told by the finding image.size_unknown; `leave_out_broken` says what is wrong with the file
        return 0, 0


def _image_numbers(ids: Sequence[int | float | str | None], notes: Notes) -> Int[np.ndarray, " n"]:
    try:
        numbers: Float[np.ndarray, " n"] = np.array(ids, dtype=np.float64)
        if any(isinstance(i, str | bool) for i in ids[:1]) or not (numbers == np.floor(numbers)).all():
            raise ValueError("no whole numbers")
        return np.array(ids, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        # None is no id at all, and so nothing to remark.
        notes.add("image.renumbered", [i for i, one in enumerate(ids) if one is not None], lambda i: repr(ids[i]))
        return np.arange(1, len(ids) + 1)


def _check_boxes(
    draft: Draft, xyxy: Float[np.ndarray, "m 4"], limits: Float[np.ndarray, "m 2"], notes: Notes
) -> tuple[Int[np.ndarray, " kept"], Float[np.ndarray, "m 4"]]:
    """The rows that have area inside their image, and all boxes cut to it."""
    limits = np.where(limits > 0, limits, np.inf)
    cut = np.clip(xyxy, 0.0, np.concatenate([limits, limits], axis=1))
    flat = (xyxy[:, 2] <= xyxy[:, 0]) | (xyxy[:, 3] <= xyxy[:, 1])
    sound = ~flat & (cut[:, 2:] > cut[:, :2]).all(axis=1)

    def call(row: int) -> str:
        width, height = xyxy[row, 2:] - xyxy[row, :2]
        return f"{draft.call(row)} ({f'{width:g} x {height:g} px' if flat[row] else 'wholly outside'})"

    notes.add("box.without_area", np.flatnonzero(~sound), call)
    out_px = np.abs(cut - xyxy).max(axis=1, initial=0.0)
    notes.add("box.clipped", np.flatnonzero(sound & (out_px > _ROUNDING_PX)), draft.call)
    num_far = int((out_px[~flat] > _SLIGHT_PX).sum())
    if not num_far:
        notes.levels["box.clipped"] = ("ok", "")
    elif num_far >= max(_FAR_OUT_LEAST, _FAR_OUT_SHARE * len(xyxy)):
        fix = "so many are no accident: are the numbers corners or width and height, pixels or shares, x or y first?"
        notes.levels["box.clipped"] = ("fail", fix)
    if draft.scale is None and sound.any() and (np.abs(xyxy) <= 1).all() and (xyxy % 1 > 0).any():
        notes.add("box.relative", range(len(xyxy)), draft.call)
    return np.flatnonzero(sound), cut


def _note_repeats(
    draft: Draft,
    rows: Int[np.ndarray, " m"],
    owners: Int[np.ndarray, " m"],
    codes: Int[np.ndarray, " m"],
    xyxy_px: Float[np.ndarray, "m 4"],
    notes: Notes,
) -> None:
    """Note the rows whose image, class and corners an earlier row has. Owners ascend.

    Rows are sorted by a mixture of their bits, and neighbours compared: several times faster than by six columns.
    """
    if not len(rows):
        return
    mixed = owners.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + codes.astype(np.uint64)
    for column in range(4):
        mixed = mixed * np.uint64(0xC2B2AE3D27D4EB4F) + (xyxy_px[:, column] + 0.0).view(np.uint64)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    near = np.flatnonzero(mixed[order[1:]] == mixed[order[:-1]])
    later, earlier = order[near + 1], order[near]
    same = (xyxy_px[later] == xyxy_px[earlier]).all(axis=1)
    same &= (codes[later] == codes[earlier]) & (owners[later] == owners[earlier])
    notes.add("box.twice", rows[np.sort(later[same])], draft.call)


def _check_shared_images(splits: Mapping[str, SampleTable]) -> list[Finding]:
    if len(splits) < 2:
        return []
    files = {split: set(table.files) for split, table in splits.items()}
    splits_of: dict[str, list[str]] = {}
    for split, names in files.items():
        shared_here = names & set().union(*(others for other, others in files.items() if other != split))
        for file in sorted(shared_here):
            splits_of.setdefault(file, []).append(split)
    shared = [f"{Path(file).name} ({', '.join(names)})" for file, names in splits_of.items()]
    if not shared:
        return []
    seen = f"image files in more than one split: {len(shared)} ({name_some(shared)})"
    fix = "take them out of the training split, or scores show what was learned by heart"
    return [Finding(check="image.in_two_splits", level="warn", seen=seen, fix=fix)]
