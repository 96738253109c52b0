"""Names between tags, each followed by its boxes: the script of most families that have their own words for boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from boxtune.families.bins import Numbers
from boxtune.families.forms import CORNERS, NAME, Form, Piece, Row, in_order
from boxtune.families.grammar import NOTHING

NUMBER = r"\s*(-?\d{1,9})\s*"
"""A whole number with room around it; ten digits and more are no coordinate of any image."""

LIST = rf"\[{NUMBER},{NUMBER},{NUMBER},{NUMBER}\]"
"""A box as a list of four."""


SHOWN_LIST = ("[", *in_order(CORNERS), "]")
"""[x1, y1, x2, y2]"""


def parse_four(found: re.Match[str]) -> Numbers:
    """The four groups of a match as numbers."""
    x1, y1, x2, y2 = (float(number) for number in found.groups())
    return x1, y1, x2, y2


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """`name_tags` around a name, `box_tags` around its boxes.

    `box` writes the numbers of a box, `pattern` finds them again and `parse` makes numbers of what it found.
    `together`: all boxes of a name stand inside one pair of box tags, with `between` them; else the name is written
    again for each box (and read with any number of boxes behind it).
    """

    name_tags: tuple[str, str]
    box_tags: tuple[str, str]
    box: tuple[Piece, ...]
    pattern: str
    together: bool
    between: str = ", "
    parse: Callable[[re.Match[str]], Numbers] = parse_four
    nothing: str = NOTHING

    @property
    def form(self) -> Form:
        """The name, then one box or all of its boxes."""
        (opens, closes), (begin, end) = self.name_tags, self.box_tags
        return Form(
            before=(opens, NAME, closes + begin),
            box=self.box,
            after=(end,),
            between=self.between if self.together else None,
        )

    def read(self, text: str, *, ended: bool = True) -> Iterator[Row | str]:
        """The boxes of an answer and, in their places, the stretches that are none.

        In a list a box counts once its own form is whole, also where the closing tag is missing, which is said.
        """
        at = 0
        while at < len(text):
            name = self._name.match(text, at)
            boxes, end, closed = self._boxes(text, name.end()) if name else ([], at, False)
            if name is None or not boxes:
                # The next place where a name could begin; everything before it is no box.
                after = text.find(self.name_tags[0], at + 1)
                end = len(text) if after < 0 else after
                if text[at:end].strip():
                    yield text[at:end]
            else:
                for box in boxes:
                    yield Row(label=name[1].strip(), numbers=self.parse(box), written=f"{name[0]}{box[0]}")
                if not closed and not text[end:].strip():
                    yield ""
            at = end

    @cached_property
    def _name(self) -> re.Pattern[str]:
        # A name may hold anything but the grammar's own tags, so that one broken object cannot swallow the next.
        tags = "|".join(re.escape(tag) for tag in (*self.name_tags, *self.box_tags))
        opening, closing = (re.escape(tag) for tag in self.name_tags)
        return re.compile(rf"\s*{opening}((?:(?!{tags}).)*){closing}\s*", re.DOTALL)

    @cached_property
    def _parts(self) -> tuple[re.Pattern[str], ...]:
        """Patterns of what opens the boxes of a name, of one box, of what stands between two, of what closes them."""
        opening, closing = (re.escape(tag) for tag in self.box_tags)
        if self.together:
            between = rf"\s*{re.escape(self.between.strip())}\s*"
            parts = (rf"{opening}\s*", self.pattern, between, rf"\s*{closing}\s*")
        else:
            parts = ("", rf"{opening}\s*{self.pattern}\s*{closing}", r"\s*", "")
        return tuple(re.compile(part) for part in parts)

    def _boxes(self, text: str, at: int) -> tuple[list[re.Match[str]], int, bool]:
        """The boxes that stand at `at`, where the text behind them begins, and whether they were closed."""
        opening, box, between, closing = self._parts
        found: list[re.Match[str]] = []
        opened = opening.match(text, at)
        one = box.match(text, opened.end()) if opened else None
        end = at
        while one is not None:
            found.append(one)
            end = one.end()
            gap = between.match(text, end)
            one = box.match(text, gap.end()) if gap else None
        closed = closing.match(text, end)
        return found, closed.end() if closed else end, closed is not None
