"""What stops a run is proof; what merely looks like it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from toys import build, build_model, healthy
from transformers import TrainerCallback

from boxtune import guard
from boxtune.guard.monitor import rising
from boxtune.guard.untouched import weight_sum


def _told(trainer: Any, callback: guard.LearningCallback) -> list[str]:
    trainer.train()
    return [finding.check for finding in callback.findings if finding.level in ("warn", "fail")]


@pytest.mark.slow
def test_steps_that_are_not_looked_at_are_no_change_from_outside(tmp_path: Path) -> None:
    callback = guard.LearningCallback()
    parts = healthy(tmp_path, max_steps=70, logging_steps=12, eval_strategy="no")
    parts.callbacks = [callback]
    assert _told(build(parts), callback) == []


def test_weights_that_are_seldom_used_are_no_standstill(tmp_path: Path) -> None:
    """Most rows of the embedding belong to words that the data never uses."""
    callback = guard.LearningCallback(skip=("save", "move"))
    parts = healthy(tmp_path, max_steps=30, optim="sgd", learning_rate=0.1)
    parts.model = build_model().requires_grad_(False)
    parts.model.model.embed_tokens.weight.requires_grad_(True)
    for row in parts.rows:
        del row["completion"]
        for key in ("input_ids", "labels"):
            row[key] = [min(token, 8) for token in row[key]]
    parts.callbacks = [callback]
    trainer = build(parts)
    trainer.train()
    assert trainer.state.global_step == 30
    assert not [f for f in callback.findings if f.check.startswith("run.")]


class Spoil(TrainerCallback):
    """Makes the gradient of one step, or of all, not a number."""

    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.steps or state.global_step in self.steps:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("nan"))


@pytest.mark.slow
def test_one_bad_step_is_left_out_and_counted(tmp_path: Path) -> None:
    callback = guard.LearningCallback()
    parts = healthy(tmp_path)
    parts.callbacks = [Spoil(5), callback]
    trainer = build(parts)
    assert _told(trainer, callback) == ["run.bad_step"]
    assert callback.bad_steps == 1 and trainer.state.global_step == 24
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    assert callback.verdict.word == "learning"


@pytest.mark.slow
@pytest.mark.parametrize("bad", [(40,), (49,), (21, 22, 23, 39, 40)])
def test_where_asking_is_dear_bad_steps_are_heard_of_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: tuple[int, ...]
) -> None:
    """The optimizer leaves them out by itself; the run is to the bit the one in which the host asks at once."""
    weights, told, asked = [], [], []
    for late in (True, False):
        monkeypatch.setattr("boxtune.guard.gradients._drains", lambda _, late=late: late)
        callback = guard.LearningCallback()
        parts = healthy(tmp_path, max_steps=50, logging_steps=100, eval_strategy="no", weight_decay=0.1)
        parts.callbacks = [Spoil(*bad), callback]
        measure = callback.gradients.__class__.measure
        late_steps: list[int] = []

        def seen(self: Any, *args: Any, measure: Any = measure, late_steps: list[int] = late_steps) -> float:
            norm = float(measure(self, *args))
            late_steps.extend([self.late.step] if self.late else [])
            return norm

        with monkeypatch.context() as patched:
            patched.setattr("boxtune.guard.gradients.Gradients.measure", seen)
            trainer = build(parts)
            trainer.train()
        bad_steps = [f for f in callback.findings if f.check == "run.bad_step"]
        told.append((callback.bad_steps, [f.seen for f in bad_steps], callback.good_steps, callback.verdict.word))
        weights.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
        asked.append(late_steps)
        assert not hasattr(trainer.optimizer.optimizer, "found_inf")
    assert told[0] == told[1] and told[0][0] == len(bad)
    assert torch.equal(*weights)
    assert asked == [[step for step in range(22, 51)], []]


def test_an_optimizer_that_cannot_leave_a_step_out_is_not_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boxtune.guard.gradients._drains", lambda _: True)
    callback = guard.LearningCallback()
    parts = healthy(tmp_path, max_steps=30, logging_steps=100, eval_strategy="no", optim="adamw_torch")
    parts.callbacks = [Spoil(25), callback]
    assert _told(build(parts), callback) == ["run.bad_step"]
    assert callback.gradients.late is None and callback.bad_steps == 1


@pytest.mark.slow
def test_a_fault_of_the_guard_leaves_the_optimizer_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it told of one step must not leave out all that come after."""
    monkeypatch.setattr("boxtune.guard.gradients._drains", lambda _: True)

    def fail(**_: Any) -> None:
        raise OSError("ours")

    monkeypatch.setattr("boxtune.guard.gradients.Late", fail)
    callback = guard.LearningCallback()
    parts = healthy(tmp_path, max_steps=30, logging_steps=100, eval_strategy="no")
    parts.callbacks = [Spoil(21), callback]
    assert _told(build(parts), callback) == ["guard.broken"]
    assert not hasattr(parts.trainer.optimizer.optimizer, "found_inf")


