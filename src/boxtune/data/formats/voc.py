"""Pascal VOC and ImageNet XML, one file an image (LabelImg, Roboflow, CVAT, roLabelImg) -> drafts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.listing import list_files, peek_files, read_head
from boxtune.data.formats.outline import Corners, box_around, box_around_rotated
from boxtune.data.formats.pairs import PairFinder, group_by_split, lies_near
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.xml_files import read_number, read_size_wh, read_xml, text_of
from boxtune.data.places import SPLITS, name_contents
from boxtune.errors import DataError, Finding, Level, name_some

EXPECTED = "a VOC file: <annotation> with <filename>, <size> and an <object> for each box"

_REMARKS: dict[str, tuple[Level, str, str]] = {
    "voc.image_by_stem": (
        "warn",
        "images found by the name of their .xml, as the image called in <filename> is another one or is not there",
        "check that these pictures and boxes belong together",
    ),
    "voc.hull": ("ok", "objects drawn as polygons or turned boxes, taken by their upright hull", ""),
    "voc.difficult": ("ok", "objects marked difficult, neither trained on nor counted as missed", ""),
    "voc.deleted": ("ok", "objects marked deleted, left out", ""),
    "voc.unlabelled": ("warn", "objects without a name, left out", "name them"),
}
_ROOT = re.compile(rb"<\s*annotation[\s>/]")
_POLYGON_POINTS = re.compile(r"([xy])(\d+)")


def sniff_voc(path: Path) -> str | None:
    """Why `path` looks like VOC: .xml files that begin with <annotation>."""
    if path.is_file():
        return "a .xml with <annotation>" if path.suffix.lower() == ".xml" and _is_annotation(path) else None
    if not path.is_dir():
        return None
    for files in peek_files(path, {".xml"}):
        if lies_near(files[0], path) and _is_annotation(files[0]):
            return f".xml files with <annotation> in {_folders(files[:1], path)[0]}"
    return None


def _is_annotation(file: Path) -> bool:
    head = read_head(file, 4096)
    first = re.search(rb"<\s*[A-Za-z]", head)
    return first is not None and _ROOT.match(head, first.start()) is not None


def read_voc(path: Path, options: Options) -> Raw:
    """The splits of a folder of VOC files, or the one image of such a file.

    Splits are the lists of ImageSets/Main (of every VOC folder, such as VOC2007 and VOC2012), else the folders named
    for them, else all is `train`. An image without .xml is no part of the data set. Corners are taken as they are, in
    pixels, without the shift by one of VOC's own counting; `difficult` boxes are ignored. Raises DataError on broken
    XML, on an object without the four numbers, and if there is no such file.
    Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
    """
    if path.is_file():
        groups, findings = group_by_split([path], path.parent, "voc")
        return _read(groups, path.parent, options, f"{path.name} given", findings)
    files = [file for file in list_files(path, {".xml"}) if _is_annotation(file)]
    files = [file for file in files if lies_near(file, path)] or files
    if not files:
        fix = "it may hold Annotations/*.xml beside JPEGImages/, or .xml files beside the images"
        raise DataError(f"no VOC file was found, only {name_contents(path)}", where=str(path), fix=fix)
    why = f"{len(files):,} .xml with <annotation> in {name_some(_folders(files, path))}"
    listed = _listed_splits(path, files)
    if listed is None:
        groups, findings = group_by_split(files, path, "voc")
        return _read(groups, path, options, why, findings)
    return _read(listed.files, path, options, f"{why}; splits as in {name_some(listed.names)}", listed.findings)


def _folders(files: Sequence[Path], path: Path) -> list[str]:
    folders = [folder.relative_to(path).as_posix() for folder in dict.fromkeys(file.parent for file in files)]
    return ["the folder itself" if folder == "." else f"{folder}/" for folder in folders]


def _read(
    groups: Mapping[str, Sequence[Path]], root: Path, options: Options, why: str, findings: Sequence[Finding]
) -> Raw:
    finder = PairFinder(root, options.images)
    drafts = [_draft(split, files, root, finder) for split, files in groups.items()]
    read = [file for files in groups.values() for file in files]
    return Raw(drafts=drafts, why=why, read=read, findings=tuple(findings))


def _draft(split: str, files: Sequence[Path], root: Path, finder: PairFinder) -> Draft:
    draft = Draft(split, files[0] if len(files) == 1 else files[0].parent)
    remarks = Remarks(root, _REMARKS)
    for file in files:
        try:
            annotation = read_xml(file, EXPECTED)
        except DataError as problem:
            remarks.fault(f"{problem.what} ({problem.where})")
            continue
        name = text_of(annotation, "filename")
        match = finder.find(file, name, stem_first=True)
        if match is not None and match.by_stem:
            remarks.add("voc.image_by_stem", f"{file.name} says {name}, taken is {match.path.name}")
        size = annotation.find("size")
        image = draft.add_image(
            name or file.stem,
            size_wh=None if size is None else read_size_wh(size.findtext("width"), size.findtext("height")),
            path=None if match is None else match.path,
        )
        called = file.relative_to(root).as_posix()
        for number, element in enumerate(annotation.findall("object"), start=1):
            _add_object(draft, image, element, remarks, f"{called} object {number}")
    fix = f"mend them; expected is {EXPECTED}"
    remarks.require_sound("VOC files or objects that cannot be used", fix)
    draft.findings += remarks.findings()
    return draft


def _add_object(draft: Draft, image: int, element: ET.Element, remarks: Remarks, place: str) -> None:
    label = text_of(element, "name")
    called = f"{place} ({label})" if label else place
    if _is_set(element, "deleted"):
        remarks.add("voc.deleted", called)
        return
    found = _corners(element)
    if isinstance(found, str):
        remarks.fault(f"{called}: {found}")
    elif not label:
        remarks.add("voc.unlabelled", place)
    else:
        corners, is_hull = found
        difficult = _is_set(element, "difficult")
        if is_hull:
            remarks.add("voc.hull", called)
        if difficult:
            remarks.add("voc.difficult", called)
        draft.add_box(image, label, corners, ignore=difficult)


def _is_set(element: ET.Element, tag: str) -> bool:
    return text_of(element, tag).lower() in ("1", "true", "yes")


def _corners(element: ET.Element) -> tuple[Corners, bool] | str:
    """The corners of an object and whether they are the hull of another shape; or what is wrong, in words."""
    box, turned, polygon = (element.find(tag) for tag in ("bndbox", "robndbox", "polygon"))
    if box is not None:
        numbers = _numbers(box, ("xmin", "ymin", "xmax", "ymax"))
        return numbers if isinstance(numbers, str) else ((numbers[0], numbers[1], numbers[2], numbers[3]), False)
    if turned is not None:  # roLabelImg: centre, size, and an angle in radians
        numbers = _numbers(turned, ("cx", "cy", "w", "h", "angle"))
        if isinstance(numbers, str):
            return numbers
        cx, cy, width, height, angle = numbers
        return box_around_rotated((cx - width / 2, cy - height / 2, width, height), angle, pivot=(cx, cy)), True
    if polygon is not None:
        points = _polygon(polygon)
        return (box_around(points), True) if points else "its polygon has a point without x and y, or no point"
    return "it has no bndbox"


def _numbers(element: ET.Element, tags: Sequence[str]) -> list[float] | str:
    numbers = [read_number(element.findtext(tag)) for tag in tags]
    wrong = [
        f"{tag} is {text_of(element, tag) or 'missing'}" for tag, n in zip(tags, numbers, strict=True) if n is None
    ]
    return ", ".join(wrong) or [number for number in numbers if number is not None]


def _polygon(element: ET.Element) -> list[tuple[float, float]] | None:
    """The points of <pt><x/><y/></pt> (LabelMe of MIT) or of <x1/><y1/><x2/>... (Roboflow)."""
    pairs: list[tuple[str | None, str | None]] = [
        (one.findtext("x"), one.findtext("y")) for one in element.findall("pt")
    ]
    if not pairs:
        parts: dict[str, dict[str, str | None]] = {}
        for child in element:
            if named := _POLYGON_POINTS.fullmatch(child.tag):
                parts.setdefault(named[2], {})[named[1]] = child.text
        pairs = [(part.get("x"), part.get("y")) for part in parts.values()]
    points = [(read_number(x), read_number(y)) for x, y in pairs]
    whole = [(x, y) for x, y in points if x is not None and y is not None]
    return whole if len(whole) == len(points) else None


# ImageSets/Main: which images are in which split.


@dataclass(frozen=True, kw_only=True)
class _Listed:
    files: dict[str, list[Path]]
    names: list[str]
    findings: list[Finding]


def _listed_splits(path: Path, files: Sequence[Path]) -> _Listed | None:
    """The .xml files of each split by the lists in ImageSets/Main; None where there are no such lists.

    Lists of single classes (cat_train.txt) are passed over; `trainval` is the training split where there is no `train`.
    """
    homes = sorted({file.parent for file in files if file.parent.name.lower() in ("annotations", "annotation")})
    lists = {home: found for home in homes if (found := _split_lists(home.parent))}
    if not lists:
        return None
    groups: dict[str, list[Path]] = {split: [] for split in SPLITS}
    bare: list[str] = []
    for home, found in lists.items():
        for split, file in found.items():
            for name in _names(file):
                annotation = _annotation_of(home, name)
                if annotation is None:
                    bare.append(name)
                else:
                    groups[split].append(annotation)
    taken = {file for members in groups.values() for file in members}
    rest = [file for file in files if file not in taken]
    names = [file.relative_to(path).as_posix() for found in lists.values() for file in found.values()]
    if not taken:
        what = (
            f"not one of the {len(bare):,} names in {name_some(names)} has an .xml, such as {bare[0] if bare else '-'}"
        )
        raise DataError(what, where=str(path), fix="restore Annotations/, or move ImageSets/ away")
    findings = [
        Finding(
            check=check, level="warn", seen=f"{counted}: {len(some):,} ({name_some(some)})", where=str(path), fix=fix
        )
        for check, counted, some, fix in (
            (
                "voc.unannotated",
                "images in ImageSets without an .xml, left out",
                bare,
                "annotate them if they should count",
            ),
            ("voc.unlisted", ".xml files in no list of ImageSets, left out", [f.name for f in rest], "list them there"),
        )
        if some
    ]
    return _Listed(files={split: some for split, some in groups.items() if some}, names=names, findings=findings)


def _split_lists(home: Path) -> dict[str, Path]:
    for folder in (home / "ImageSets" / "Main", home / "ImageSets"):
        lists = {file.stem.lower(): file for file in sorted(folder.glob("*.txt"))}
        found = {split: lists[word] for split, words in SPLITS.items() for word in words if word in lists}
        if "train" not in found and "trainval" in lists:
            found["train"] = lists["trainval"]
        if found:
            return {split: found[split] for split in SPLITS if split in found}
    return {}


def _names(file: Path) -> list[str]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save the file as UTF-8") from problem
    return [line.strip() for line in lines if line.strip()]


def _annotation_of(home: Path, name: str) -> Path | None:
    """The .xml that a line means: a name, maybe with folders, a suffix, or a 1 or -1 behind it."""
    bare = re.sub(r"\s+-?[01]$", "", name)
    spellings = (name, bare, bare.replace("\\", "/").rpartition("/")[2])
    for spelling in dict.fromkeys(spellings):
        for file in (home / f"{spelling}.xml", (home / spelling).with_suffix(".xml")):
            if file.is_file():
                return file
    return None
