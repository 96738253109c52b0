"""Image ids of another system -> images of a data set, or the question that must be answered.

Ids and file names alone decide: a mapping that was chosen for its score would be part of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from boxtune.data.draft import Options
from boxtune.data.formats import read_raw
from boxtune.data.formats.coco_document import Id, read_document
from boxtune.data.formats.coco_layout import require_layout
from boxtune.data.sample import Dataset, Sample
from boxtune.data.table import as_table
from boxtune.errors import DataError, Finding, Level, name_some

IDS = ("auto", "own", "name", "stem")
"""`ids=`: an image id is one of the data set's own annotation file, a file name, or one without its suffix."""
_CALLED = {
    "file": "the file names beside them",
    "own": "ids of the data set's annotations",
    "name": "file names",
    "stem": "file names without suffix",
}
_NUMBERED = ("yolo", "darknet", "keras_txt")  # formats whose labels are places in a list of names

Place = tuple[str, int]
"""An image: its split, and its place there."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a data set's own files call the images of a split, and the classes.

    `images` are file names by id, `whole` if all those ids are whole numbers; `categories` class names by id: both
    are empty where the format has no such ids. `ordered` are the names in the format's own order, `numbered` if its
    labels are places in that order. Ids are written as text.
    """

    images: Mapping[str, str]
    whole: bool
    categories: Mapping[str, str]
    ordered: tuple[str, ...]
    numbered: bool


def read_known(dataset: Dataset, split: str, options: Options) -> Known:
    """What the files of a data set that was read call things; a split that was set apart has its names from `train`."""
    if dataset.format == "coco":
        files = require_layout(dataset.path).files
        document = read_document(files[split] if split in files else files["train"])
        images = list(zip(document.image_ids, document.file_names, strict=True))
        categories = document.categories
        ordered = [name for _, name in sorted(categories.items(), key=lambda one: (isinstance(one[0], str), one[0]))]
        # Roboflow writes the name of the whole group as category 0, and no box has it.
        if ordered and categories.get(0) == ordered[0] and ordered[0] not in dataset.classes:
            ordered = ordered[1:]
        numbered = True
    else:
        _, raw = read_raw(dataset.path, format=dataset.format, options=options)
        by_split = {draft.split: draft for draft in raw.drafts}
        draft = by_split[split] if split in by_split else by_split["train"]
        images = [(i, name) for i, name in zip(draft.image_ids, draft.files, strict=True) if i is not None]
        categories = {}
        ordered = [*dict.fromkeys(raw.classes)] or [*dataset.classes]
        numbered = bool(raw.classes) and dataset.format in _NUMBERED
    return Known(
        images={as_text(i): name for i, name in images},
        whole=all(isinstance(i, int) for i, _ in images),
        categories={as_text(i): name for i, name in categories.items()},
        ordered=tuple(ordered),
        numbered=numbered,
    )