@pytest.mark.slow
def test_late_bad_steps_without_end_stop_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxtune.guard.gradients._drains", lambda _: True)
    callback = guard.LearningCallback()
    parts = healthy(tmp_path, max_steps=80, logging_steps=100, eval_strategy="no")
    parts.callbacks = [Spoil(*range(30, 80)), callback]
    trainer = build(parts)
    with pytest.raises(guard.NotLearning, match=r"20 steps in a row up to 50"):
        trainer.train()
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())


def test_bad_steps_without_end_stop_it(tmp_path: Path) -> None:
    callback = guard.LearningCallback()
    parts = healthy(tmp_path, max_steps=60)
    parts.callbacks = [Spoil(), callback]
    trainer = build(parts)
    with pytest.raises(guard.NotLearning, match=r"run\.not_finite"):
        trainer.train()
    assert trainer.state.global_step == 19 and (tmp_path / "checkpoint-19").is_dir()


def test_an_optimizer_that_steps_in_the_backward_pass_is_no_fault(tmp_path: Path) -> None:
    """As LOMO and the layer-wise ones do: no gradient is left when the trainer's own step comes."""
    callback = guard.LearningCallback(preflight=False)
    parts = healthy(tmp_path)

    def step_at_once(parameter: torch.nn.Parameter) -> None:
        parameter.data.add_(parameter.grad, alpha=-0.3)
        parameter.grad = None

    mine = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    for parameter in mine:
        parameter.register_post_accumulate_grad_hook(step_at_once)
    optimizer = torch.optim.SGD(mine, lr=0.3)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))
    parts.callbacks = [callback]
    trainer = build(parts)
    assert "run.no_gradient" not in _told(trainer, callback)
    assert trainer.state.global_step == 24


@pytest.mark.slow
def test_what_stopped_one_run_does_not_stop_the_next(tmp_path: Path) -> None:
    callback = guard.LearningCallback()
    parts = healthy(tmp_path, learning_rate=0.0)
    parts.callbacks = [callback]
    with pytest.raises(guard.NotLearning, match=r"rate\.zero"):
        build(parts).train()
    mended = healthy(tmp_path / "mended")
    mended.callbacks = [callback]
    trainer = build(mended)
    assert _told(trainer, callback) == [] and callback.verdict.word == "learning"
    # After the run nothing is proved any more: the same weights give the same loss, of course.
    for _ in range(2):
        trainer.evaluate()


@pytest.mark.slow
def test_gradients_of_zero_are_no_standstill(tmp_path: Path) -> None:
    """As of rewards that are all the same: nothing moves, and it may go on later."""
    callback = guard.LearningCallback()
    parts = healthy(tmp_path)
    parts.callbacks = [callback]
    # AdamW's momentum would still move something.
    optimizer = torch.optim.SGD([p for p in parts.model.parameters() if p.requires_grad], lr=0.5)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))
    trainer = build(parts)
    compute = trainer.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        loss = compute(*args, **kwargs)
        quiet = trainer.model.training and 4 <= trainer.state.global_step < 16
        return loss * 0 if quiet else loss

    trainer.compute_loss = compute_loss
    trainer.train()
    assert trainer.state.global_step == 24 and "run.still" not in callback.first_seen


