"""What a data.yaml says: the images of each split, and the names of the classes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from boxtune.data.draft import Options
from boxtune.data.formats.listing import IMAGE_SUFFIXES, is_image, list_files
from boxtune.data.formats.yolo_names import find_names, is_empty, names_of_yaml, read_yaml
from boxtune.data.formats.yolo_plan import Listed, Plan, read_image_list
from boxtune.data.places import SPLITS, split_of_folder
from boxtune.errors import DataError, Finding, Level, name_some


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What one path of a data.yaml leads to: a folder, a list, an image, or a pattern of these.

    `literal` says that it is where the path says; `lists` are the .txt files that were read.
    """

    images: list[Listed]
    place: Path
    literal: bool = True
    whole: bool = False
    lists: list[Path] = field(default_factory=list)


def plan_of_yaml(file: Path, options: Options) -> Plan:
    """The images of each split that a data.yaml names.

    Paths are relative to its `path`, or to its own folder. Where they lead nowhere, as in files that were written on
    another machine, leading folders are left out one by one, and the split's folder may have another of its names
    (val, valid); a finding says so. Raises DataError if no path leads to an image, or if two splits come to be one.
    """
    content = read_yaml(file)
    names = names_of_yaml(file, content)
    if names.by_id is None:
        names = find_names([file.parent, file.parent / "labels"])
    roots = [options.images] if options.images is not None else _roots(file, content)
    splits: dict[str, list[Listed]] = {}
    found: dict[str, list[_Entry]] = {}
    missing, findings = [], []
    for key, entries in _split_entries(file, content).items():
        split = split_of_folder(Path(key)) or key
        for text in entries:
            entry = _find_entry(text, split, roots)
            if entry is None or not entry.images:
                missing.append(f"{key}: {text}")
                continue
            found.setdefault(split, []).append(entry)
            splits.setdefault(split, []).extend(entry.images)
            findings += [] if entry.literal else [_moved(file, f"{key}: {text}", entry.place)]
    if not splits:
        raise DataError(
            f"{file.name} leads to no image ({name_some(missing) or 'no split is named'})",
            where=f"looked in {name_some(roots, limit=4)}",
            fix=f"mend the paths in {file.name}: they are relative to its `path`, or to its own folder",
        )
    if missing:
        seen = f"entries of {file.name} that lead to no image, left out: {len(missing)} ({name_some(missing)})"
        level: Level = "warn" if "train" in splits else "fail"
        fix = "restore the folder, or take the line out"
        findings.append(Finding(check="yolo.split_missing", level=level, seen=seen, where=str(file), fix=fix))
    _require_apart(file, found)
    everything = [entry for entries in found.values() for entry in entries]
    return Plan(
        where=file,
        why=f"{file.name} with {'names and ' if names.by_id else ''}{', '.join(splits)}",
        splits={split: splits[split] for split in SPLITS if split in splits},
        names=names,
        labels=[file.parent / "labels", file.parent] if options.images is not None else [],
        keypoints=_num_keypoints(file, content),
        read=[file, *(one for entry in everything for one in entry.lists)],
        findings=findings,
        whole=all(entry.whole for entry in everything),
    )


def _split_entries(file: Path, content: dict[str, Any]) -> dict[str, list[str]]:
    """The paths under each key that names a split; DataError if two keys name the same one."""
    entries: dict[str, list[str]] = {}
    for key, value in content.items():
        split = split_of_folder(Path(str(key)))
        if split is None or is_empty(value):
            continue
        if twice := [other for other in entries if split_of_folder(Path(other)) == split]:
            what = f"{file.name} gives the {split} split twice, as {twice[0]} and {key}"
            raise DataError(what, where=str(file), fix="keep one of them")
        paths = value if isinstance(value, list) else [value]
        if not all(isinstance(path, str) for path in paths):
            what = f"{key} in {file.name} is no path and no list of paths"
            raise DataError(what, where=str(file), fix=f"write {key}: images/{key}")
        entries[str(key)] = paths
    return entries


