"""A step that does not fit into memory is done again in parts: the same losses, gradients and counts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trained import build_squares_trainer, make_batch

from boxtune.errors import ModelError

COUNTED = ("loss", "grad_norm", "num_tokens")
"""What a log says of a step that does not depend on how it was cut up."""


class Full:
    """Stands in for a card on which training more than `most` images at once runs out of memory, from a call on.

    `where`: in the forward, or in the backward once the gradients of later layers have been written.
    """

    def __init__(self, model: Any, most: int, where: str = "forward", first: int = 0) -> None:
        self.most, self.where, self.first = most, where, first
        self.sizes: list[int] = []
        self.raised: list[int] = []
        self.next: list[int] = []
        model.register_forward_pre_hook(self._look, with_kwargs=True)
        layers = [p for name, p in model.named_parameters() if ".layers.2." in name and p.requires_grad]
        assert layers
        for parameter in layers:
            parameter.register_post_accumulate_grad_hook(self._break_off)

    @property
    def _is_full(self) -> bool:
        return self.sizes[-1] > self.most and len(self.sizes) > self.first

    def _look(self, model: Any, args: Any, kwargs: Any) -> None:
        if model.training:
            self.sizes.append(kwargs["input_ids"].shape[0])
            if self.where == "forward":
                self._raise()

    def _break_off(self, parameter: Any) -> None:
        if self.where == "backward":
            self._raise()

    def _raise(self) -> None:
        if self._is_full:
            self.raised.append(self.sizes[-1])
            self.next.append(len(self.sizes))
            raise torch.OutOfMemoryError("CUDA out of memory, said the test")


@pytest.fixture()
def build(load_tiny: Any, squares: Path, tmp_path: Path) -> Callable[..., Any]:
    def made(**more: Any) -> Any:
        torch.manual_seed(0)
        return build_squares_trainer(load_tiny(), squares, tmp_path, **more)

    return made


def train(trainer: Any) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The log of each step, and the adapter in the end."""
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return rows, {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "first", "where", "packing"),
    [
        (most, first, where, packing)
        for place, (most, first) in enumerate([(2, 0), (1, 0), (1, 1), (2, 3)])
        for where, packing in zip(("forward", "backward"), (("auto", "off"), ("off", "auto"))[place % 2], strict=True)
    ],
)
def test_a_run_that_runs_out_learns_the_same(
    build: Callable[..., Any], where: str, packing: str, most: int, first: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two micro-batches of four a step; memory runs out in the first, in the second, and in the second step."""
    shape = {"num": 16, "micro_batch": 4, "effective_batch": 8, "packing": packing}
    wanted_rows, wanted = train(build(**shape))
    capsys.readouterr()
    trainer = build(**shape)
    full = Full(trainer.model, most, where, first)
    rows, adapter = train(trainer)
    assert full.raised == [size for size in (4, 2) if size > most]
    told = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert len(told) == {2: 1, 1: 2}[most]
    assert len(rows) == len(wanted_rows) == 2 == trainer.state.global_step
    for row, right in zip(rows, wanted_rows, strict=True):
        for name in COUNTED:
            assert math.isclose(row[name], right[name], rel_tol=1e-5), name
    assert adapter.keys() == wanted.keys()
    assert all(torch.allclose(adapter[name], wanted[name], atol=1e-5) for name in wanted)
    # All after it is done in such parts, and never tried whole again.
    last = len(full.sizes) - full.sizes[::-1].index(full.raised[-1])
    assert set(full.sizes[last:]) == {most}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("packing", ["auto", "off"])
def test_one_step_in_parts(build: Callable[..., Any], packing: str, where: str) -> None:
    """Gradients so far stay, those of a backward that was broken off go, and nothing is counted twice."""
    trainer = build(packing=packing)
    trainer.current_gradient_accumulation_steps = 2
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    batches = [make_batch(trainer, range(begin, begin + 4)) for begin in (0, 4)]
    num = sum((batch["labels"] != -100).sum() for batch in batches)
    found = []
    for most in (9, 1):
        full = Full(trainer.model, most, where, first=1)
        trainer._total_train_tokens = 0
        trainer._metrics["train"].clear()
        trainer.model.zero_grad()
        losses = [float(trainer.training_step(trainer.model, dict(batch), num)) for batch in batches]
        row = torch.cat([p.grad.flatten() for p in parameters])
        found.append((sum(losses), row, trainer._total_train_tokens))
        assert full.raised == ([] if most == 9 else [4, 2])[: len(full.raised)]
        assert bool(full.raised) == (most == 1)
    (loss, gradient, tokens), (again, row, counted) = found
    assert math.isclose(loss, again, rel_tol=1e-5) and bool(gradient.any())
    assert float((row - gradient).norm() / gradient.norm()) < 1e-5
    assert tokens == counted == sum(int(batch["attention_mask"].sum()) for batch in batches)
    metrics = trainer._metrics["train"]
    assert len(metrics["entropy"]) == len(metrics["mean_token_accuracy"])
    assert len(metrics["entropy"]) == 1 + 4  # one whole micro-batch, and one in four parts


@pytest.mark.slow
@pytest.mark.parametrize(("size", "most"), [(4, 2), (4, 1), (3, 2), (6, 2), (5, 4)])
def test_what_is_told_is_what_is_done(build: Callable[..., Any], size: int, most: int) -> None:
    trainer, told = build(), []
    trainer.tell = told.append
    trainer.current_gradient_accumulation_steps = 1
    full = Full(trainer.model, most)
    batch = make_batch(trainer, range(size))
    trainer.training_step(trainer.model, dict(batch), (batch["labels"] != -100).sum())
    assert len(told) == len(full.raised) > 0
    # The first of several parts is as large as any.
    for line, then in zip(told, [full.sizes[place] for place in full.next], strict=True):
        assert f"out of memory at step 1 with {size} images at once" in line
        found = re.search(r"done again (\d+) at a time.*train\.micro_batch=(\d+) spares", line)
        assert found is not None and {int(number) for number in found.groups()} == {then}
    done = len(full.sizes)
    trainer.training_step(trainer.model, dict(batch), (batch["labels"] != -100).sum())
    assert len(told) == len(full.raised) and max(full.sizes[done:]) <= most


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_single_image_that_does_not_fit_is_one_clear_error(build: Callable[..., Any], where: str) -> None:
    trainer = build()
    trainer.current_gradient_accumulation_steps = 1
    Full(trainer.model, 0, where)
    batch = make_batch(trainer, range(2))
    with pytest.raises(ModelError, match="out of memory with a single image") as raised:
        trainer.training_step(trainer.model, batch, (batch["labels"] != -100).sum())
    assert "image.max_pixels" in raised.value.fix and isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    assert all(p.grad is None for p in trainer.model.parameters())


def test_of_two_ranks_none_goes_back_alone(build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build()
    full = Full(trainer.model, 2)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", property(lambda _: 2))
    batch = make_batch(trainer, range(4))
    with pytest.raises(ModelError, match="with 4 images at once, and one of 2 processes cannot go back") as raised:
        trainer.training_step(trainer.model, batch, (batch["labels"] != -100).sum())
    assert "train.micro_batch=2" in raised.value.fix and full.sizes == [4]


def test_other_errors_pass(build: Callable[..., Any]) -> None:
    trainer = build()

    def fail(*_: Any) -> None:
        raise RuntimeError("something else")

    trainer.model.register_forward_pre_hook(fail)
    batch = make_batch(trainer, range(2))
    with pytest.raises(RuntimeError, match="something else"):
        trainer.training_step(trainer.model, batch, 1)
    assert trainer.parts == 1
