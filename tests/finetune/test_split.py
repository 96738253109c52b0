"""A batch cut into smaller ones: what the collator makes of the same samples, and together the same gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from packed import CLASSES, PACKED, RAGGED, load_family, make_examples, make_talk, packer_for, scoring

from boxtune.families import FAMILIES
from boxtune.finetune import build_encoder
from boxtune.finetune.collate import IGNORED, collate_for_training
from boxtune.finetune.packing import PACKING
from boxtune.finetune.split import CUTS, cuts_of, split_batch

QUICK = ("qwen2_vl", "minicpm_v")
CASES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
TALKS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "gemma3")
"""Families in whose batches conversations without an image are tried."""


class Case:
    """A family's tiny model, and batches as its collator makes them."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.loaded = name, load_family(name, folder)
        self.encoder = build_encoder(self.loaded, CLASSES)
        self.packer = packer_for(self.loaded, self.encoder)
        self.loaded.model.eval()

    def batch(self, examples: list[Any]) -> dict[str, Any]:
        packing = {} if self.packer is None else self.packer.pack(examples)
        return {**collate_for_training(examples, self.encoder.layout), PACKING: {CUTS: cuts_of(examples), **packing}}

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """The sum over supervised tokens, as the trainer has it."""
        packing = batch[PACKING]
        if self.packer is not None:
            return self.loaded.model(**batch, score=True)["loss"]
        given = {name: value for name, value in batch.items() if name not in (PACKING, "labels")}
        shift = 0 if self.loaded.source.family.encoder_decoder else 1
        logits, labels = self.loaded.model(**given).logits, batch["labels"][:, shift:]
        assert set(packing) == {CUTS}
        return F.cross_entropy(
            logits[:, : labels.shape[1]][labels != IGNORED], labels[labels != IGNORED], reduction="sum"
        )

    def examples(self, kind: str) -> list[Any]:
        made = make_examples(self.encoder, RAGGED)
        if kind == "talk":
            talk = make_talk(self.encoder)
            return [made[0], talk, talk, made[1]]
        return [*made, made[1]]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    yield Case(request.param, tmp_path_factory.mktemp("split"))


def kinds(case: Case) -> list[str]:
    return ["images", "talk"] if case.name in TALKS else ["images"]


def require_collated(case: Case, part: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Equal tensors; where there is padding in a part that its own samples do not need, it is padding."""
    blank = {"attention_mask": 0, "labels": IGNORED, "input_ids": case.encoder.layout.pad_id}
    blank["decoder_input_ids"] = blank["input_ids"]
    assert part.keys() == wanted.keys()
    for name, value in wanted.items():
        if name == PACKING:
            continue
        got = part[name]
        assert got.dtype == value.dtype and got.ndim == value.ndim and got.shape[0] == value.shape[0], name
        assert torch.equal(got[tuple(slice(0, size) for size in value.shape)], value), name
        if got.shape != value.shape:
            # Only a second dimension is padded: tokens, or tiles of an image, which are zeros.
            assert name not in ("input_ids", "labels") or case.packer is None
            assert got.shape[2:] == value.shape[2:]
            assert bool((got[:, value.shape[1] :] == blank.get(name, 0)).all()), name
    mine, theirs = part[PACKING], wanted[PACKING]
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert mine[name].dtype == value.dtype and torch.equal(mine[name], value), name
        elif name != CUTS:
            assert mine[name] == value, name
    assert {name: cut for name, cut in mine[CUTS].items() if any(cut[1])} == theirs[CUTS]


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 5, 8])
def test_parts_are_as_collated(case: Case, parts: int) -> None:
    for kind in kinds(case):
        examples = case.examples(kind)
        made, begin = split_batch(case.batch(examples), parts), 0
        sizes = [part["input_ids"].shape[0] for part in made]
        assert (
            len(made) <= parts
            and sum(sizes) == len(examples)
            and max(sizes) == -(-len(examples) // min(parts, len(examples)))
        )
        for part, size in zip(made, sizes, strict=True):
            require_collated(case, part, case.batch(examples[begin : begin + size]))
            begin += size


def test_parts_of_parts_are_parts(case: Case) -> None:
    examples = case.examples("images")[:4]
    again = [part for half in split_batch(case.batch(examples), 2) for part in split_batch(half, 2)]
    assert len(again) == 4
    for part, example in zip(again, examples, strict=True):
        require_collated(case, part, case.batch([example]))


@pytest.mark.slow
def test_gradients_of_parts_add_up(case: Case) -> None:
    model = case.loaded.model
    for kind in kinds(case):
        batch, found = case.batch(case.examples(kind)), []
        for parts in (1, 2, 4):
            model.zero_grad()
            with nullcontext() if case.packer is None else scoring(model):
                losses = [case.loss(part) for part in split_batch(batch, parts)]
                for loss in losses:
                    loss.backward()
            row = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
            found.append((sum(float(loss.detach()) for loss in losses), row))
        model.zero_grad()
        (whole, gradient), *others = found
        assert len(others) == 2 and whole > 0 and bool(gradient.any())
        for total, row in others:
            assert abs(total / whole - 1) < 1e-5 and float((row - gradient).norm() / gradient.norm()) < 1e-4


def test_every_packed_family_is_cut_here() -> None:
    assert set(PACKED) < set(FAMILIES) and set(QUICK) & set(PACKED) and set(QUICK) - set(PACKED)