@pytest.mark.slow
def test_a_fault_of_the_guard_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("boxtune.guard.gradients._norm", fail)
    callback = guard.LearningCallback()
    parts = healthy(tmp_path)
    parts.callbacks = [callback]
    trainer = build(parts)
    assert _told(trainer, callback) == ["guard.broken"]
    assert trainer.state.global_step == 24 and callback.verdict.word == "cannot tell"
    assert "on_pre_optimizer_step" in callback.findings[-1].seen
    assert "guard.broken" in callback.verdict.evidence[0]


def test_samples_that_cannot_be_compared_are_said_to_be(tmp_path: Path) -> None:
    callback = guard.LearningCallback()
    parts = healthy(tmp_path)
    collate, sizes = parts.collate, []

    def refuse_single(rows: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) == 1:
            raise KeyError("no single row here")
        return collate(rows)

    parts.collate, parts.callbacks = refuse_single, [callback]
    build(parts).train()
    assert 1 in sizes and callback.pairs == []
    assert "KeyError: 'no single row here'" in callback.verdict.evidence[-1]


def _train_in_fp16(folder: Path, scale: float, *callbacks: Any) -> tuple[Any, list[float]]:
    """A run with a gradient scaler that begins far too high, and its scale at each step."""
    scales: list[float] = []

    class Note(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            scales.append(trainer.accelerator.scaler.get_scale())

    parts = healthy(folder)
    parts.callbacks = [*callbacks, Note()]
    trainer = build(parts)
    # TrainingArguments refuses fp16 without a GPU; the scaler itself does not.
    trainer.args.fp16 = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    before = trainer.accelerator.state._mixed_precision
    trainer.accelerator.state._mixed_precision = "fp16"
    try:
        trainer.train()
    finally:
        trainer.accelerator.state._mixed_precision = before
    return trainer, scales


@pytest.mark.slow
def test_steps_that_the_scaler_skips_are_its_own_business(tmp_path: Path) -> None:
    callback = guard.LearningCallback()
    plain, scales = _train_in_fp16(tmp_path / "plain", 2.0**127)
    assert scales[0] == 2.0**126 and scales[-1] < 2.0**126
    watched, same_scales = _train_in_fp16(tmp_path / "watched", 2.0**127, callback)
    assert [f.as_text() for f in callback.findings if f.level in ("warn", "fail")] == []
    assert same_scales == scales and watched.state.global_step == 24
    for one, other in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_warn_goes_on_and_off_says_nothing(tmp_path: Path) -> None:
    for mode, checks in (("warn", True), ("off", False)):
        callback = guard.LearningCallback(mode, out=tmp_path / mode)  # type: ignore[arg-type]
        parts = healthy(tmp_path, learning_rate=0.0)
        parts.callbacks = [callback]
        trainer = build(parts)
        trainer.train()
        assert trainer.state.global_step == 24 and bool(callback.findings) == checks
        assert (tmp_path / mode / "findings.json").is_file() == checks
    with pytest.raises((ValueError, TypeCheckError), match="loud"):
        guard.LearningCallback("loud")  # type: ignore[arg-type]


def test_no_single_change_escapes_the_sum() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.uint8, torch.float64):
        tensor = (torch.rand(2_000_000) * 200).to(dtype)
        before = weight_sum(tensor)
        bits = tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
        bits[1_234_567] ^= 1
        assert weight_sum(tensor) != before
        bits[1_234_567] ^= 1
        assert weight_sum(tensor) == before


def test_rising_losses_are_told_from_falling_and_level_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, 40, generator=generator)
    assert rising([1.0 + 0.1 * step for step in range(20)]) < 1e-6
    assert rising([1.0 - 0.1 * step for step in range(20)]) > 0.99
    assert rising([1.0] * 20) == 1.0 and rising([1.0, 2.0]) == 1.0
    # Of runs without a trend one in a hundred is said to rise: at most seven of 200, but for one time in a thousand.
    assert sum(rising(row.tolist()) < 0.01 for row in noise) <= 7
