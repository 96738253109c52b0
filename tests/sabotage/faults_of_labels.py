"""Ways to teach something else than the answer; registered among the others in `faults.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from faults import fault
from toys import Parts


def _relabel(parts: Parts, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    collate = parts.collate

    def changed(rows: Any) -> Any:
        batch = collate(rows)
        change(batch)
        return batch

    parts.collate = changed


@fault("labels.empty")
def no_label_at_all(parts: Parts) -> None:
    _relabel(parts, lambda batch: batch["labels"].fill_(-100))


@fault("labels.prompt", "labels.answer")
def the_prompt_in_the_loss(parts: Parts) -> None:
    # The questions begin alike only where they share a system prompt.
    system = parts.tokenizer("is is is plus plus is")["input_ids"]
    for row in parts.rows:
        row["input_ids"] = system + row["input_ids"]
        row["labels"] = list(row["input_ids"])


@fault("labels.tokens")
def labels_shifted_already(parts: Parts) -> None:
    def shift(batch: dict[str, torch.Tensor]) -> None:
        batch["labels"] = torch.cat([batch["labels"][:, 1:], torch.full_like(batch["labels"][:, :1], -100)], 1)

    _relabel(parts, shift)


@fault("labels.end", "labels.answer")
def end_of_turn_masked(parts: Parts) -> None:
    _relabel(parts, lambda batch: batch["labels"].masked_fill_(batch["labels"] == 1, -100))


@fault("labels.cut")
def answers_cut_by_the_longest_length(parts: Parts) -> None:
    parts.after.append(lambda trainer: setattr(trainer.args, "max_length", 5))

    def cut(batch: dict[str, torch.Tensor]) -> None:
        for key in batch:
            batch[key] = batch[key][:, :5]

    _relabel(parts, cut)


@fault("labels.tokens", "labels.answer")
def labels_of_other_tokens(parts: Parts) -> None:
    _relabel(parts, lambda batch: batch["labels"].masked_fill_(batch["labels"] > 4, 9))


@fault("labels.answer")
def answers_of_other_questions(parts: Parts) -> None:
    for row, other in zip(parts.rows, [*parts.rows[1:], parts.rows[0]], strict=True):
        row["completion"] = other["completion"] + " plus"


@fault("labels.padding")
def padding_in_the_loss(parts: Parts) -> None:
    def pad(batch: dict[str, torch.Tensor]) -> None:
        zeros = torch.zeros_like(batch["input_ids"][:, :3])
        batch["input_ids"] = torch.cat([batch["input_ids"], zeros], 1)
        batch["labels"] = torch.cat([batch["labels"], zeros], 1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], zeros], 1)

    _relabel(parts, pad)


@fault("labels.leak")
def attention_sees_the_answer(parts: Parts) -> None:
    def look_ahead(batch: dict[str, torch.Tensor]) -> None:
        num, length = batch["input_ids"].shape
        batch["attention_mask"] = torch.zeros(num, 1, length, length)

    _relabel(parts, look_ahead)


@fault("batch.same")
def answers_paired_with_other_questions_in_a_batch(parts: Parts) -> None:
    def roll(batch: dict[str, torch.Tensor]) -> None:
        if len(batch["labels"]) > 1:
            spoken = batch["labels"] != -100
            answers = batch["input_ids"][spoken].view(len(batch["labels"]), -1).roll(1, 0)
            batch["input_ids"][spoken] = answers.flatten()
            batch["labels"][spoken] = answers.flatten()

    _relabel(parts, roll)


@fault("batch.same")
def attention_mask_of_padding_forgotten(parts: Parts) -> None:
    def pad(batch: dict[str, torch.Tensor]) -> None:
        # On the left, with a mask that sees it, and only in batches of more than one.
        if len(batch["labels"]) > 1:
            side = torch.full_like(batch["input_ids"][:, :4], 7)
            batch["input_ids"] = torch.cat([side, batch["input_ids"]], 1)
            batch["labels"] = torch.cat([torch.full_like(side, -100), batch["labels"]], 1)
            batch["attention_mask"] = torch.ones_like(batch["input_ids"])

    _relabel(parts, pad)


@fault("accumulation.same")
def long_and_short_answers_accumulated_as_equals(parts: Parts) -> None:
    """The mean of each micro-batch's mean, as transformers did it before 4.46."""
    for place, row in enumerate(parts.rows):
        more = 0 if place % 2 else 12
        for key in ("labels", "input_ids"):
            row[key] = [*row[key][:-1], *([5, 6] * more), row[key][-1]]
        del row["completion"]

    def pad(rows: Any) -> Any:
        longest = max(len(row["labels"]) for row in rows)
        fill = {"input_ids": 0, "labels": -100}
        made = {
            key: torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in rows])
            for key, value in fill.items()
        }
        return {**made, "attention_mask": (made["input_ids"] != 0).long()}

    parts.collate = pad
    parts.arguments["gradient_accumulation_steps"] = 4
    parts.after.append(lambda trainer: setattr(trainer, "model_accepts_loss_kwargs", False))
