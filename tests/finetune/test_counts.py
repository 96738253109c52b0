"""The counts of the original task come out exactly, from the recipe, with no weights and no memory."""

from __future__ import annotations

import pytest

from boxtune.families import FAMILIES
from boxtune.finetune.adapters import plan_adapter
from boxtune.guard import Ledger, check_trainable
from boxtune.settings import AdapterSettings

BASE, TRAINABLE, ALL = 8_291_375_616, 161_480_704, 8_452_856_320


@pytest.fixture(scope="module")
def seven_b():  # type: ignore[no-untyped-def]
    """Qwen2-VL-7B-Instruct by its published config, on the meta device."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    config = Qwen2VLConfig(
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": False,
        },
        vision_config={"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16, "mlp_ratio": 4},
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return Qwen2VLForConditionalGeneration(config)


@pytest.mark.slow
def test_counts_of_the_original_task(seven_b) -> None:  # type: ignore[no-untyped-def]
    from peft import get_peft_model

    family = FAMILIES["qwen2_vl"]
    defaults = family.defaults
    settings = AdapterSettings(
        recipe=defaults.recipe,
        r=defaults.r,
        alpha=defaults.alpha,
        dropout=defaults.dropout,  # type: ignore[arg-type]
    )
    ledger = Ledger(family.towers)
    loaded = ledger.take("loaded", seven_b)
    assert loaded.all == BASE
    assert sum(tower.all for tower in loaded.towers.values()) == BASE
    assert "other" not in loaded.towers

    plan = plan_adapter(seven_b, family, settings)
    assert len(plan.layers) == 28 * 7
    assert plan.num_parameters == TRAINABLE

    model = get_peft_model(seven_b, plan.config)
    adapted = ledger.take("adapted", model)
    assert (adapted.trainable, adapted.all) == (TRAINABLE, ALL) == model.get_nb_trainable_parameters()
    assert adapted.towers["language"].trainable == TRAINABLE
    assert adapted.towers["vision"].trainable == adapted.towers["projector"].trainable == 0
    assert [f.level for f in check_trainable(adapted, plan.tensor_names, plan.num_parameters)] == ["ok"]
    assert f"{TRAINABLE:,}" in ledger.as_text() and f"{ALL:,}" in ledger.as_text() and "1.9104 %" in ledger.as_text()
