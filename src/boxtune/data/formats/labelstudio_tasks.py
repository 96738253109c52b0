"""Tasks of a Label Studio export, where their images are, and the labelling configuration."""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from boxtune.data.formats.image_names import query_value, spell_link
from boxtune.data.formats.listing import is_image
from boxtune.data.formats.xml_files import read_xml
from boxtune.errors import DataError, name_some

EXPECTED = "a Label Studio export: a JSON list of tasks with `data` and `annotations`, or JSON-MIN"

CONFIG_FILES = (
    "label_config.xml",
    "labeling_config.xml",
    "labelling_config.xml",
    "label-config.xml",
    "labeling-config.xml",
    "config.xml",
)
"""Names under which a labelling configuration is looked for beside an export."""

_MIN_KEYS = {"annotation_id", "annotator", "lead_time"}
_IMAGE_KEYS = (
    "image",
    "img",
    "image_url",
    "url",
    "photo",
    "picture",
    "ocr",
    "captioning",
    "image_path",
    "path",
    "file",
)
_STORED = re.compile(r"(^|/)(data/)?upload/")
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """The items of one annotation; `order` grows with what should be read."""

    result: Sequence[Any]
    order: tuple[bool, str, int]
    cancelled: bool


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task, with all its annotations and predictions; `called` names it in messages."""

    called: str
    data: Mapping[str, Any]
    annotations: Sequence[Annotation]
    predictions: Sequence[Annotation]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a labelling configuration says: the data key of each image tag, and the labels in their order."""

    key_of_tag: Mapping[str, str]
    labels: Sequence[str]


def is_task(entry: Any) -> bool:
    """Whether an entry of a JSON list is a task, or a row of JSON-MIN."""
    if not isinstance(entry, Mapping):
        return False
    if not isinstance(entry.get("data"), Mapping):
        return len(_MIN_KEYS & set(entry)) >= 2
    made, guessed = entry.get("annotations", entry.get("completions")), entry.get("predictions")
    if not isinstance(made, list | None) or not isinstance(guessed, list | None) or (made is None and guessed is None):
        return False
    # Predictions may be mere numbers, where the export does not hold them.
    return all(map(_has_result, made or ())) and all(_has_result(one) or isinstance(one, int) for one in guessed or ())


