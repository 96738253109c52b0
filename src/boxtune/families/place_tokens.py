"""Boxes as four tokens of their own, with the name before them (Florence-2) or behind them (PaliGemma)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from boxtune.families.bins import Numbers
from boxtune.families.forms import NAME, Form, Number, Row


@dataclass(frozen=True, kw_only=True)
class PlaceTokens:
    """`token` is the form of a place, such as `<loc{:04d}>`, with `digits` as a pattern of its number.

    `name_first`: a name, then four tokens for each of its boxes, and the next name right behind. Else four tokens and
    the name, with `separator` between objects. `y_first`: y1, x1, y2, x2. `ignored` tokens may stand around an answer.
    """

    token: str
    digits: str
    name_first: bool
    y_first: bool
    nothing: str
    separator: str = ""
    ignored: str = r"(?!)"

    @property
    def form(self) -> Form:
        """Four tokens and the name, in the family's order."""
        order = (1, 0, 3, 2) if self.y_first else (0, 1, 2, 3)
        places = tuple(Number(places=(place,), show=self.token.format) for place in order)
        return Form(box=(NAME, *places) if self.name_first else (*places, " ", NAME), separator=self.separator)

    def read(self, text: str, *, ended: bool = True) -> Iterator[Row | str]:
        """The boxes of an answer and, in their places, the stretches that are none.

        Tokens in any number but four (or, behind a name, a multiple of four) are no box, since it cannot be told which
        of them belong together. The last name of an answer counts if the answer `ended`.
        """
        # Names and runs of places by turns, a name first; either may be empty.
        parts = self._runs.split(re.sub(self.ignored, "", text))
        yield from self._read_behind(parts) if self.name_first else self._read_before(parts, ended)

    def _read_behind(self, parts: list[str]) -> Iterator[Row | str]:
        for name, run in zip(parts[::2], [*parts[1::2], ""], strict=True):
            fours = self._fours(run)
            if name.strip() and fours:
                for numbers in fours:
                    yield Row(label=name.strip(), numbers=numbers, written=name + run)
            elif (name + run).strip():
                yield name + run

    def _read_before(self, parts: list[str], ended: bool) -> Iterator[Row | str]:
        if parts[0].strip():
            yield parts[0]
        for place in range(1, len(parts), 2):
            run, name = parts[place : place + 2]
            fours = self._fours(run)
            # A name is whole where the separator follows, or the end.
            whole = name.endswith(self.separator) or (ended and place + 2 == len(parts))
            label = name.removesuffix(self.separator).strip()
            if len(fours) == 1 and label and whole:
                yield Row(label=label, numbers=fours[0], written=run + name)
            else:
                yield run + name

    def _fours(self, run: str) -> list[Numbers]:
        """The boxes of a run of tokens; none if their number is no multiple of four."""
        numbers = [float(number) for number in self._one.findall(run)]
        if len(numbers) % 4:
            return []
        return [self._turn((a, b, c, d)) for a, b, c, d in zip(*[iter(numbers)] * 4, strict=True)]

    def _turn(self, numbers: Numbers) -> Numbers:
        a, b, c, d = numbers
        return (b, a, d, c) if self.y_first else numbers

    @cached_property
    def _one(self) -> re.Pattern[str]:
        before, after = re.fullmatch(r"(.*)\{.*\}(.*)", self.token).groups()  # type: ignore[union-attr]
        return re.compile(f"{re.escape(before)}({self.digits}){re.escape(after)}")

    @cached_property
    def _runs(self) -> re.Pattern[str]:
        token = self._one.pattern.replace("(", "(?:", 1)
        return re.compile(rf"((?:{token}\s*)+)")
