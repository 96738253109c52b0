"""A step's plan for every family: where its shape is known, and where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import write_architecture
from models import make_settings

from boxtune.families import FAMILIES
from boxtune.finetune import find_model
from boxtune.finetune.device import small_step
from boxtune.finetune.load import Loaded, Placement
from boxtune.finetune.planner import GIB, Card, Load, has_shape, peak_bytes, plan_step, read_shape
from boxtune.finetune.quicken import checkpoint_layers, language_layers
from boxtune.settings import TrainSettings

WITHOUT_SHAPE = ("florence2", "kosmos2")


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A tiny model of the architecture, without weights in memory."""
    folder = write_architecture(request.param, tmp_path_factory.mktemp("models") / request.param)
    source = find_model(folder, family=request.param)
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForImageTextToText.from_config(config)
    on_card = Placement(device=torch.device("cuda"), precision="bf16", quantization="none", notes=())
    rest: dict[str, Any] = {"processor": None, "min_pixels": 1, "max_pixels": 1, "full": (), "findings": ()}
    return Loaded(source=source, placement=on_card, model=model, **rest)


@pytest.mark.parametrize("asked", ["auto", "on", "off"])
def test_without_a_plan_a_card_computes_all_layers_twice(loaded: Loaded, asked: str) -> None:
    settings = make_settings("language")
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"checkpointing": asked})})
    num = len(language_layers(loaded.model, loaded.source.family))
    assert num >= 2
    step = small_step(loaded, settings)
    assert step.checkpointed == (0 if asked == "off" else num)
    checkpoint_layers(loaded.model, loaded.source.family, step.checkpointed)
    marked = [layer.gradient_checkpointing for layer in language_layers(loaded.model, loaded.source.family)]
    assert sum(marked) == step.checkpointed


def test_a_shape_is_read_or_said_not_to_be_there(loaded: Loaded) -> None:
    name = loaded.source.family.name
    assert has_shape(loaded.model.config) == (name not in WITHOUT_SHAPE)
    if name in WITHOUT_SHAPE:
        return
    linear = [n for n, module in loaded.model.named_modules() if type(module) is torch.nn.Linear]
    shape = read_shape(loaded.model, linear, [])
    assert shape.layers == len(language_layers(loaded.model, loaded.source.family))
    assert min(shape.hidden, shape.inner, shape.queries, shape.keys, shape.linear, shape.vision_hidden) > 0
    tokens = np.array([400, 500, 900])
    load = Load(
        weights=GIB, trained=1000, tokens=tokens, answers=tokens // 10, images=tokens // 2, lora_rank=8,
        vision_trains=False, compiled=True, float8=False, dropout=False,
    )  # fmt: skip
    step = plan_step(shape, load, Card(memory=24 * GIB, tflops=100.0), TrainSettings(effective_batch=8), 1)
    assert 8 % step.micro_batch == 0 and GIB < step.peak <= 24 * GIB
    assert peak_bytes(shape, load, 2, 0) > peak_bytes(shape, load, 1, 0)
