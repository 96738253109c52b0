"""Frozen layers in float8: near the dense ones, under PEFT's adapters, loaded and trained as NF4 is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import make_settings, refuse
from squares import CLASSES
from torch._subclasses.fake_tensor import FakeTensorMode

from boxtune.data import read_dataset
from boxtune.errors import ConfigError, ModelError
from boxtune.finetune import TrainingCollator, build_encoder, build_trainer, plan_adapter
from boxtune.finetune.float8 import Float8Linear, fitting, require_float8, to_float8_layers
from boxtune.finetune.lora_linear import FLOAT8, _scaled
from boxtune.finetune.quantization import check_quantised

ERROR = 0.05
"""Of a product of two float8 matrices, as a share of its norm."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_is_near_the_dense_one(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dense = torch.nn.Linear(96, 160, bias=bias, dtype=dtype)
    small, x = Float8Linear(dense), torch.randn(2, 7, 96, dtype=dtype)
    with torch.no_grad():
        wanted, got = dense(x), small(x)
    assert got.shape == wanted.shape and got.dtype == dtype
    assert float((got - wanted).float().norm() / wanted.float().norm()) < ERROR
    assert sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in dense.parameters())
    assert small.weight.nbytes == 96 * 160 and not small.weight.requires_grad
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert small(x.float()).dtype == torch.bfloat16
    assert small(x.float()).dtype == dtype


def test_only_the_named_layers_are_replaced() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Sequential(torch.nn.Linear(16, 16)))
    to_float8_layers(model, ["1.0"])
    assert type(model[0]) is torch.nn.Linear and type(model[1][0]) is Float8Linear


def test_adapters_on_it_stay_in_fp32_and_add_their_part() -> None:
    import peft

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64, dtype=torch.bfloat16))
    to_float8_layers(model, ["0"])
    x = torch.randn(4, 64).bfloat16()
    bare = model(x)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["0"], r=4))
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 and all(".lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert torch.equal(adapted(x), bare)
    for parameter in trained.values():
        torch.nn.init.normal_(parameter)
    assert not torch.equal(adapted(x), bare)
    adapted(x).float().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in trained.values())


def test_the_base_is_loaded_in_float8(load_tiny: Any, tiny: Any) -> None:
    loaded = load_tiny(quantization="fp8")
    layers = {name for name, module in loaded.model.named_modules() if isinstance(module, Float8Linear)}
    assert len(layers) == 5 * 7 + 8 * 4 + 2 and "lm_head" not in layers
    assert [(finding.check, finding.level) for finding in loaded.findings if "quantised" in finding.check] == [
        ("load.quantised", "ok")
    ]
    assert any("in fp8" in note for note in loaded.placement.notes)
    with pytest.raises(ModelError, match="1 layers are quantised and should not be"):
        check_quantised(loaded.model, layers - {min(layers)})
    dense = load_tiny(quantization="none")
    count = [sum(p.numel() for p in model.parameters()) for model in (loaded.model, dense.model)]
    assert count[0] == count[1]


@pytest.mark.slow
def test_a_step_on_a_base_in_float8(load_tiny: Any, squares: Path, tmp_path: Path) -> None:
    """Near the same step on a dense base, and the float8 weights stay as they are."""
    splits = {name: samples[:2] for name, samples in read_dataset(squares).splits.items()}
    losses, gradients = [], []
    for quantization in ("fp8", "none"):
        loaded, settings = load_tiny(quantization=quantization), make_settings("language", batch=2)
        plan = plan_adapter(loaded.model, loaded.source.family, settings.adapter)
        collator = TrainingCollator(build_encoder(loaded, CLASSES), splits, refuse)
        trainer = build_trainer(loaded, plan, settings, collator, [], checkpoints=tmp_path, resuming=False)
        trainable = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        assert trainable.keys() == plan.tensor_names and {p.dtype for p in trainable.values()} == {torch.float32}
        torch.manual_seed(0)
        for name, parameter in trainable.items():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.02)
            else:
                torch.nn.init.normal_(parameter, std=0.1)
        frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if name not in trainable}
        trainer.current_gradient_accumulation_steps = 1
        batch = trainer._prepare_inputs(collator([{"split": "train", "i": 0}, {"split": "train", "i": 1}]))
        losses.append(float(trainer.training_step(trainer.model, batch)))
        gradients.append(torch.cat([p.grad.flatten() for p in trainable.values() if p.grad is not None]))
        assert all(p.grad is not None and bool(p.grad.any()) for p in trainable.values())
        assert all(torch.equal(p, frozen[name]) for name, p in trainer.model.named_parameters() if name in frozen)
    assert abs(losses[0] / losses[1] - 1) < ERROR
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.95


@pytest.mark.parametrize(("capability", "fits"), [((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), True)])
def test_old_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fits: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "some GPU")
    if fits:
        require_float8(torch.device("cuda"))
        return
    with pytest.raises(ConfigError, match=r"8\.9 or more, not some GPU") as raised:
        require_float8(torch.device("cuda"))
    assert raised.value.where == "quantization" and "nf4" in raised.value.fix
    require_float8(torch.device("cpu"))


def runs_on_a_gpu(layer: torch.nn.Linear) -> bool:
    """Asked of torch's own rules, without a GPU."""
    with FakeTensorMode():
        rows = torch.empty(100, layer.in_features, device="cuda", dtype=FLOAT8)
        weight = torch.empty(layer.out_features, layer.in_features, device="cuda", dtype=FLOAT8)
        scales = torch.ones(100, 1, device="cuda"), torch.ones(1, layer.out_features, device="cuda")
        try:
            _scaled(rows, weight.t(), *scales, torch.bfloat16)
        except RuntimeError:
            return False
    return True


def test_layers_of_odd_widths_stay_dense() -> None:
    """Qwen2.5-VL's vision tower has an inner width of 3420, which is no multiple of 16."""
    model = torch.nn.ModuleDict(
        {"up": torch.nn.Linear(32, 3420), "down": torch.nn.Linear(3420, 32), "even": torch.nn.Linear(32, 64)}
    )
    assert [name for name, layer in model.items() if runs_on_a_gpu(layer)] == ["even"]
    to_float8_layers(model, fitting(model, [*model]))
    kinds = {name: type(layer) is Float8Linear for name, layer in model.items()}
    assert kinds == {"up": False, "down": False, "even": True}
