"""What a packed step says of itself is what TRL's own loss says of the same batch, padded."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from reads import Reads
from trained import build_squares_trainer, make_batch
from trl import SFTTrainer

from boxtune.finetune import lora_linear
from boxtune.finetune.lora_linear import Rounded

METRICS = {"entropy", "mean_token_accuracy", "num_tokens"}


@pytest.fixture()
def trainer(load_tiny: Any, squares: Path, tmp_path: Path) -> Any:
    torch.manual_seed(0)
    made = build_squares_trainer(load_tiny(), squares, tmp_path, micro_batch=2, effective_batch=4)
    made.current_gradient_accumulation_steps = 1
    for name, parameter in made.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return made


def said(trainer: Any, batch: dict[str, Any], num: Any, *, by_trl: bool) -> tuple[float, dict[str, list[float]]]:
    """The loss of a batch, and the metrics that it leaves."""
    mode = "train" if trainer.model.training else "eval"
    trainer._metrics[mode].clear()
    trainer._total_train_tokens = 100
    if by_trl:
        padded = {name: value for name, value in batch.items() if name != "packing"}
        loss = SFTTrainer.compute_loss(trainer, trainer.model, padded, num_items_in_batch=num)
    else:
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=num)
    found = {name: [float(value) for value in values] for name, values in trainer._metrics[mode].items()}
    return float(loss.detach()), found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("accumulates", [True, False])
def test_loss_and_metrics_are_trls(trainer: Any, training: bool, accumulates: bool) -> None:
    trainer.model.train(training)
    batch = make_batch(trainer, range(5))
    assert "keep" in batch["packing"] and batch["attention_mask"].min() == 0
    num = 3 * (batch["labels"] != -100).sum() if accumulates else None
    (loss, metrics), (wanted, right) = (said(trainer, batch, num, by_trl=by_trl) for by_trl in (False, True))
    assert math.isclose(loss, wanted, rel_tol=1e-5)
    assert metrics.keys() == right.keys() == METRICS
    for name, values in right.items():
        assert len(values) == len(metrics[name]) == 1
        assert math.isclose(metrics[name][0], values[0], rel_tol=1e-5), name
    assert (metrics["num_tokens"][0] > 100) == training
    assert 0 < metrics["mean_token_accuracy"][0] < 1


def test_a_batch_without_packing_goes_trls_way(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard hands in batches that it has changed."""
    batch = make_batch(trainer, range(3))
    wanted = said(trainer, batch, None, by_trl=True)
    bare = {name: value for name, value in batch.items() if name != "packing"}
    assert said(trainer, bare, None, by_trl=False) == wanted
    cut = {**bare, "packing": {"cuts": batch["packing"]["cuts"]}}
    assert said(trainer, cut, None, by_trl=False) == wanted
    monkeypatch.setattr(SFTTrainer, "compute_loss", lambda *_, **__: pytest.fail("went to TRL"))
    assert math.isclose(said(trainer, batch, None, by_trl=False)[0], wanted[0], rel_tol=1e-5)


def test_gradients_are_those_of_trl(trainer: Any) -> None:
    trainer.model.train()
    batch, found = make_batch(trainer, range(4)), []
    for packed in (True, False):
        trainer.model.zero_grad()
        loss = trainer.compute_loss(
            trainer.model, {name: value for name, value in batch.items() if packed or name != "packing"}
        )
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]))
    assert float((found[0] - found[1]).norm() / found[1].norm()) < 1e-4


def test_what_stays_on_the_device_is_read_when_it_is_logged(trainer: Any) -> None:
    metrics = trainer._metrics["train"]
    metrics["entropy"] = [torch.tensor(1.0), torch.tensor(4.0)]
    metrics["mean_token_accuracy"] = [0.25, 0.75]
    trainer.model.train()
    logs = {"loss": 1.0}
    trainer.log(logs)
    row = trainer.state.log_history[-1]
    assert (row["entropy"], row["mean_token_accuracy"]) == (2.5, 0.5)
    assert all(isinstance(row[name], float) for name in ("entropy", "mean_token_accuracy"))


@pytest.mark.slow
def test_a_step_puts_every_module_into_training(trainer: Any) -> None:
    """A base comes in evaluation mode, and any part may be put there: nothing but a look at all of them tells."""
    batch = make_batch(trainer, range(2))
    trainer.model.train()
    for off in (trainer.model.get_base_model(), trainer.model, [*trainer.model.modules()][-1]):
        off.eval()
        for _ in range(2):
            trainer.training_step(trainer.model, batch)
            assert all(module.training for module in trainer.model.modules())
    assert "train" not in vars(trainer.model)


