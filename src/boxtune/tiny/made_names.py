"""Made-up names: one for each single drawing, one for each kind of thing in each colour.

Whoever tunes the model asks for names that it has never read, of things that are told apart by less than a star from
a ring. So a part of the lessons calls board number 17 "Dorak_7", and asks for it beside other boards.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from boxtune.tiny.scene_colours import NUM_COLOURS
from boxtune.tiny.scene_names import KINDS, NAMES, UNNAMED, absent_names

BY_DRAWING, BY_TINT = 4, 5
"""The levels of naming behind those of `scene_names`: each drawing has its name; each kind in each colour has one."""
MOST_LETTERS = 9
"""Few of their letters stand together in the tokenizer's vocabulary, so this bounds their tokens too."""
_STARTS, _VOWELS = "b c d f g h k l m n p r s t v w z br cl dr fl gr pl st tr".split(), "a e i o u".split()
_ENDS = ("", "", "", "n", "r", "k", "l", "s", "x")


@dataclass(frozen=True, kw_only=True)
class NameBook:
    """Every name a lesson may use: NAMES, then a made-up one for each drawing, then one for each kind in each colour.

    `kinds` is the kind of a made-up name, -1 for NAMES; `levels` the level of each; `fair[level]` which names may be
    asked for where nothing bears them.
    """

    names: tuple[str, ...]
    kinds: Int[np.ndarray, " names"]
    levels: Int[np.ndarray, " names"]
    fair: Bool[np.ndarray, "levels names"]
    num_drawings: int

    def of_drawing(self, sprite: Any) -> Any:
        """The index of the name of a drawing, number or tensor."""
        return len(NAMES) + sprite

    def of_tint(self, kind: Any, colour: Any) -> Any:
        """The index of the name of a kind in a colour, numbers or tensors."""
        return len(NAMES) + self.num_drawings + kind * NUM_COLOURS + colour


def build_names(sprite_kinds: Sequence[int]) -> NameBook:
    """The names for drawings of these kinds; the same for the same kinds."""
    tinted = np.repeat(np.arange(len(KINDS)), NUM_COLOURS)
    made = np.concatenate([np.asarray(sprite_kinds, dtype=np.int64), tinted])
    known, known_fair = absent_names()
    levels = np.concatenate([known, [BY_DRAWING] * len(sprite_kinds), [BY_TINT] * len(tinted)]).astype(np.int64)
    fair = np.zeros((6, len(levels)), dtype=bool)
    fair[: len(known_fair), : len(known)] = known_fair
    never = np.array([kind.category in UNNAMED for kind in KINDS])
    for level in (BY_DRAWING, BY_TINT):
        fair[level] = levels == level
        fair[level, len(known) :] &= ~never[made]
    return NameBook(
        names=(*NAMES, *make_up(len(made))),
        kinds=np.concatenate([np.full(len(known), -1), made]).astype(np.int64),
        levels=levels,
        fair=fair,
        num_drawings=len(sprite_kinds),
    )


def make_up(num: int, seed: int = 0) -> list[str]:
    """`num` different names as data sets have them: words of one or two syllables, capitals, digits, joined ones."""
    rng, made = random.Random(seed), dict[str, None]()

    def word() -> str:
        text = "".join(
            rng.choice(_STARTS) + rng.choice(_VOWELS) + rng.choice(_ENDS) for _ in range(rng.choice((1, 1, 2)))
        )
        return rng.choice((text, text, text.capitalize(), text.upper() if len(text) < 4 else text))

    while len(made) < num:
        text = word()
        if rng.random() < 0.4:
            text += rng.choice(("_", "-", " ", "")) + rng.choice((str(rng.randrange(100)), word()))
        if text not in NAMES and len(text) <= MOST_LETTERS:
            made[text] = None
    return list(made)
