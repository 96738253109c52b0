"""What prediction repeats of training, and which image it names when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from squares import CLASSES

from boxtune.artifacts import RUN_CARD, write_json
from boxtune.errors import DataError
from boxtune.finetune import Loaded, fingerprint
from boxtune.infer import LocalEngine, Predictor, load_predictor
from boxtune.infer import predictor as predictor_of
from boxtune.run import find_source


@pytest.fixture()
def load_as(tiny: Loaded, encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads the predictor of a card that says this precision, up to the weights; the placement that it got."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(predictor_of, "load_adapter", lambda model, folder: model)
    placements: list[Any] = []

    def load_base(source: Any, placement: Any, **budget: int) -> Loaded:
        placements.append(placement)
        return tiny

    monkeypatch.setattr(predictor_of, "load_base", load_base)
    card = {
        "model": "tiny",
        "family": "qwen2_vl",
        "base_fingerprint": fingerprint(find_source("tiny").folder),
        "prompt": encoder.family.prompt(CLASSES, ""),
        "classes": list(CLASSES),
        "quantization": "nf4",
        "min_pixels": encoder.min_pixels,
        "max_pixels": encoder.max_pixels,
        "max_new_tokens": 3,
        "versions": {"boxtune": "0"},
    }

    def load(precision: str) -> Any:
        write_json(tmp_path / RUN_CARD, {**card, "precision": precision})
        load_predictor(tmp_path, find_source)
        return placements.pop()

    return load


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_precision_of_the_card_is_used(
    load_as: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert load_as(precision).precision == precision
    assert capsys.readouterr().out == ""


def test_a_precision_this_machine_lacks_is_replaced_and_said(
    load_as: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    placement = load_as("fp16")
    assert (placement.precision, placement.quantization) == ("fp32", "nf4")
    assert capsys.readouterr().out == "trained in fp16, which this machine cannot do: predicting in fp32\n"


def test_an_image_too_long_is_named(tiny: Loaded, encoder: Any, tmp_path: Path) -> None:
    predictor = Predictor(engine=LocalEngine(loaded=tiny, encoder=encoder, max_new_tokens=3))
    Image.new("RGB", (3, 900)).save(tmp_path / "long.png")
    sound = Image.new("RGB", (60, 50))
    with pytest.raises(DataError, match=r"long\.png cannot be shown to the model: an image of 3x900"):
        predictor.answer([sound, tmp_path / "long.png"])
    with pytest.raises(DataError, match="image 2 cannot be shown"):
        predictor.predict([sound, np.zeros((900, 3, 3), dtype=np.uint8)])
    assert len(predictor.answer([sound])) == 1
