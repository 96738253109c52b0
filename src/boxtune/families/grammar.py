"""Answers: boxes as text and back, whatever the script; what is no sound box becomes a Problem and never a box."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from boxtune.boxes import Boxes
from boxtune.families.bins import Scale, order_boxes
from boxtune.families.family import Decoded, Frame, Problem
from boxtune.families.forms import Form, Row
from boxtune.families.spelling import Letters, Spelling

NOTHING = "There are none."
"""The answer of ours for an image with nothing in it, where a family has none of its own."""


class Script(Protocol):
    """How labels and numbers become text and back; knows nothing of images."""

    @property
    def nothing(self) -> str:
        """The answer without a box."""
        ...

    @property
    def form(self) -> Form:
        """How an answer with boxes is put together."""
        ...

    def read(self, text: str, *, ended: bool) -> Iterator[Row | str]:
        """The boxes of an answer and, in their places, the stretches that are none. Never raises."""
        ...


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """A scale, a script, and the names they can carry.

    `forbidden` is found in names (and descriptions) that would be taken for something else. `form` is the Unicode form
    that the family's tokenizer turns every text into: names in another would come back changed.
    """

    scale: Scale
    script: Script
    forbidden: str
    form: Literal["NFC", "NFKC"] | None = None

    def encode(self, boxes: Boxes, frame: Frame, classes: Sequence[str]) -> str:
        """The answer for these boxes in the family's order. Raises ValueError on a label that was not asked for."""
        if not len(boxes):
            return self.script.nothing
        bins = self.scale.to_bins(boxes, frame)
        rows = []
        for i in order_boxes(boxes, bins, classes):
            x1, y1, x2, y2 = (float(number) for number in bins[i])
            rows.append(Row(label=boxes.labels[i], numbers=(x1, y1, x2, y2)))
        return self.script.form.write(rows)

    def decode(self, text: str, frame: Frame, classes: Sequence[str], *, ended: bool = True) -> Decoded:
        """The sound boxes of an answer, and a problem for everything else in it.

        Labels must equal a class asked for, letter by letter. Inverted corners, no area and numbers out of range are
        problems, never mended. An answer that was cut off always has the problem `truncated`.
        """
        if ended and text.strip() == self.script.nothing.strip():
            return Decoded(boxes=Boxes.none(), problems=())
        if not text.strip():
            return Decoded(boxes=Boxes.none(), problems=(Problem(kind="empty_answer", text=text),))
        found: list[Row] = []
        problems: list[Problem] = []
        for part in self.script.read(text, ended=ended):
            if isinstance(part, str):
                problems.append(Problem(kind="malformed", text=part))
                continue
            kind = "unknown_label" if part.label not in classes else self.scale.find_fault(part.numbers, frame)
            if kind:
                problems.append(Problem(kind=kind, text=part.written))
            else:
                found.append(part)
        if not ended:
            last = problems[-1] if problems and problems[-1].kind == "malformed" else None
            # A broken stretch at the very end is where the answer was cut; else nothing but the end is missing.
            if last is not None and text.rstrip().endswith(last.text.rstrip()):
                problems[-1] = Problem(kind="truncated", text=last.text)
            else:
                problems.append(Problem(kind="truncated", text=""))
        boxes = Boxes(
            xyxy_px=self.scale.to_px([row.numbers for row in found], frame), labels=tuple(row.label for row in found)
        )
        return Decoded(boxes=boxes, problems=tuple(problems))

    def spell(self, frame: Frame, classes: Sequence[str], letters: Letters) -> Spelling:
        """All sound answers for an image and classes, letter by letter."""
        return Spelling(self.script.form, self.script.nothing, self.scale, frame, classes, letters)

    def check_classes(self, classes: Sequence[str], descriptions: Mapping[str, str] = {}) -> list[str]:
        """For each name or description that cannot be carried, a sentence that says why."""
        faults = [f"class name {name!r} {fault}" for name in classes if (fault := self._find_fault(name))]
        doubled = sorted({name for name in classes if list(classes).count(name) > 1})
        faults += [f"class name {name!r} occurs twice" for name in doubled]
        faults += [f"there is no class {name!r} to describe" for name in descriptions if name not in classes]
        return faults + [
            f"the description of {name!r} holds {found[0]!r}, which the family reads as something else"
            for name, text in descriptions.items()
            if (found := re.search(self.forbidden, text))
        ]

    def _find_fault(self, name: str) -> str:
        if not name.strip() or name != name.strip():
            return "is empty or begins or ends with white space"
        if found := re.search(self.forbidden, name):
            return f"holds {found[0]!r}, a token of the grammar"
        if not _can_be_written(name):
            return "holds half of a character that takes two (a surrogate)"
        if self.form is not None and not unicodedata.is_normalized(self.form, name):
            changed = unicodedata.normalize(self.form, name)
            return f"would come back as {changed!r}: the tokenizer turns every text into {self.form}"
        return ""


def _can_be_written(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