def as_text(value: Id) -> str:
    """An id as text: 7, 7.0 and "7" are one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


class _Index:
    """The images of all splits by id, file name and stem."""

    def __init__(self, splits: Mapping[str, Sequence[Sample]], split: str, known: Known) -> None:
        self.split, self.known = split, known
        self.tables = {name: as_table(samples) for name, samples in splits.items()}
        self.by_name: dict[str, list[Place]] = {}
        self.by_stem: dict[str | int, list[Place]] = {}
        self.by_id: dict[str, list[Place]] = {}
        for name, table in self.tables.items():
            for place, file in enumerate(table.files):
                path = Path(file)
                self.by_name.setdefault(path.name, []).append((name, place))
                self.by_stem.setdefault(path.stem, []).append((name, place))
                if path.stem.isascii() and path.stem.isdecimal():
                    # Some systems write the stem 000139 as the number 139.
                    self.by_stem.setdefault(int(path.stem), []).append((name, place))
            for place, number in enumerate(table.image_ids.tolist() if known.images and known.whole else []):
                self.by_id.setdefault(str(number), []).append((name, place))

    def find(self, way: str, ref: Id) -> list[Place]:
        """The images that an id can mean, those of the split alone where there are some."""
        if way == "own":
            found = self.by_id.get(as_text(ref), [])
            if not self._here(found) and as_text(ref) in self.known.images:
                # An id of text, or the second id of a file that is listed twice.
                found = self._here(self._named(self.known.images[as_text(ref)])) or found
        elif way == "stem":
            found = self.by_stem.get(ref, []) if isinstance(ref, int | str) else []
        else:
            found = self._named(ref) if isinstance(ref, str) else []
        return self._here(found) or found

    def file(self, place: Place) -> str:
        """The path of an image."""
        return self.tables[place[0]].files[place[1]]

    def _here(self, found: Sequence[Place]) -> list[Place]:
        return [place for place in found if place[0] == self.split]

    def _named(self, name: str) -> list[Place]:
        """The images of that file name; of several those with the most folders in common."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        found = self.by_name.get(parts[-1], []) if parts else []
        if len(found) < 2:
            return found
        common = [_num_common(parts, Path(self.file(place)).parts) for place in found]
        return [place for place, num in zip(found, common, strict=True) if num == max(common)]


def _num_common(left: Sequence[str], right: Sequence[str]) -> int:
    """How many parts two paths have in common at their ends."""
    pairs = zip(reversed(left), reversed(right), strict=False)
    return next((num for num, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))


def match_images(
    refs: Sequence[Id],
    names: Mapping[Id, str],
    splits: Mapping[str, Sequence[Sample]],
    split: str,
    known: Known,
    *,
    asked: str,
    where: str,
) -> tuple[list[int], list[Finding]]:
    """The place in `split` of the image that each of `refs` means, -1 for one that is left out, and what is to say.

    `names` are file names that stand beside ids in the predictions; where they name every image, they decide. Else
    every way of reading an id is tried, and those that fit must agree. Raises DataError where they do not, where an
    id means several images, or where it is another split, or none of the data, that most ids belong to.
    """
    index = _Index(splits, split, known)
    ways = [asked] if asked != "auto" else ["own", "name", "stem"]
    found = {way: [index.find(way, ref) for ref in refs] for way in ways}
    if asked == "auto" and all(ref in names for ref in refs):
        found = {"file": [index.find("name", names[ref]) for ref in refs], **found}
    numbers = {way: sum(map(bool, places)) for way, places in found.items()}
    way = max(numbers, key=lambda one: numbers[one])
    if not numbers[way]:
        there = index.tables[split]
        raise DataError(
            f"none of the {len(refs)} image ids of the predictions is an image of the data: "
            f"{name_some([repr(ref) for ref in refs])}",
            where=where,
            fix=f"images there are: {name_some([Path(file).name for file in there.files])}"
            + (f", with the ids {name_some(known.images)}" if known.images else "")
            + "; write their file names, stems or ids as image_id",
        )
    if way != "file":
        _require_agreement(refs, found, way, index, where)
    if several := [(ref, places) for ref, places in zip(refs, found[way], strict=True) if len(places) > 1]:
        ref, places = several[0]
        raise DataError(
            f"{len(several)} image ids mean several images each: {ref!r} is "
            f"{name_some([index.file(place) for place in places])}",
            where=where,
            fix="write the file name with its folders as image_id, or an id of the data's own annotations",
        )
    return _keep_here(refs, [places[0] if places else None for places in found[way]], way, index, where)


