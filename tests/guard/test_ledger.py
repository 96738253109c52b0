"""The ledger counts real parameters, and every departure from the plan is found."""

from __future__ import annotations

from typing import Any

import pytest

import boxtune.errors
from boxtune.finetune.adapters import keep_fp32, plan_adapter
from boxtune.guard import Finding, Ledger, check_trainable, watch_adapter
from boxtune.guard.ledger import num_parameters
from boxtune.settings import AdapterSettings

JOINT = AdapterSettings(recipe="joint", r=4, alpha=8, dropout=0.0)


@pytest.fixture(scope="module")
def bare(load_tiny: Any) -> Any:
    return load_tiny()


@pytest.fixture(scope="module")
def tuned(bare: Any) -> Any:
    """The embedded model in NF4 with an adapter on all towers, and its plan."""
    from peft import get_peft_model

    plan = plan_adapter(bare.model, bare.source.family, JOINT)
    seen = []
    with watch_adapter(seen.append):
        model = get_peft_model(bare.model, plan.config)
    assert seen == [model]
    return model, plan


@pytest.mark.slow
def test_packed_weights_count_with_their_real_shape(load_tiny: Any) -> None:
    whole = sum(p.numel() for p in load_tiny("none").model.parameters())
    packed = load_tiny("nf4").model
    ledger = Ledger({})
    assert ledger.take("loaded", packed).all == whole == sum(num_parameters(p) for p in packed.parameters())
    assert sum(p.numel() for p in packed.parameters()) < whole
    assert ledger.take("int8", load_tiny("int8").model).all == whole


def test_counts_equal_pefts_own(tuned: Any, bare: Any) -> None:
    model, plan = tuned
    stage = Ledger(bare.source.family.towers).take("adapted", model)
    assert (stage.trainable, stage.all) == model.get_nb_trainable_parameters()
    assert stage.trainable == plan.num_parameters
    assert set(stage.towers) == {"vision", "projector", "language"}
    assert all(tower.trainable > 0 for tower in stage.towers.values())


def test_the_planned_set_is_quiet_and_every_departure_is_named(tuned: Any, bare: Any) -> None:
    model, plan = tuned

    def check() -> list[Finding]:
        stage = Ledger(bare.source.family.towers).take("now", model)
        return check_trainable(stage, plan.tensor_names, plan.num_parameters)

    assert [finding.level for finding in check()] == ["ok"]
    parameters = dict(model.named_parameters())
    name = sorted(plan.tensor_names)[0]

    parameters[name].requires_grad_(False)
    (found,) = check()
    assert (found.check, found.level) == ("ledger.frozen", "fail") and name in found.where
    parameters[name].requires_grad_(True)

    other = next(n for n, p in parameters.items() if n not in plan.tensor_names and p.is_floating_point())
    parameters[other].requires_grad_(True)
    (found,) = check()
    assert (found.check, found.level) == ("ledger.unfrozen", "fail") and other in found.where
    parameters[other].requires_grad_(False)

    stage = Ledger({}).take("now", model)
    (found,) = check_trainable(stage, plan.tensor_names, plan.num_parameters + 1)
    assert found.check == "ledger.count"
    assert [finding.level for finding in check()] == ["ok"]


def test_the_original_fault_is_found(load_tiny: Any) -> None:
    """`prepare_model_for_kbit_training` on a model that already has its adapter freezes all of it."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    loaded = load_tiny()
    plan = plan_adapter(loaded.model, loaded.source.family, JOINT)
    model = get_peft_model(loaded.model, plan.config)
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    stage = Ledger(loaded.source.family.towers).take("trainer built", model)
    assert stage.trainable == 0
    (found,) = check_trainable(stage, plan.tensor_names, plan.num_parameters)
    assert found.level == "fail" and found.seen.startswith(f"{len(plan.tensor_names)} of {len(plan.tensor_names)}")


def test_keep_fp32_casts_what_is_not(tuned: Any) -> None:
    import torch

    model, plan = tuned
    name = sorted(plan.tensor_names)[0]
    parameter = dict(model.named_parameters())[name]
    parameter.data = parameter.data.to(torch.bfloat16)
    assert keep_fp32(model) == 1
    assert keep_fp32(model) == 0
    assert dict(model.named_parameters())[name] is parameter and parameter.dtype == torch.float32


def test_finding_is_the_same_json_as_boxtunes() -> None:
    values = {"check": "a", "level": "warn", "seen": "b", "where": "c", "fix": "d"}
    assert Finding(**values).as_json() == boxtune.errors.Finding(**values).as_json() == values  # type: ignore[arg-type]
