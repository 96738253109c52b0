"""Three traps of today's libraries in plain TRL scripts: each is found by a check that knows nothing of its cause."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from boxtune.cli import main

SCRIPT = """
import torch
from datasets import Dataset
from toys_of_pictures import build_processor, load_base, lora_config, make_rows
from trl import SFTConfig, SFTTrainer

rows = Dataset.from_list(make_rows())
trainer = SFTTrainer(
    model=load_base(packed=PACKED),
    args=SFTConfig(
        output_dir="OUT",
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=RATE,
        max_length=LONGEST,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    ),
    train_dataset=rows,
    eval_dataset=rows,
    processing_class=build_processor(),
    peft_config=lora_config(),
)
FLOAT
trainer.train()
"""
FLOAT = "for p in trainer.model.parameters(): p.data = p.data.float() if p.requires_grad else p.data"


def _diagnose(folder: Path, **what: str) -> int:
    text = SCRIPT.replace("OUT", str(folder))
    for key, value in {"PACKED": "False", "RATE": "2e-3", "LONGEST": "None", "FLOAT": FLOAT, **what}.items():
        text = text.replace(key, value)
    script = folder / "train.py"
    script.write_text(text)
    return main(["doctor", str(script)])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "check"),
    [
        ({"RATE": "1e-5", "FLOAT": ""}, "[fail] move.lost"),
        ({"PACKED": "True"}, "[fail] quantization.packed"),
        ({"LONGEST": "40"}, "[fail] labels.cut"),
        ({}, "verdict: learning"),
    ],
)
def test_each_is_found(what: dict[str, str], check: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "PACKED" in what and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("bitsandbytes packs 4-bit weights on CPUs with AVX512-BF16 only")
    code = _diagnose(tmp_path, **what)
    shown = capsys.readouterr().out
    assert check in shown
    assert code == (0 if not what else 3)
    if not what:
        assert ", 0 findings" in shown
