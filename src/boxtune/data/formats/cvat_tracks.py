"""CVAT for video: tracks over numbered frames -> the boxes of the frames that lie there as images."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from boxtune.data.draft import Draft
from boxtune.data.formats.cvat_shapes import read_shape
from boxtune.data.formats.listing import is_image
from boxtune.data.formats.outline import Corners
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.xml_files import read_number, read_size_wh
from boxtune.errors import DataError

_NUMBER = re.compile(r"(\d+)$")
_FOLDERS = ("images", "data", "frames", "")


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """One entry of a track: where the object is in a frame; `outside` says that it has left the picture."""

    frame: int
    corners: Corners | None
    outside: bool


def add_tracks(draft: Draft, root: ET.Element, home: Path, images: Path | None, remarks: Remarks, file: Path) -> None:
    """Add the frames of a video that lie in `images`, or around `home`, with the boxes of all tracks.

    An image is the frame whose number its name ends with, counted from 0 as CVAT does. Raises DataError if there are no
    such images, if two have one number, or if they seem to be counted from 1.
    """
    frames = _require_frames(root, home, images, file)
    size_wh = read_size_wh(root.findtext("./meta//original_size/width"), root.findtext("./meta//original_size/height"))
    places = {number: draft.add_image(path.name, size_wh=size_wh, path=path) for number, path in frames.items()}
    numbers = list(places)
    for track in root.findall("track"):
        label = (track.get("label") or "").strip()
        called = f"track {track.get('id') or '?'} {label}".rstrip()
        shown = _entries(track, label, called, remarks)
        for one in shown:
            if one.outside or one.corners is None:
                continue
            if one.frame in places:
                draft.add_box(places[one.frame], label, one.corners)
            else:
                remarks.add("cvat.no_frame", f"{called} in frame {one.frame}")
        for before, after in pairwise(shown):
            if before.outside or before.corners is None or after.corners is None:
                continue
            between = numbers[bisect_right(numbers, before.frame) : bisect_left(numbers, after.frame)]
            for number in between:
                share = (number - before.frame) / (after.frame - before.frame)
                pairs = zip(before.corners, after.corners, strict=True)
                draft.add_box(places[number], label, [a + share * (b - a) for a, b in pairs])
                remarks.add("cvat.between", f"{called} in frame {number}")


def _entries(track: ET.Element, label: str, called: str, remarks: Remarks) -> Sequence[_Shown]:
    entries = []
    for shape in track:
        frame = read_number(shape.get("frame"))
        if shape.tag == "attribute":
            continue
        if frame is None or frame != int(frame):
            remarks.fault(f"{called}: {shape.tag} without a frame")
            continue
        corners = read_shape(shape, label, f"{called} in frame {int(frame)}", remarks)
        entries.append(_Shown(frame=int(frame), corners=corners, outside=shape.get("outside") == "1"))
    return sorted(entries, key=lambda entry: entry.frame)


def _require_frames(root: ET.Element, home: Path, images: Path | None, file: Path) -> dict[int, Path]:
    """The images by the number of their frame, ascending."""
    for folder in [images] if images is not None else [home / name for name in _FOLDERS]:
        files = sorted(entry for entry in folder.iterdir() if is_image(entry)) if folder.is_dir() else []
        named = [(int(found[1]), path) for path in files if (found := _NUMBER.search(path.stem))]
        frames = dict(sorted(named))
        if len(frames) < len(named):
            first_name, second_name = next((path.name, frames[n].name) for n, path in named if frames[n] != path)
            what = f"two images in {folder.name}/ are one frame: {first_name} and {second_name}"
            raise DataError(what, where=str(file), fix="move one of them away")
        if frames:
            first, last = (read_number(root.findtext(f"./meta//task/{key}_frame")) for key in ("start", "stop"))
            if first is not None and last is not None and first not in frames and last + 1 in frames:
                what = f"the frames are {first:.0f} to {last:.0f}, but the images {min(frames)} to {max(frames)}"
                raise DataError(
                    what, where=str(file), fix="number the images as CVAT does: frame_000000.png is the first"
                )
            return {
                n: path for n, path in frames.items() if (first is None or n >= first) and (last is None or n <= last)
            }
    raise DataError(
        f"{file.name} annotates a video, and its frames are not there as images",
        where=f"looked in {images or home}",
        fix="export the task with its images, or extract them as images/frame_000000.png and so on, the first being 0",
    )