def _require_agreement(
    refs: Sequence[Id], found: Mapping[str, Sequence[list[Place]]], way: str, index: _Index, where: str
) -> None:
    """DataError where an id means one image by the way that is taken and another by another."""
    for other, places in found.items():
        odd = [
            i for i, (one, two) in enumerate(zip(found[way], places, strict=True)) if one and two and one[0] not in two
        ]
        if other in (way, "file") or not odd:
            continue
        one, two = (Path(index.file(found[name][odd[0]][0])).name for name in (way, other))
        raise DataError(
            f"{len(odd)} of {len(refs)} image ids can be read in two ways: {refs[odd[0]]!r} is {one} by the "
            f"{_CALLED[way]}, and {two} by the {_CALLED[other]}",
            where=where,
            fix=f"say which: ids={way} or ids={other}",
        )


def _keep_here(
    refs: Sequence[Id],
    places: Sequence[Place | None],
    way: str,
    index: _Index,
    where: str,
) -> tuple[list[int], list[Finding]]:
    """The places of those in the split, each image once; DataError where the others say that it is the wrong split."""
    here = [i for i, place in enumerate(places) if place is not None and place[0] == index.split]
    unknown = [repr(refs[i]) for i, place in enumerate(places) if place is None]
    others = sorted({place[0] for place in places if place is not None and place[0] != index.split})
    elsewhere = [f"{refs[i]!r} ({p[0]})" for i, p in enumerate(places) if p is not None and p[0] != index.split]
    if len(here) < len(refs) and way == "own":
        _require_own_split(refs, here, index, where)
    if not here or 2 * len(unknown) > len(refs):
        told = f"{len(elsewhere)} are of other splits: {name_some(elsewhere)}" if elsewhere else "no split has more"
        fix = f"give the data that was predicted on; not there: {name_some(unknown)}"
        raise DataError(
            f"only {len(here)} of {len(refs)} image ids are images of {index.split}, read as {_CALLED[way]}; {told}",
            where=where,
            fix=fix if unknown else f"give {' or '.join(f'split={name}' for name in others)}",
        )
    first: dict[int, int] = {}
    kept, twice = [-1] * len(refs), []
    for i in here:
        place = places[i]
        assert place is not None
        if first.setdefault(place[1], i) == i:
            kept[i] = place[1]
        else:
            twice.append(f"{refs[i]!r} as {refs[first[place[1]]]!r}")
    example = index.file((index.split, kept[here[0]]))
    found_so = (
        f"image ids read as {_CALLED[way]}: {len(here)} of {len(refs)} ({refs[here[0]]!r} is {Path(example).name})"
    )
    rows: list[tuple[str, Level, str, str]] = [("eval.images", "ok", found_so, "")]
    if elsewhere:
        seen = f"images of other splits, left out: {len(elsewhere)} ({name_some(elsewhere)})"
        rows.append(("eval.images_elsewhere", "ok", seen, ""))
    if unknown:
        seen = f"images that the data does not have, left out: {len(unknown)} ({name_some(unknown)})"
        rows.append(("eval.images_unknown", "warn", seen, "give the data that was predicted on"))
    if twice:
        seen = f"image ids that stand for the image of an earlier one, left out: {len(twice)} ({name_some(twice)})"
        rows.append(("eval.images_twice", "warn", seen, "write every image under one id"))
    return kept, [
        Finding(check=check, level=level, seen=seen, where=where, fix=fix) for check, level, seen, fix in rows
    ]


def _require_own_split(refs: Sequence[Id], here: Sequence[int], index: _Index, where: str) -> None:
    """DataError where all ids are those of another split, which counts its own images: the few that fit mean others."""
    for other in index.tables:
        theirs = [[p for p in index.by_id.get(as_text(ref), []) if p[0] == other] for ref in refs]
        if other == index.split or not all(theirs):
            continue
        ours = {index.file(place) for i in here for place in index.find("own", refs[i])}
        if not ours <= {index.file(place) for places in theirs for place in places}:
            what = (
                f"all {len(refs)} image ids are ids of {other}, and only {len(here)} of them are ids of {index.split}"
            )
            raise DataError(what, where=where, fix=f"score them with split={other}, or say what ids are: ids=name")
