"""Samples whose images have been put in place -> the annotation files of COCO, YOLO, Pascal VOC and JSON lines."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from boxtune.data.sample import Sample
from boxtune.errors import DataError

_PX = 4  # decimals of a pixel, here and in COCO: more than any annotation tool shows
_SHARE = 8  # decimals of a share of a side: 0.0001 px of 10,000
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|^\s|\s$")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A sample, and the name of its image file in the new data set."""

    name: str
    sample: Sample


@dataclass(kw_only=True)
class Written:
    """(images, boxes, negatives) of each split, and what could not be kept, in words."""

    splits: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def count(self, split: str, num_boxes: int) -> None:
        """Note one image of a split with that many boxes."""
        images, boxes, negatives = self.splits.get(split, (0, 0, 0))
        self.splits[split] = images + 1, boxes + num_boxes, negatives + (num_boxes == 0)


Splits = Mapping[str, Iterable[Placed]]
Writer = Callable[[Path, Splits, Sequence[str]], Written]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format that is written: the folder of a split's images, the writer, and whether splits share their names."""

    images: Callable[[str], str]
    write: Writer
    names_across_splits: bool = False


def write_coco(out: Path, splits: Splits, classes: Sequence[str]) -> Written:
    """SPLIT/_annotations.coco.json beside the images; category ids from 1, bbox to a ten-thousandth of a pixel."""
    written = Written()
    ids = {name: number for number, name in enumerate(classes, start=1)}
    for split, rows in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for row in rows:
            sample = row.sample
            width, height = sample.size_wh
            images.append({"id": sample.image_id, "file_name": row.name, "width": width, "height": height})
            for place, (label, xyxy) in enumerate(_boxes(sample)):
                bbox = _xywh(xyxy)
                entry: dict[str, Any] = {"id": len(annotations) + 1, "image_id": sample.image_id}
                entry |= {"category_id": ids[label], "bbox": bbox, "area": _area(bbox)}
                entry |= {"iscrowd": int(sample.crowd[place])} | ({"ignore": 1} if sample.ignore[place] else {})
                annotations.append(entry)
            written.count(split, len(sample.boxes))
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        # pycocotools asks for `info` in some of its releases.
        content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
        _write(out / split / "_annotations.coco.json", json.dumps(content, ensure_ascii=False))
    return written


def write_yolo(out: Path, splits: Splits, classes: Sequence[str]) -> Written:
    """data.yaml, and labels/SPLIT/NAME.txt for images/SPLIT/NAME; shares to 8 decimals, an empty file for a negative.

    The data.yaml has no `path`, so that its own folder is meant wherever it is moved.
    """
    written, lost = Written(), 0
    ids = {name: number for number, name in enumerate(classes)}
    for split, rows in splits.items():
        for row in rows:
            sample, targets = row.sample, row.sample.targets
            lost += len(sample.boxes) - len(targets)
            width, height = sample.size_wh
            lines = []
            for label, (x1, y1, x2, y2) in zip(targets.labels, targets.xyxy_px.tolist(), strict=True):
                shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join([str(ids[label]), *(f"{share:.{_SHARE}f}" for share in shares)]))
            _write(out / "labels" / _VAL.get(split, split) / f"{Path(row.name).stem}.txt", "\n".join(lines))
            written.count(split, len(targets))
    keys = {_VAL.get(split, split): _yolo_images(split) for split in splits}
    names = dict(enumerate(classes))
    _write(out / "data.yaml", yaml.safe_dump({**keys, "names": names}, sort_keys=False, allow_unicode=True))
    if missing := [key for key in ("train", "val") if key not in keys]:
        written.lines.append(f"data.yaml has no {' and no '.join(missing)}, which ultralytics asks for")
    written.lines += _left_out(lost, "YOLO")
    return written


