"""Supervisely projects -> drafts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.image_names import StemFinder
from boxtune.data.formats.json_files import as_numbers, as_size, load_json, peek_json
from boxtune.data.formats.listing import is_image, list_files
from boxtune.data.formats.outline import Corners, box_around, box_around_rotated
from boxtune.data.formats.remarks import Remarks
from boxtune.data.places import name_contents, splits_in_name
from boxtune.errors import DataError, Level, name_some

EXPECTED = "a Supervisely project: meta.json and folders with ann/NAME.json beside img/NAME"

_META = "meta.json"
_HULLS = ("polygon", "oriented_bbox", "multipolygon")
_LEVELS = 4  # a data set of a project may hold others, under datasets/
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "supervisely.unlabelled": ("warn", "objects without a class, left out", "give each a class"),
    "supervisely.hull": ("ok", "polygons and turned boxes, taken as the upright box around each", ""),
    "supervisely.no_box": (
        "warn",
        "objects that are neither box nor polygon (masks, lines, points), left out",
        "turn masks into rectangles in Supervisely if they are wanted",
    ),
    "supervisely.not_annotated": ("warn", "images in img/ without a file in ann/, left out", "annotate them"),
}


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A data set of a project: its `ann` and `img` folders."""

    home: Path
    annotations: Path
    images: Path


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """An annotation file: the name of its image, where that is, and what it says."""

    file: Path
    name: str
    path: Path | None
    content: Mapping[str, Any]


def sniff_supervisely(path: Path) -> str | None:
    """Why `path` looks like Supervisely, judged by names and the head of meta.json; None if it does not."""
    if path.is_file():
        return f"`classes` with `title` and `shape` in {_META}" if path.name == _META and _is_meta(path) else None
    if not path.is_dir() or not _is_meta(_meta_of(path)):
        return None
    parts = [part.home.name for part in _parts(path)]
    return f"{_META}, and ann/ in {name_some(parts)}" if parts else None


def read_supervisely(path: Path, options: Options) -> Raw:
    """The splits of a Supervisely project, given as its folder, its meta.json or the folder of one of its data sets.

    A data set whose name, or that of a folder above it, speaks of a split is that split; else an image's tag says it,
    where each image has one such tag; the others are `train`. An image with a file in ann/ is part of the data set,
    with or without objects. Points are indexes of pixels, both included, so the right and lower edge lie one further;
    where one has a fraction, or lies where no index is, the project was written in continuous coordinates, and nothing
    is added. Raises DataError on a broken file and on objects without points.
    Source: https://docs.supervisely.com/data-organization/00_ann_format_navi
    """
    root = path.parent if path.is_file() else path
    parts = list(_parts(root))
    if not parts:
        what = f"no Supervisely project was found, only {name_contents(root)}"
        raise DataError(what, where=str(root), fix=f"expected is {EXPECTED}")
    meta = _meta_of(root)
    classes = _read_classes(meta)
    fillers: dict[str, _Filler] = {}
    for part in parts:
        pictures = _read_part(part, options)
        split = _split_of_folders(part.home, root)
        tagged = [_split_of_tags(picture.content) for picture in pictures]
        by_tags = split is None and bool(tagged) and None not in tagged
        splits = tagged if by_tags else [split] * max(1, len(pictures))
        for chosen in dict.fromkeys(one or "train" for one in splits):
            fillers.setdefault(chosen, _Filler(chosen, part.home, classes))
        for picture, own in zip(pictures, splits, strict=False):
            fillers[own or "train"].add_image(picture)
        fillers[splits[0] or "train"].skip(part, pictures, options)
    whole = all(filler.whole for filler in fillers.values())
    drafts = [filler.finish(1.0 if whole else 0.0) for filler in fillers.values()]
    told = (
        "indexes of pixels, so 1 is added to the right and lower edge"
        if whole
        else "continuous, as some have fractions or lie on the far edge, where no index of a pixel is"
    )
    return Raw(
        drafts=drafts,
        why=f"Supervisely project of {name_some(part.home.name for part in parts)}; its points are {told}",
        classes=list(classes.values()),
        read=[meta, *(file for filler in fillers.values() for file in filler.read)],
    )


