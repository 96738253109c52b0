"""Classes chosen, renamed or merged, and names looked at with a reader's eye: the model knows a class by its name."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from boxtune.data.sample import Dataset
from boxtune.data.table import SampleTable, as_table
from boxtune.errors import ConfigError, Finding, name_some

_WHERE = "data.classes"
_SAYS_NOTHING = re.compile(
    r"[+-]?\d+([.,]\d+)?"
    r"|(class|label|object|obj|category|item|thing|target|type|id|name|cls)(es|s)?[\W_]*\d+"
    r"|(class|label|object|category|item|thing)(es|s)?|categories|obj|cls"
    r"|unknown|undefined|unnamed|none|null|nan|default",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)")  # but not those that part two numbers
_JOINERS = "\u200c\u200d"  # within words of Persian and of Indian scripts they are part of the spelling
_ENDINGS = (("", "s"), ("", "es"), ("y", "ies"), ("f", "ves"), ("fe", "ves"))


def select_classes(dataset: Dataset, classes: Sequence[str] | Mapping[str, str]) -> Dataset:
    """The data set with these classes alone, in the order given, and findings that say what became of the others.

    A list of names selects. A mapping of old names to new ones renames, and merges where several have one new name.
    Boxes of classes that are not mentioned are dropped, crowd and ignored ones too; images stay, as negatives if
    nothing is left. Where a merge makes two boxes of one image equal, corner by corner, one of them is kept.

    Raises ConfigError for names that the data set lacks, with those that are near; for a new name that is empty or has
    blanks around it; and for one that is the name of another class of the data set that is not mentioned.
    """
    renamed = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
    require_known(renamed, dataset.classes, _WHERE)
    _require_new_names(renamed, dataset.classes)
    new_names = tuple(dict.fromkeys(renamed.values()))
    splits, changes = {}, {}
    for split, samples in dataset.splits.items():
        splits[split], changes[split] = _select(as_table(samples), renamed, new_names)
    findings = _dropped(dataset.classes, renamed, changes) + _renamed(renamed, changes)
    return replace(dataset, classes=new_names).with_splits(splits, *findings)


def require_known(names: Iterable[str], classes: Sequence[str], where: str) -> None:
    """Raises ConfigError that lists the names that are no class, each with the classes nearest to it."""
    named = list(names)
    if not named:
        raise ConfigError("no class is named", where=where, fix=f"name some of: {name_some(classes, limit=10)}")
    unknown = [name for name in named if name not in classes]
    if not unknown:
        return
    hints = [f"{name!r}{_near(name, classes)}" for name in unknown]
    raise ConfigError(
        f"{len(unknown)} of {len(named)} names are no class of the data set: {name_some(hints, limit=10)}",
        where=where,
        fix=f"its classes are: {name_some(classes, limit=20)}",
    )


def _near(name: str, classes: Sequence[str]) -> str:
    folded = {one.casefold(): one for one in classes}
    near = difflib.get_close_matches(name.casefold(), folded, n=3)
    return f" (near: {', '.join(folded[one] for one in near)})" if near else ""


def _require_new_names(renamed: Mapping[str, str], classes: Sequence[str]) -> None:
    bad = [new for new in renamed.values() if not new.strip() or new != new.strip()]
    if bad:
        raise ConfigError(
            f"a class cannot be called {bad[0]!r}", where=_WHERE, fix="give a name without blanks around it"
        )
    for old, new in renamed.items():
        if new != old and new in classes and new not in renamed:
            raise ConfigError(
                f"{old!r} is to be called {new!r}, which is another class of the data set, and that one is not named",
                where=_WHERE,
                fix=f"add {new!r}: {new!r} to merge the two, or choose another name",
            )


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What became of a split: boxes by old class, of `num_images` those that lost all boxes to find, equal boxes."""

    counts: Mapping[str, int]
    num_images: int
    num_emptied: int
    num_equal: int


