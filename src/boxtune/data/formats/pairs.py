"""Formats with one annotation file an image (VOC, LabelMe): the split of each file, and the image it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxtune.data.formats.image_names import StemFinder, spell_link
from boxtune.data.places import SPLITS, ImageFinder, split_of_folder
from boxtune.errors import Finding, name_some

_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "pictures", "data")
_ANNOTATION_FOLDERS = tuple(
    "annotations annotation annots annot ann labels label xml xmls json jsons labelme voc pascal_voc".split()
)


_MOST_ABOVE = 5  # Annotations/CLS-LOC/train/n01440764 of ImageNet, and the folder that holds them


def group_by_split(files: Sequence[Path], root: Path, kind: str) -> tuple[dict[str, list[Path]], list[Finding]]:
    """The files of each split: by the last folder between `root` and the file that is named for one.

    Where no file has such a folder they are one split, the one that `root` is named for, else `train`. Where some have,
    those that have none are left out, with a finding; `kind` begins its check id.
    """
    holder = root.parent if _is_annotations(root) else root
    whole = split_of_folder(root) or split_of_folder(holder) or "train"
    groups: dict[str, list[Path]] = {split: [] for split in SPLITS}
    outside: list[Path] = []
    split_of_home: dict[Path, str | None] = {}
    for file in files:
        home = file.parent
        if home not in split_of_home:
            above = (folder for folder in (home, *home.parents) if folder != root and folder.is_relative_to(root))
            split_of_home[home] = next(filter(None, map(_split_of, above)), None)
        split = split_of_home[home]
        (outside if split is None else groups[split]).append(file)
    if len(outside) == len(files):
        return {whole: list(files)}, []
    groups = {split: members for split, members in groups.items() if members}
    if not outside:
        return groups, []
    names = name_some(file.relative_to(root).as_posix() for file in outside)
    seen = f"files outside of the folders for {', '.join(groups)}, left out: {len(outside):,} ({names})"
    fix = "move them into one of these folders"
    return groups, [Finding(check=f"{kind}.outside_splits", level="warn", seen=seen, where=str(root), fix=fix)]


def _split_of(folder: Path) -> str | None:
    """The split that a folder is named for, with or without a year: train2017."""
    return split_of_folder(folder) or split_of_folder(Path(re.sub(r"20\d\d$", "", folder.name)))


def lies_near(file: Path, root: Path) -> bool:
    """Whether a file is likely to be of the data set at `root`, and not of one of several that lie below it.

    At most one folder may stand between the two before one that is named for annotations or for a split.
    """
    parts = [part for part in file.parent.relative_to(root).parts if part != "VOCdevkit"]
    known = next((at for at, part in enumerate(parts) if _is_part(Path(part))), len(parts))
    return known <= 1


@dataclass(frozen=True, kw_only=True)
class Match:
    """The image of an annotation file, and whether it was found by the name of that file instead of what it says."""

    path: Path
    by_stem: bool = False


class PairFinder:
    """Finds the image that belongs to an annotation file, whatever folders a tool has put between the two.

    Looked at are the file's own folder, and from there up to `root` folders for images (JPEGImages/, images/ ...),
    with and without the sub-folders in which the annotation lies; above `root` only where it is itself in a folder of
    annotations. With `images` only that folder and the like sub-folders of it.
    """

    def __init__(self, root: Path, images: Path | None) -> None:
        self.root, self.images = root, images
        self._finders: dict[Path, tuple[ImageFinder, StemFinder]] = {}
        self._children: dict[Path, dict[str, list[Path]]] = {}

    def find(self, annotation: Path, name: str, *, stem_first: bool) -> Match | None:
        """The image called `name`; `stem_first` says that one called like the annotation file goes before it.

        A name without suffix stands for an image with any. Last, the folders in `name` are left aside.
        """
        finder, stems = self._finders_of(annotation.parent)
        found = [one for text in spell_link(name) if name and (one := finder.find(text)) is not None]
        exact = next((Path(one.path) for one in found if not one.by_bare_name), None)
        if exact is None and name:
            exact = stems.find(name)
        alike = stems.find(annotation.stem)
        bare = next((Path(one.path) for one in found), None)
        # Of a.png and a.jpg beside a.xml the one that is named is meant.
        if exact is not None and (not stem_first or alike is None or exact.stem == annotation.stem):
            return Match(path=exact)
        if bare is not None and bare.stem == annotation.stem:
            return Match(path=bare)
        if alike is not None:
            return Match(path=alike, by_stem=bool(name))
        return None if bare is None else Match(path=bare)

    def folders(self, home: Path) -> list[Path]:
        """The folders in which the images of annotations in `home` are looked for, likeliest first."""
        below = [folder for folder in (home, *home.parents) if folder.is_relative_to(self.root)]
        if self.images is not None:
            tail = _tail(home, self.root)
            places = [self.images.joinpath(*tail[at:]) for at in range(len(tail) + 1)]
            return [place for place in dict.fromkeys(places) if place.is_dir()]
        above = [self.root, *self.root.parents][:_MOST_ABOVE]
        inside = [
            at for at, folder in enumerate(above[:-1]) if _is_annotations(folder) or (not at and _is_part(folder))
        ]
        below += above[1 : inside[-1] + 2] if inside else []
        return list(dict.fromkeys([home, *self._around(home, below)]))

    def _around(self, home: Path, bases: Sequence[Path]) -> Iterator[Path]:
        for tail_kept in (True, False):
            for base in bases:
                tail = _tail(home, base) if tail_kept else ()
                inner = base.joinpath(*tail)
                shelves = [shelf for name in _IMAGE_FOLDERS for shelf in self._named(base, name)]
                shelves_inside = [shelf for name in _IMAGE_FOLDERS for shelf in self._named(inner, name)]
                places = [*(shelf.joinpath(*tail) for shelf in shelves), *shelves_inside, inner]
                yield from (place for place in places if place.is_dir())

    def _named(self, folder: Path, name: str) -> list[Path]:
        """The folders in `folder` of that name, whatever the case of its letters."""
        if folder not in self._children:
            children: dict[str, list[Path]] = {}
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                if entry.name.lower() in _IMAGE_FOLDERS and entry.is_dir():
                    children.setdefault(entry.name.lower(), []).append(entry)
            self._children[folder] = children
        return self._children[folder].get(name, [])

    def _finders_of(self, home: Path) -> tuple[ImageFinder, StemFinder]:
        if home not in self._finders:
            folders = self.folders(home)
            self._finders[home] = ImageFinder(folders), StemFinder(folders)
        return self._finders[home]


def _tail(home: Path, base: Path) -> tuple[str, ...]:
    """The folders from `base` down to `home`, without those that only say that annotations lie there."""
    return tuple(part for part in home.relative_to(base).parts if part.lower() not in _ANNOTATION_FOLDERS)


def _is_annotations(folder: Path) -> bool:
    return folder.name.lower() in _ANNOTATION_FOLDERS


def _is_part(folder: Path) -> bool:
    return _is_annotations(folder) or split_of_folder(folder) is not None
