"""Conversations about pictures, as fine-tuning tools keep them, whose answers tell boxes -> drafts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from boxtune.data.draft import Draft, Options, Size
from boxtune.data.formats.chat_dialects import DIALECTS, Box, parse_answer
from boxtune.data.formats.chat_files import iter_entries
from boxtune.data.formats.chat_labels import asks_for_boxes, denies, is_nothing
from boxtune.data.formats.chat_objects import read_objects
from boxtune.data.formats.chat_records import Chat, Keys, read_chat
from boxtune.data.formats.chat_units import choose_unit, to_shares
from boxtune.data.formats.embedded import PictureStore, decode_data_uri, say_embedded
from boxtune.data.formats.remarks import Remarks
from boxtune.data.formats.sizes import read_sizes
from boxtune.errors import DataError, Level

_MOST_UNSOUND = 0.01  # share of the answers with boxes; more is no accident
_SHORT = 40  # letters: the answer to a question that others answer with boxes, and that has none, says "nothing"

_REMARKS: dict[str, tuple[Level, str, str]] = {
    "chat.unsound": ("warn", "answers that hold something that is no sound box; it is left out", "mend them"),
    "chat.unlabelled": ("warn", "boxes that neither answer nor question names, left out", "name them in the answer"),
    "chat.no_boxes": ("warn", "answers without a box that do not say there is nothing, left out", ""),
    "chat.no_picture": ("warn", "conversations without a picture, left out", ""),
    "chat.several_pictures": (
        "warn",
        "answers with boxes about several pictures, left out, since none of them is said to be meant",
        "ask about one picture at a time",
    ),
    "chat.points": ("ok", "points, left out", ""),
    "chat.nothing": ("ok", "answers that say there is nothing", ""),
}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A box, the place of its picture, where it was said, and in which dialect (None: in ms-swift's objects)."""

    box: Box
    image: int
    where: str
    dialect: str | None


@dataclass(frozen=True, kw_only=True)
class _Silent:
    """An answer without a box: a negative or talk, which other answers to its question must tell."""

    question: str
    answer: str
    image: str
    where: str


@dataclass(kw_only=True)
class Part:
    """What the conversations of one split say: pictures by name, and the boxes of all answers about them.

    `base` is the folder that the pictures' names start from, where it is known.
    """

    split: str
    file: Path
    base: Path | None = None
    remarks: Remarks = field(init=False)
    images: dict[str, int] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    boxes: list[Placed] = field(default_factory=list)
    dialects: dict[str, int] = field(default_factory=dict)
    sizes_wh: list[Size | None] = field(default_factory=list)
    stores: list[PictureStore] = field(default_factory=list)
    silent: list[_Silent] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    num_answers: int = 0
    num_unsound: int = 0

    def __post_init__(self) -> None:
        self.remarks = Remarks(self.file, _REMARKS)

    def image(self, name: str, where: str) -> int:
        """The place of a picture; one in base64 is copied into the cache."""
        if name not in self.images:
            self.images[name] = len(self.images)
            if (picture := decode_data_uri(name, where)) is not None:
                self.stores = self.stores or [PictureStore(self.file)]
                called = hashlib.sha256(picture).hexdigest()[:16]
                self.paths[name] = self.stores[0].keep(len(self.paths), called, picture)
            elif self.base is not None and (path := self.base / name).is_file():
                self.paths[name] = path
        return self.images[name]


def read_part(split: str, file: Path, keys: Keys | None, base: Path | None) -> Part:
    """All boxes and negatives of a file of conversations; `keys` and `base` where somebody says what they are.

    Raises DataError with the first of them if entries cannot be read, or if more than 1 % of the answers hold
    something that is no sound box.
    """
    part = Part(split=split, file=file, base=base)
    for where, entry in iter_entries(file):
        try:
            _read_entry(part, read_chat(entry, where, keys))
        except DataError as problem:
            part.remarks.fault(f"{problem.where.removeprefix(f'{file}, ')}: {problem.what}")
    part.remarks.require_sound("entries that cannot be read", "mend them, or take them out")
    if part.num_unsound > _MOST_UNSOUND * part.num_answers:
        told = next(one.seen for one in part.remarks.findings() if one.check == "chat.unsound")
        raise DataError(
            f"of {part.num_answers:,} answers with boxes too many are not sound: {told}",
            where=str(file),
            fix="mend them; a box is x1, y1, x2, y2 with x1 < x2 and y1 < y2, within the grammar's range",
        )
    _settle_silent(part)
    return part


def _read_entry(part: Part, chat: Chat) -> None:
    objects = read_objects(chat)
    if not chat.images:
        part.remarks.add("chat.no_picture", _short(chat.where, part))
        return
    if objects is not None and (objects.boxes or objects.num_points or isinstance(chat.objects, dict)):
        for _ in range(objects.num_points):
            part.remarks.add("chat.points", _short(chat.where, part))
        for placed in objects.boxes:
            _add(part, placed.box, part.image(chat.images[placed.image], chat.where), chat.where, None)
        if objects.boxes:
            part.num_answers += 1
            part.asked.update(_plain(turn.question) for turn in chat.turns)
            return
    for turn in chat.turns:
        answered = parse_answer(turn.question, turn.answer)
        for _ in range(answered.num_points):
            part.remarks.add("chat.points", _short(chat.where, part))
        if answered.dialect is None:
            if not answered.num_points:
                part.silent.append(
                    _Silent(question=turn.question, answer=turn.answer, image=chat.images[0], where=chat.where)
                )
            continue
        if len(set(chat.images)) > 1:
            part.remarks.add("chat.several_pictures", _short(chat.where, part))
            continue
        part.num_answers += 1
        part.asked.add(_plain(turn.question))
        part.dialects[answered.dialect] = part.dialects.get(answered.dialect, 0) + 1
        if answered.faults:
            part.num_unsound += 1
            part.remarks.add("chat.unsound", f"{_short(chat.where, part)}: {answered.faults[0]}")
        image = part.image(chat.images[0], chat.where)
        for box in answered.boxes:
            _add(part, box, image, chat.where, answered.dialect)


