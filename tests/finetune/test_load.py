"""The base is loaded as asked, and the traps on the way are met."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from boxtune.errors import ModelError
from boxtune.finetune import choose_placement, find_model, fingerprint, load_base, plan_adapter
from boxtune.run import find_source
from boxtune.settings import AdapterSettings

BUDGET = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}


@pytest.fixture()
def copy(tmp_path: Path) -> Path:
    """A copy of the embedded model that a test may spoil."""
    return Path(shutil.copytree(find_source("tiny").folder, tmp_path / "copy"))


def test_nf4_with_double_quantisation(tiny: Any) -> None:
    import bitsandbytes as bnb

    layers = [m for m in tiny.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(layers) == 5 * 7 + 8 * 4 + 2
    assert {m.weight.quant_state.quant_type for m in layers} == {"nf4"}
    assert all(m.weight.quant_state.nested for m in layers)
    assert {m.compute_dtype for m in layers} == {torch.float32}
    assert not isinstance(tiny.model.lm_head, bnb.nn.Linear4bit)


def test_inference_packing_is_off(load_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a CPU with AVX512-BF16, where bitsandbytes packs weights in eval mode."""
    import bitsandbytes as bnb

    original = bnb.nn.Linear4bit.__init__

    def packing(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.support_avx512bf16_for_cpu = True

    monkeypatch.setattr(bnb.nn.Linear4bit, "__init__", packing)
    loaded = load_tiny()
    layers = [m for m in loaded.model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert layers and not any(m.support_avx512bf16_for_cpu for m in layers)
    assert [finding.check for finding in loaded.findings] == ["load.packed_weights", "load.quantised"]


def test_the_packing_trap_is_still_there() -> None:
    """Fails once bitsandbytes has no such switch any more: then `_avoid_packed_weights` can go."""
    import bitsandbytes as bnb

    assert hasattr(bnb.nn.Linear4bit(8, 8), "support_avx512bf16_for_cpu")


def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_placement("nf4", "auto").precision == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_placement("nf4", "auto").precision == "fp32"
    with pytest.raises(ModelError, match="fp16 needs a CUDA GPU"):
        choose_placement("nf4", "fp16")


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_without_bf16_computes_in_fp16(monkeypatch: pytest.MonkeyPatch, native: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    placement = choose_placement("nf4", "auto")
    assert (placement.precision, placement.quantization) == (precision, "nf4")


def test_no_4_bit_on_apple_gpus_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    placement = choose_placement("nf4", "auto")
    assert placement.quantization == "none"
    assert any("nf4 became none" in note for note in placement.notes)


def test_a_missing_model_is_one_clear_error(tmp_path: Path) -> None:
    for name in ("/no/such/folder", "./missing", "a/b/c", str(tmp_path / "x")):
        with pytest.raises(ModelError, match="there is no model"):
            find_model(name)
    with pytest.raises(ModelError, match="hub cannot be reached"):
        find_model("somebody/some-model")
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_model(tmp_path)


def test_a_local_folder_of_the_owners_name_does_not_hide_the_hub(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    (tmp_path / "Qwen").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="neither a local folder nor in the hub cache") as raised:
        find_model("Qwen/Qwen2-VL-7B-Instruct")
    assert str(tmp_path / "Qwen" / "Qwen2-VL-7B-Instruct") in str(raised.value)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda ref, **_: str(copy))
    assert find_model("Qwen/Qwen2-VL-7B-Instruct").folder == copy


@pytest.mark.parametrize("text", ["[]", "5", '"qwen2_vl"', '{"model_type": '])
def test_a_config_that_is_no_object_is_one_clear_error(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"the model's config (is no JSON object|cannot be read)") as raised:
        find_model(copy)
    assert raised.value.fix and "config.json" in raised.value.where


def test_missing_weights_are_one_clear_error(copy: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"1 of 2 weight files are missing: model-00002\.safetensors") as raised:
        find_model(copy)
    assert raised.value.fix
    (copy / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match="the index of the weights is broken"):
        find_model(copy)
    (copy / "model.safetensors.index.json").unlink()
    assert find_model(copy).folder == copy
    (copy / "model.safetensors").unlink()
    for look in (find_model, fingerprint):
        with pytest.raises(ModelError, match=r"holds no \*\.safetensors") as raised:
            look(copy)
        assert raised.value.fix


def test_broken_files_of_the_model_are_one_clear_error(copy: Path) -> None:
    placement = choose_placement("none", "fp32")
    for name, words in (
        ("tokenizer.json", r"the model's tokenizer\.json cannot be used"),
        ("model.safetensors", "the model cannot be loaded"),
        ("config.json", r"the model's config\.json cannot be used"),
    ):
        source, kept = find_model(copy), (copy / name).read_bytes()
        (copy / name).write_bytes(kept[: len(kept) // 2])
        with pytest.raises(ModelError, match=words) as raised:
            load_base(source, placement, **BUDGET)
        assert raised.value.fix
        if name == "model.safetensors":
            with pytest.raises(ModelError, match="a weight file cannot be read"):
                fingerprint(copy)
        (copy / name).write_bytes(kept)
    assert load_base(find_model(copy), placement, **BUDGET).model is not None


def test_an_unknown_family_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(ModelError, match="'llama'"):
        find_model(copy)


def test_a_tokenizer_that_splits_box_tokens_is_refused(copy: Path) -> None:
    text = (copy / "tokenizer.json").read_text().replace("<|box_start|>", "<|box_begin|>")
    (copy / "tokenizer.json").write_text(text)
    with pytest.raises(ModelError, match="splits '<|box_start|>'".replace("|", r"\|")):
        load_base(find_model(copy), choose_placement("none", "fp32"), **BUDGET)


def test_padding_with_the_end_of_turn_is_refused(copy: Path) -> None:
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": "<|im_end|>"}))
    with pytest.raises(ModelError, match="no padding token of its own"):
        load_base(find_model(copy), choose_placement("none", "fp32"), **BUDGET)


def test_fingerprint_tells_weights_apart(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    first = fingerprint(copy)
    assert first == fingerprint(find_source("tiny").folder)
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.3.mlp.down_proj.weight"))
    weights[name] += 1e-3
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(copy) != first


@pytest.mark.slow
def test_the_image_budget_reaches_the_processor(tiny: Any) -> None:
    from PIL import Image

    made = tiny.image_processor(images=[Image.new("RGB", (4000, 3000))], return_tensors="pt")
    assert int(made["image_grid_thw"].prod()) * 14 * 14 <= BUDGET["max_pixels"]


@pytest.mark.parametrize(
    ("recipe", "target", "layers"),
    [("language", "all", 35), ("language", "attention", 20), ("vision", "all", 34), ("joint", "mlp", 15 + 16 + 2)],
)
def test_recipes_match_their_towers_and_nothing_else(tiny: Any, recipe: str, target: str, layers: int) -> None:
    settings = AdapterSettings(recipe=recipe, target=target, r=4, alpha=8, dropout=0.0)  # type: ignore[arg-type]
    plan = plan_adapter(tiny.model, tiny.source.family, settings)
    assert len(plan.layers) == layers
    assert all(("visual" in name) == (recipe == "vision") for name in plan.layers if recipe != "joint")
    assert not any("lm_head" in name or "embed" in name for name in plan.layers)


def test_a_pattern_that_matches_nothing_is_an_error(tiny: Any) -> None:
    from dataclasses import replace

    family = replace(tiny.source.family, adapted={"language": {"attention": "model.layers.*"}})
    settings = AdapterSettings(recipe="language", r=4, alpha=8, dropout=0.0)
    with pytest.raises(ModelError, match="no linear layer of this model matches"):
        plan_adapter(tiny.model, family, settings)
