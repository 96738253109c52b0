"""When weights are spread over the ranks, and that what comes out is what one process makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from models import BUDGET, make_settings
from safetensors.torch import load_file, save_file

import boxtune
from boxtune.errors import ConfigError, NotLearningError
from boxtune.finetune import choose_placement, load_base
from boxtune.finetune.checkpoints import read_metrics
from boxtune.finetune.sharding import choose_sharding, put, sharding_arguments, whole, whole_adapter
from boxtune.finetune.weights import read_adapter
from boxtune.guard.ledger import Ledger


def settings_for(recipe: str, sharding: str, quantization: str = "none") -> Any:
    settings = make_settings(recipe)
    train = settings.train.model_copy(update={"sharding": sharding})
    return settings.model_copy(update={"train": train, "quantization": quantization})


@pytest.mark.parametrize(
    ("recipe", "sharding", "device", "num", "expected"),
    [
        ("full", "auto", "cuda", 1, "none"),
        ("full", "auto", "cuda", 2, "fsdp"),
        ("full", "ddp", "cuda", 2, "ddp"),
        ("joint", "auto", "cuda", 2, "ddp"),
        ("joint", "fsdp", "cuda", 2, "fsdp"),
        ("full", "auto", "cpu", 2, "ddp"),
    ],
)
def test_auto_spreads_weights_that_are_trained(
    recipe: str, sharding: str, device: str, num: int, expected: str
) -> None:
    assert choose_sharding(settings_for(recipe, sharding), device, num) == expected


@pytest.mark.parametrize(
    ("device", "num", "quantization", "words"),
    [
        ("cuda", 1, "none", "there is one process"),
        ("cpu", 2, "none", "over GPUs alone"),
        ("cuda", 2, "fp8", "weights in fp8 are not spread"),
    ],
)
def test_what_cannot_be_spread_is_refused(device: str, num: int, quantization: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        choose_sharding(settings_for("full", "fsdp", quantization), device, num)


def test_layers_of_both_towers_are_gathered_one_by_one(tiny: Any) -> None:
    assert sharding_arguments(tiny.model, "ddp") == {}
    config = sharding_arguments(tiny.model, "fsdp")["fsdp_config"]
    assert config["transformer_layer_cls_to_wrap"] == ["Qwen2VLDecoderLayer", "Qwen2VLVisionBlock"]


def test_a_tensor_that_is_not_spread_is_whole() -> None:
    parameter = torch.nn.Parameter(torch.arange(4.0))
    put(parameter, torch.ones(4))
    assert whole(parameter).tolist() == [1.0] * 4 and not whole(parameter).requires_grad


@pytest.mark.slow
def test_four_bits_are_stored_as_numbers_where_they_will_be_cut_up(tiny: Any) -> None:
    """And count as many parameters, also once the weight itself no longer knows what its bytes mean."""
    placement = choose_placement("nf4", "fp32")
    plain, spread = (load_base(tiny.source, placement, **BUDGET, spread=flag).model for flag in (False, True))
    stored = [{m.weight.dtype for m in model.modules() if hasattr(m, "quant_state")} for model in (plain, spread)]
    assert stored == [{torch.uint8}, {torch.float32}]
    towers = tiny.source.family.towers
    counted = [Ledger(towers).take("loaded", model).towers for model in (plain, spread)]
    for module in spread.modules():
        if hasattr(module, "quant_state"):
            # What FSDP2 puts in its place: a parameter like any other.
            module.weight = torch.nn.Parameter(module.weight.data, requires_grad=False)
    assert counted[0] == counted[1] == Ledger(towers).take("cut up", spread).towers


def test_a_saved_adapter_comes_back_or_is_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def build(rank: int) -> Any:
        model = get_peft_model(
            torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)), LoraConfig(r=rank, target_modules=["0"])
        )
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        return model

    saved = build(2)
    saved.save_pretrained(tmp_path, state_dict=whole_adapter(saved))
    other = build(2)
    read_adapter(other, tmp_path)
    assert whole_adapter(other).keys() == whole_adapter(saved).keys() and len(whole_adapter(saved)) == 2
    for name, tensor in whole_adapter(saved).items():
        assert torch.equal(whole_adapter(other)[name], tensor)
    with pytest.raises(NotLearningError, match=r"2 of 2 adapter tensors do not fit .* the first is .*lora_[AB]"):
        read_adapter(build(3), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(NotLearningError, match=r"1 of 2 adapter tensors do not fit .* the first is .*lora_B"):
        read_adapter(other, tmp_path)


# accelerate 1.15 leaves the plugin away on CPUs (state.py, AcceleratorState.__init__); torch's FSDP2 itself runs there.
ON_A_CPU = """
import sys
import accelerate.state as state
from boxtune.cli import main
from boxtune.finetune import sharding

original = state.AcceleratorState.__init__

def begin(self, *args, fsdp_plugin=None, **more):
    original(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = state.DistributedType.FSDP, fsdp_plugin

state.AcceleratorState.__init__ = begin
sharding.can_shard = lambda device: True
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "quantization", "saved"),
    [("full", "none", "trained_weights.safetensors"), ("joint", "nf4", "adapter_model.safetensors")],
)
def test_spread_weights_learn_what_one_process_learns(
    squares: Path, tmp_path: Path, recipe: str, quantization: str, saved: str
) -> None:
    """And they go on from a checkpoint: the run in two ranks is stopped after its first step."""
    script = tmp_path / "script.py"
    script.write_text(ON_A_CPU)
    settings: dict[str, Any] = {
        **BUDGET, "model": "tiny", "data": str(squares), "adapter.recipe": recipe, "epochs": 1, "micro_batch": 2,
        "effective_batch": 4, "max_new_tokens": 4, "quantization": quantization, "precision": "fp32", "base": False,
        "guard.mode": "off", "dropout": 0.0,
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]

    def spread(*more: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [*torchrun, "train", *words, f"runs={tmp_path / 'two'}", "sharding=fsdp", *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
        assert done.returncode == 0, done.stderr[:6000]

    boxtune.train(**settings, runs=str(tmp_path / "one"))
    spread("hours=0.000001")
    spread("resume=true")
    one, two = tmp_path / "one" / "squares-tiny", tmp_path / "two" / "squares-tiny"
    assert (two / "checkpoints" / "checkpoint-4" / "pytorch_model_fsdp.bin").is_file()
    steps = [{r["step"]: r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "train"} for run in (one, two)]
    assert sorted(steps[0]) == sorted(steps[1]) == [1, 2, 3, 4]
    for name in ("loss", "grad_norm"):
        for step, row in steps[0].items():
            assert steps[1][step][name] == pytest.approx(row[name], rel=1e-3), (name, step)
    ours, theirs = (load_file(run / "adapter_last" / saved) for run in (one, two))
    assert ours.keys() == theirs.keys() and ours
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    size = sum(float(tensor.square().sum()) for tensor in ours.values())
    assert apart < 1e-6 * size
