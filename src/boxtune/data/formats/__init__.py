"""The formats that are read, and which of them a path holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from boxtune.data.assemble import assemble
from boxtune.data.draft import Options, Raw
from boxtune.data.formats import chat_formats as chats
from boxtune.data.formats.coco import read_coco
from boxtune.data.formats.coco_layout import sniff_coco
from boxtune.data.formats.createml import read_createml, sniff_createml
from boxtune.data.formats.csv_boxes import read_csv_boxes, sniff_csv
from boxtune.data.formats.cvat import read_cvat, sniff_cvat
from boxtune.data.formats.darknet import read_darknet, sniff_darknet
from boxtune.data.formats.hub import read_hub, sniff_hub
from boxtune.data.formats.hub_fetch import fetch_hub_dataset, is_hub_id
from boxtune.data.formats.keras_txt import read_keras_txt, sniff_keras_txt
from boxtune.data.formats.labelme import read_labelme, sniff_labelme
from boxtune.data.formats.labelstudio import read_labelstudio, sniff_labelstudio
from boxtune.data.formats.openimages import read_openimages, sniff_openimages
from boxtune.data.formats.supervisely import read_supervisely, sniff_supervisely
from boxtune.data.formats.tfrecord import read_tfrecord, sniff_tfrecord
from boxtune.data.formats.via import read_via, sniff_via
from boxtune.data.formats.voc import read_voc, sniff_voc
from boxtune.data.formats.vott import read_vott, sniff_vott
from boxtune.data.formats.yolo import read_yolo, sniff_yolo
from boxtune.data.places import name_contents
from boxtune.data.sample import Dataset
from boxtune.errors import ConfigError, DataError


class Reader(Protocol):
    """Reads one format; raises DataError on what it cannot read."""

    def __call__(self, path: Path, options: Options) -> Raw:
        """What the annotations at `path`, a folder or a file, say."""
        ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: `sniff` says why a path fits or None, from names and first bytes only; `looks_for` is for people."""

    sniff: Callable[[Path], str | None]
    read: Reader
    looks_for: str


# The first format that fits is read, the others are named. A new one is its own file and one line here.
FORMATS: Mapping[str, Format] = {
    "coco": Format(
        sniff=sniff_coco,
        read=read_coco,
        looks_for="COCO: SPLIT/_annotations.coco.json, annotations/*.json, or one .json beside images/",
    ),
    "yolo": Format(
        sniff=sniff_yolo,
        read=read_yolo,
        looks_for="YOLO: a data.yaml, or images/ beside labels/, or label .txt beside the images",
    ),
    "hf": Format(sniff=sniff_hub, read=read_hub, looks_for="hub data sets: Parquet, save_to_disk, or metadata.jsonl"),
    "tfrecord": Format(sniff=sniff_tfrecord, read=read_tfrecord, looks_for="TFRecord files with label_map.pbtxt"),
    "llamafactory": Format(
        sniff=chats.LLAMAFACTORY.sniff, read=chats.LLAMAFACTORY.read, looks_for="LLaMA-Factory: dataset_info.json"
    ),
    "msswift": Format(
        sniff=chats.MSSWIFT.sniff, read=chats.MSSWIFT.read, looks_for="ms-swift: .jsonl with messages and images"
    ),
    "paligemma_jsonl": Format(
        sniff=chats.PALIGEMMA.sniff, read=chats.PALIGEMMA.read, looks_for="PaliGemma: .jsonl with prefix and suffix"
    ),
    "florence2_jsonl": Format(
        sniff=chats.FLORENCE2.sniff, read=chats.FLORENCE2.read, looks_for="Florence-2: .jsonl with prefix and suffix"
    ),
    "qwenvl": Format(
        sniff=chats.QWENVL.sniff, read=chats.QWENVL.read, looks_for="Qwen-VL: conversations whose answers are JSON"
    ),
    "llava": Format(
        sniff=chats.LLAVA.sniff, read=chats.LLAVA.read, looks_for="LLaVA, InternVL: conversations with boxes in [ ]"
    ),
    "darknet": Format(sniff=sniff_darknet, read=read_darknet, looks_for="darknet: obj.data with lists of images"),
    "keras_txt": Format(
        sniff=sniff_keras_txt,
        read=read_keras_txt,
        looks_for="YOLO Keras TXT: _annotations.txt, an image and boxes a line",
    ),
    "cvat": Format(sniff=sniff_cvat, read=read_cvat, looks_for="CVAT: annotations.xml beside images/"),
    "voc": Format(sniff=sniff_voc, read=read_voc, looks_for="Pascal VOC: Annotations/*.xml, or .xml beside the images"),
    "labelme": Format(sniff=sniff_labelme, read=read_labelme, looks_for="LabelMe: one .json an image, with shapes"),
    "createml": Format(
        sniff=sniff_createml, read=read_createml, looks_for="Create ML: _annotations.createml.json with coordinates"
    ),
    "labelstudio": Format(
        sniff=sniff_labelstudio, read=read_labelstudio, looks_for="Label Studio: a JSON export with tasks"
    ),
    "via": Format(sniff=sniff_via, read=read_via, looks_for="VIA: a project or an export, JSON or CSV"),
    "vott": Format(sniff=sniff_vott, read=read_vott, looks_for="VoTT: ...-export.json, or ...-asset.json files"),
    "supervisely": Format(
        sniff=sniff_supervisely,
        read=read_supervisely,
        looks_for="Supervisely: meta.json beside folders with ann/ and img/",
    ),
    "openimages": Format(sniff=sniff_openimages, read=read_openimages, looks_for="Open Images: *-annotations-bbox.csv"),
    "csv": Format(
        sniff=sniff_csv, read=read_csv_boxes, looks_for="tables: .csv with columns for the image, its boxes and classes"
    ),
}


