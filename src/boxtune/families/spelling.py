"""Answers letter by letter: what may follow what has been written, so that a model can write nothing but boxes.

A letter is a byte of UTF-8, or a special token, which no sequence of bytes can stand for. An answer is the one for
nothing, or any number of boxes in the form of the family's script, each with a name that was asked for and corners that
`Scale.allowed` lets be; in any order, and the same box as often as one likes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from boxtune.families.bins import Places, Scale
from boxtune.families.forms import Form, Name, Number, Piece
from boxtune.families.frame import Frame

BYTES = 256


class Letters:
    """Texts as letters: `specials` are one each, everything else is its bytes. A string with a character a letter.

    `plain` gives the bytes of a text without specials, where a tokenizer puts more than those of UTF-8.
    """

    def __init__(self, specials: Sequence[str], plain: Callable[[str], bytes] = str.encode) -> None:
        self._bytes = plain
        self.numbers = {text: BYTES + place for place, text in enumerate(specials)}
        longest_first = sorted(specials, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def of(self, text: str) -> str:
        """The letters of a text."""
        spelt, at = [], 0
        for found in self._pattern.finditer(text):
            spelt += [self.of_bytes(self._bytes(text[at : found.start()])), chr(self.numbers[found[0]])]
            at = found.end()
        return "".join([*spelt, self.of_bytes(self._bytes(text[at:]))])

    @staticmethod
    def of_bytes(text: bytes) -> str:
        """The letters of bytes, which need be no whole characters."""
        return text.decode("latin-1")


@dataclass(frozen=True)
class At:
    """A place in an answer: the step, what has been written of it, and the corners that the box has so far."""

    step: int
    written: str
    corners: Places


State = frozenset[At]
"""All places that what has been written may lead to; empty where it leads nowhere."""
NONE: Places = (None, None, None, None)
END = -1


@dataclass
class Step:
    """A piece of an answer: its texts, sorted, by the corners before it, and the steps that may follow."""

    piece: Piece
    texts: dict[Places, tuple[str, ...]] = field(default_factory=dict)
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """What each text of a number says, where nothing else of the box is known."""
    then: tuple[int, ...] = ()
    forgets: bool = False
    """Whether the corners before it no longer matter."""


def _place_of(pieces: Sequence[Piece], kind: type) -> int:
    return next(place for place, piece in enumerate(pieces) if isinstance(piece, kind))


class Spelling:
    """The answers of a grammar for an image and classes. States are values: equal ones have the same future."""

    def __init__(
        self, form: Form, nothing: str, scale: Scale, frame: Frame, classes: Sequence[str], letters: Letters
    ) -> None:
        self.scale, self.frame, self.classes, self.letters = scale, frame, tuple(classes), letters
        self.steps: list[Step] = []
        first = self._lay(form, nothing)
        self.start: State = frozenset(at for step in first for at in self._settle(At(step, "", NONE)))

    def _lay(self, form: Form, nothing: str) -> tuple[int, ...]:
        """Put down all steps; those that an answer may begin with."""

        def put(pieces: Sequence[Piece]) -> tuple[int, int]:
            begin = len(self.steps)
            for piece in pieces or ("",):
                self.steps.append(Step(piece, then=(len(self.steps) + 1,)))
            return begin, len(self.steps) - 1

        empty, _ = put([nothing])
        self.steps[empty].then = (END,)
        opening, _ = put([form.opening])
        before, _ = put(form.before)
        box, box_end = put(form.box)
        self._first_number = next(i for i in range(box, box_end + 1) if isinstance(self.steps[i].piece, Number))
        after, after_end = put(form.after)
        self.steps[box].forgets = self.steps[after].forgets = True
        ends = [after]
        if form.between is not None:
            between, between_end = put([form.between])
            self.steps[between].forgets, self.steps[between_end].then = True, (box,)
            ends.append(between)
        self.steps[box_end].then = tuple(ends)
        separator, separator_end = put([form.separator])
        closing, closing_end = put([form.closing])
        self.steps[separator_end].then, self.steps[closing_end].then = (before,), (END,)
        self.steps[after_end].then = (separator, closing)
        last = self.letters.of(form.closing)
        self._closings = {END: "", closing: last, separator: last}
        self._ending = (END, closing, empty)
        if all(isinstance(piece, str) for piece in form.after):
            self._closings[after] = "".join(self.letters.of(str(piece)) for piece in form.after) + last
        self.nothing = self.letters.of(nothing)
        pieces = [*form.before, *form.box]
        self.name_first = any(isinstance(piece, Name) for piece in pieces[: _place_of(pieces, Number)])
        return empty, opening

    @property
    def key(self) -> tuple[Any, ...]:
        """What equal spellings of one family have in common."""
        return self.classes, tuple(self.scale.allowed(place, NONE, self.frame) for place in range(4))

    def follow(self, state: State, letter: str) -> State:
        """The state behind one more letter."""
        return frozenset(
            later
            for at in state
            if self._first(at, at.written + letter) is not None
            for later in self._settle(At(at.step, at.written + letter, at.corners))
        )

    def can_end(self, state: State) -> bool:
        """Whether the answer may end here."""
        return any(at.step == END for at in state)

    def closing(self, state: State) -> str | None:
        """The letters that end the answer behind a whole box; None inside of one, and where a number or a name that is
        written may still go on.
        """
        if any(at.written for at in state):
            return None
        found = [self._closings[at.step] for at in state if at.step in self._closings]
        return min(found, key=len) if found else None

    def goes_on(self, state: State) -> bool:
        """Whether one more box can follow."""
        return any(at.step not in self._ending for at in state)

    def begins_box(self, state: State, letter: str) -> bool:
        """Whether a letter is the first of a box's numbers."""
        return any(at.step == self._first_number and not at.written and self._takes(at, letter) for at in state)

    def number_at(self, state: State, letter: str) -> At | None:
        """The place in a number that a letter belongs to, or ends."""
        return next((at for at in state if self._is_about(at, letter, Number)), None)

    def is_name(self, state: State, letter: str) -> bool:
        """Whether a letter belongs to a name, or ends it."""
        return any(self._is_about(at, letter, Name) for at in state)

    def _is_about(self, at: At, letter: str, kind: type) -> bool:
        if at.step == END or not isinstance(self.steps[at.step].piece, kind):
            return False
        return bool(at.written) or self._takes(at, letter)

    def _takes(self, at: At, letter: str) -> bool:
        return self._first(at, at.written + letter) is not None

    def numbers_like(self, at: At, letters: str) -> list[str]:
        """The texts of a number that begin so, or the one that letters which go on behind it begin with."""
        texts = self._texts(at)
        low, high = bisect_left(texts, letters), bisect_left(texts, letters + chr(0x10FFFF))
        if low < high:
            return list(texts[low:high])
        return [text for text in (letters[:length] for length in range(len(letters), 0, -1)) if text in texts][:1]

    def values_of(self, at: At, text: str) -> tuple[int, ...]:
        """What a text of a number says: a corner for each of the piece's places."""
        return self.steps[at.step].values[text]

    def text_of(self, at: At, values: tuple[int, ...]) -> str:
        """The letters of a number."""
        piece = self.steps[at.step].piece
        return self.letters.of(piece.show(*values)) if isinstance(piece, Number) else ""

    def places_of(self, at: At) -> tuple[int, ...]:
        """Which of x1, y1, x2, y2 stand there."""
        piece = self.steps[at.step].piece
        return piece.places if isinstance(piece, Number) else ()

    def next_letters(self, state: State) -> Iterator[str]:
        """Every letter that may come next, some of them twice."""
        for at in state:
            if at.step == END:
                continue
            texts, length = self._texts(at), len(at.written)
            place = bisect_left(texts, at.written)
            while place < len(texts) and texts[place].startswith(at.written):
                if len(texts[place]) == length:
                    place += 1
                    continue
                letter = texts[place][length]
                yield letter
                place = bisect_left(texts, at.written + chr(ord(letter) + 1))

    def forced(self, state: State) -> str:
        """The letters that must follow, up to where there is a choice or the answer may end."""
        found = ""
        while not self.can_end(state):
            letters = set(self.next_letters(state))
            if len(letters) != 1:
                break
            letter = letters.pop()
            found += letter
            state = self.follow(state, letter)
        return found

    def _settle(self, at: At) -> Iterator[At]:
        """This place, and those that it leads to without a letter where what is written of its step is whole."""
        if at.step == END:
            yield at
            return
        first = self._first(at, at.written)
        if first is None:
            return
        if first != at.written:
            yield at
            return
        texts = self._texts(at)
        place = bisect_left(texts, at.written)
        if place + 1 < len(texts) and texts[place + 1].startswith(at.written):
            yield at
        step, corners = self.steps[at.step], self._with_corners(at)
        for then in step.then:
            forgets = then == END or self.steps[then].forgets
            yield from self._settle(At(then, "", NONE if forgets else corners))

    def _first(self, at: At, written: str) -> str | None:
        """The first text of a step that begins so."""
        if at.step == END:
            return None
        texts = self._texts(at)
        place = bisect_left(texts, written)
        return texts[place] if place < len(texts) and texts[place].startswith(written) else None

    def _texts(self, at: At) -> tuple[str, ...]:
        step = self.steps[at.step]
        if isinstance(step.piece, Number):
            # Only the opposite corners matter, so that few lists are made.
            around: list[int | None] = [None] * 4
            for place in step.piece.places:
                around[(place + 2) % 4] = at.corners[(place + 2) % 4]
            key: Places = (around[0], around[1], around[2], around[3])
        else:
            key = NONE
        if key not in step.texts:
            step.texts[key] = self._spell(step, key)
        return step.texts[key]

    def _spell(self, step: Step, corners: Places) -> tuple[str, ...]:
        piece, spell = step.piece, self.letters.of
        if isinstance(piece, str):
            return (spell(piece),)
        if isinstance(piece, Name):
            return tuple(sorted(spell(piece.show(name)) for name in self.classes))
        if not step.values:
            show: Callable[..., str] = piece.show
            free = [self.scale.allowed(place, NONE, self.frame) for place in piece.places]
            step.values.update((spell(show(*values)), values) for values in product(*free))
        allowed = [self.scale.allowed(place, corners, self.frame) for place in piece.places]
        return tuple(
            sorted(
                text
                for text, values in step.values.items()
                if all(value in among for value, among in zip(values, allowed, strict=True))
            )
        )

    def _with_corners(self, at: At) -> Places:
        """The corners behind a step that is written; those that bound nothing any more are forgotten."""
        step = self.steps[at.step]
        if not isinstance(step.piece, Number):
            return at.corners
        corners = list(at.corners)
        for place, value in zip(step.piece.places, step.values[at.written], strict=True):
            known = corners[(place + 2) % 4] is not None
            corners[place], corners[(place + 2) % 4] = (None, None) if known else (value, corners[(place + 2) % 4])
        return corners[0], corners[1], corners[2], corners[3]
