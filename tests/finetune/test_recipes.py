"""What each recipe trains: those tensors, at those rates, in those stages, and it is found again on disk."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import BUDGET, make_settings, refuse
from squares import CLASSES

from boxtune.data import read_dataset
from boxtune.errors import ConfigError, ModelError, NotLearningError
from boxtune.finetune import (
    TrainingCollator,
    build_encoder,
    build_trainer,
    choose_placement,
    load_adapter,
    load_base,
    logits_digest,
    plan_adapter,
    save_adapter,
)
from boxtune.finetune.adapters import RECIPES, full_towers, require_rates, targets_table
from boxtune.finetune.weights import WEIGHTS
from boxtune.run import find_source

STEPS = 4


@pytest.fixture(scope="module")
def splits(squares: Path) -> dict[str, Any]:
    dataset = read_dataset(squares)
    return {"train": dataset.splits["train"][:STEPS], "valid": dataset.splits["valid"][:2]}


def load(recipe: str, precision: str = "fp32") -> Any:
    quantization = "none" if recipe == "full" else "nf4"
    placement = choose_placement(quantization, precision)
    return load_base(find_source("tiny"), placement, **BUDGET, full=full_towers(recipe))


def build(recipe: str, splits: Any, folder: Path, rate: Any = 1e-3, precision: str = "fp32") -> tuple[Any, Any, Any]:
    """(loaded base, plan, trainer), with STEPS optimizer steps before it."""
    loaded, settings = load(recipe, precision), make_settings(recipe, rate)
    plan = plan_adapter(loaded.model, loaded.source.family, settings.adapter)
    collator = TrainingCollator(build_encoder(loaded, CLASSES), splits, refuse)
    trainer = build_trainer(loaded, plan, settings, collator, [], checkpoints=folder, resuming=False)
    trainer.args.eval_strategy, trainer.args.eval_on_start, trainer.args.save_strategy = "no", False, "no"
    return loaded, plan, trainer


def snapshot(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before: dict[str, torch.Tensor], model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_what_it_plans_and_saves_it(recipe: str, splits: Any, tmp_path: Path) -> None:
    precision = "bf16" if recipe == "full_vision" else "fp32"
    loaded, plan, trainer = build(recipe, splits, tmp_path / "c", precision=precision)
    trainable = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainable.keys() == plan.tensor_names
    assert sum(p.numel() for p in trainable.values()) == plan.num_parameters
    assert {p.dtype for p in trainable.values()} == {torch.float32}
    before = snapshot(trainer.model)
    trainer.train()
    changed = moved(before, trainer.model)
    assert changed <= plan.tensor_names
    # The last layers of a tower may not be reached, and a bias of keys never is: nothing depends on it.
    unmoved = plan.tensor_names - changed
    assert len(unmoved) <= 0.05 * len(plan.tensor_names), sorted(unmoved)
    towers = {target.tower for target in plan.targets}
    assert towers == set(RECIPES[recipe])
    assert ("visual" in str(changed)) == ("vision" in towers)

    folder = tmp_path / "adapter"
    save_adapter(trainer.model, folder, loaded, {})
    assert (folder / WEIGHTS).is_file() == (recipe in ("full_vision", "full"))
    encoder = build_encoder(loaded, CLASSES)
    # As a run does at its end: the fast step adds in another order.
    trainer.quickened.undo()
    digest = logits_digest(loaded.with_model(trainer.model), encoder, splits["valid"])
    again = load(recipe, precision)
    bare = logits_digest(again, encoder, splits["valid"])
    again = again.with_model(load_adapter(again.model, folder))
    assert logits_digest(again, encoder, splits["valid"]) == digest != bare


@pytest.mark.slow
def test_two_stages_move_one_part_after_the_other(splits: Any, tmp_path: Path) -> None:
    _, _, trainer = build("two_stage", splits, tmp_path)
    stages: list[set[str]] = []
    before = snapshot(trainer.model)

    class Watch(__import__("transformers").TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            nonlocal before
            stages.append({"visual" if "visual" in name else "language" for name in moved(before, model)})
            before = snapshot(model)

    trainer.add_callback(Watch())
    trainer.train()
    assert stages == [{"visual"}, {"visual"}, {"language"}, {"language"}]
    rates = [
        (row["learning_rate_vision"], row["learning_rate_projector"], row["learning_rate_language"])
        for row in trainer.state.log_history
        if "learning_rate" in row
    ]
    # A row tells the rate after its step: that of the next one.
    assert rates == [(1e-3, 1e-3, 0.0), (0.0, 0.0, 1e-3), (0.0, 0.0, 1e-3), (0.0, 0.0, 1e-3)]
    assert {row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row} == {1e-3}


@pytest.mark.slow
def test_each_tower_has_its_rate(splits: Any, tmp_path: Path) -> None:
    rates = {"language": 1e-3, "projector": 1e-4, "vision": 2e-5}
    _, plan, trainer = build("joint", splits, tmp_path, rate=rates)
    optimizer = trainer.create_optimizer()
    held: dict[str, set[float]] = {}
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    for group in optimizer.param_groups:
        held.setdefault(group["tower"], set()).add(group["lr"])
        part = {"language": "language_model", "projector": "visual.merger", "vision": "visual.blocks"}[group["tower"]]
        assert group["params"] and all(part in names[id(p)] for p in group["params"])
    assert held == {tower: {rate} for tower, rate in rates.items()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(plan.tensor_names)


@pytest.mark.slow
def test_one_rate_leaves_the_optimizer_as_it_is(splits: Any, tmp_path: Path) -> None:
    _, _, trainer = build("joint", splits, tmp_path)
    groups = trainer.create_optimizer().param_groups
    assert {group["lr"] for group in groups} == {1e-3} and not any("tower" in group for group in groups)
    trainer.train()
    assert not any(key.startswith("learning_rate_") for row in trainer.state.log_history for key in row)


@pytest.mark.parametrize(
    ("recipe", "rates", "words"),
    [
        ("joint", {"language": 1e-3}, "for language; trained are language, projector, vision"),
        ("language", {"language": 1e-3, "vision": 1e-4}, "for language, vision; trained are language$"),
    ],
)
def test_rates_that_do_not_fit_the_recipe_are_refused(recipe: str, rates: Any, words: str, tiny: Any) -> None:
    plan = plan_adapter(tiny.model, tiny.source.family, make_settings(recipe).adapter)
    with pytest.raises(ConfigError) as raised:
        require_rates(plan, rates)
    assert re.search(words, raised.value.what)
    require_rates(plan, 1e-3)
    require_rates(plan, dict.fromkeys({target.tower for target in plan.targets}, 1e-3))


def test_a_tower_trained_in_full_is_kept_out_of_nf4() -> None:
    import bitsandbytes as bnb

    layers = {
        name: module
        for name, module in load("full_vision").model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in name
    }
    assert len(layers) == 5 * 7 + 8 * 4 + 2
    assert all(isinstance(module, bnb.nn.Linear4bit) != ("visual" in name) for name, module in layers.items())


def test_there_is_nothing_to_quantise_where_all_is_trained() -> None:
    placement = choose_placement("nf4", "fp32")
    with pytest.raises(ConfigError, match="nothing is left to store in nf4") as raised:
        load_base(find_source("tiny"), placement, **BUDGET, full=full_towers("full"))
    assert "quantization=none" in raised.value.fix


def test_quantised_weights_cannot_be_trained_in_full(tiny: Any) -> None:
    for recipe, fix in (("full", "quantization=none"), ("full_vision", "kept out")):
        with pytest.raises(ModelError, match="quantised and cannot be trained themselves") as raised:
            plan_adapter(tiny.model, tiny.source.family, make_settings(recipe).adapter)
        assert fix in raised.value.fix


def test_a_pattern_that_reaches_another_tower_is_an_error(tiny: Any) -> None:
    family = replace(tiny.source.family, adapted={"language": {"attention": r".*\.(?:q_proj|proj)"}})
    with pytest.raises(ModelError, match=r"also matches model\.visual\.blocks\.0\.attn\.proj of the vision tower"):
        plan_adapter(tiny.model, family, make_settings("language").adapter)


@pytest.mark.slow
def test_missing_weights_of_a_tower_are_an_error(splits: Any, tmp_path: Path) -> None:
    loaded, _, trainer = build("full_vision", splits, tmp_path / "c")
    save_adapter(trainer.model, tmp_path / "adapter", loaded, {"full_towers": ["vision", "projector"]})
    (tmp_path / "adapter" / WEIGHTS).unlink()
    with pytest.raises(NotLearningError, match=r"is missing in .*: it holds the trained weights of vision, projector"):
        load_adapter(load("full_vision").model, tmp_path / "adapter")


@pytest.mark.slow
def test_weights_without_a_place_are_an_error(splits: Any, tmp_path: Path) -> None:
    loaded, _, trainer = build("full_vision", splits, tmp_path / "c")
    save_adapter(trainer.model, tmp_path / "adapter", loaded, {})
    with pytest.raises(NotLearningError, match="have no place in the model"):
        load_adapter(load("language").model, tmp_path / "adapter")


def test_the_table_says_what_is_trained(tiny: Any) -> None:
    plan = plan_adapter(tiny.model, tiny.source.family, make_settings("joint").adapter)
    table = targets_table(plan)
    rows = [line.split() for line in table.splitlines()]
    assert ["vision", "attention", "LoRA", "16", "model.visual.blocks.0.attn.qkv"] in [row[:5] for row in rows]
    assert f"{plan.num_parameters:,}" in rows[-1] and "16 of 16" in table
    free = plan_adapter(load("full_vision").model, tiny.source.family, make_settings("full_vision").adapter)
    assert "weights in fp32" in targets_table(free) and "LoRA" not in targets_table(free)


@pytest.mark.slow
def test_weights_come_back_from_a_checkpoint(splits: Any, tmp_path: Path) -> None:
    _, plan, trainer = build("full_vision", splits, tmp_path)
    trainer.args.save_strategy, trainer.args.save_steps = "steps", 2
    trainer.state.save_steps = 2
    trainer.train()
    trained = snapshot(trainer.model)
    _, _, again = build("full_vision", splits, tmp_path)
    started = snapshot(again.model)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.state.global_step == STEPS
    ended = snapshot(again.model)
    assert plan.tensor_names and all(torch.equal(ended[name], trained[name]) for name in plan.tensor_names)
    assert any(not torch.equal(started[name], ended[name]) for name in plan.tensor_names)