def _select(table: SampleTable, renamed: Mapping[str, str], new_names: tuple[str, ...]) -> tuple[SampleTable, _Change]:
    new_code = {name: code for code, name in enumerate(new_names)}
    lookup = np.array([new_code[renamed[name]] if name in renamed else -1 for name in table.names], dtype=np.int64)
    codes: Int[np.ndarray, " m"] = lookup[table.codes] if len(table.names) else table.codes
    owners, targets = table.owners, table.targets
    merged = np.bincount(lookup[lookup >= 0], minlength=len(new_names)) > 1
    equal = _equal(table, codes, targets & (codes >= 0), merged)
    kept = (codes >= 0) & ~equal
    counts = np.bincount(table.codes[targets], minlength=len(table.names))
    before, after = (np.bincount(owners[mask], minlength=len(table)) for mask in (targets, targets & kept))
    chosen = replace(
        table,
        starts=np.concatenate([[0], np.cumsum(np.bincount(owners[kept], minlength=len(table)))]).astype(np.int64),
        xyxy_px=table.xyxy_px[kept],
        codes=codes[kept],
        names=new_names,
        crowd=table.crowd[kept],
        ignore=table.ignore[kept],
    )
    return chosen, _Change(
        counts=dict(zip(table.names, counts.tolist(), strict=True)),
        num_images=len(table),
        num_emptied=int(((before > 0) & (after == 0)).sum()),
        num_equal=int(equal.sum()),
    )


