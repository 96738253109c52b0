"""Category ids and class names of another system -> classes of a data set, or the question that must be answered.

Ids and names alone decide: a mapping that was chosen for its score would be part of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boxtune.data.formats.coco_document import Id
from boxtune.errors import ConfigError, DataError, Finding, Level, name_some
from boxtune.measure.foreign_images import Known, as_text

CATEGORIES = ("auto", "own", "from_zero", "from_one", "coco91")
"""`categories=`: a category id is one of the data set's own, the place of the class counted from 0 or from 1, or one of
those that COCO's own files give its 80 classes."""

_HOW = {
    "own": "the data's own",
    "from_zero": "places in the order of the classes, counted from 0",
    "from_one": "places in the order of the classes, counted from 1",
    "coco91": "the ids that COCO's own files give its 80 classes",
}
_COCO_91 = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]  # of its 80 classes


def match_categories(
    used: Sequence[Id], known: Known, classes: Sequence[str], *, asked: str, where: str
) -> tuple[dict[Id, str | None], list[Finding]]:
    """The class name that each category id means, None for one that is left out, and what is to say.

    Read are the data set's own ids where all are among them, else places in its order of classes, if only one way of
    counting is possible. `classes` are those that boxes of the data set have. With `asked` that way is taken, and
    `own` leaves out what it does not know. Raises DataError with the question where several ways fit, or none.
    """
    texts = sorted({as_text(one) for one in used}, key=lambda text: (len(text), text))
    ways = {way: by_id for way, by_id in _ways(known).items() if by_id}
    fits = [way for way, by_id in ways.items() if all(text in by_id for text in texts)]
    level: Level
    if asked != "auto":
        way, how, level, fix = asked, f"with categories={asked}", "ok", ""
        _require_some(texts, ways, asked, where)
    elif "own" in fits:
        way, how = "own", f"as {_HOW['own']}"
        level, fix = _doubt(texts, ways, fits, classes, where)
    else:
        counted = [way for way in fits if known.numbered or len(known.ordered) == 1]
        if len(counted) != 1:
            raise _unclear(texts, known, fits, where)
        way, how, level, fix = counted[0], f"as {_HOW[counted[0]]}, the one way that fits", "ok", ""
    mapping = {one: ways[way].get(as_text(one)) for one in used}
    read = [f"{text} is {ways[way][text]}" for text in texts if text in ways[way]]
    seen = f"category ids read {how}: {name_some(read, limit=4)}"
    findings = [Finding(check="eval.categories", level=level, seen=seen, where=where, fix=fix)]
    if unknown := [text for text in texts if text not in ways[way]]:
        findings.append(_left_out(unknown, where))
    return mapping, findings


def _ways(known: Known) -> dict[str, Mapping[str, str]]:
    """Class names by id in every way that ids can be read; empty where a way is none for this data set."""
    names = known.ordered
    is_coco = len(names) == len(_COCO_91) and (names[0], names[-1]) == ("person", "toothbrush")
    return {
        "own": known.categories,
        "from_zero": {str(place): name for place, name in enumerate(names)},
        "from_one": {str(place): name for place, name in enumerate(names, start=1)},
        "coco91": dict(zip(map(str, _COCO_91), names, strict=True)) if is_coco else {},
    }


def _require_some(texts: Sequence[str], ways: Mapping[str, Mapping[str, str]], asked: str, where: str) -> None:
    """ConfigError where that way is none for the data, DataError where an id is unknown; of `own`, where all are."""
    if asked not in ways:
        what = f"categories={asked} is no way to read ids of this data: its files give classes no such ids"
        raise ConfigError(what, where="categories", fix=f"one of: {', '.join(ways)}")
    unknown = [text for text in texts if text not in ways[asked]]
    if unknown and (asked != "own" or len(unknown) == len(texts)):
        what = f"category ids that the data does not have with categories={asked}: {name_some(unknown, limit=6)}"
        raise DataError(what, where=where, fix=f"there are: {_list(ways[asked])}")


def _doubt(
    texts: Sequence[str],
    ways: Mapping[str, Mapping[str, str]],
    fits: Sequence[str],
    classes: Sequence[str],
    where: str,
) -> tuple[Level, str]:
    """Level and advice where ids are the data's own; DataError where it is likelier that they are counted."""
    own = ways["own"]
    differ = [way for way in fits if any(own[text] != ways[way][text] for text in texts)]
    missing = [f"{i} ({name})" for i, name in own.items() if i not in texts and name in classes]
    if differ and "0" in texts and own["0"] not in classes:
        other = differ[0]
        raise DataError(
            f"category id 0 is {own['0']!r} by the data's own ids, and no box of the data is one; all ids fit as well "
            f"where 0 is {ways[other]['0']!r}",
            where=where,
            fix=f"say which: categories=own or categories={other}",
        )
    if not differ or not missing:
        return "ok", ""
    return "warn", f"no row is of {name_some(missing)}; if the ids are counted otherwise, say categories={differ[0]}"


def _unclear(texts: Sequence[str], known: Known, fits: Sequence[str], where: str) -> DataError:
    ids, order = name_some(texts, limit=6), name_some(known.ordered, limit=8)
    if fits:
        why = f"they fit {len(fits)} ways of counting" if known.numbered else "the data's format numbers no classes"
        ways = " or ".join(f"categories={way}" for way in fits)
        what = f"what the category ids {ids} mean cannot be told: {why}"
        return DataError(what, where=where, fix=f"say {ways}; the order of the classes is: {order}")
    fix = f"write places in the order of its {len(known.ordered)} classes: {order}"
    if known.categories:
        fix = f"its own are {_list(known.categories)}; categories=own leaves out what the data does not have"
    return DataError(f"category ids that the data does not have: {ids}", where=where, fix=fix)


def match_names(
    used: Sequence[str], names: Sequence[str], *, asked: str, where: str
) -> tuple[dict[Id, str | None], list[Finding]]:
    """The classes that are called so; DataError for other names, which `categories=own` leaves out."""
    unknown = [name for name in used if name not in names]
    if unknown and (asked != "own" or len(unknown) == len(used)):
        raise DataError(
            f"classes that the data does not have: {len(unknown)} of {len(used)} ({name_some(unknown, limit=6)})",
            where=where,
            fix=f"its classes are: {name_some(names, limit=20)}; categories=own leaves the others out",
        )
    return {name: None if name in unknown else name for name in used}, [_left_out(unknown, where)] if unknown else []


def _left_out(unknown: Sequence[str], where: str) -> Finding:
    seen = f"categories that the data does not have, left out: {len(unknown)} ({name_some(unknown, limit=6)})"
    return Finding(check="eval.categories_unknown", level="warn", seen=seen, where=where)


def _list(by_id: Mapping[str, str]) -> str:
    return name_some((f"{i} ({name})" for i, name in by_id.items()), limit=6)
