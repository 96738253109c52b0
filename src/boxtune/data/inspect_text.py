"""An inspection as a page for the terminal: at most 40 lines of 100 characters, what matters most first."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence

from boxtune.data.audit import Audit
from boxtune.data.inspection import Inspection, SplitCounts
from boxtune.data.seen import Spread
from boxtune.errors import Finding, Level

LINES, WIDTH = 40, 100
_MOST_CLASSES = 8
_ORDER: tuple[Level, ...] = ("fail", "cannot_tell", "warn", "ok")


def lay_out(inspection: Inspection) -> list[str]:
    """The lines of the page. Findings get what room is left; those that do not fit are counted."""
    rows = [f"{inspection.path}: {inspection.format}, {len(inspection.class_counts)} classes"]
    rows += _wrap(inspection.why, "  ", 3)
    rows += ["", *_split_rows(inspection), "", *_class_rows(inspection)]
    if inspection.side_px is not None and inspection.image_share is not None:
        rows += ["", *_size_rows(inspection.side_px, inspection.image_share, inspection.audit)]
    return [*rows, "", *_finding_rows(inspection.findings, LINES - len(rows) - 1)]


def _split_rows(inspection: Inspection) -> list[str]:
    head = ["split", "images", "boxes", "negatives", "crowd", "ignored", "boxes/image", "image size"]
    body = [
        [
            name,
            *(f"{n:,}" for n in (one.images, one.boxes, one.negatives, one.crowd, one.ignored)),
            "{}/{:g}/{}".format(*one.boxes_per_image),
            _sizes_in_words(one),
        ]
        for name, one in inspection.splits.items()
    ]
    return _table([head, *body])


def _class_rows(inspection: Inspection) -> list[str]:
    ordered = sorted(inspection.class_counts.items(), key=lambda item: -sum(item[1].values()))
    body = [[name[:40], *(f"{counts[split]:,}" for split in inspection.splits)] for name, counts in ordered]
    rows = _table([["class", *inspection.splits], *body[:_MOST_CLASSES]])
    rest = ordered[_MOST_CLASSES:]
    if rest:
        num_boxes = sum(sum(counts.values()) for _, counts in rest)
        rows.append(f"  and {len(rest)} more classes with {num_boxes:,} boxes")
    return rows


def _size_rows(side: Spread, share: Spread, audit: Audit) -> list[str]:
    def row(name: str, spread: Spread, form: Callable[[float], str]) -> list[str]:
        return [name, *(form(value) for value in (spread.p5, spread.median, spread.p95))]

    table = [["box size", "p5", "median", "p95"], row("side, pixels", side, "{:.0f}".format)]
    table.append(row("share of image", share, "{:.2%}".format))
    if audit.side_px is not None and audit.side_patches is not None:
        table.append(row("side as seen, pixels", audit.side_px, "{:.0f}".format))
        assumed = " (assumed)" if audit.patch_assumed else ""
        table.append(row(f"side as seen, patches of {audit.patch_px}{assumed}", audit.side_patches, "{:.1f}".format))
    told = f"as seen by {audit.family} ({audit.why}) within {audit.min_pixels:,} to {audit.max_pixels:,} pixels"
    if audit.scale is not None:
        told += f": images at {audit.scale.median:.2g} of their size"
    if audit.image_tokens is not None:
        told += f", {audit.image_tokens.median:,.0f} visual tokens each (medians)"
    if audit.smaller_budget:
        told += f" ({audit.smaller_budget})"
    if audit.longest_answer is not None:
        longest = audit.longest_answer
        told += f"; longest answer {longest.length:,} {longest.unit}, {longest.num_boxes:,} boxes, {longest.image}"
    return [*_table(table), *_wrap(told, "  ", 3)]


def _finding_rows(findings: Sequence[Finding], room: int) -> list[str]:
    if not findings:
        return ["nothing to remark"]
    ordered = sorted(findings, key=lambda finding: _ORDER.index(finding.level))
    counts = Counter(finding.level for finding in ordered)
    told = ", ".join(f"{counts[level]} {level.replace('_', ' ')}" for level in _ORDER if counts[level])
    rows = [f"findings: {told}"]
    for place, finding in enumerate(ordered):
        text = f"{finding.level.replace('_', ' ')}  {finding.check}: {finding.seen}"
        lines = _wrap(text, "  ", 2, "      ")
        if finding.fix and finding.level != "ok":
            lines += _wrap(f"-> {finding.fix}", "      ", 1 if len(ordered) > 4 else 2)
        last = place == len(ordered) - 1
        if len(rows) + len(lines) + (not last) > room:
            return [*rows, f"  and {len(ordered) - place} more (--json has all)"]
        rows += lines
    return rows


def _sizes_in_words(one: SplitCounts) -> str:
    if not one.num_image_sizes:
        return "-"
    if one.num_image_sizes == 1:
        return "{} x {}".format(*one.least_wh)
    (least_w, least_h), (most_w, most_h) = one.least_wh, one.most_wh
    return f"{least_w}..{most_w} x {least_h}..{most_h}"


def _wrap(text: str, indent: str, most: int, then: str | None = None) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent if then is None else then, max_lines=most
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with columns of equal width: the first flush left, the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "   ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
