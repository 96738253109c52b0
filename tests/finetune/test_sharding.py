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
from safetensors.torch import load_file

from boxtune.errors import ConfigError
from boxtune.finetune.checkpoints import read_metrics
from boxtune.finetune.sharding import choose_sharding, put, sharding_arguments, whole


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
        ("cuda", 2, "nf4", "weights in nf4 are not spread"),
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
def test_spread_weights_learn_what_one_process_learns(squares: Path, tmp_path: Path) -> None:
    """And they go on from a checkpoint: the run in two ranks is stopped after its first step."""
    script = tmp_path / "script.py"
    script.write_text(ON_A_CPU)
    settings: dict[str, Any] = {
        **BUDGET, "model": "tiny", "data": squares, "recipe": "full", "epochs": 1, "micro_batch": 2,
        "effective_batch": 4, "max_new_tokens": 4, "quantization": "none", "precision": "fp32", "base": "false",
        "guard": "off",
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]

    def run(*command: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=200, env=environment
        )
        assert done.returncode == 0, done.stderr

    run("boxtune", "train", *words, f"runs={tmp_path / 'one'}")
    run(*torchrun, "train", *words, f"runs={tmp_path / 'two'}", "sharding=fsdp", "hours=0.000001")
    run(*torchrun, "train", *words, f"runs={tmp_path / 'two'}", "sharding=fsdp", "resume=true")
    one, two = tmp_path / "one" / "squares-tiny", tmp_path / "two" / "squares-tiny"
    assert (two / "checkpoints" / "checkpoint-4" / "pytorch_model_fsdp.bin").is_file()
    steps = [{r["step"]: r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "train"} for run in (one, two)]
    assert sorted(steps[0]) == sorted(steps[1]) == [1, 2, 3, 4]
    for name in ("loss", "grad_norm"):
        for step, row in steps[0].items():
            assert steps[1][step][name] == pytest.approx(row[name], rel=1e-3), (name, step)
    ours, theirs = (load_file(run / "adapter_last" / "trained_weights.safetensors") for run in (one, two))
    assert ours.keys() == theirs.keys()
    apart = sum(float((ours[name] - theirs[name]).square().sum()) for name in ours)
    size = sum(float(tensor.square().sum()) for tensor in ours.values())
    assert apart < 1e-6 * size
