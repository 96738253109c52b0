"""COCO annotations -> Dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from boxtune.boxes import Boxes, xywh_to_xyxy
from boxtune.data.coco_document import AnnotationEntry, Document, Id, ImageEntry, read_document
from boxtune.data.coco_layout import require_layout
from boxtune.data.images import read_size
from boxtune.data.places import Found, ImageFinder, image_folders, name_unread
from boxtune.data.sample import Dataset, Sample
from boxtune.errors import DataError, Finding, Level, name_some

# Check id -> level, what the count counts, what to do. The order is the order in the report.
_CHECKS: dict[str, tuple[Level, str, str]] = {
    "coco.image_missing": ("warn", "image files that are not there", "restore them or give images=FOLDER"),
    "coco.image_found_by_name": (
        "warn",
        "image files found by their bare name, since the folders in file_name are not there",
        "give images=FOLDER if these are the wrong files",
    ),
    "coco.image_twice": ("warn", "images listed twice, merged into one", ""),
    "coco.image_renumbered": ("ok", "images numbered by their place, since their ids are no whole numbers", ""),
    "coco.size_from_file": ("ok", "images without width and height, measured in the file's header", ""),
    "coco.size_unknown": (
        "fail",
        "images without width and height whose file gives none either",
        "restore the files or state width and height",
    ),
    "coco.image_unknown": (
        "warn",
        "annotations of images that are not listed, left out",
        "add the images or remove the annotations",
    ),
    "coco.annotation_twice": ("warn", "annotation ids used twice (the very same entry counts once)", ""),
    "coco.category_twice": ("warn", "category names with several ids, merged", "give each class one name"),
    "coco.box_from_polygon": ("ok", "annotations without bbox, boxed by their polygons", ""),
    "coco.mask_only": ("warn", "annotations with a mask but no bbox, left out", "add their bbox"),
    "coco.box_without_area": ("warn", "boxes without area inside their image, left out", "remove or redraw them"),
    "coco.box_clipped": ("warn", "boxes that reach out of their image, cut to it", ""),
    "coco.box_relative": ("fail", "boxes, all of them within 0..1", "bbox is x, y, width, height in pixels"),
    "coco.box_twice": ("warn", "boxes given twice (same image, class and corners), both kept", "remove the copies"),
    "coco.crowd": ("ok", "crowd or ignored boxes, neither trained on nor counted as missed", ""),
    "coco.no_boxes": ("ok", "images without boxes, kept as negatives", ""),
}
_ROUNDING_PX = 0.01  # what float32 and two decimals do to a corner; cut off without a word
_SLIGHT_PX = 1.0  # off by one, as corner formats that count pixels write it
_FAR_OUT_SHARE, _FAR_OUT_LEAST = 0.2, 10  # from here on it is the format that is misread, not single boxes


class _Notes:
    """Names under check ids, and what becomes of them."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.names: dict[str, list[str]] = {}
        self.levels: dict[str, tuple[Level, str]] = {}

    def add(self, check: str, names: Iterable[str]) -> None:
        self.names.setdefault(check, []).extend(names)

    def findings(self) -> list[Finding]:
        rows = []
        for check, (level, counted, fix) in _CHECKS.items():
            names = self.names.get(check)
            if names:
                level, fix = self.levels.get(check, (level, fix))
                seen = f"{counted}: {len(names)} ({name_some(names)})"
                rows.append(Finding(check=check, level=level, seen=seen, where=str(self.where), fix=fix))
        return rows


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The boxes of one file in file order: corners, class name, place of the image, flags, and what to call each."""

    xyxy_px: Float[np.ndarray, "n 4"]
    labels: list[str]
    owners: list[int]
    crowd: Bool[np.ndarray, " n"]
    ignore: Bool[np.ndarray, " n"]
    called: list[str]

    def take(self, mask: Bool[np.ndarray, " n"]) -> _Rows:
        at = np.flatnonzero(mask)
        return _Rows(
            xyxy_px=self.xyxy_px[at],
            labels=[self.labels[i] for i in at],
            owners=[self.owners[i] for i in at],
            crowd=self.crowd[at],
            ignore=self.ignore[at],
            called=[self.called[i] for i in at],
        )


def read_coco(path: Path | str, *, images: Path | None = None) -> Dataset:
    """The data set that a COCO folder or file describes.

    `path` is a folder with SPLIT/_annotations.coco.json beside its images, a folder with annotations/*.json (or the
    .json files themselves) and image folders, or one .json. `images` names the image folder where it is elsewhere.

    bbox is read as x, y, width, height in pixels of the upright image, corners continuous. Boxes are cut to the
    declared size; what is left out or changed stands in the findings (`coco.*`). Classes are the categories that a
    kept box uses, in the order of their ids. Images are not opened, but for those without declared size; whether
    they are sound is for `leave_out_broken`.

    Raises DataError if there is no COCO file, if it is broken, if a split cannot be told, if an annotation has an
    unknown category or a bbox that is not four numbers, or if not one image file is found.
    Source: https://cocodataset.org/#format-data
    """
    path = Path(path)
    layout = require_layout(path)
    documents = {split: read_document(file) for split, file in layout.files.items()}
    splits: dict[str, list[Sample]] = {}
    findings: list[Finding] = []
    for split, document in documents.items():
        _require_known_categories(document)
        notes = _Notes(document.path)
        samples = _read_split(document, split, images, notes)
        findings += notes.findings()
        if samples:
            splits[split] = samples
        else:
            seen = f"the {split} split lists no images; it is left out"
            findings.append(Finding(check="coco.empty_split", level="warn", seen=seen, where=str(document.path)))
    if not splits:
        raise DataError("no image is listed", where=name_some(layout.files.values()), fix="export the data set again")
    used = {label for samples in splits.values() for sample in samples for label in sample.boxes.labels}
    findings += _check_categories(documents, used)
    findings += _check_shared_images(splits)
    unread = name_unread(path, layout.files.values())
    return Dataset(
        path=path,
        format="coco",
        why=layout.why + (f"; not read: {unread}" if unread else ""),
        classes=tuple(name for name in _names_by_id(documents) if name in used),
        splits=splits,
        findings=tuple(findings),
    )


def _require_known_categories(document: Document) -> None:
    unknown = [
        f"{entry.called} has category {entry.category_id!r}"
        for entry in document.annotations
        if entry.category_id not in document.categories
    ]
    if unknown:
        raise DataError(
            f"annotations of unknown categories: {len(unknown)} ({name_some(unknown)})",
            where=str(document.path),
            fix=f"category ids there are: {name_some((repr(i) for i in document.categories), limit=20) or 'none'}",
        )


def _read_split(document: Document, split: str, images: Path | None, notes: _Notes) -> list[Sample]:
    if not document.images:
        return []
    paths = _find_images(document, split, images, notes)
    entries, place_of_id = _merge_repeated(document.images, paths, notes)
    sizes = [_size_of(entry, path, notes) for entry, path in entries]
    rows = _check_boxes(_rows(document, place_of_id, notes), sizes, notes)
    numbers = _image_numbers([entry for entry, _ in entries], notes)
    samples = _samples([path for _, path in entries], numbers, sizes, rows)
    notes.add("coco.annotation_twice", document.repeated_annotations)
    ids_of_name = Counter(document.categories.values())
    notes.add("coco.category_twice", [name for name, count in ids_of_name.items() if count > 1])
    notes.add("coco.no_boxes", [sample.image.name for sample in samples if not len(sample.boxes)])
    if all(not len(sample.boxes) for sample in samples):
        notes.levels["coco.no_boxes"] = ("fail", "there is nothing to learn or measure here: check the annotations")
    return samples


def _find_images(document: Document, split: str, images: Path | None, notes: _Notes) -> list[Path]:
    """The file of each image in file order; where it is not there, the path at which it was to be expected."""
    finder = ImageFinder(image_folders(document.path, split, images))
    found = [finder.find(image.file_name) for image in document.images]
    folders = Counter(one.folder for one in found if one is not None)
    if not folders:
        raise DataError(
            f"none of the {len(found)} images of {document.path.name} is there, such as {document.images[0].file_name}",
            where=f"looked in {name_some(finder.folders, limit=6)}",
            fix="put the images beside the .json or into images/, or give images=FOLDER",
        )
    names_of_path: dict[Path, set[str]] = {}
    for image, one in zip(document.images, found, strict=True):
        if one is not None:
            names_of_path.setdefault(one.path, set()).add(image.file_name)
    expected = folders.most_common(1)[0][0]
    paths = []
    for image, one in zip(document.images, found, strict=True):
        # A bare name that fits two different entries tells nothing: cam1/0001.jpg is not cam2/0001.jpg.
        if one is None or (one.by_bare_name and len(names_of_path[one.path]) > 1):
            notes.add("coco.image_missing", [image.file_name])
            one = Found(path=expected / image.file_name, folder=expected)
        elif one.by_bare_name:
            notes.add("coco.image_found_by_name", [image.file_name])
        paths.append(one.path)
    return paths


def _merge_repeated(
    images: Sequence[ImageEntry], paths: Sequence[Path], notes: _Notes
) -> tuple[list[tuple[ImageEntry, Path]], dict[Id, int]]:
    """Each file once, and the place of every image id among them."""
    entries: list[tuple[ImageEntry, Path]] = []
    place_of_path: dict[Path, int] = {}
    place_of_id: dict[Id, int] = {}
    for image, path in zip(images, paths, strict=True):
        if path in place_of_path:
            notes.add("coco.image_twice", [f"{image.file_name} (id {image.image_id!r})"])
        else:
            place_of_path[path] = len(entries)
            entries.append((image, path))
        place_of_id[image.image_id] = place_of_path[path]
    return entries, place_of_id


def _size_of(entry: ImageEntry, path: Path, notes: _Notes) -> tuple[int, int]:
    """Upright width and height; (0, 0) where neither file nor annotation tells, which no sound image has."""
    if entry.size_wh is not None:
        return entry.size_wh
    try:
        size_wh = read_size(path)
    except DataError:  # told by the finding; `leave_out_broken` says what is wrong with the file
        notes.add("coco.size_unknown", [entry.file_name])
        return 0, 0
    notes.add("coco.size_from_file", [entry.file_name])
    return size_wh


def _image_numbers(entries: Sequence[ImageEntry], notes: _Notes) -> list[int]:
    ids = [entry.image_id for entry in entries]
    whole = [int(i) for i in ids if not isinstance(i, str) and i == int(i)]
    if len(whole) == len(ids):
        return whole
    notes.add("coco.image_renumbered", [repr(i) for i in ids])
    return list(range(1, len(ids) + 1))


def _rows(document: Document, place_of_id: Mapping[Id, int], notes: _Notes) -> _Rows:
    name_of_image = {image.image_id: image.file_name for image in document.images}
    kept: list[AnnotationEntry] = []
    for entry in document.annotations:
        if entry.image_id not in place_of_id:
            notes.add("coco.image_unknown", [f"{entry.called} of image {entry.image_id!r}"])
            continue
        called = f"{name_of_image[entry.image_id]} {entry.called}"
        if entry.from_polygon:
            notes.add("coco.mask_only" if entry.xywh is None else "coco.box_from_polygon", [called])
        if entry.xywh is not None:
            kept.append(entry)
    return _Rows(
        xyxy_px=xywh_to_xyxy(np.array([entry.xywh for entry in kept], dtype=np.float64).reshape(-1, 4)),
        labels=[document.categories[entry.category_id] for entry in kept],
        owners=[place_of_id[entry.image_id] for entry in kept],
        crowd=np.array([entry.crowd for entry in kept], dtype=bool),
        ignore=np.array([entry.ignore for entry in kept], dtype=bool),
        called=[f"{name_of_image[entry.image_id]} {entry.called}" for entry in kept],
    )


def _check_boxes(rows: _Rows, sizes: Sequence[tuple[int, int]], notes: _Notes) -> _Rows:
    """The rows that have area inside their image, cut to it."""
    xyxy = rows.xyxy_px
    limits = np.array(sizes, dtype=np.float64).reshape(-1, 2)[np.array(rows.owners, dtype=int)]
    limits = np.where(limits > 0, limits, np.inf)
    cut = np.clip(xyxy, 0.0, np.concatenate([limits, limits], axis=1))
    flat = (xyxy[:, 2] <= xyxy[:, 0]) | (xyxy[:, 3] <= xyxy[:, 1])
    sound = ~flat & (cut[:, 2:] > cut[:, :2]).all(axis=1)
    for i in np.flatnonzero(~sound):
        width, height = xyxy[i, 2:] - xyxy[i, :2]
        why = f"{width:g} x {height:g} px" if flat[i] else "wholly outside"
        notes.add("coco.box_without_area", [f"{rows.called[i]} ({why})"])
    out_px = np.abs(cut - xyxy).max(axis=1, initial=0.0)
    notes.add("coco.box_clipped", [rows.called[i] for i in np.flatnonzero(sound & (out_px > _ROUNDING_PX))])
    num_far = int((out_px[~flat] > _SLIGHT_PX).sum())
    if not num_far:
        notes.levels["coco.box_clipped"] = ("ok", "")
    elif num_far >= max(_FAR_OUT_LEAST, _FAR_OUT_SHARE * len(xyxy)):
        fix = "so many are no accident: bbox is x, y, width, height in pixels, not corners, and width is not height"
        notes.levels["coco.box_clipped"] = ("fail", fix)
    if sound.any() and (np.abs(xyxy) <= 1).all() and (xyxy % 1 > 0).any():
        notes.add("coco.box_relative", rows.called)
    kept = replace(rows, xyxy_px=cut).take(sound)
    seen: set[tuple[object, ...]] = set()
    for owner, label, box, called in zip(kept.owners, kept.labels, kept.xyxy_px.tolist(), kept.called, strict=True):
        key = (owner, label, *box)
        if key in seen:
            notes.add("coco.box_twice", [called])
        seen.add(key)
    notes.add("coco.crowd", [kept.called[i] for i in np.flatnonzero(kept.crowd | kept.ignore)])
    return kept


def _samples(
    paths: Sequence[Path], numbers: Sequence[int], sizes: Sequence[tuple[int, int]], rows: _Rows
) -> list[Sample]:
    members: list[list[int]] = [[] for _ in paths]
    for i, owner in enumerate(rows.owners):
        members[owner].append(i)
    return [
        Sample(
            image=path,
            image_id=number,
            size_wh=size_wh,
            boxes=Boxes(xyxy_px=rows.xyxy_px[at], labels=tuple(rows.labels[i] for i in at)),
            crowd=rows.crowd[at],
            ignore=rows.ignore[at],
        )
        for path, number, size_wh, at in zip(paths, numbers, sizes, members, strict=True)
    ]


def _names_by_id(documents: Mapping[str, Document]) -> list[str]:
    """Every category name of any split once, in the order of the smallest id it has."""
    pairs = {pair for document in documents.values() for pair in document.categories.items()}
    return list(dict.fromkeys(name for _, name in sorted(pairs, key=lambda pair: (isinstance(pair[0], str), *pair))))


def _check_categories(documents: Mapping[str, Document], used: set[str]) -> list[Finding]:
    findings = []
    unused = [name for name in _names_by_id(documents) if name not in used]
    if unused:
        seen = f"categories that no box uses, kept out of the classes: {len(unused)} ({name_some(unused, limit=20)})"
        findings.append(Finding(check="coco.unused_category", level="ok", seen=seen))
    names_of_id: dict[Id, dict[str, str]] = {}
    for split, document in documents.items():
        for number, name in document.categories.items():
            names_of_id.setdefault(number, {}).setdefault(name, split)
    differ = [
        f"{number!r} is " + " but ".join(f"{name} in {split}" for name, split in names.items())
        for number, names in names_of_id.items()
        if len(names) > 1
    ]
    if differ:
        seen = f"category ids with other names in other splits, taken by name: {len(differ)} ({name_some(differ)})"
        fix = "check that every split means the same classes"
        findings.append(Finding(check="coco.category_ids_differ", level="warn", seen=seen, fix=fix))
    return findings


def _check_shared_images(splits: Mapping[str, Sequence[Sample]]) -> list[Finding]:
    splits_of: dict[Path, list[str]] = {}
    for split, samples in splits.items():
        for sample in samples:
            splits_of.setdefault(sample.image, []).append(split)
    shared = [f"{path.name} ({', '.join(names)})" for path, names in splits_of.items() if len(names) > 1]
    if not shared:
        return []
    seen = f"image files in more than one split: {len(shared)} ({name_some(shared)})"
    fix = "take them out of the training split, or scores show what was learned by heart"
    return [Finding(check="coco.image_in_two_splits", level="warn", seen=seen, fix=fix)]