def read_dataset(
    path: str | Path,
    *,
    format: str = "auto",
    images: Path | None = None,
    boxes: str | None = None,
    need_images: bool = True,
) -> Dataset:
    """The data set at `path`, a folder or an annotation file, with the format told from what is there.

    `format` names a reader instead; `images` is the image folder where it lies elsewhere; `boxes` says how the four
    numbers of a box are meant, for formats that leave it open (`reading`). Without `need_images` annotations alone are
    enough, as far as they declare the images' sizes. `why` of the result says what was
    recognised, what else it could have been, and what lies there unread. Raises DataError if there is nothing to read,
    ConfigError on an unknown `format`.
    """
    here = locate(path)
    name, raw = read_raw(here, format=format, options=Options(images=images, boxes=boxes))
    return assemble(here, name, raw, images=images, need_images=need_images)


def read_raw(path: str | Path, *, format: str = "auto", options: Options | None = None) -> tuple[str, Raw]:
    """The name of the format, and what its reader found, before anything of it is checked."""
    options = options or Options()
    if format != "auto" and format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}", where="data.format", fix=f"one of auto, {', '.join(FORMATS)}")
    here = locate(path)
    if format != "auto":
        return format, FORMATS[format].read(here, options)
    fits = sniff(here)
    if not fits:
        raise _unrecognised(here)
    name, *others = fits
    raw = FORMATS[name].read(here, options)
    if others:
        also = "; ".join(f"format={other} ({fits[other]})" for other in others)
        raw = replace(raw, why=f"{raw.why}; could also be read as {also}")
    return name, raw


def locate(path: str | Path) -> Path:
    """The path if it is there; a hub id (`owner/name`) as the folder in the hub's cache, downloaded where need be.

    Raises DataError if it is neither.
    """
    here = Path(path).expanduser()
    if here.exists():
        return here
    if is_hub_id(str(path)) and not here.parent.exists():
        return fetch_hub_dataset(str(path))
    raise _not_there(str(path), here)


def sniff(path: Path) -> dict[str, str]:
    """Every format that a path could be, with the reason, the one that is taken first."""
    reasons = {name: known.sniff(path) for name, known in FORMATS.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _unrecognised(here: Path) -> DataError:
    looked_for = "; ".join(known.looks_for for known in FORMATS.values())
    if here.is_file():
        return DataError(f"{here.name} is no annotation file that is read", where=str(here), fix=f"give {looked_for}")
    contents = name_contents(here)
    return DataError(
        "the folder is empty" if contents == "nothing" else f"no data set was recognised; the folder holds {contents}",
        where=str(here),
        fix=f"looked for {looked_for}",
    )


def _not_there(given: str, here: Path) -> DataError:
    parent = next(folder for folder in here.absolute().parents if folder.is_dir())
    return DataError(
        f"{given} does not exist",
        where=str(here),
        fix=f"check the path; {parent} holds {name_contents(parent)}",
    )