def write_voc(out: Path, splits: Splits, classes: Sequence[str]) -> Written:
    """Annotations/NAME.xml, JPEGImages/ and the lists in ImageSets/Main.

    Corners are x1, y1, x2, y2 as they are, without VOC's shift by one; whole numbers are written as such, others with
    4 decimals. Crowd and ignored boxes are `difficult`. Raises DataError on a class name that XML cannot hold.
    """
    if bad := [name for name in classes if _NO_XML.search(name)]:
        what = f"the class name {bad[0]!r} does not survive XML"
        raise DataError(what, fix="rename it: no control characters, and no white space at its ends")
    written, num_crowd = Written(), 0
    for split, rows in splits.items():
        listed = []
        for row in rows:
            sample = row.sample
            num_crowd += int(sample.crowd.sum())
            stem = Path(row.name).stem
            _write(out / "Annotations" / f"{stem}.xml", _voc_text(row))
            listed.append(stem)
            written.count(split, len(sample.boxes))
        _write(out / "ImageSets" / "Main" / f"{_VAL.get(split, split)}.txt", "".join(f"{name}\n" for name in listed))
    if num_crowd:
        written.lines.append(f"{num_crowd:,} crowd boxes are marked difficult, as VOC has no crowds")
    return written


def write_jsonl(out: Path, splits: Splits, classes: Sequence[str]) -> Written:
    """SPLIT/metadata.jsonl beside the images, the layout of Hugging Face's imagefolder.

    A line holds file_name and objects: bbox (x, y, width, height in pixels, 4 decimals), categories (names), and the
    area of each, which shows a reader that the numbers are no corners.
    """
    written, lost = Written(), 0
    for split, rows in splits.items():
        lines = []
        for row in rows:
            targets = row.sample.targets
            lost += len(row.sample.boxes) - len(targets)
            # Arrow tells the type of a column by its first block, so no number is written as an integer.
            boxes = [[float(side) for side in _xywh(xyxy)] for xyxy in targets.xyxy_px.tolist()]
            areas = [float(_area(box)) for box in boxes]
            objects = {"bbox": boxes, "categories": list(targets.labels), "area": areas}
            lines.append(json.dumps({"file_name": row.name, "objects": objects}, ensure_ascii=False))
            written.count(split, len(targets))
        _write(out / _jsonl_images(split) / "metadata.jsonl", "".join(f"{line}\n" for line in lines))
    written.lines += _left_out(lost, "JSON lines")
    return written


_VAL = {"valid": "val"}  # the word of ultralytics and of VOC


def _yolo_images(split: str) -> str:
    return f"images/{_VAL.get(split, split)}"


def _jsonl_images(split: str) -> str:
    return {"valid": "validation"}.get(split, split)


def _boxes(sample: Sample) -> Iterable[tuple[str, list[float]]]:
    return zip(sample.boxes.labels, sample.boxes.xyxy_px.tolist(), strict=True)


def _xywh(xyxy: Sequence[float]) -> list[int | float]:
    x1, y1, x2, y2 = xyxy
    return [_plain(value) for value in (x1, y1, x2 - x1, y2 - y1)]


def _area(xywh: Sequence[int | float]) -> int | float:
    return _plain(xywh[2] * xywh[3])


def _plain(value: int | float) -> int | float:
    """The number to `_PX` decimals, an int where it is whole: some readers of VOC know nothing else."""
    rounded = round(value, _PX)
    return int(rounded) if rounded == int(rounded) else rounded


def _voc_text(row: Placed) -> str:
    sample = row.sample
    width, height = sample.size_wh
    root = ET.Element("annotation")
    _add(root, {"folder": "JPEGImages", "filename": row.name})
    _add(ET.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add(root, {"segmented": 0})
    for place, (label, xyxy) in enumerate(_boxes(sample)):
        entry = ET.SubElement(root, "object")
        difficult = int(sample.crowd[place] or sample.ignore[place])
        _add(entry, {"name": label, "pose": "Unspecified", "truncated": 0, "difficult": difficult})
        corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(_plain, xyxy), strict=True))
        _add(ET.SubElement(entry, "bndbox"), corners)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _add(parent: ET.Element, children: Mapping[str, object]) -> None:
    for tag, value in children.items():
        ET.SubElement(parent, tag).text = str(value)


def _left_out(count: int, what: str) -> list[str]:
    return [f"{count:,} crowd or ignored boxes left out, as {what} cannot mark them"] if count else []


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


TARGETS: Mapping[str, Target] = {
    "coco": Target(images=lambda split: split, write=write_coco),
    "yolo": Target(images=_yolo_images, write=write_yolo),
    "voc": Target(images=lambda split: "JPEGImages", write=write_voc, names_across_splits=True),
    "jsonl": Target(images=_jsonl_images, write=write_jsonl),
}
