"""Answered images -> files of COCO, YOLO and Label Studio that boxtune reads back, image by image.

Boxes are written with all their digits: read back they are the same within a billionth of a pixel. Corners outside of
the image are brought to its border, and boxes without area left out, since no reader would keep them.
"""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import quote

import yaml

from boxtune.errors import DataError
from boxtune.infer.shards import as_json
from boxtune.infer.writers_images import Shelf

_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_VAL = {"valid": "val"}  # the word of ultralytics


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """An image with what was found in it.

    `file` is the image, `name` its path below the common folder of all images; `turned` says that EXIF turns it.
    `boxes` are label, corners x1, y1, x2, y2 in pixels of the upright original, and score or None.
    """

    image_id: int
    file: str
    name: str
    turned: bool
    size_wh: tuple[int, int]
    boxes: Sequence[tuple[str, tuple[float, float, float, float], float | None]]


@dataclass(frozen=True, kw_only=True)
class About:
    """What concerns all images: `split` as boxtune calls it, the classes in their order, what `model` found them, and
    whether YOLO's rows end with the `confidence` of each box."""

    split: str
    classes: Sequence[str]
    model: str
    confidence: bool = False


Writer = Callable[[Path, Iterable[Labelled], About], list[str]]
"""Writes a new folder, and gives the lines that there are to say of it."""


def write_coco(out: Path, images: Iterable[Labelled], about: About) -> list[str]:
    """SPLIT/_annotations.coco.json beside the images, and results.json.

    Annotations hold a `score` where there is one; results.json are the same boxes as rows of COCO results (score 1
    where there is none), for evaluation elsewhere. Image ids are those of the data set whose split was predicted, and
    count from 1 otherwise; category ids count from 1 in the order of the classes.
    """
    ids = {name: number for number, name in enumerate(about.classes, start=1)}
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    num = 0
    with (
        Shelf(out / about.split) as shelf,
        (out / about.split / "_annotations.coco.json").open("wb") as document,
        (out / "results.json").open("wb") as results,
        TemporaryFile(dir=out) as later,
    ):
        # pycocotools asks for `info` in some of its releases.
        document.write(b'{"info": {}, "licenses": [], "categories": ' + as_json(categories) + b', "images": ')
        pictures, annotations, rows = JsonList(document), JsonList(later), JsonList(results)
        for image in images:
            name = shelf.put(image.file, image.name, turned=image.turned)
            width, height = image.size_wh
            pictures.add({"id": image.image_id, "file_name": name, "width": width, "height": height})
            for label, (x1, y1, x2, y2), score in image.boxes:
                num += 1
                place = {"image_id": image.image_id, "category_id": ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
                said = {} if score is None else {"score": score}
                annotations.add({"id": num, **place, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0, **said})
                rows.add({**place, "score": 1.0 if score is None else score})
        for listed in (pictures, annotations, rows):
            listed.close()
        document.write(b', "annotations": ')
        later.seek(0)
        shutil.copyfileobj(later, document)
        document.write(b"}\n")
    return shelf.lines()


def write_yolo(out: Path, images: Iterable[Labelled], about: About) -> list[str]:
    """data.yaml, images/SPLIT/NAME and labels/SPLIT/NAME.txt with class, cx, cy, width, height as shares of the sides.

    With `confidence` a sixth number follows, as ultralytics writes it: right for looking at, but training refuses such
    rows. An image without boxes has an empty file.
    """
    ids = {name: number for number, name in enumerate(about.classes)}
    word = _VAL.get(about.split, about.split)
    with Shelf(out / "images" / word) as shelf:
        for image in images:
            name = shelf.put(image.file, image.name, turned=image.turned)
            width, height = image.size_wh
            rows = []
            for label, (x1, y1, x2, y2), score in image.boxes:
                shares = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
                shares += [1.0 if score is None else score] if about.confidence else []
                rows.append(" ".join([str(ids[label]), *map(repr, shares)]) + "\n")
            file = (out / "labels" / word / name).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(rows), encoding="utf-8")
    names = dict(enumerate(about.classes))
    content = yaml.safe_dump({word: f"images/{word}", "names": names}, sort_keys=False, allow_unicode=True)
    (out / "data.yaml").write_text(content, encoding="utf-8")
    return shelf.lines()


