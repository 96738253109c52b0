"""Dataset and model -> what of the boxes the model gets to see, what it has to say, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from boxtune.boxes import Boxes
from boxtune.data.sample import Dataset
from boxtune.data.seen import Seen, Spread, count_thin, look, seen_sides, spread
from boxtune.data.table import SampleTable, as_table
from boxtune.data.target import Target, build_target
from boxtune.errors import Finding, name_some
from boxtune.families import Frame

PATCH_PX = 14
"""Side of a patch in seen pixels, where the family does not say (`patch_px`): that of the CLIP and SigLIP towers."""
MANY = 0.01
"""Share of boxes that are too small for a patch, or too thin for the grammar, from which on it is a warning."""
ENOUGH = 4.0
"""Patches a side that a smaller budget must leave of nineteen boxes in twenty to be told of: two visual tokens."""
MANY_NEGATIVES = 0.5
LONG_ANSWER = {"tokens": 2048, "characters": 8192}
"""Length from which on an answer is called long: about a hundred boxes, each of some 20 tokens."""
_ENCODED = 8  # images whose answers are written to find the longest; chosen by the summed lengths of their boxes


@dataclass(frozen=True, kw_only=True)
class Longest:
    """The longest answer: its image, how many boxes it has, and its `length` in `unit`, tokens or characters."""

    image: str
    num_boxes: int
    length: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class Audit:
    """A data set as one family sees it.

    `side_px` is the square root of a box's area in seen pixels, after the resize within `min_pixels` to `max_pixels`;
    `side_patches` the same in patches of `patch_px` (`patch_assumed`: the family does not say). `under_patch` is the
    share of boxes with less area than a patch, `under_step` of those thinner than a step of the grammar's numbers.
    `scale` is seen side by real side of an image, `image_tokens` its visual tokens (None: not known before the
    processor made them). `negatives` is the share of images without boxes to find, by split. `smaller_budget` says what
    a smaller image budget would leave, where nearly all boxes are large.
    """

    family: str
    why: str
    min_pixels: int
    max_pixels: int
    patch_px: int
    patch_assumed: bool
    side_px: Spread | None
    side_patches: Spread | None
    under_patch: float
    under_step: float
    scale: Spread | None
    image_tokens: Spread | None
    negatives: Mapping[str, float]
    longest_answer: Longest | None
    smaller_budget: str = ""


def audit_dataset(dataset: Dataset, target: Target | None = None) -> tuple[Audit, list[Finding]]:
    """The data set as a family sees it, Qwen2-VL with its default budget if no target is given. Opens no image.

    Linear in images and boxes; the resize rule is asked once for every image size that occurs.
    """
    target = target or build_target()
    tables = {split: as_table(samples) for split, samples in dataset.splits.items()}
    seen = {split: look(table, target) for split, table in tables.items()}
    sides = np.concatenate([np.zeros(0), *(seen_sides(tables[split], one) for split, one in seen.items())])
    num_thin = sum(count_thin(tables[split], one, target) for split, one in seen.items())
    known = target.patch_px
    patch = known or PATCH_PX
    faults = target.family.check_classes(dataset.classes)
    empty = {split: (count_negatives(table), len(table)) for split, table in tables.items()}
    audit = Audit(
        family=target.family.about.title,
        why=target.why,
        min_pixels=target.min_pixels,
        max_pixels=target.max_pixels,
        patch_px=patch,
        patch_assumed=known is None,
        side_px=spread(sides),
        side_patches=spread(sides / patch),
        under_patch=float((sides < patch).mean()) if len(sides) else 0.0,
        under_step=num_thin / max(1, len(sides)),
        scale=spread(np.concatenate([np.zeros(0), *(np.repeat(one.scale, one.counts) for one in seen.values())])),
        image_tokens=_image_tokens(seen.values(), target),
        negatives={split: num / max(1, num_images) for split, (num, num_images) in empty.items()},
        longest_answer=None if faults else _longest_answer(dataset.classes, tables, seen, target),
    )
    audit = replace(audit, smaller_budget=_say_smaller(audit, tables, seen, target))
    return audit, [
        *_check_refused(tables, seen, target),
        *_check_small(audit, tables, target, sides),
        *_check_classes(dataset.classes, faults, target),
        *check_negatives_share(empty),
        *_check_length(audit.longest_answer),
    ]


def count_negatives(table: SampleTable) -> int:
    """Images without boxes to find."""
    return int((np.bincount(table.owners[table.targets], minlength=len(table)) == 0).sum())


def _image_tokens(seen: Iterable[Seen], target: Target) -> Spread | None:
    if not target.family.knows_processor:
        return None

    def count(frame: Frame) -> tuple[float]:
        return (float(target.family.num_image_tokens(frame.original_wh, target.min_pixels, target.max_pixels)),)

    return spread(np.concatenate([np.zeros(0), *(np.repeat(one.measure(count, 1)[:, 0], one.counts) for one in seen)]))


def _longest_answer(
    classes: Sequence[str], tables: Mapping[str, SampleTable], seen: Mapping[str, Seen], target: Target
) -> Longest | None:
    """The longest of the answers that are written out: those of the images whose boxes, written alone, are longest."""
    measure = len if target.vocabulary is None else target.vocabulary.count
    unit = "characters" if target.vocabulary is None else "tokens"
    lengths = {name: measure(target.family.encode(_one_box(name), _SQUARE, classes)) for name in classes}
    candidates: list[tuple[float, str, int]] = []
    for split, table in tables.items():
        of_code: Float[np.ndarray, " k"] = np.array([lengths.get(name, 0) for name in table.names], dtype=np.float64)
        weights = np.where(table.targets, of_code[table.codes], 0.0) if len(table.names) else np.zeros(0)
        totals = np.bincount(table.owners, weights=weights, minlength=len(table))
        totals[~np.isfinite(seen[split].seen_wh[seen[split].of, 0])] = 0
        places = np.argsort(-totals, kind="stable")[:_ENCODED].tolist()
        candidates += [(float(totals[place]), split, place) for place in places if totals[place] > 0]
    answers = []
    for _, split, place in sorted(candidates, reverse=True)[:_ENCODED]:
        sample, one = tables[split][place], seen[split]
        width, height = one.seen_wh[one.of[place]].astype(int).tolist()
        text = target.family.encode(sample.targets, Frame(original_wh=sample.size_wh, seen_wh=(width, height)), classes)
        answers.append((measure(text), sample.image.name, len(sample.targets)))
    if not answers:
        return None
    length, image, num_boxes = max(answers)
    return Longest(image=image, num_boxes=num_boxes, length=length, unit=unit)


_SQUARE = Frame(original_wh=(1000, 1000), seen_wh=(1000, 1000))


def _one_box(name: str) -> Boxes:
    return Boxes(xyxy_px=np.array([[123.0, 234.0, 678.0, 789.0]]), labels=(name,))


def _check_refused(tables: Mapping[str, SampleTable], seen: Mapping[str, Seen], target: Target) -> list[Finding]:
    names, reasons = [], []
    for split, one in seen.items():
        refused = np.isin(one.of, list(one.refused))
        names += [Path(tables[split].files[place]).name for place in np.flatnonzero(refused).tolist()]
        reasons += list(one.refused.values())
    if not names:
        return []
    seen_text = f"images that {target.family.about.title} refuses: {len(names):,} ({name_some(names)}): {reasons[0]}"
    return [Finding(check="image.refused", level="fail", seen=seen_text, fix="cut them into tiles (data.tile)")]


def _check_small(
    audit: Audit, tables: Mapping[str, SampleTable], target: Target, sides: Float[np.ndarray, " m"]
) -> list[Finding]:
    findings = []
    if audit.under_patch:
        warns = audit.under_patch >= MANY
        seen = f"boxes with less area than a patch of {audit.patch_px} pixels, as {audit.family} sees them: "
        seen += f"{round(audit.under_patch * len(sides)):,} of {len(sides):,} ({audit.under_patch:.1%})"
        seen += _most_hit(tables, sides < audit.patch_px)
        fix = _advise(audit, tables, target) if warns else ""
        findings.append(Finding(check="box.tiny_seen", level="warn" if warns else "ok", seen=seen, fix=fix))
    if audit.under_step:
        seen = f"boxes thinner than a step of the grammar's numbers, written one step thick: {audit.under_step:.1%}"
        warns = audit.under_step >= MANY
        fix = "cut the images into tiles (data.tile)" if warns else ""
        findings.append(Finding(check="box.under_step", level="warn" if warns else "ok", seen=seen, fix=fix))
    return findings


def _say_smaller(audit: Audit, tables: Mapping[str, SampleTable], seen: Mapping[str, Seen], target: Target) -> str:
    """What fewer pixels would save, where nearly all boxes would still be large enough."""
    sides, tokens = audit.side_patches, audit.image_tokens
    if sides is None or tokens is None or sides.p5 < 2 * ENOUGH:
        return ""
    areas = np.concatenate([one.seen_wh[one.of].prod(axis=1) for one in seen.values()])
    most = int(np.nanpercentile(areas, 95) * ((ENOUGH + 1) / sides.p5) ** 2)  # sides are rounded
    less = replace(target, min_pixels=min(target.min_pixels, most), max_pixels=most)
    then = {split: look(table, less) for split, table in tables.items()}
    left = spread(np.concatenate([seen_sides(tables[split], one) for split, one in then.items()]) / audit.patch_px)
    fewer = _image_tokens(then.values(), less)
    if left is None or fewer is None or left.p5 < ENOUGH or fewer.median > tokens.median / 2:
        return ""  # families that see every image at one size
    budget = f"image.max_pixels={most}"
    if most < target.min_pixels:
        budget = f"image.min_pixels={most} {budget}"
    return f"{budget}: {fewer.median:,.0f}, 95 % of boxes {left.p5:.1f} patches"


def _most_hit(tables: Mapping[str, SampleTable], small: Bool[np.ndarray, " m"]) -> str:
    """The class that has the most of the small boxes; nothing to say of a single class."""
    hit: dict[str, int] = {}
    all_of: dict[str, int] = {}
    start = 0
    for table in tables.values():
        codes = table.codes[table.targets]
        here = small[start : start + len(codes)]
        start += len(codes)
        for counts, chosen in ((hit, codes[here]), (all_of, codes)):
            for name, num in zip(table.names, np.bincount(chosen, minlength=len(table.names)).tolist(), strict=True):
                counts[name] = counts.get(name, 0) + num
    name = max(hit, key=lambda name: hit[name])
    return f"; {hit[name]:,} of {all_of[name]:,} {name}" if len(hit) > 1 else ""


def _advise(audit: Audit, tables: Mapping[str, SampleTable], target: Target) -> str:
    """What more pixels would do: the share of small boxes under four times the budget, if that changes anything."""
    more = replace(target, min_pixels=4 * target.min_pixels, max_pixels=4 * target.max_pixels)
    sides = np.concatenate([seen_sides(table, look(table, more)) for table in tables.values()])
    share = float((sides < audit.patch_px).mean())
    tiles = "cut the images into tiles (data.tile)"
    if share > 0.8 * audit.under_patch:
        return f"{tiles}; a larger image.max_pixels hardly helps here"
    grown = f"image.min_pixels={more.min_pixels} image.max_pixels={more.max_pixels}"
    return f"{grown} would leave {share:.1%} (four times the visual tokens); or {tiles}"


def _check_classes(classes: Sequence[str], faults: Sequence[str], target: Target) -> list[Finding]:
    findings = []
    where = target.family.about.title
    if faults:
        seen = f"the grammar of {where} cannot carry the class names: {'; '.join(faults[:3])}"
        seen += f"; and {len(faults) - 3} more faults" if faults[3:] else ""
        fix = "rename them with data.classes={old: new, ...}"
        findings.append(Finding(check="class.not_in_grammar", level="fail", seen=seen, where=where, fix=fix))
    keeps = None if target.vocabulary is None else target.vocabulary.keeps
    lost = [] if keeps is None else [name for name in classes if not keeps(name)]
    if lost:
        seen = f"class names that the tokenizer cannot hold, so that they come back changed: {len(lost)} "
        seen += f"({name_some([repr(name) for name in lost])})"
        fix = "rename them with data.classes={old: new, ...}: an answer must repeat them letter by letter"
        findings.append(Finding(check="class.not_in_tokenizer", level="fail", seen=seen, where=target.why, fix=fix))
    return findings


def check_negatives_share(counts: Mapping[str, tuple[int, int]]) -> list[Finding]:
    """Findings about images without boxes; `counts` are those and all images, by split."""
    num, num_images = counts.get("train", (0, 0))
    others = [f"{split} ({n:,} of {of:,})" for split, (n, of) in counts.items() if split != "train" and n]
    check = "data.negatives_share"
    if num_images and num > MANY_NEGATIVES * num_images:
        seen = f"{num:,} of {num_images:,} training images ({num / num_images:.0%}) have no boxes to find"
        fix = "thin them out with data.negatives=0.1, or see whether annotations are missing"
        return [Finding(check=check, level="warn", seen=seen, fix=fix)]
    if num_images and not num and others:
        seen = (
            f"every training image has boxes, but not those of {name_some(others)}: nothing teaches to answer nothing"
        )
        return [Finding(check=check, level="warn", seen=seen, fix="add training images without any of the classes")]
    return []


def _check_length(longest: Longest | None) -> list[Finding]:
    if longest is None or longest.length < LONG_ANSWER[longest.unit]:
        return []
    seen = f"the longest answer has {longest.length:,} {longest.unit} ({longest.image}, {longest.num_boxes:,} boxes)"
    fix = "cut the images into tiles (data.tile): long answers cost memory, take long, and break off"
    return [Finding(check="answer.long", level="warn", seen=seen, fix=fix)]
