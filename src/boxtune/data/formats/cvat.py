"""CVAT XML 1.1, for images and for video -> drafts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.cvat_shapes import REMARKS, read_shape
from boxtune.data.formats.cvat_tracks import add_tracks
from boxtune.data.formats.listing import read_head
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.xml_files import read_size_wh, read_xml
from boxtune.data.places import SPLITS, ImageFinder, name_contents, split_of_folder, splits_in_name
from boxtune.errors import DataError, Finding, Level, name_some

EXPECTED = "a CVAT file: <annotations> with <meta>, and <image> or <track> elements"

_REMARKS: dict[str, tuple[Level, str, str]] = {
    **REMARKS,
    "cvat.subset": (
        "warn",
        "images of subsets that are no split, left out since others have one",
        "move them to Train, Validation or Test in CVAT",
    ),
}
_ROOT = re.compile(rb"<\s*annotations[\s>]")
_INSIDE = re.compile(rb"<\s*(image|track|meta|version)[\s/>]")
_ANNOTATION_FOLDERS = ("annotations", "annotation")


def sniff_cvat(path: Path) -> str | None:
    """Why `path` looks like CVAT: .xml files that begin with <annotations> and hold <meta>, <image> or <track>."""
    if path.is_file():
        return "a .xml with <annotations>" if _is_cvat(path) else None
    if not path.is_dir():
        return None
    found = [file.relative_to(path).as_posix() for file in _files(path)]
    return f"<annotations> in {name_some(found)}" if found else None


def _is_cvat(file: Path) -> bool:
    if file.suffix.lower() != ".xml" or file.name.startswith(".") or not file.is_file():
        return False
    head = read_head(file, 4096)
    root = _ROOT.search(head)
    if root is None or b"<" in re.sub(rb"<[?!][^>]*>", b"", head[: root.start()]):
        return False
    return _INSIDE.search(head) is not None


def _files(path: Path) -> list[Path]:
    """The CVAT files right in a folder, in its folder of annotations and in those named for splits."""
    inside = sorted(entry for entry in path.iterdir() if entry.is_dir())
    places = [entry for entry in inside if split_of_folder(entry) or entry.name.lower() in _ANNOTATION_FOLDERS]
    return [file for folder in (path, *places) for file in sorted(folder.glob("*.[xX][mM][lL]")) if _is_cvat(file)]


def read_cvat(path: Path, options: Options) -> Raw:
    """The splits of CVAT files: by the subset of each image, else by the name or the folder of its file.

    Boxes are pixels; turned boxes, polygons, ellipses and masks are taken by their hull; points, lines, cuboids and
    skeletons are left out. Of a video the frames that lie there as images (frame_000000.png ...) are taken, boxes
    between key frames placed in a straight line, and those marked outside left out. Raises DataError on broken XML, on
    a shape without its numbers, and if a video has no frames.
    Source: https://docs.cvat.ai/docs/manual/advanced/xml_format/
    """
    files = [path] if path.is_file() else _files(path)
    if not files:
        fix = "it may hold annotations.xml beside images/"
        raise DataError(f"no CVAT file was found, only {name_contents(path)}", where=str(path), fix=fix)
    drafts: dict[str, Draft] = {}
    classes: dict[str, None] = {}
    read = [_File(file, options) for file in files]
    for one in read:
        classes |= dict.fromkeys(_labels(one.root))
        one.fill(drafts)
    return Raw(
        drafts=[drafts[split] for split in SPLITS if split in drafts],
        why=f"{path.name} given" if path.is_file() else f"<annotations> in {name_some(f.name for f in files)}",
        classes=list(classes),
        read=files,
        findings=tuple(finding for one in read for finding in one.findings),
    )


def _labels(root: ET.Element) -> list[str]:
    """The names of the labels in their own order; those of a skeleton's points have a parent and are no classes."""
    labels = root.findall("./meta//labels/label")
    return [
        name for label in labels if label.find("parent") is None and (name := (label.findtext("name") or "").strip())
    ]


class _File:
    """One CVAT file, on its way into the drafts of its splits."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path, self.options = path, options
        self.root = read_xml(path, EXPECTED)
        self.remarks = Remarks(path, _REMARKS)
        self.findings: list[Finding] = []
        home = path.parent
        self.home = home.parent if home.name.lower() in _ANNOTATION_FOLDERS else home

    def fill(self, drafts: dict[str, Draft]) -> None:
        """Add the images and boxes; DataError if one cannot be used."""
        if self.root.tag != "annotations":
            what = f"{self.path.name} begins with <{self.root.tag}>"
            raise DataError(what, where=str(self.path), fix=f"expected is {EXPECTED}")
        images = self.root.findall("image")
        if images:
            self._fill_images(images, drafts)
        elif self.root.find("track") is not None:
            split = self._split_of(self.root.findtext("./meta/task/subset")) or self._own_split()
            draft = drafts.setdefault(split, Draft(split, self.path))
            add_tracks(draft, self.root, self.home, self.options.images, self.remarks, self.path)
        self.remarks.require_sound("shapes that cannot be used", f"mend them; expected is {EXPECTED}")
        self.findings = self.remarks.findings()

    def _fill_images(self, images: Sequence[ET.Element], drafts: dict[str, Draft]) -> None:
        subsets = {
            task.findtext("id"): task.findtext("subset") for task in self.root.findall("./meta/project/tasks/task")
        }
        own = self.root.findtext("./meta/task/subset")
        told = [image.get("subset") or subsets.get(image.get("task_id")) or own for image in images]
        splits = [self._split_of(subset) for subset in told]
        finder = ImageFinder([self.home / "images", self.home])
        for image, subset, found in zip(images, told, splits, strict=True):
            name = image.get("name") or ""
            if found is None and any(splits):
                self.remarks.add("cvat.subset", f"{name} in {subset or 'none'}")
                continue
            if not name:
                self.remarks.fault(f"image {image.get('id') or '?'} has no name")
                continue
            split = found or self._own_split()
            draft = drafts.setdefault(split, Draft(split, self.path))
            place = draft.add_image(
                name,
                size_wh=read_size_wh(image.get("width"), image.get("height")),
                path=self._in_subset(finder, subset, name),
            )
            for shape in image:
                label = (shape.get("label") or "").strip()
                corners = read_shape(shape, label, f"{name} {shape.tag} {label}".rstrip(), self.remarks)
                if corners is not None:
                    draft.add_box(place, label, corners)

    def _in_subset(self, finder: ImageFinder, subset: str | None, name: str) -> Path | None:
        """The image in images/SUBSET/, where a project's export puts it."""
        found = finder.find(f"{subset}/{name}") if subset and self.options.images is None else None
        return None if found is None or found.by_bare_name else Path(found.path)

    def _split_of(self, subset: str | None) -> str | None:
        named = splits_in_name(subset or "")
        return named[0] if len(named) == 1 else None

    def _own_split(self) -> str:
        named = splits_in_name(self.path.stem)
        return named[0] if len(named) == 1 else split_of_folder(self.home) or "train"