def test_a_step_never_waits_for_a_number(trainer: Any) -> None:
    """From the forward to the optimizer; what a number is needed for comes from the batch as the host has it."""
    trainer.create_optimizer()
    batch = make_batch(trainer, range(3))
    for reads in (Reads(), Reads()):
        with reads:
            trainer.training_step(trainer.model, batch, num_items_in_batch=torch.tensor(60))
            trainer._clip_grad_norm(trainer.model)
            trainer.optimizer.step()
            trainer.model.zero_grad()
    assert reads.found == []


def test_adapters_are_rounded_anew_in_each_step(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a step and not at each use, as they are after the step before, and no copy is left behind."""
    rounded: list[torch.Tensor] = []
    now = Rounded.now

    def see(self: Any) -> None:
        now(self)
        assert len(self.copies) == len(trainer.quickened.adapters) and all(map(torch.equal, self.copies, exact()))
        rounded.append(self.copies[0].clone())

    def exact() -> list[torch.Tensor]:
        return [weight.detach().bfloat16() for weight in trainer.quickened.adapters]

    monkeypatch.setattr(Rounded, "now", see)
    # This CPU need not compute in bf16 for that.
    trainer.args.bf16 = True
    trainer.create_optimizer()
    batch = make_batch(trainer, range(2))
    for _ in range(2):
        trainer.training_step(trainer.model, batch)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        assert not lora_linear._copies
    assert len(rounded) == 2 and not torch.equal(*rounded)


def test_a_step_walks_through_the_model_once(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.create_optimizer()
    batch = make_batch(trainer, range(2))
    trainer.training_step(trainer.model, batch)
    trainer.floating_point_ops(batch)
    base = trainer.model.get_base_model()
    for model, walk in ((trainer.model, "named_parameters"), (base, "named_parameters"), (base, "train")):
        monkeypatch.setattr(model, walk, lambda *_, **__: pytest.fail("went through the model"))
    trainer.training_step(trainer.model, batch)
    assert trainer.floating_point_ops(batch) > 0
    assert float(trainer._clip_grad_norm(trainer.model)) > 0
    trainer.model.zero_grad()
    monkeypatch.undo()
    assert "train" not in vars(trainer.model) and "named_parameters" not in vars(trainer.model)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_norm_and_estimate_are_those_of_transformers(trainer: Any) -> None:
    trainer.create_optimizer()
    batch = make_batch(trainer, range(2))
    trainer.training_step(trainer.model, batch)
    trainer.args.max_grad_norm = 1e9  # nothing is clipped
    assert float(trainer._clip_grad_norm(trainer.model)) == float(SFTTrainer._clip_grad_norm(trainer, trainer.model))
    assert trainer.floating_point_ops(batch) == SFTTrainer.floating_point_ops(trainer, batch)


def test_what_is_spared_is_given_back(trainer: Any, tmp_path: Path) -> None:
    trainer.training_step(trainer.model, make_batch(trainer, range(2)))
    assert "zero_grad" in vars(trainer.model)
    trainer.model.save_pretrained(tmp_path / "saved")
    trainer.put_back(tmp_path / "saved")
    assert "zero_grad" not in vars(trainer.model)


@pytest.mark.slow
def test_layers_are_compiled_for_training_alone(
    load_tiny: Any, squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def compile_(function: Any) -> Any:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append((layer, torch.is_grad_enabled()))
            return function(layer, *args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    trainer = build_squares_trainer(load_tiny(), squares, tmp_path, micro_batch=2, effective_batch=2, compile="on")
    trainer.evaluate()
    assert not calls
    trainer.args.max_steps = 2
    trainer.train()
    layers = {layer for layer, _ in calls}
    assert len(layers) == trainer.quickened.compiled_layers > 0 and len(calls) == 2 * len(layers)
    trainer.evaluate()
    assert len(calls) == 2 * len(layers)


@pytest.mark.slow
def test_a_packed_run_is_a_padded_run(load_tiny: Any, squares: Path, tmp_path: Path) -> None:
    """Row by row of the log, evaluation included, and to the same adapter."""
    runs = []
    for packing in ("auto", "off"):
        torch.manual_seed(0)
        trainer = build_squares_trainer(
            load_tiny(), squares, tmp_path / packing, micro_batch=2, effective_batch=4, packing=packing
        )
        trainer.args.eval_strategy, trainer.args.eval_on_start = "steps", True
        trainer.train()
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])
        runs.append((trainer.state.log_history, weights))
    (rows, weights), (wanted, right) = runs
    assert len(rows) == len(wanted) >= 4
    compared = 0
    for row, other in zip(rows, wanted, strict=True):
        assert row.keys() == other.keys()
        for name in (key for key in row if not re.search("runtime|per_second|flos|wait", key)):
            assert math.isclose(row[name], other[name], rel_tol=1e-4), name
            compared += 1
    # Where a gradient is nearly nothing Adam's first steps go by its sign, which rounding may turn.
    assert compared > 20 and float(((weights - right).abs() > 1e-5).float().mean()) < 0.01