def _has_result(one: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(one.get("result"), list)


def read_tasks(file: Path, content: Any) -> list[Task]:
    """The tasks of an export; rows of JSON-MIN for one task are its annotations. DataError where one is none."""
    entries = content if isinstance(content, list) else [content]
    wrong = [place for place, entry in enumerate(entries) if not is_task(entry)]
    if wrong:
        what = (
            f"{file.name} has entries that are no task: {len(wrong)} ({name_some(f'entry {place}' for place in wrong)})"
        )
        raise DataError(what, where=str(file), fix=f"expected is {EXPECTED}")
    tasks: dict[object, Task] = {}
    for place, entry in enumerate(entries):
        number = entry.get("id", entry.get("inner_id"))
        called = f"task {place if number is None else number}"
        task = _task(called, entry) if isinstance(entry.get("data"), Mapping) else _task_of_row(called, entry, place)
        key = place if number is None or task.predictions or isinstance(entry.get("data"), Mapping) else repr(number)
        first = tasks.get(key)
        both = [*(first.annotations if first is not None else ()), *task.annotations]
        tasks[key] = Task(called=called, data=task.data, annotations=both, predictions=task.predictions)
    return list(tasks.values())


def _task(called: str, entry: Mapping[str, Any]) -> Task:
    annotations = entry.get("annotations", entry.get("completions"))
    predictions = entry.get("predictions")
    return Task(
        called=called,
        data=entry["data"],
        annotations=[_annotation(one, place) for place, one in enumerate(annotations or ())],
        predictions=[_annotation(one, place) for place, one in enumerate(predictions or ()) if _has_result(one)],
    )


def _annotation(one: Mapping[str, Any], place: int) -> Annotation:
    changed = str(one.get("updated_at") or one.get("created_at") or "")
    return Annotation(
        result=one["result"],
        order=(one.get("ground_truth") is True, changed, place),
        cancelled=one.get("was_cancelled") is True or one.get("skipped") is True,
    )


def _task_of_row(called: str, row: Mapping[str, Any], place: int) -> Task:
    """A row of JSON-MIN: data and, under the names of the control tags, the values of the regions."""
    result = []
    data = {}
    for key, values in row.items():
        regions = values if isinstance(values, list) else []
        if regions and all(isinstance(value, Mapping) for value in regions):
            result += [{"value": value, "from_name": key} for value in regions]
        else:
            data[key] = values
    return Task(called=called, data=data, annotations=[_annotation({**row, "result": result}, place)], predictions=())


def read_config(folder: Path) -> tuple[Path, Config] | None:
    """The labelling configuration in a folder, if there is one: an .xml of a usual name with an Image tag."""
    for name in CONFIG_FILES:
        file = folder / name
        if not file.is_file():
            continue
        root = read_xml(file, "a labelling configuration of Label Studio")
        images = [tag for tag in root.iter("Image") if tag.get("name")]
        if images:
            keys = {tag.get("name", ""): (tag.get("value") or tag.get("valueList") or "").lstrip("$") for tag in images}
            return file, Config(key_of_tag={tag: key for tag, key in keys.items() if key}, labels=_label_names(root))
    return None


def _label_names(root: ET.Element) -> list[str]:
    names = [tag.get("alias") or tag.get("value") for tag in root.iter("Label")]
    return [name for name in names if name]


def find_image_keys(
    tasks: Sequence[Task], used_tags: Iterable[str], config: Config | None, file: Path
) -> dict[str | None, str]:
    """The data key of each image tag that regions lie on; None stands for a tag that the export does not name.

    Raises DataError if it cannot be told.
    """
    named: dict[str | None, str] = {}
    if config is not None and config.key_of_tag:
        named.update(config.key_of_tag.items())
        return named
    keys = dict.fromkeys(key for task in tasks for key, value in task.data.items() if _image_texts(value))
    tags = list(dict.fromkeys(used_tags))
    if tags and all(tag in keys for tag in tags):
        named.update(zip(tags, tags, strict=True))
        return named
    usual = [key for key in _IMAGE_KEYS if key in keys]
    if len(tags) < 2 and (len(keys) == 1 or len(usual) == 1):
        return {tags[0] if tags else None: usual[0] if len(keys) > 1 else next(iter(keys))}
    told = name_some((repr(key) for key in keys), limit=6) or "none"
    raise DataError(
        f"it cannot be told which data of {file.name} is the image; it may be {told}",
        where=str(file),
        fix="put the labelling configuration beside it as label_config.xml (Settings, Labeling Interface, Code)",
    )


def image_texts(task: Task, key: str) -> list[str]:
    """The links or paths of the images that a task holds under a key."""
    value = task.data.get(key)
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str) and text]


def _image_texts(value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) and _is_image_text(text) for text in texts)


def _is_image_text(text: str) -> bool:
    if text.startswith("data:image/") or _STORED.search(text) or query_value(text, "fileuri"):
        return True
    path = query_value(text, "d") or text.partition("?")[0]
    return is_image(Path(path))


def spell_image(text: str, called: str, unique: Mapping[str, int]) -> Iterator[str]:
    """What the file of an image may be called: an uploaded one with the eight hex digits that Label Studio puts before
    its name, or without them, where no other upload has that name (`unique` counts)."""
    if text.startswith("data:"):
        yield f"{called} (inside the export)"
        return
    hidden = query_value(text, "fileuri")
    if hidden is not None:
        try:
            yield from spell_link(base64.b64decode(hidden, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            yield hidden
        return
    local = query_value(text, "d")
    if local is not None:
        yield local
        return
    if _STORED.search(text):
        for name in dict.fromkeys((PurePosixPath(text).name, unquote(PurePosixPath(text).name))):
            yield name
            if unique.get(upload_name(name), 0) == 1:
                yield upload_name(name)
        return
    yield from spell_link(text)


def upload_name(text: str) -> str:
    """The name that an uploaded file had before."""
    return _UPLOAD_PREFIX.sub("", unquote(PurePosixPath(text).name))