def _equal(
    table: SampleTable, codes: Int[np.ndarray, " m"], among: Bool[np.ndarray, " m"], merged: Bool[np.ndarray, " k"]
) -> Bool[np.ndarray, " m"]:
    """Boxes that equal an earlier one of their image in corners and new class, but had another class before.

    Only new classes that are `merged` of several are looked at.
    """
    found = np.zeros(len(codes), dtype=bool)
    rows = np.flatnonzero(among & merged[codes])
    # Few share image and left border with another, and only those are sorted by everything, in a third of the time.
    lefts, images = table.xyxy_px[rows, 0], table.owners[rows]
    order = np.lexsort((lefts, images))
    alike = (np.diff(lefts[order]) == 0) & (np.diff(images[order]) == 0)
    rows = np.unique(np.concatenate([rows[order[1:][alike]], rows[order[:-1][alike]]]))
    if not len(rows):
        return found
    keys = np.column_stack([table.owners[rows], codes[rows], table.xyxy_px[rows]])
    order = np.lexsort((rows, *keys.T))
    begins = np.concatenate([[True], (keys[order][1:] != keys[order][:-1]).any(axis=1)])
    first = rows[order][np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    found[rows[order]] = table.codes[rows[order]] != table.codes[first]
    return found


def _dropped(classes: Sequence[str], renamed: Mapping[str, str], changes: Mapping[str, _Change]) -> list[Finding]:
    gone = [name for name in classes if name not in renamed]
    if not gone:
        return []
    lost = {name: sum(change.counts.get(name, 0) for change in changes.values()) for name in gone}
    named = name_some([f"{name} ({num:,})" for name, num in lost.items()], limit=10)
    emptied = ", ".join(f"{change.num_emptied:,} of {change.num_images:,} in {s}" for s, change in changes.items())
    train = changes.get("train")
    many = train is not None and 2 * train.num_emptied > train.num_images
    return [
        Finding(
            check="data.classes_dropped",
            level="warn" if many else "ok",
            seen=f"{len(gone)} classes not chosen, their {sum(lost.values()):,} boxes dropped: {named}; "
            f"images that became negatives: {emptied}",
            where=_WHERE,
            fix="most training images are now without boxes: limit them with data.negatives" if many else "",
        )
    ]


def _renamed(renamed: Mapping[str, str], changes: Mapping[str, _Change]) -> list[Finding]:
    sources: dict[str, list[str]] = {}
    for old, new in renamed.items():
        sources.setdefault(new, []).append(old)
    told = [f"{' + '.join(old)} -> {new}" for new, old in sources.items() if old != [new]]
    if not told:
        return []
    num_equal = sum(change.num_equal for change in changes.values())
    also = f"; {num_equal:,} boxes that became equal to another of their image are dropped" if num_equal else ""
    seen = f"classes renamed or merged: {name_some(told, limit=10)}{also}"
    return [Finding(check="data.classes_renamed", level="ok", seen=seen, where=_WHERE)]


def require_descriptions(descriptions: Mapping[str, str], classes: Sequence[str]) -> None:
    """Raises ConfigError unless every key is a class, as they are called in the end, and every text says something."""
    if descriptions:
        require_known(descriptions, classes, "data.descriptions")
    empty = [name for name, text in descriptions.items() if not text.strip()]
    if empty:
        raise ConfigError(
            f"no text describes: {name_some(empty)}", where="data.descriptions", fix="give a text or leave the key away"
        )


def check_class_names(names: Sequence[str], counts: Mapping[str, int]) -> list[Finding]:
    """Findings about names that tell the model nothing, that are alike, or that hold what cannot be seen.

    `counts` are the boxes of each class, for the reader to weigh them by.
    """

    def told(some: Iterable[str]) -> str:
        return name_some([f"{name!r} ({counts.get(name, 0):,} boxes)" for name in some], limit=5)

    rows = [
        (
            "data.class_says_nothing",
            [told([name]) for name in names if says_nothing(name)],
            "tell the model nothing",
            "call them what they are with data.classes={old: new, ...}, or say it with data.descriptions",
        ),
        (
            "data.classes_alike",
            [told(group) for group in alike_names(names)],
            "differ only in case, blanks, hyphens or plural",
            "merge them with data.classes={old: new, ...} (name every class to keep)",
        ),
        (
            "data.class_not_printing",
            [told([name]) for name in names if _unseen(name)],
            "hold characters that cannot be seen",
            "write them anew with data.classes={old: new, ...}, or mend the annotations",
        ),
        (
            "data.class_blanks",
            [told([name]) for name in names if name != name.strip() or "  " in name],
            "begin or end with a blank, or hold two in a row",
            "write them anew with data.classes={old: new, ...}, or mend the annotations",
        ),
    ]
    return [
        Finding(
            check=check,
            level="warn",
            seen=f"class names that {what}: {len(found)} ({'; '.join(found[:5])}{'; ...' if found[5:] else ''})",
            fix=fix,
        )
        for check, found, what, fix in rows
        if found
    ]


def says_nothing(name: str) -> bool:
    """Whether it is a number, a numbered or bare word such as `class_1` or `object`, or one letter of an alphabet."""
    bare = name.strip()
    if len(bare) <= 1:
        # A single sign of a script that writes words with one, such as 猫, says all that is needed.
        return not bare or bare.isascii() or unicodedata.name(bare, "").startswith(("LATIN", "GREEK", "CYRILLIC"))
    return _SAYS_NOTHING.fullmatch(bare) is not None


def alike_names(names: Sequence[str]) -> list[list[str]]:
    """Groups of names that are one but for case, blanks, underscores, hyphens, Unicode form, or a regular plural."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(_BLANKS.sub("", unicodedata.normalize("NFKC", name).casefold()), []).append(name)
    groups = []
    for key, group in by_key.items():
        stems = [(key.removesuffix(end), plural) for end, plural in _ENDINGS if key.endswith(end) and len(key) > 1]
        plurals = [name for stem, plural in stems for name in by_key.get(stem + plural, [])]
        groups.append(list(dict.fromkeys([*group, *plurals])))
    return [group for group in groups if len(group) > 1 and not any(set(group) < set(other) for other in groups)]


def _unseen(name: str) -> bool:
    found = [sign for sign in name if unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    odd_blanks = any(sign.isspace() and sign != " " for sign in name)
    return odd_blanks or name.strip(_JOINERS) != name or any(sign not in _JOINERS for sign in found)