def write_labelstudio(out: Path, images: Iterable[Labelled], about: About) -> list[str]:
    """tasks.json with a prediction for each image, label_config.xml, and images/ with the images themselves.

    The score of a prediction is the mean of its boxes'. Label Studio finds the images when it is started with
    LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and this folder as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, and the
    project has a local storage for images/ in it. Source: https://labelstud.io/guide/predictions.html
    Raises DataError on a class name that XML cannot hold.
    """
    if bad := [name for name in about.classes if _NO_XML.search(name)]:
        raise DataError(f"the class name {bad[0]!r} does not survive XML", fix="leave labelstudio out of format=")
    split = "" if about.split == "train" else f"-{about.split}"
    with Shelf(out / "images") as shelf, (out / f"tasks{split}.json").open("wb") as file:
        tasks = JsonList(file)
        for image in images:
            name = shelf.put(image.file, image.name, turned=image.turned)
            scores = [score for _, _, score in image.boxes if score is not None]
            said: dict[str, Any] = {"model_version": about.model}
            said |= {"score": sum(scores) / len(scores)} if scores else {}
            said["result"] = [_region(f"box{place}", image, box) for place, box in enumerate(image.boxes, start=1)]
            link = f"/data/local-files/?d={quote(f'images/{name}')}"
            tasks.add({"data": {"image": link}, "predictions": [said]})
        tasks.close()
    root = ET.Element("View")
    ET.SubElement(root, "Image", name="image", value="$image")
    labels = ET.SubElement(root, "RectangleLabels", name="label", toName="image")
    for label in about.classes:
        ET.SubElement(labels, "Label", value=label)
    ET.indent(root)
    (out / "label_config.xml").write_text(ET.tostring(root, encoding="unicode") + "\n", encoding="utf-8")
    return shelf.lines()


def _region(name: str, image: Labelled, box: tuple[str, tuple[float, float, float, float], float | None]) -> Any:
    label, (x1, y1, x2, y2), score = box
    width, height = image.size_wh
    percent = {
        "x": x1 / width * 100,
        "y": y1 / height * 100,
        "width": (x2 - x1) / width * 100,
        "height": (y2 - y1) / height * 100,
    }
    return {
        "id": name,
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**percent, "rotation": 0, "rectanglelabels": [label]},
        **({} if score is None else {"score": score}),
    }


WRITERS: Mapping[str, Writer] = {"coco": write_coco, "yolo": write_yolo, "labelstudio": write_labelstudio}
FORMATS = ("json", *WRITERS)
"""What `format` may name."""


class JsonList:
    """A JSON list written to a file value by value, one a line, so that a million need no memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._before = file, b"[\n"

    def add(self, value: object) -> None:
        """Write one more value."""
        self._file.write(self._before + as_json(value))
        self._before = b",\n"

    def close(self) -> None:
        """Write the end of the list; the file stays open."""
        self._file.write(b"[]" if self._before == b"[\n" else b"\n]")


def trim_boxes(row: Mapping[str, Any]) -> tuple[list[tuple[str, tuple[float, float, float, float], float | None]], int]:
    """The boxes of an answer's row inside their image, and how many were left out as they have no area there."""
    width, height = row["width"], row["height"]
    kept = []
    for box in row["boxes"]:
        x1, y1, x2, y2 = box["xyxy_px"]
        x1, x2 = (min(max(x, 0.0), float(width)) for x in (x1, x2))
        y1, y2 = (min(max(y, 0.0), float(height)) for y in (y1, y2))
        if x2 > x1 and y2 > y1:
            kept.append((box["label"], (x1, y1, x2, y2), box["score"]))
    return kept, len(row["boxes"]) - len(kept)
