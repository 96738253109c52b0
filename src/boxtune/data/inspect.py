"""Path -> what a person wants to know of a data set before training: counts, sizes, findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from boxtune.boxes import box_areas
from boxtune.data.alike import check_alike
from boxtune.data.audit import audit_dataset
from boxtune.data.broken import leave_out_broken
from boxtune.data.classes import check_class_names
from boxtune.data.formats import read_dataset
from boxtune.data.frames import AskedFrame
from boxtune.data.inspection import Inspection, SplitCounts
from boxtune.data.sample import Dataset
from boxtune.data.seen import spread, unique_sizes
from boxtune.data.table import SampleTable, as_table
from boxtune.data.target import Target, build_target
from boxtune.errors import Finding, name_some

ALIKE_MEGAPIXELS = 200
"""Images that together have no more are compared without being asked for: decoding them takes about a second."""
_MOST_SIZES = 20


def inspect_path(
    path: str | Path,
    *,
    format: str = "auto",
    images: str | None = None,
    boxes: str | None = None,
    frame: AskedFrame = "auto",
    open: bool = False,
    headers: bool = True,
    alike: bool | None = None,
    family: str | None = None,
    model: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Inspection:
    """What `boxtune inspect` prints: the data set at `path` with the headers of its images read.

    `open` decodes every image in full; `headers=False` checks none against the annotations and needs none, though
    formats without sizes still read the headers of those that are there. `alike` decodes and compares images for
    copies; None: where they have at most 200 megapixels together. `family`, `model` and the budget say whose eyes it
    is seen with (`build_target`). Raises DataError as reading and `leave_out_broken` do, ModelError and ConfigError as
    `build_target` does.
    """
    target = build_target(family=family, model=model, min_pixels=min_pixels, max_pixels=max_pixels)
    looks = headers or open
    folder = None if images is None else Path(images)
    dataset = read_dataset(path, format=format, images=folder, boxes=boxes, need_images=looks)
    if looks:
        dataset = leave_out_broken(dataset, open_all=open, frame=frame)
    else:
        seen = "images were not checked: are they there, sound, turned by EXIF, of the declared size?"
        finding = Finding(check="image.not_checked", level="cannot_tell", seen=seen)
        dataset = dataset.with_splits(dataset.splits, finding)
    return inspect_dataset(dataset, target, alike=looks if alike is None else alike, at_once=alike is None)


def inspect_dataset(
    dataset: Dataset, target: Target | None = None, *, alike: bool = False, at_once: bool = False
) -> Inspection:
    """The data set in numbers, with the findings of reading it, those about its classes, and the audit's.

    Opens no image, but to compare them (`alike`); `at_once` leaves that aside where it would take long.
    """
    tables = {split: as_table(samples) for split, samples in dataset.splits.items()}
    class_counts = _class_counts(dataset.classes, tables)
    totals = {name: sum(counts.values()) for name, counts in class_counts.items()}
    audit, audited = audit_dataset(dataset, target)
    areas = [np.zeros(0)]
    shares = [np.zeros(0)]
    for one in tables.values():
        areas.append(box_areas(one.xyxy_px)[one.targets])
        shares.append(areas[-1] / np.repeat(one.sizes_wh.prod(axis=1), np.diff(one.starts))[one.targets])
    return Inspection(
        path=str(dataset.path),
        format=dataset.format,
        why=dataset.why,
        splits={split: _count(table) for split, table in tables.items()},
        class_counts=class_counts,
        side_px=spread(np.sqrt(np.concatenate(areas))),
        image_share=spread(np.concatenate(shares)),
        audit=audit,
        findings=(
            *dataset.findings,
            *check_classes(class_counts, list(tables)),
            *check_class_names(dataset.classes, totals),
            *audited,
            *(_compare(tables, at_once) if alike else []),
        ),
        dataset=dataset,
    )


def check_classes(class_counts: Mapping[str, Mapping[str, int]], splits: Sequence[str]) -> list[Finding]:
    """Findings about classes that have boxes in one split and none in another."""
    findings = []
    for split, means in (("train", "cannot be learned"), ("valid", "have no score of their own")):
        lacking = [name for name, counts in class_counts.items() if split in splits and not counts[split]]
        if lacking:
            findings.append(
                Finding(
                    check=f"data.class_not_in_{split}",
                    level="warn",
                    seen=f"classes without a box in {split}, which {means}: {len(lacking)} ({name_some(lacking)})",
                    fix="add images of them or split otherwise",
                )
            )
    return findings


def _compare(tables: Mapping[str, SampleTable], at_once: bool) -> list[Finding]:
    megapixels = sum(float(table.sizes_wh.prod(axis=1).sum()) for table in tables.values()) / 1e6
    if not at_once or megapixels <= ALIKE_MEGAPIXELS:
        return check_alike(tables)
    seen = f"images were not compared for copies: to decode their {megapixels:,.0f} megapixels takes a while"
    return [Finding(check="image.alike", level="ok", seen=seen, fix="alike=true compares them")]


def _count(table: SampleTable) -> SplitCounts:
    found = np.bincount(table.owners[table.targets], minlength=len(table))
    sizes, _, counts = unique_sizes(table.sizes_wh)
    order = np.argsort(-counts, kind="stable")[:_MOST_SIZES]
    sides = table.sizes_wh if len(table) else np.zeros((1, 2), dtype=np.int64)
    (least_w, least_h), (most_w, most_h) = sides.min(axis=0).tolist(), sides.max(axis=0).tolist()
    return SplitCounts(
        images=len(table),
        boxes=int(found.sum()),
        negatives=int((found == 0).sum()),
        crowd=int(table.crowd.sum()),
        ignored=int((table.ignore & ~table.crowd).sum()),
        boxes_per_image=(int(found.min()), float(np.median(found)), int(found.max())) if len(found) else (0, 0.0, 0),
        image_sizes=tuple(((int(w), int(h)), int(n)) for (w, h), n in zip(sizes[order], counts[order], strict=True)),
        num_image_sizes=len(sizes),
        least_wh=(least_w, least_h),
        most_wh=(most_w, most_h),
    )


def _class_counts(classes: Sequence[str], tables: Mapping[str, SampleTable]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {name: dict.fromkeys(tables, 0) for name in classes}
    for split, table in tables.items():
        for code, count in enumerate(np.bincount(table.codes[table.targets], minlength=len(table.names)).tolist()):
            if table.names[code] in counts:
                counts[table.names[code]][split] += count
    return counts
