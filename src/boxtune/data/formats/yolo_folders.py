"""YOLO without a data.yaml: the folders say which images there are, in which split, and where their labels lie."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from boxtune.data.draft import Options
from boxtune.data.formats.listing import IMAGE_SUFFIXES, list_files, peek_files, read_head
from boxtune.data.formats.pairs import group_by_split
from boxtune.data.formats.yolo_names import NAME_FILES, find_names, name_files
from boxtune.data.formats.yolo_plan import Listed, Plan
from boxtune.data.formats.yolo_rows import looks_like_row
from boxtune.data.places import SPLITS, name_contents, split_folders, split_of_folder
from boxtune.errors import DataError, name_some

_PEEKED = 50  # label files that a sniffer opens, and lines of each


def sniff_folders(path: Path) -> str | None:
    """Why a folder looks like YOLO by images/ beside labels/, or by rows of numbers beside images; else None."""
    if any(path.glob("*.data")):  # darknet, where lists say which images there are
        return None
    homes = [path, *_split_entries(path)]
    named = any(name_files(folder) for home in homes for folder in (home, home / "labels"))
    apart = [home for home in homes if (home / "images").is_dir() and _holds_rows(home / "labels", named, beside=False)]
    if apart:
        return f"rows of numbers in {name_some(_shown(path, home / 'labels') for home in apart)} beside images/"
    inside = [home / "images" for home in homes if (home / "images").is_dir()]
    places = [*homes, *inside, *(entry for images in inside for entry in _split_entries(images))]
    beside = [place for place in places if _holds_rows(place, named, beside=True)]
    return f"rows of numbers beside the images in {name_some(_shown(path, one) for one in beside)}" if beside else None


def _split_entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if split_of_folder(entry) and entry.is_dir())


def plan_of_folders(path: Path, options: Options) -> Plan:
    """The images of each split in images/SPLIT, SPLIT/images, SPLIT or the folder itself.

    With `options.images` these are the ones there, and the labels are looked for in `path` and its labels/. Raises
    DataError if there is no image.
    """
    homes = list(split_folders(path).values())
    images = options.images
    files = _image_files(path, homes) if images is None else list_files(images, IMAGE_SUFFIXES)
    root = path if images is None else images
    groups, findings = group_by_split(files, root, "yolo")
    splits = {
        split: [Listed(name=file.relative_to(root).as_posix(), path=file) for file in members]
        for split, members in groups.items()
        if members
    }
    if not splits:
        fix = "put the images into images/ beside labels/, or give images=FOLDER"
        raise DataError(f"no image was found; the folder holds {name_contents(path)}", where=str(path), fix=fix)
    places = _name_places(path, [path, *homes])
    return Plan(
        where=path,
        why=sniff_folders(path) or f"images with label files in {path.name}/",
        splits=splits,
        names=find_names(places),
        labels=[] if images is None else [folder for folder in (path / "labels", path) if folder.is_dir()],
        read=[file for folder in places for file in name_files(folder)],
        findings=findings,
        whole=True,
        assured=False,
    )


def _name_places(path: Path, homes: list[Path]) -> list[Path]:
    """The folders that may hold a file of class names."""
    labels = [home / "labels" for home in homes]
    words = list(chain.from_iterable(SPLITS.values()))
    deeper = [folder / word for folder in (path / "labels", path / "images") for word in words]
    is_part = split_of_folder(path) is not None or path.name.lower().startswith("obj_")
    return [*homes, *labels, *(home / "images" for home in homes), *deeper, *([path.parent] if is_part else [])]


def _image_files(path: Path, homes: list[Path]) -> list[Path]:
    """The images of images/, else of the folders named for splits, else of the folder itself."""
    if (path / "images").is_dir():
        return list_files(path / "images", IMAGE_SUFFIXES)
    shelves = [home / "images" if (home / "images").is_dir() else home for home in homes]
    files = [file for shelf in shelves for file in list_files(shelf, IMAGE_SUFFIXES)]
    return files or list_files(path, IMAGE_SUFFIXES)


def _holds_rows(folder: Path, named: bool, *, beside: bool) -> bool:
    """Whether half of the rows in the first label files under a folder are boxes; with a file of names one is enough.

    With `beside` only files right in it count, and only those beside an image of the same name.
    """
    rows: list[str] = []
    for files in peek_files(folder, {".txt"}) if folder.is_dir() else ():
        if beside and files[0].parent != folder:
            break
        labels = (file for file in files[:_PEEKED] if file.name not in NAME_FILES and (not beside or _has_image(file)))
        for file in labels:
            lines = read_head(file, 4096).decode("utf-8", "replace").splitlines()[:_PEEKED]
            rows += [line for line in lines if line.strip()]
        if rows:
            break
    num_boxes = sum(map(looks_like_row, rows))
    return num_boxes > 0 and (named or 2 * num_boxes >= len(rows))


def _has_image(label: Path) -> bool:
    return any(label.with_suffix(s).exists() or label.with_suffix(s.upper()).exists() for s in IMAGE_SUFFIXES)


def _shown(path: Path, folder: Path) -> str:
    return "the folder itself" if folder == path else f"{folder.relative_to(path).as_posix()}/"