def _roots(file: Path, content: dict[str, Any]) -> list[Path]:
    """The folders that the paths of a data.yaml may be relative to, likeliest first."""
    home = file.parent
    told = "" if is_empty(content.get("path")) else str(content["path"]).replace("\\", "/")
    # `path` is often written for the folder from which ultralytics was started, or for another machine.
    bare = PurePosixPath(told).name
    places = [home / told, home / bare, home.parent / bare, home.parent / "datasets" / bare] if told else []
    there = [Path(os.path.normpath(place)) for place in (*places, home) if place.is_dir()]
    return list(dict.fromkeys(there))


def _find_entry(text: str, split: str, roots: Sequence[Path]) -> _Entry | None:
    for literal, place in _places(text, split, roots):
        if place.exists():
            return _at(place, roots, literal)
    if any(sign in text for sign in "*?["):
        for root in roots:
            pattern = os.path.join(glob.escape(str(root)), text.replace("\\", "/"))
            paths = sorted({Path(os.path.normpath(one)) for one in glob.glob(pattern, recursive=True)})
            entries = [_at(path, roots, True) for path in paths if path.is_dir() or is_image(path)]
            images = {image.path: image for entry in entries for image in entry.images}
            if images:
                return _Entry(images=list(images.values()), place=root)
    return None


def _places(text: str, split: str, roots: Sequence[Path]) -> Iterator[tuple[bool, Path]]:
    """Where a path may lead, and whether that is where it says."""
    for spelling in dict.fromkeys((text.strip(), text.strip().replace("\\", "/"))):
        for root in roots:
            yield True, Path(os.path.normpath(root / spelling))
    parts = tuple(part for part in PurePosixPath(text.strip().replace("\\", "/")).parts if part not in ("..", "/"))
    at = next((at for at in reversed(range(len(parts))) if split_of_folder(Path(parts[at])) == split), None)
    # The word for the split is never left out, or train and val could come to be one folder.
    for dropped in range(len(parts) if at is None else at + 1):
        for root in roots:
            # Roboflow writes ../train/images for what lies beside the data.yaml, and ultralytics reads it that way.
            yield dropped == 0, root.joinpath(*parts[dropped:])
            for word in SPLITS[split] if at is not None else ():
                yield False, root.joinpath(*parts[dropped:at], word, *parts[(at or 0) + 1 :])


def _at(place: Path, roots: Sequence[Path], literal: bool) -> _Entry:
    if place.is_dir():
        files = list_files(place, IMAGE_SUFFIXES)
        images = [Listed(name=file.relative_to(place).as_posix(), path=file) for file in files]
        return _Entry(images=images, place=place, literal=literal, whole=True)
    if is_image(place):
        return _Entry(images=[Listed(name=place.name, path=place)], place=place, literal=literal)
    images = read_image_list(place, [place.parent, *roots, place.parent.parent])
    return _Entry(images=images, place=place, literal=literal, lists=[place])


def _require_apart(file: Path, found: dict[str, list[_Entry]]) -> None:
    """Raises DataError if a path that was not found where it says was taken to lead where another split is."""
    for split, entries in found.items():
        others = {entry.place: other for other, rows in found.items() if other != split for entry in rows}
        for entry in entries:
            if not entry.literal and entry.place in others:
                what = f"the paths of {split} and {others[entry.place]} are not there, and both could be {entry.place}"
                raise DataError(what, where=str(file), fix=f"mend the paths in {file.name}")


def _moved(file: Path, line: str, place: Path) -> Finding:
    seen = f"{line} is not there; what lies in {place} is taken"
    fix = f"mend the line in {file.name} if that is another folder"
    return Finding(check="yolo.split_moved", level="warn", seen=seen, where=str(file), fix=fix)


def _num_keypoints(file: Path, content: dict[str, Any]) -> int:
    """How many numbers of keypoints follow a box."""
    shape = content.get("kpt_shape")
    if is_empty(shape):
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(one, str) and one.isdigit() for one in shape):
        return int(shape[0]) * int(shape[1])
    what = f"kpt_shape in {file.name} is {shape!r}"
    raise DataError(what, where=str(file), fix="write kpt_shape: [number of points, 2 or 3]")