def _parts(root: Path) -> Iterator[_Part]:
    level = [root]
    for _ in range(_LEVELS):
        deeper: list[Path] = []
        for folder in level:
            if (folder / "ann").is_dir():
                yield _Part(home=folder, annotations=folder / "ann", images=folder / "img")
            skipped = ("ann", "img", "meta", "seg")
            entries = sorted(entry for entry in folder.iterdir() if entry.name not in skipped and entry.name[0] != ".")
            deeper += [entry for entry in entries if entry.is_dir()]
        level = deeper


def _meta_of(root: Path) -> Path:
    """The meta.json of a project; it lies one folder up if one of its data sets is given."""
    return root / _META if (root / _META).is_file() or not (root / "ann").is_dir() else root.parent / _META


def _is_meta(file: Path) -> bool:
    content = peek_json(file)
    classes = content.get("classes") if isinstance(content, dict) else None
    return isinstance(classes, list) and all(isinstance(one, dict) and "title" in one for one in classes)


def _split_of_folders(home: Path, root: Path) -> str | None:
    between = [folder for folder in home.parents if folder != root and folder.is_relative_to(root)]
    for folder in (home, *between):
        splits = splits_in_name(folder.name)
        if len(splits) > 1:
            what = f"the split of {folder.name}/ cannot be told: its name speaks of {' and '.join(splits)}"
            raise DataError(what, where=str(folder), fix="rename it for one split: train, valid or test")
        if splits:
            return splits[0]
    return None


def _split_of_tags(content: Mapping[str, Any]) -> str | None:
    """The one split that the tags of an image speak of; older files hold tags as mere names."""
    tags = content.get("tags")
    names = [tag.get("name") if isinstance(tag, Mapping) else tag for tag in tags] if isinstance(tags, list) else []
    splits = {split for name in names if isinstance(name, str) and len(split := splits_in_name(name)) == 1}
    return splits.pop()[0] if len(splits) == 1 else None


def _read_classes(meta: Path) -> dict[Any, str]:
    """The titles by id, or by themselves where classes have no id."""
    if not meta.is_file():
        return {}
    content = load_json(meta, EXPECTED)
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(classes, list):
        raise DataError(f"{_META} lacks the list `classes`", where=str(meta), fix=f"expected is {EXPECTED}")
    titles = [(one.get("id"), one.get("title")) for one in classes if isinstance(one, dict)]
    named = [(number, title) for number, title in titles if isinstance(title, str) and title]
    return {number if isinstance(number, str | int) else title: title for number, title in named}


def _read_part(part: _Part, options: Options) -> list[_Picture]:
    """The annotation files of a data set, each with its image where that is there."""
    folder = _image_folder(part, options)
    there = {file.name for file in folder.iterdir() if is_image(file)} if folder.is_dir() else set()
    stems = StemFinder([folder])
    pictures = []
    for file in list_files(part.annotations, {".json"}):
        # An image is named like its annotations without .json; the first Supervisely dropped its own suffix too.
        name = file.name[: -len(".json")]
        content = load_json(file, EXPECTED)
        if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
            raise DataError(f"{file.name} lacks the list `objects`", where=str(file), fix=f"expected is {EXPECTED}")
        path = folder / name if name in there else stems.find(name)
        pictures.append(_Picture(file=file, name=f"{part.home.name}/{name}", path=path, content=content))
    return pictures


def _image_folder(part: _Part, options: Options) -> Path:
    if options.images is None:
        return part.images
    own = options.images / part.home.name
    return next((folder for folder in (own / "img", own) if folder.is_dir()), options.images)


