"""The images of a YOLO or darknet data set, and where their labels are -> drafts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boxtune.data.draft import Draft, Raw
from boxtune.data.formats.listing import PathFinder
from boxtune.data.formats.yolo_names import NAME_FILES, Names, no_names
from boxtune.data.formats.yolo_rows import LabelReader, call_file
from boxtune.data.places import ImageFinder, image_folders
from boxtune.errors import DataError, Finding, name_some


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One image as a list names it, and the file where it is there; `moved` if in other folders than the list says."""

    name: str
    path: Path | None
    moved: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The images of each split, and what is needed to read their labels. `where` is the data.yaml, list or folder.

    `labels` are folders with label files that the images' own places do not lead to; `keypoints` is how many numbers
    of keypoints follow a box. `whole` says that the splits hold all images of their folders, and `assured` that the
    images are meant to be a data set, so that those without labels are negatives and not merely unfinished work.
    """

    where: Path
    why: str
    splits: Mapping[str, Sequence[Listed]]
    names: Names
    labels: Sequence[Path] = ()
    keypoints: int = 0
    read: Sequence[Path] = ()
    findings: Sequence[Finding] = ()
    whole: bool = False
    assured: bool = True


def read_plan(plan: Plan) -> Raw:
    """The boxes of the images of each split.

    Left out, with a finding, are a test split without any label file, and a split of the very images of another.
    Raises DataError on rows that cannot be used, and if not one image has a label file.
    """
    drafts: list[Draft] = []
    read: set[Path] = set(plan.read)
    labelled: dict[str, int] = {}
    homes: set[Path] = set()
    splits, copies = _set_copies_aside(plan)
    for split, images in splits.items():
        draft = Draft(split, plan.where, scale=1.0)
        reader = LabelReader(plan.where, plan.names.by_id, keypoints=plan.keypoints)
        labelled[split] = 0
        for image in _settle(images, plan.where, split):
            place = draft.add_image(image.name, path=image.path)
            if image.path is None:
                continue
            if image.moved:
                reader.remarks.add("yolo.moved", f"{image.name} is {call_file(image.path, plan.where)}")
            found = next((file for file in label_places(image.path, plan.labels) if file.is_file()), None)
            if found is None:
                reader.remarks.add("yolo.negative" if plan.assured else "yolo.label_missing", image.path.name)
                continue
            labelled[split] += 1
            homes |= {found.parent} if found.parent != image.path.parent else set()
            reader.read_into(draft, place, found)
        reader.require_sound()
        read |= reader.read
        draft.findings += reader.remarks.findings()
        drafts.append(draft)
    there = [image.path for images in splits.values() for image in images if image.path is not None]
    if there and not any(labelled.values()):
        what = f"not one of {len(there):,} images has a label file, such as {there[0].name}"
        looked = [str(file) for file in label_places(there[0], plan.labels)]
        raise DataError(what, where=f"looked for {name_some(looked)}", fix="put the label files there")
    # COCO's test images, for one, are listed but their labels are kept secret.
    secret = [draft for draft in drafts if draft.split == "test" and draft.paths and not labelled["test"]]
    findings = [*plan.findings, *plan.names.findings, *copies, *_check_secret(secret)]
    findings += [no_names(plan.where)] if plan.names.by_id is None else []
    findings += _check_unused(plan.where, homes, read) if plan.whole else []
    return Raw(
        drafts=[draft for draft in drafts if draft not in secret],
        why=plan.why,
        classes=[name for name in (plan.names.by_id or {}).values() if name],
        read=sorted(read | ({plan.names.file} if plan.names.file else set())),
        findings=tuple(findings),
    )


def label_places(image: Path, folders: Sequence[Path] = ()) -> list[Path]:
    """Where the label file of an image may be, likeliest first.

    `images/` in its path stands for `labels/`, the last one if there are several; then come the `folders`, with and
    without the image's own two folders; last the image's own folder.
    """
    parts, name = image.parent.parts, f"{image.stem}.txt"
    at = next((at for at in reversed(range(len(parts))) if parts[at].lower() in ("images", "jpegimages")), None)
    places = [] if at is None else [Path(*parts[:at], "labels", *parts[at + 1 :], name)]
    places += [folder.joinpath(*tail, name) for folder in folders for tail in (parts[-2:], parts[-1:], ())]
    return [*places, image.with_name(name)]


def read_image_list(file: Path, roots: Sequence[Path]) -> list[Listed]:
    """The images of a .txt with one path a line, looked for in the roots; DataError if it is no text."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise DataError(f"{file.name} is not UTF-8 text", where=str(file), fix="save the file as UTF-8") from problem
    finder = PathFinder(roots)
    images = []
    for name in filter(None, map(str.strip, lines)):
        found = finder.find(name)
        moved = found is not None and found[1] > 0
        images.append(Listed(name=name, path=None if found is None else found[0], moved=moved))
    return images


def _set_copies_aside(plan: Plan) -> tuple[dict[str, Sequence[Listed]], list[Finding]]:
    """The splits without those that list the same images as one before, as Yolo_mark and small examples do."""
    splits: dict[str, Sequence[Listed]] = {}
    findings = []
    for split, images in plan.splits.items():
        same = [other for other, earlier in splits.items() if {i.path for i in earlier} == {i.path for i in images}]
        if not same or not any(image.path for image in images):
            splits[split] = images
            continue
        seen = f"{split} lists the same {len(images):,} images as {same[0]}, so it is left out"
        fix = f"give {split} images of its own"
        findings.append(Finding(check="yolo.split_copied", level="warn", seen=seen, where=str(plan.where), fix=fix))
    return splits, findings


def _settle(images: Sequence[Listed], where: Path, split: str) -> list[Listed]:
    """The images with those found that lie where a data set usually has them, and none whose file another name has.

    A path with folders left out may lead to a file that is another entry's: cam1/0001.jpg is not cam2/0001.jpg.
    """
    if not any(image.moved or image.path is None for image in images):
        return list(images)
    finder = ImageFinder(image_folders(where, split, None))
    settled = []
    for image in images:
        found = finder.find(image.name) if image.path is None else None
        settled.append(image if found is None else replace(image, path=Path(found.path), moved=True))
    names_of: dict[Path, set[str]] = {}
    for image in settled:
        if image.path is not None:
            names_of.setdefault(image.path, set()).add(image.name)
    return [
        replace(image, path=None) if image.moved and image.path and len(names_of[image.path]) > 1 else image
        for image in settled
    ]


def _check_secret(drafts: Sequence[Draft]) -> list[Finding]:
    return [
        Finding(
            check="yolo.test_unlabelled",
            level="warn",
            seen=f"none of the {len(draft.files):,} images of the test split has a label file; the split is left out",
            where=str(draft.annotation),
            fix="restore its labels/ if it has one",
        )
        for draft in drafts
    ]


def _check_unused(where: Path, homes: Iterable[Path], read: set[Path]) -> list[Finding]:
    found = [file for home in sorted(homes) for file in sorted(home.glob("*.txt"))]
    unused = [file.name for file in found if file not in read and file.name not in NAME_FILES]
    if not unused:
        return []
    seen = f"label files without an image, left out: {len(unused):,} ({name_some(unused)})"
    fix = "restore the images or remove the label files"
    return [Finding(check="yolo.label_unused", level="warn", seen=seen, where=str(where), fix=fix)]