def _add(part: Part, box: Box, image: int, where: str, dialect: str | None) -> None:
    if box.label is None:
        part.remarks.add("chat.unlabelled", _short(where, part))
    else:
        part.boxes.append(Placed(box=box, image=image, where=where, dialect=dialect))


def _settle_silent(part: Part) -> None:
    """Answers without a box: pictures with nothing in them are kept as negatives, talk is left out."""
    for one in part.silent:
        same = _plain(one.question) in part.asked
        asked = same or asks_for_boxes(one.question)
        answer = one.answer.strip()
        if asked and (is_nothing(answer) or denies(answer) or (same and len(answer) <= _SHORT)):
            part.image(one.image, one.where)
            part.remarks.add("chat.nothing", f"{_short(one.where, part)}: {answer!r}")
        else:
            part.remarks.add("chat.no_boxes", f"{_short(one.where, part)}: {answer[:_SHORT]!r}")


def draft_parts(parts: Sequence[Part], options: Options, where: Path) -> tuple[list[Draft], str]:
    """A draft for each part, and what the numbers of its boxes were taken for.

    Raises DataError if that cannot be told, or if boxes in pixels and in shares stand together in a split and the size
    of a picture is not known.
    """
    for part in parts:
        if any(placed.box.unit == "open" for placed in part.boxes) or len({p.box.unit for p in part.boxes}) > 1:
            names = list(part.images)
            paths = [part.paths.get(name) for name in names]
            part.sizes_wh = read_sizes(names, paths, part.file, part.split, options.images)
        else:
            part.sizes_wh = [None] * len(part.images)
    units, why = _choose(parts, options, where)
    return [_draft(part, units) for part in parts], why


def _choose(parts: Sequence[Part], options: Options, where: Path) -> tuple[dict[str, str], str]:
    """The reading of each dialect that leaves it open, by dialect, and why."""
    units, told = {}, []
    for dialect in DIALECTS:
        rows = [(placed, part) for part in parts for placed in part.boxes if placed.dialect == dialect]
        if not rows:
            continue
        if DIALECTS[dialect].unit != "open":
            told.append(f"{len(rows):,} boxes of {DIALECTS[dialect].title}")
            continue
        numbers = np.array([placed.box.numbers for placed, _ in rows], dtype=np.float64)
        sizes = np.array([part.sizes_wh[placed.image] or (0, 0) for placed, part in rows], dtype=np.int64)
        units[dialect], why = choose_unit(
            numbers, sizes, bare=dialect == "brackets", where=str(where), asked=options.boxes
        )
        told.append(f"{DIALECTS[dialect].title}: {why}")
    if listed := sum(placed.dialect is None for part in parts for placed in part.boxes):
        told.append(f"{listed:,} boxes of objects")
    if options.boxes is not None and not units:
        told.append(f"boxes={options.boxes} changes nothing, as the format says what its numbers are")
    return units, "; ".join(told)


def _draft(part: Part, units: dict[str, str]) -> Draft:
    """Boxes in pixels if all of them are, else in shares of the sides."""
    readings = [units[p.dialect or ""] if p.box.unit == "open" else f"xyxy_{p.box.unit}" for p in part.boxes]
    relative = any(reading != "xyxy_px" for reading in readings)
    draft = Draft(part.split, part.file, scale=1.0 if relative else None)
    for name in part.images:
        path = part.paths.get(name)
        draft.add_image(path.name if name.startswith("data:") and path is not None else name, path=path)
    numbers = np.array([placed.box.numbers for placed in part.boxes], dtype=np.float64).reshape(-1, 4)
    sizes = np.array([part.sizes_wh[placed.image] or (0, 0) for placed in part.boxes], dtype=np.int64).reshape(-1, 2)
    for reading in sorted(set(readings)) if relative else []:
        rows = np.flatnonzero(np.array(readings) == reading)
        if reading == "xyxy_px" and not sizes[rows].all():
            lost = next(row for row in rows if not sizes[row].all())
            name = draft.files[part.boxes[lost].image]
            what = f"boxes in pixels and in shares stand together, and the size of {name} is not known"
            raise DataError(what, where=str(part.file), fix="restore the picture, or give images=FOLDER")
        numbers[rows] = to_shares(numbers[rows], sizes[rows], reading)
    for placed, xyxy in zip(part.boxes, numbers.tolist(), strict=True):
        draft.add_box(placed.image, placed.box.label or "", xyxy)
    wheres = [_short(placed.where, part) for placed in part.boxes]
    draft.called = lambda row: f"{part.boxes[row].box.label} of {wheres[row]}"
    draft.findings += [*say_embedded(part.stores, part.file), *part.remarks.findings()]
    return draft


def _plain(question: str) -> str:
    return " ".join(question.replace("<image>", " ").split())


def _short(where: str, part: Part) -> str:
    return where.removeprefix(f"{part.file}, ")
