"""Questions and answers about scenes as token rows, made with tensor operations for a whole batch at once.

The rows are those that the family's grammar and the tokenizer would give (tests/tiny/test_lessons.py compares them);
made one by one in Python they would keep a GPU waiting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from boxtune.families.qwen2_vl import (
    BINS,
    BOX_END,
    BOX_START,
    END_OF_TURN,
    IMAGE,
    NOTHING,
    QWEN2_VL,
    REF_END,
    REF_START,
)
from boxtune.tiny.made_names import build_names
from boxtune.tiny.scene_names import KINDS

MAX_ASKED = 6
"""Most names in one question."""
NAME_TOKENS = 10
"""Tokens kept for one name; longer ones are refused."""
BY_DRAWING_SHARE, BY_TINT_SHARE = 0.3, 0.1
"""How often a lesson calls each thing by the made-up name of its drawing, or of its kind and colour."""
NEAR = 0.7
"""By how much names of kinds that are in the picture come before others, when absent ones are asked for."""
NUM_KINDS = len(KINDS)
Rows = tuple[torch.Tensor, torch.Tensor]
"""Tokens and the mask of those that are there."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A batch of questions and answers.

    `before` (length,) are the ids in front of the image, the same for all; `after` (batch, length) those behind it,
    padded on the right; `labels` the next token at each place of `after` where it is supervised, else -100.
    """

    before: torch.Tensor
    after: torch.Tensor
    labels: torch.Tensor


class Teacher:
    """Makes lessons about scenes."""

    def __init__(self, tokenizer: Any, device: torch.device, sprite_kinds: Sequence[int] = ()) -> None:
        """`sprite_kinds` is the kind of each drawing that may be named."""
        self.device, self.book = device, build_names(sprite_kinds)
        self.num_names = len(self.book.names)
        self.levels, self.fair = (torch.tensor(table, device=device) for table in (self.book.levels, self.book.fair))
        self.kinds = torch.tensor(self.book.kinds, device=device)
        self.sprite_kinds = torch.tensor(list(sprite_kinds), dtype=torch.int64, device=device)
        self.pad: int = tokenizer.pad_token_id

        def ids(text: str) -> torch.Tensor:
            return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"], device=device)

        def table(texts: Sequence[str], width: int) -> Rows:
            rows = [ids(text) for text in texts]
            if max(map(len, rows)) > width:
                raise ValueError(f"{max(texts, key=len)!r} has more than {width} tokens")
            out = torch.full((len(rows), width), self.pad, device=device)
            mask = torch.zeros((len(rows), width), dtype=torch.bool, device=device)
            for place, row in enumerate(rows):
                out[place, : len(row)], mask[place, : len(row)] = row, True
            return out, mask

        prompt = QWEN2_VL.prompt(("\0",), IMAGE)
        self.before = ids(prompt[: prompt.index(IMAGE)])
        self.head = ids(prompt[prompt.index(IMAGE) + len(IMAGE) : prompt.index("\0")])
        self.tail = ids(prompt[prompt.index("\0") + 1 :])
        self.comma, self.nothing, self.end = ids(", "), ids(NOTHING), ids(END_OF_TURN)
        self.names, self.name_mask = table(self.book.names, NAME_TOKENS)
        self.numbers, self.number_mask = table([str(number) for number in range(BINS + 1)], 4)
        self.ref_start, self.ref_end = ids(REF_START), ids(REF_END + BOX_START + "(")
        self.between, self.middle, self.box_end = ids(","), ids("),("), ids(")" + BOX_END)
        self.ordinary = torch.tensor(
            [i for i in range(len(tokenizer)) if i not in tokenizer.added_tokens_decoder], device=device
        )

    def name(self, told: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The name of each thing (batch, n), -1 for none, from what is told of it: name, drawing, colour (batch, n, 3).

        A share of the scenes goes by drawings, a share by kind and colour (a thing without one keeps its name).
        """
        plain, sprite, colour = told.unbind(-1)
        share = torch.rand((len(told), 1), generator=generator, device=self.device)
        kind = self.sprite_kinds[sprite.clamp(min=0)]
        named = torch.where(share < BY_DRAWING_SHARE, self.book.of_drawing(sprite), plain)
        by_tint = (share > 1 - BY_TINT_SHARE) & (colour >= 0)
        named = torch.where(by_tint, self.book.of_tint(kind, colour), named)
        return torch.where(plain >= 0, named, -1)

    def choose(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Which names to ask for, (batch, MAX_ASKED) with -1 behind the last: for about half of the scenes all of its
        names, for a third one of them, for a tenth only absent ones, else a part; absent ones mixed in, rather such as
        are of a kind with what is there.
        """
        batch = len(labels)
        present = torch.zeros((batch, self.num_names + 1), dtype=torch.bool, device=self.device)
        present.scatter_(1, torch.where(labels < 0, self.num_names, labels), True)
        present = present[:, :-1]

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator, device=self.device)

        mode, part = uniform(batch, 1), uniform(batch, 1)
        num_present = present.sum(1, keepdim=True)
        wanted = torch.where(mode < 0.5, num_present, torch.ones_like(num_present))
        wanted = torch.where(mode > 0.83, (part * (num_present + 1)).long(), wanted)
        wanted = torch.where(mode > 0.92, 0, wanted).clamp(max=MAX_ASKED)
        extra = torch.where(uniform(batch, 1) < 0.6, 0, (uniform(batch, 1) * 3).long() + 1)
        extra = torch.where(wanted == 0, extra.clamp(min=1), extra).clamp(max=MAX_ASKED - wanted)
        # A random key for every name; the smallest keys among the present, and among the absent, are taken.
        key = uniform(batch, self.num_names)
        rank_present = torch.where(present, key, 9.0).argsort(1).argsort(1)
        # Absent ones only from the level at which the scene is named (see `absent_names`).
        level = torch.where(present, self.levels, 0).max(1).values
        fair = self.fair[level] & ~present
        kinds = torch.where(present, self.kinds, -1)
        there = torch.zeros((batch, NUM_KINDS + 1), dtype=torch.bool, device=self.device)
        there = there.scatter_(1, torch.where(kinds < 0, NUM_KINDS, kinds), True)
        far = ~there[:, self.kinds.clamp(min=0)] | (self.kinds < 0)
        rank_absent = torch.where(fair, key + NEAR * far, 9.0).argsort(1).argsort(1)
        taken = (present & (rank_present < wanted)) | (fair & (rank_absent < extra))
        order = torch.where(taken, uniform(batch, self.num_names), 9.0)
        key, asked = order.sort(1)
        return torch.where(key[:, :MAX_ASKED] < 9, asked[:, :MAX_ASKED], -1)

    def teach(
        self,
        labels: torch.Tensor,
        unit: torch.Tensor,
        asked: torch.Tensor,
        length: int,
        *,
        alias: Rows | None = None,
    ) -> Lesson:
        """The lesson for scenes with `labels` (batch, n), boxes `unit` (batch, n, 4) in 0..1 of the sides, and the
        names `asked` (batch, MAX_ASKED).

        `length` is that of the rows behind the image; a row that does not fit is not supervised at all. `alias`
        (tokens, mask) of (batch, NAME_TOKENS) renames the first name of each row where the mask is not empty.
        """
        batch = len(labels)
        bins = self._bins(unit)
        names, name_mask = self.names[asked.clamp(min=0)], self.name_mask[asked.clamp(min=0)] & (asked >= 0)[..., None]
        if alias is not None:
            renamed = alias[1].any(1)
            first = torch.where(renamed[:, None], alias[0], names[:, 0])
            first_mask = torch.where(renamed[:, None], alias[1], name_mask[:, 0])
            names = torch.cat([first[:, None], names[:, 1:]], dim=1)
            name_mask = torch.cat([first_mask[:, None], name_mask[:, 1:]], dim=1)

        def fixed(row: torch.Tensor, where: torch.Tensor | None = None) -> Rows:
            mask = torch.ones((batch, len(row)), dtype=torch.bool, device=self.device)
            return row.expand(batch, -1), mask if where is None else mask & where[:, None]

        question = [fixed(self.head)]
        for place in range(asked.shape[1]):
            if place:
                question.append(fixed(self.comma, asked[:, place] >= 0))
            question.append((names[:, place], name_mask[:, place]))
        question.append(fixed(self.tail))

        rank = torch.where(labels[..., None] == asked[:, None], torch.arange(asked.shape[1], device=self.device), 99)
        rank = torch.where(labels >= 0, rank.min(-1).values, 99)
        key = ((rank * (BINS + 1) + bins[..., 1]) * (BINS + 1) + bins[..., 0]) * (BINS + 1) ** 2
        key = key + bins[..., 2] * (BINS + 1) + bins[..., 3]
        order = key.argsort(1)
        rank, bins = rank.gather(1, order), bins.gather(1, order[..., None].expand(-1, -1, 4))
        said = rank < 99

        # All objects at once: (batch, n, width) for each stretch of their text.
        num = labels.shape[1]
        which = rank.clamp(max=asked.shape[1] - 1)[..., None].expand(-1, -1, NAME_TOKENS)
        numbers, number_mask = self.numbers[bins], self.number_mask[bins]

        def every(row: torch.Tensor) -> Rows:
            tokens = row.expand(batch, num, -1)
            return tokens, torch.ones_like(tokens, dtype=torch.bool)

        stretches = [
            every(self.ref_start),
            (names.gather(1, which), name_mask.gather(1, which)),
            every(self.ref_end),
            (numbers[:, :, 0], number_mask[:, :, 0]),
            every(self.between),
            (numbers[:, :, 1], number_mask[:, :, 1]),
            every(self.middle),
            (numbers[:, :, 2], number_mask[:, :, 2]),
            every(self.between),
            (numbers[:, :, 3], number_mask[:, :, 3]),
            every(self.box_end),
        ]
        objects = torch.cat([tokens for tokens, _ in stretches], dim=2)
        there = torch.cat([mask for _, mask in stretches], dim=2) & said[..., None]
        answer = [fixed(self.nothing, ~said.any(1)), (objects.flatten(1), there.flatten(1))]
        answer.append(fixed(self.end))
        return self._compact(question, answer, length)

    def _bins(self, unit: torch.Tensor) -> torch.Tensor:
        """Rounded and clamped thousandths as the family writes them, a collapsed side one bin wide."""
        bins = (unit.double() * BINS).round().long().clamp(0, BINS)
        low, high = bins[..., :2], bins[..., 2:]
        low = low - ((low == high) & (high == BINS)).long()
        return torch.cat([low, torch.maximum(high, low + (low == high).long())], dim=-1)

    def _compact(self, question: list[Rows], answer: list[Rows], length: int) -> Lesson:
        tokens = torch.cat([row for row, _ in question + answer], dim=1)
        mask = torch.cat([there for _, there in question + answer], dim=1)
        num_question = sum(row.shape[1] for row, _ in question)
        is_answer = torch.arange(tokens.shape[1], device=self.device) >= num_question
        place = torch.where(mask, mask.cumsum(1) - 1, length).clamp(max=length)
        ids = torch.full((len(tokens), length + 1), self.pad, device=self.device).scatter_(1, place, tokens)[:, :length]
        spoken = torch.zeros_like(ids, dtype=torch.bool)
        spoken = torch.cat([spoken, spoken[:, :1]], 1).scatter_(1, place, mask & is_answer)[:, :length]
        # The token at place i + 1 is what place i is taught; a row that was cut is not taught at all.
        labels = torch.where(spoken, ids, -100)[:, 1:]
        fits = mask.sum(1, keepdim=True) <= length
        labels = torch.where(fits, labels, -100)
        return Lesson(
            before=self.before,
            after=ids,
            labels=torch.cat([labels, torch.full_like(labels[:, :1], -100)], dim=1),
        )
