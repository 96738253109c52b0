"""VoTT exports and projects (JSON) -> drafts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.documents import find_documents, group_documents, name_documents, read_each
from boxtune.data.formats.image_names import choose_name, spell_link
from boxtune.data.formats.json_files import as_number, as_numbers, as_size, load_json, peek_json
from boxtune.data.formats.listing import peek_files
from boxtune.data.formats.outline import Corners, box_around
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.shards import split_of_file
from boxtune.data.places import ImageFinder, image_folders, name_contents
from boxtune.errors import DataError, Level

EXPECTED = "a VoTT JSON export (an object with `assets`), or the folder of its ...-asset.json files"

_EXPORT_FOLDERS = ("vott-json-export", "vott-export")
_BOXES = ("RECTANGLE", "SQUARE")
_NOT_VISITED, _VIDEO = 0, 2  # VoTT's numbers for the state of an asset, and for its type
_REMARKS: dict[str, tuple[Level, str, str]] = {
    "vott.unlabelled": ("warn", "regions without a tag, left out", "give each a tag"),
    "vott.several_tags": ("ok", "regions with several tags, one box for each tag", ""),
    "vott.hull": ("ok", "polygons, taken as the upright box around each", ""),
    "vott.no_box": ("warn", "points and lines, left out", ""),
    "vott.not_visited": ("warn", "images that nobody has looked at yet, left out", "tag them, or look at each once"),
}


def sniff_vott(path: Path) -> str | None:
    """Why `path` looks like VoTT, judged by names and the first bytes of .json files; None if it does not."""
    files = find_documents(path, ".json", _is_export, folders=_EXPORT_FOLDERS)
    if files:
        return f"`assets` in {name_documents(path, files)}"
    if path.is_file():
        return "an `asset` with `regions`" if path.suffix.lower() == ".json" and _is_asset(path) else None
    for folder in _asset_folders(path):
        return f"...-asset.json in {'it' if folder == path else f'{folder.name}/'}"
    return None


def read_vott(path: Path, options: Options) -> Raw:
    """The splits that VoTT 2 exports describe, or the ...-asset.json files that VoTT keeps for each image.

    boundingBox is left, top, width, height in pixels of the size that the asset declares. A region with several tags
    gives a box for each; a polygon its hull. An image without regions is a negative, unless nobody has looked at it.
    The files of VoTT 1 (`frames`) are read too. Raises DataError on a file that is none, and on a region without four
    numbers.
    Source: https://github.com/microsoft/VoTT (src/models/applicationState.ts)
    """
    files = [path] if path.is_file() else find_documents(path, ".json", _is_export, folders=_EXPORT_FOLDERS)
    if files:
        read = read_each(group_documents(path, files), lambda split, file: _draft(split, file, options))
        drafts, told = list(read.drafts), [f"VoTT export {name_documents(path, files)}", read.why]
    else:
        drafts, files, told = _read_assets(path, options)
    classes = dict.fromkeys(name for file in files if not _is_asset_name(file) for name in _tags(file))
    return Raw(drafts=drafts, why="; ".join(part for part in told if part), classes=list(classes), read=files)


def _read_assets(path: Path, options: Options) -> tuple[list[Draft], list[Path], list[str]]:
    by_split: dict[str, list[Path]] = {}
    for folder in _asset_folders(path):
        files = sorted(file for file in folder.iterdir() if _is_asset_name(file))
        by_split.setdefault(split_of_file(files[0], path) or "train", []).extend(files)
    if not by_split:
        what = f"no VoTT file was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    drafts = []
    for split, files in by_split.items():
        filler = _Filler(split, files[0], options)
        for file in files:
            content = load_json(file, EXPECTED)
            filler.add_asset(content, file.name)
        drafts.append(filler.finish())
    read = [file for files in by_split.values() for file in files]
    return drafts, read, [f"{len(read)} VoTT ...-asset.json"]


def _asset_folders(path: Path) -> Iterator[Path]:
    for files in peek_files(path, {".json"}) if path.is_dir() else ():
        first = next((file for file in files if _is_asset_name(file)), None)
        if first is not None and _is_asset(first):
            yield first.parent


def _is_asset_name(file: Path) -> bool:
    return file.name.endswith("-asset.json")


def _is_asset(file: Path) -> bool:
    return _looks_like_asset(peek_json(file))


def _looks_like_asset(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("asset"), dict) and "name" in content["asset"]


def _is_export(file: Path) -> bool:
    content = peek_json(file)
    if not isinstance(content, dict):
        return False
    assets, frames = content.get("assets"), content.get("frames")
    if isinstance(assets, dict):
        return all(_looks_like_asset(asset) for asset in assets.values())
    # Of a long list of tags the head may not reach the assets; VoTT's own settings stand before.
    return (isinstance(frames, dict) and "framerate" in content) or {"videoSettings", "tags"} <= set(content)


def _tags(file: Path) -> list[str]:
    content = load_json(file, EXPECTED)
    tags = content.get("tags", ()) if isinstance(content, dict) else ()
    names = [tag.get("name") for tag in tags if isinstance(tag, dict)] if isinstance(tags, list) else []
    return [name for name in names if isinstance(name, str)]


def _draft(split: str, file: Path, options: Options) -> Draft:
    content = load_json(file, EXPECTED)
    filler = _Filler(split, file, options)
    if _looks_like_asset(content):
        filler.add_asset(content, file.name)
    elif isinstance(content, dict) and isinstance(content.get("assets"), dict):
        for key, asset in content["assets"].items():
            filler.add_asset(asset, f"asset {key}")
    elif isinstance(content, dict) and isinstance(content.get("frames"), dict):
        for name, regions in content["frames"].items():
            filler.add_frame(name, regions)
    else:
        lacks = f"without `assets` ({type(content).__name__})"
        raise DataError(f"{file.name} is JSON, {lacks}", where=str(file), fix=f"expected is {EXPECTED}")
    return filler.finish()


class _Filler:
    """Fills the draft of one split."""

    def __init__(self, split: str, file: Path, options: Options) -> None:
        self.draft, self.remarks = Draft(split, file), Remarks(file, _REMARKS)
        self.finder = ImageFinder(image_folders(file, split, options.images))

    def finish(self) -> Draft:
        """The draft, with its findings; DataError if an entry could not be read."""
        self.remarks.require_sound("entries that cannot be read", f"mend them; expected is {EXPECTED}")
        self.draft.findings += self.remarks.findings()
        return self.draft

    def add_asset(self, content: Any, called: str) -> None:
        """An image with its regions, as VoTT 2 writes it."""
        asset = content.get("asset") if isinstance(content, dict) else None
        name = asset.get("name") if isinstance(asset, dict) else None
        regions = content.get("regions", []) if isinstance(content, dict) else None
        if not isinstance(asset, dict) or not isinstance(name, str) or not name or not isinstance(regions, list):
            self.remarks.fault(f"{called} has no {'asset with a name' if not name else 'list of regions'}")
            return
        if asset.get("type") == _VIDEO and not regions:
            return  # the video itself; its frames are assets of their own
        if not regions and asset.get("state") == _NOT_VISITED:
            self.remarks.add("vott.not_visited", name)
            return
        size = asset.get("size")
        size_wh = as_size(size.get("width"), size.get("height")) if isinstance(size, Mapping) else None
        spellings = [*spell_link(name), *(spell_link(asset["path"]) if isinstance(asset.get("path"), str) else ())]
        image = self.draft.add_image(choose_name(spellings, self.finder), size_wh=size_wh)
        for place, region in enumerate(regions):
            self._add_region(image, region, f"{name} region {place}")

    def _add_region(self, image: int, region: Any, called: str) -> None:
        if not isinstance(region, dict):
            self.remarks.fault(f"{called} is no object")
            return
        kind = str(region.get("type", "RECTANGLE")).upper()
        if kind not in (*_BOXES, "POLYGON"):
            self.remarks.add("vott.no_box", f"{called} ({kind.lower()})")
            return
        corners = _bounding_box(region)
        if corners is None:
            self.remarks.fault(f"{called} has no boundingBox of four numbers")
            return
        tags = region.get("tags")
        names = [tag for tag in tags if isinstance(tag, str) and tag.strip()] if isinstance(tags, list) else []
        if not names:
            self.remarks.add("vott.unlabelled", called)
        elif kind not in _BOXES:
            self.remarks.add("vott.hull", called)
        if len(names) > 1:
            self.remarks.add("vott.several_tags", f"{called} ({', '.join(names)})")
        for label in names:
            self.draft.add_box(image, label, corners)

    def add_frame(self, name: str, regions: Any) -> None:
        """An image with its regions, as VoTT 1 writes it: corners in pixels of the size that each region states."""
        if not isinstance(regions, list):
            self.remarks.fault(f"{name} has no list of regions")
            return
        self.draft.scale = 1.0
        image = self.draft.add_image(choose_name(spell_link(name), self.finder))
        for place, region in enumerate(regions):
            called = f"{name} region {place}"
            values = (
                [as_number(region.get(key)) for key in ("x1", "y1", "x2", "y2")] if isinstance(region, dict) else []
            )
            size_wh = as_size(region.get("width"), region.get("height")) if values else None
            if not values or None in values or size_wh is None:
                self.remarks.fault(f"{called} lacks a number of x1, y1, x2, y2, width, height")
                continue
            tags = region.get("tags")
            names = [tag for tag in tags if isinstance(tag, str) and tag.strip()] if isinstance(tags, list) else []
            if not names:
                self.remarks.add("vott.unlabelled", called)
            shares = [value / side for value, side in zip(values, size_wh * 2, strict=True) if value is not None]
            for label in names:
                self.draft.add_box(image, label, shares)


def _bounding_box(region: Mapping[str, Any]) -> Corners | None:
    box = region.get("boundingBox")
    if isinstance(box, Mapping):
        sides = as_numbers([box.get(side) for side in ("left", "top", "width", "height")])
        return None if sides is None else (sides[0], sides[1], sides[0] + sides[2], sides[1] + sides[3])
    points = region.get("points")
    corners = (
        [as_numbers([point.get("x"), point.get("y")]) for point in points if isinstance(point, Mapping)]
        if points
        else []
    )
    sound = [corner for corner in corners if corner is not None]
    return box_around(sound) if len(sound) == len(corners) >= 2 else None
