"""Label Studio exports (JSON and JSON-MIN) -> drafts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from boxtune.data.draft import Draft, Options, Raw
from boxtune.data.formats.documents import find_documents, group_documents, name_documents, read_each
from boxtune.data.formats.image_names import choose_name
from boxtune.data.formats.json_files import load_json, peek_json
from boxtune.data.formats.labelstudio_regions import Region, corners_percent, gather_regions, has_box, is_upright
from boxtune.data.formats.labelstudio_tasks import (
    EXPECTED,
    Annotation,
    Config,
    Task,
    find_image_keys,
    image_texts,
    is_task,
    read_config,
    read_tasks,
    spell_image,
    upload_name,
)
from boxtune.data.formats.remarks import Remarks
from boxtune.data.places import ImageFinder, image_folders, name_contents
from boxtune.errors import DataError, Level

_REMARKS: dict[str, tuple[Level, str, str]] = {
    "labelstudio.unlabelled": ("warn", "regions without a label, left out", "give each a label"),
    "labelstudio.several_labels": ("ok", "regions with several labels, one box for each label", ""),
    "labelstudio.hull": (
        "ok",
        "polygons, ellipses, brushes and turned boxes, taken as the upright box around each",
        "",
    ),
    "labelstudio.no_box": (
        "warn",
        "regions that are no box (key points, relations of videos, masks as files), left out",
        "",
    ),
    "labelstudio.several_annotations": (
        "warn",
        "tasks with several annotations, of which one is read: the ground truth, else the last one changed",
        "mark the right one as ground truth in Label Studio",
    ),
    "labelstudio.cancelled": ("ok", "tasks that were skipped by every annotator, left out", ""),
    "labelstudio.not_annotated": ("warn", "tasks that nobody has annotated yet, left out", "annotate them"),
    "labelstudio.predictions": (
        "warn",
        "tasks of a file without any annotation, read from the predictions of a model instead",
        "look at them and submit them in Label Studio",
    ),
}


def sniff_labelstudio(path: Path) -> str | None:
    """Why `path` looks like Label Studio, judged by the first bytes of .json files; None if it does not."""
    files = find_documents(path, ".json", _is_export)
    return f"tasks of Label Studio in {name_documents(path, files)}" if files else None


def read_labelstudio(path: Path, options: Options) -> Raw:
    """The splits that Label Studio exports describe, as JSON or JSON-MIN.

    Numbers are percent of the image as it is stored (Label Studio turns them back where a picture was turned for
    drawing). `rotation` turns a rectangle clockwise around its upper left corner. Of several annotations of a task the
    ground truth is read, else the last one that was changed; skipped ones are none. A task whose annotation is empty
    is a negative. Which data key holds the image is told by the labelling configuration beside the export, else by the
    name of the image tag, else by the values. Raises DataError on a file that is none, on regions without numbers, and
    if it cannot be told where the image is.
    Source: https://labelstud.io/guide/export.html#Label-Studio-JSON-format-of-annotated-tasks
    """
    files = [path] if path.is_file() else find_documents(path, ".json", _is_export)
    if not files:
        what = f"no Label Studio export was found, only {name_contents(path)}"
        raise DataError(what, where=str(path), fix=f"expected is {EXPECTED}")
    found = [config for folder in {file.parent: None for file in files} if (config := read_config(folder)) is not None]
    config_of = {file.parent: config for file, config in found}

    def read(split: str, file: Path) -> Draft:
        return _draft(split, file, config_of.get(file.parent), options)

    drafts = read_each(group_documents(path, files), read)
    told = [f"Label Studio tasks in {name_documents(path, files)}", drafts.why]
    return Raw(
        drafts=drafts.drafts,
        why="; ".join(part for part in told if part),
        classes=list(dict.fromkeys(name for _, config in found for name in config.labels)),
        read=[*files, *(file for file, _ in found)],
    )


def _is_export(file: Path) -> bool:
    content = peek_json(file)
    entries = content if isinstance(content, list) else [content]
    return any(is_task(entry) for entry in entries[:5])


def _draft(split: str, file: Path, config: Config | None, options: Options) -> Draft:
    tasks = read_tasks(file, load_json(file, EXPECTED))
    draft, remarks = Draft(split, file, scale=100.0), Remarks(file, _REMARKS)
    by_model = not any(task.annotations for task in tasks) and any(task.predictions for task in tasks)
    chosen = [(task, one) for task in tasks if (one := _choose(task, by_model, remarks)) is not None]
    regions = [gather_regions(one.result) for _, one in chosen]
    used_tags = [region.source for rows in regions for region in rows if region.source is not None]
    keys = find_image_keys(tasks, used_tags, config, file)
    texts = {text for task in tasks for key in keys.values() for text in image_texts(task, key)}
    unique = Counter(upload_name(text) for text in texts)
    finder = ImageFinder(image_folders(file, split, options.images))
    for (task, one), rows in zip(chosen, regions, strict=True):
        for place, item in enumerate(one.result):
            if not isinstance(item, dict):
                remarks.fault(f"{task.called} item {place} is no object")
        images: dict[tuple[str | None, int], int] = {}
        for tag, key in keys.items():
            for item, text in enumerate(image_texts(task, key)):
                size_wh = next((row.size_wh for row in rows if _lies_on(row, tag, item, keys) and row.size_wh), None)
                name = choose_name(spell_image(text, task.called, unique), finder)
                images[tag, item] = draft.add_image(name, size_wh=size_wh)
        if not images:
            remarks.fault(f"{task.called} has no image under {' or '.join(repr(key) for key in keys.values())}")
        for row in rows:
            places = [place for (tag, item), place in images.items() if _lies_on(row, tag, item, keys)]
            called = f"{task.called} region {row.called}"
            if len(places) == 1:
                _add_region(draft, places[0], row, called, remarks)
            elif images:
                remarks.fault(f"{called} lies on {row.source or 'an image'}, which is none of the task's")
    remarks.require_sound("entries that cannot be read", f"mend them; expected is {EXPECTED}")
    draft.findings += remarks.findings()
    return draft


def _lies_on(region: Region, tag: str | None, item: int, keys: dict[str | None, str]) -> bool:
    """Whether a region lies on the image of a tag; where there is one tag only it need not be named."""
    return (region.source == tag or (region.source is None and len(keys) == 1)) and (region.item or 0) == item


def _choose(task: Task, by_model: bool, remarks: Remarks) -> Annotation | None:
    """The annotation of a task that is read; None if there is none."""
    made = task.predictions if by_model else task.annotations
    kept = [one for one in made if not one.cancelled]
    if not kept:
        remarks.add("labelstudio.cancelled" if made else "labelstudio.not_annotated", task.called)
        return None
    if by_model:
        remarks.add("labelstudio.predictions", task.called)
    elif len(kept) > 1:
        remarks.add("labelstudio.several_annotations", f"{task.called} ({len(kept)})")
    return max(kept, key=lambda one: one.order)


def _add_region(draft: Draft, image: int, region: Region, called: str, remarks: Remarks) -> None:
    if not has_box(region):
        remarks.add("labelstudio.no_box", f"{called} ({region.kind})")
        return
    try:
        corners = corners_percent(region)
    except ValueError as problem:
        remarks.fault(f"{called} {problem}")
        return
    if not region.labels:
        remarks.add("labelstudio.unlabelled", called)
        return
    if not is_upright(region):
        remarks.add("labelstudio.hull", f"{called} ({region.kind})")
    if len(region.labels) > 1:
        remarks.add("labelstudio.several_labels", f"{called} ({', '.join(region.labels)})")
    for label in region.labels:
        draft.add_box(image, label, corners)