class _Filler:
    """Fills the draft of one split; `whole` as long as every point can be the index of a pixel."""

    def __init__(self, split: str, home: Path, classes: Mapping[Any, str]) -> None:
        self.draft, self.remarks = Draft(split, home), Remarks(home, _REMARKS)
        self.classes, self.whole = classes, True
        self.read: list[Path] = []

    def finish(self, edge: float) -> Draft:
        """The draft with `edge` added to the right and lower edges, and its findings; DataError on broken entries."""
        self.remarks.require_sound("objects that cannot be read", f"mend them; expected is {EXPECTED}")
        for at in range(0, len(self.draft.corners), 4):
            self.draft.corners[at + 2] += edge
            self.draft.corners[at + 3] += edge
        self.draft.findings += self.remarks.findings()
        return self.draft

    def _title(self, number: Any) -> str | None:
        return self.classes.get(number) if isinstance(number, str | int) else None

    def skip(self, part: _Part, pictures: Sequence[_Picture], options: Options) -> None:
        """Note the images of a data set that have no annotation file."""
        folder = _image_folder(part, options)
        seen = {picture.path for picture in pictures}
        for file in sorted(folder.iterdir()) if folder == part.images and folder.is_dir() else ():
            if is_image(file) and file not in seen:
                self.remarks.add("supervisely.not_annotated", f"{part.home.name}/{file.name}")

    def add_image(self, picture: _Picture) -> None:
        """An image with its objects."""
        self.read.append(picture.file)
        size, objects = picture.content.get("size"), picture.content["objects"]
        size_wh = as_size(size.get("width"), size.get("height")) if isinstance(size, Mapping) else None
        image = self.draft.add_image(picture.name, size_wh=size_wh, path=picture.path)
        for place, one in enumerate(objects):
            if isinstance(one, dict):
                self._add_object(image, one, f"{picture.name} object {one.get('id', place)}")
            else:
                self.remarks.fault(f"{picture.name} object {place} is no object")

    def _add_object(self, image: int, one: Mapping[str, Any], called: str) -> None:
        kind = _kind(one)
        if kind not in ("rectangle", *_HULLS):
            self.remarks.add("supervisely.no_box", f"{called} ({kind})")
            return
        points = _points(one)
        if points is None:
            self.remarks.fault(f"{called} has no points of two numbers")
            return
        label = one.get("classTitle")
        label = label if isinstance(label, str) and label.strip() else self._title(one.get("classId"))
        if label is None:
            self.remarks.add("supervisely.unlabelled", called)
            return
        size_wh = self.draft.sizes_wh[image] or (math.inf, math.inf)
        self.whole &= all(v == int(v) and v <= side - 1 for p in points for v, side in zip(p, size_wh, strict=True))
        if kind != "rectangle":
            self.remarks.add("supervisely.hull", called)
        self.draft.add_box(
            image, label, _turned(points, one.get("angle")) if kind == "oriented_bbox" else box_around(points)
        )


def _kind(one: Mapping[str, Any]) -> str:
    """The geometry; older files name none, and an object with a mask keeps a `bitmap` there."""
    kind = one.get("geometryType") or one.get("shape")
    if isinstance(kind, str):
        return kind
    if one.get("bitmap"):
        return "bitmap"
    points = one.get("points")
    exterior = points.get("exterior") if isinstance(points, Mapping) else None
    return "rectangle" if isinstance(exterior, list) and len(exterior) == 2 else "polygon"


def _points(one: Mapping[str, Any]) -> list[list[float]] | None:
    points = one.get("points")
    pieces = [points.get("exterior") if isinstance(points, Mapping) else points]
    if isinstance(one.get("parts"), list):
        pieces = [part.get("exterior") for part in one["parts"] if isinstance(part, Mapping)]
    rows = [as_numbers(point, 2) for piece in pieces if isinstance(piece, list) for point in piece]
    sound = [row for row in rows if row is not None]
    return sound if len(sound) == len(rows) >= 2 else None


def _turned(points: list[list[float]], angle: Any) -> Corners:
    """The hull of a box that is turned around its centre by an angle in radians."""
    x1, y1, x2, y2 = box_around(points)
    radians = (as_numbers([angle]) or [0.0])[0]
    return box_around_rotated((x1, y1, x2 - x1, y2 - y1), radians, pivot=((x1 + x2) / 2, (y1 + y2) / 2))
