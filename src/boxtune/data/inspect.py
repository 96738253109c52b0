"""Dataset -> what a person wants to know of it before training: counts, sizes, findings."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from boxtune.boxes import box_areas
from boxtune.data.broken import leave_out_broken
from boxtune.data.formats import read_dataset
from boxtune.data.sample import Dataset
from boxtune.data.table import SampleTable, as_table
from boxtune.errors import Finding, Level, name_some

_WIDTH = 100
_MOST_CLASSES = 10
_MOST_FINDINGS = 6
_ORDER: tuple[Level, ...] = ("fail", "cannot_tell", "warn", "ok")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """5th percentile, median and 95th percentile."""

    p5: float
    median: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What one split holds.

    `boxes` are those that an answer should hold; `crowd` and `ignored` ones are apart (a box that is both counts as
    crowd). `negatives` are images without boxes to find. `boxes_per_image` is least, median and most. `image_sizes`
    are upright (width, height) in pixels with their counts, most frequent first.
    """

    images: int
    boxes: int
    negatives: int
    crowd: int
    ignored: int
    boxes_per_image: tuple[int, float, int]
    image_sizes: tuple[tuple[tuple[int, int], int], ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A data set in numbers.

    `class_counts` maps each class to its boxes by split. `side_px` is the square root of a box's area in pixels of
    the upright original, `image_share` its area over that of its image; both are over all splits, and None where
    there are no boxes.
    """

    path: str
    format: str
    why: str
    splits: Mapping[str, SplitCounts]
    class_counts: Mapping[str, Mapping[str, int]]
    side_px: Spread | None
    image_share: Spread | None
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self)

    def as_text(self) -> str:
        """A page for the terminal, at most 40 lines of about 100 characters."""
        rows = [f"{self.path}: {self.format}, {len(self.class_counts)} classes"]
        rows += textwrap.wrap(self.why, _WIDTH, initial_indent="  ", subsequent_indent="  ", max_lines=2)
        rows += ["", *self._split_rows(), "", *self._class_rows()]
        if self.side_px is not None and self.image_share is not None:
            side, share = self.side_px, self.image_share
            rows += ["", *_table([["box size", "p5", "median", "p95"], _size_row(side), _share_row(share)])]
        return "\n".join([*rows, "", *self._finding_rows()])

    def _split_rows(self) -> list[str]:
        head = ["split", "images", "boxes", "negatives", "crowd", "ignored", "boxes/image", "image size"]
        body = [
            [
                name,
                *(f"{n:,}" for n in (one.images, one.boxes, one.negatives, one.crowd, one.ignored)),
                "{}/{:g}/{}".format(*one.boxes_per_image),
                _sizes_in_words(one.image_sizes),
            ]
            for name, one in self.splits.items()
        ]
        return _table([head, *body])

    def _class_rows(self) -> list[str]:
        ordered = sorted(self.class_counts.items(), key=lambda item: -sum(item[1].values()))
        body = [[name[:40], *(f"{counts[split]:,}" for split in self.splits)] for name, counts in ordered]
        rows = _table([["class", *self.splits], *body[:_MOST_CLASSES]])
        rest = ordered[_MOST_CLASSES:]
        if rest:
            num_boxes = sum(sum(counts.values()) for _, counts in rest)
            rows.append(f"  and {len(rest)} more classes with {num_boxes:,} boxes")
        return rows

    def _finding_rows(self) -> list[str]:
        if not self.findings:
            return ["nothing to remark"]
        ordered = sorted(self.findings, key=lambda finding: _ORDER.index(finding.level))
        counts = Counter(finding.level for finding in ordered)
        told = ", ".join(f"{counts[level]} {level.replace('_', ' ')}" for level in _ORDER if counts[level])
        rows = [f"findings: {told}"]
        for finding in ordered[:_MOST_FINDINGS]:
            text = f"{finding.level.replace('_', ' ')}  {finding.check}: {finding.seen}"
            rows += textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="      ", max_lines=2)
        rest = len(ordered) - _MOST_FINDINGS
        return rows + ([f"  and {rest} more"] if rest > 0 else [])


def inspect_path(
    path: str | Path, *, format: str = "auto", images: str | None = None, open: bool = False
) -> Inspection:
    """What `boxtune inspect` prints: the data set at `path` with the header of every image read.

    `open` decodes every image in full. Raises DataError as reading and `leave_out_broken` do.
    """
    dataset = read_dataset(path, format=format, images=None if images is None else Path(images))
    return inspect_dataset(leave_out_broken(dataset, open_all=open))


def inspect_dataset(dataset: Dataset) -> Inspection:
    """The data set in numbers, with the findings of reading it and those about its classes. Opens no image."""
    tables = {split: as_table(samples) for split, samples in dataset.splits.items()}
    splits = {split: _count(table) for split, table in tables.items()}
    class_counts = _class_counts(dataset.classes, tables)
    areas = np.concatenate([np.zeros(0), *(box_areas(one.xyxy_px[one.targets]) for one in tables.values())])
    shares = np.concatenate(
        [
            np.zeros(0),
            *(
                box_areas(one.xyxy_px[one.targets]) / one.sizes_wh.prod(axis=1)[one.owners[one.targets]]
                for one in tables.values()
            ),
        ]
    )
    return Inspection(
        path=str(dataset.path),
        format=dataset.format,
        why=dataset.why,
        splits=splits,
        class_counts=class_counts,
        side_px=_spread(np.sqrt(areas)) if len(areas) else None,
        image_share=_spread(shares) if len(areas) else None,
        findings=(*dataset.findings, *check_classes(class_counts, list(splits))),
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


def _count(table: SampleTable) -> SplitCounts:
    found = np.bincount(table.owners[table.targets], minlength=len(table))
    sizes, counts = np.unique(table.sizes_wh, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return SplitCounts(
        images=len(table),
        boxes=int(found.sum()),
        negatives=int((found == 0).sum()),
        crowd=int(table.crowd.sum()),
        ignored=int((table.ignore & ~table.crowd).sum()),
        boxes_per_image=(int(found.min()), float(np.median(found)), int(found.max())) if len(found) else (0, 0.0, 0),
        image_sizes=tuple(((int(w), int(h)), int(n)) for (w, h), n in zip(sizes[order], counts[order], strict=True)),
    )


def _class_counts(classes: Sequence[str], tables: Mapping[str, SampleTable]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {name: dict.fromkeys(tables, 0) for name in classes}
    for split, table in tables.items():
        for code, count in enumerate(np.bincount(table.codes[table.targets], minlength=len(table.names)).tolist()):
            if table.names[code] in counts:
                counts[table.names[code]][split] += count
    return counts


def _spread(values: Float[np.ndarray, " n"]) -> Spread:
    p5, median, p95 = np.percentile(values, [5, 50, 95])
    return Spread(p5=float(p5), median=float(median), p95=float(p95))


def _size_row(side: Spread) -> list[str]:
    return ["side, pixels", f"{side.p5:.0f}", f"{side.median:.0f}", f"{side.p95:.0f}"]


def _share_row(share: Spread) -> list[str]:
    return ["share of image", f"{share.p5:.2%}", f"{share.median:.2%}", f"{share.p95:.2%}"]


def _sizes_in_words(sizes: Sequence[tuple[tuple[int, int], int]]) -> str:
    if not sizes:
        return "-"
    if len(sizes) == 1:
        return "{} x {}".format(*sizes[0][0])
    widths, heights = zip(*(size for size, _ in sizes), strict=True)
    return f"{min(widths)}..{max(widths)} x {min(heights)}..{max(heights)}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with columns of equal width: the first flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "   ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
