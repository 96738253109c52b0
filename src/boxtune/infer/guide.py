"""What a model may write next, token by token, and what it must write, so that it need not be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

from boxtune.errors import DataError
from boxtune.families import Family, Frame
from boxtune.families.spelling import At, Spelling, State
from boxtune.finetune.encode import Encoder
from boxtune.infer.vocabulary import Vocabulary

AHEAD = 6
"""Letters after those that must come which are looked at to see how a tokenizer cuts: longer than what it joins to
punctuation."""
UTF8, INSIDE = 4, range(0x80, 0xC0)
"""Bytes of a character at most, and those that cannot begin one."""
KEPT = 16
"""Guides that are remembered: one is enough, but where each image has numbers of its own (pixels), or classes."""
ANY_WH = (224, 224)
MOST_STATES = 100_000
"""States of an answer that are remembered; then it begins anew."""


@dataclass(frozen=True)
class Step:
    """One token written: the state behind it, and what it was about.

    `number` is the place in a number where it stands, and `offset` how many of its letters come before that.
    """

    state: int
    about: Literal["number", "name", "structure"]
    number: At | None
    offset: int
    begins: int
    """Boxes whose first number begins with this token: 0 or 1 but for tokens of many letters."""
    goes_on: bool
    """Whether one more box, or the rest of one, can follow."""


class Guide:
    """A spelling, token by token, in numbered states; what has been worked out once is remembered.

    `end_id` is the token that ends an answer.
    """

    def __init__(self, spelling: Spelling, vocabulary: Vocabulary, end_id: int) -> None:
        self.spelling, self.vocabulary, self.end_id = spelling, vocabulary, end_id
        self._numbers: dict[State, int] = {}
        self._states: list[State] = []
        self._allowed: dict[int, tuple[int, ...]] = {}
        self._steps: dict[tuple[int, int], Step] = {}
        self._forced: dict[tuple[int, int | None], tuple[int, ...]] = {}
        self.start = self._number(spelling.start)

    @property
    def is_full(self) -> bool:
        """Whether another one should take its place, between answers."""
        return len(self._states) > MOST_STATES

    def allowed(self, state: int) -> tuple[int, ...]:
        """The ids of all tokens that may come next, sorted; never empty."""
        if state not in self._allowed:
            here = self._states[state]
            ids = self.vocabulary.allowed(self.spelling, here)
            if self.spelling.can_end(here):
                ids = sorted([*ids, self.end_id])
            if not ids:
                raise ValueError("the tokenizer has no token for what an answer must go on with")
            self._allowed[state] = tuple(ids)
        return self._allowed[state]

    def step(self, state: int, token: int) -> Step:
        """What writing an allowed token, but the one that ends the answer, leads to."""
        key = (state, token)
        if key not in self._steps:
            self._steps[key] = self._walk(self._states[state], self.vocabulary.spelt[token])
        return self._steps[key]

    def closing(self, state: int) -> tuple[int, ...] | None:
        """The tokens that close an answer at its start, or behind a whole box; None inside of one."""
        letters = self.spelling.nothing if state == self.start else self.spelling.closing(self._states[state])
        return None if letters is None else tuple(self.vocabulary.ids(letters) or ())

    def forced(self, state: int, last: int | None) -> tuple[int, ...]:
        """The tokens that must come next, behind the token `last`: as the tokenizer would cut them whatever follows.

        Tokens that it might join to what the model chooses afterwards are left to the model.
        """
        key = (state, last)
        if key not in self._forced:
            self._forced[key] = self._cut(self._states[state], last)
        return self._forced[key]

    def _cut(self, state: State, last: int | None) -> tuple[int, ...]:
        letters = self.spelling.forced(state)
        if not letters:
            return ()
        before = "" if last is None else self.vocabulary.spelt[last]
        behind = state
        for letter in letters:
            behind = self.spelling.follow(behind, letter)
        following = self._following(behind)
        for context, known in ((before, last), ("", None)):
            cuts = [self.vocabulary.ids(context + letters + after) for after in following]
            if known is not None and any(cut is None or cut[:1] != [known] for cut in cuts):
                # What was written is cut in another way than the tokenizer's.
                continue
            same = _common([cut or [] for cut in cuts])[0 if known is None else 1 :]
            kept, length = [], 0
            for token in same:
                length += len(self.vocabulary.spelt[token])
                if length > len(letters):
                    break
                kept.append(token)
            return tuple(kept)
        return ()

    def _following(self, state: State) -> list[str]:
        """What may come next: for each letter something that begins with it; of special tokens, before which every
        tokenizer cuts, one stands for all.
        """
        letters = sorted(set(self.spelling.next_letters(state)))
        plain = [letter for letter in letters if ord(letter) < 256]
        special = [letter for letter in letters if ord(letter) >= 256][:1]
        texts = [self._ahead(state, letter) for letter in (*plain, *special)]
        return [*texts, ""] if self.spelling.can_end(state) else texts

    def _ahead(self, state: State, letter: str) -> str:
        text = ""
        while True:
            text, state = text + letter, self.spelling.follow(state, letter)
            letters = sorted(set(self.spelling.next_letters(state)))
            if not letters or len(text) >= AHEAD + UTF8 or (len(text) >= AHEAD and ord(letters[0]) not in INSIDE):
                return text
            letter = letters[0]

    def _walk(self, state: State, letters: str) -> Step:
        name, number, offset, begins = False, None, 0, 0
        for place, letter in enumerate(letters):
            begins += self.spelling.begins_box(state, letter)
            at = self.spelling.number_at(state, letter)
            if at is not None and number is None:
                number, offset = at, place
            name = name or self.spelling.is_name(state, letter)
            state = self.spelling.follow(state, letter)
        if not state:
            raise ValueError(f"an answer cannot go on with {letters!r} here")
        about: Literal["number", "name", "structure"] = (
            "number" if number is not None else "name" if name else "structure"
        )
        return Step(self._number(state), about, number, offset, begins, self.spelling.goes_on(state))

    def _number(self, state: State) -> int:
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]


def _common(rows: Sequence[Sequence[int]]) -> list[int]:
    """What all of them begin with."""
    same = []
    for column in zip(*rows, strict=False):
        if len(set(column)) > 1:
            break
        same.append(column[0])
    return same


class Guides:
    """The guides of one model, one for all images that are asked for the same and have the same numbers."""

    def __init__(self, family: Family, tokenizer: Any, end_id: int) -> None:
        self._family, self._end_id = family, end_id
        self._vocabulary = Vocabulary(tokenizer, family.special_tokens)
        self._known: dict[tuple[Any, ...], Guide] = {}

    def of(self, frame: Frame, classes: Sequence[str]) -> Guide:
        """The guide for an image and the classes that it is asked for.

        DataError for a class name that the tokenizer has no tokens for.
        """
        spelling = self._family.spell(frame, classes, self._vocabulary.letters)
        guide = self._known.get(spelling.key)
        if guide is None or guide.is_full:
            if len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            for name in classes:
                if self._vocabulary.ids(self._vocabulary.letters.of(name)) is None:
                    raise DataError(
                        f"the model's tokenizer cannot write the class name {name!r}",
                        where="class names",
                        fix="rename the class in the annotations",
                    )
            guide = self._known[spelling.key] = Guide(spelling, self._vocabulary, self._end_id)
        return guide


_OF: WeakKeyDictionary[Encoder, Guides] = WeakKeyDictionary()


def guides_of(encoder: Encoder) -> Guides:
    """The guides of an encoder's model, made when first asked for: its vocabulary is looked through once."""
    if encoder not in _OF:
        _OF[encoder] = Guides(encoder.family, encoder.tokenizer, encoder.end_id)
    return _OF[encoder]


def require_guide(encoder: Encoder) -> None:
    """Raises, before anything is trained, what would else stop the first answer: ModelError for a tokenizer that cannot
    be looked into, DataError for a class name that it cannot write.
    """
    guides_of(encoder).of(Frame(original_wh=ANY_WH, seen_wh=ANY_WH), encoder.classes)
