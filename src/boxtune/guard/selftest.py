"""A tiny QLoRA run with exactly what is installed: does an adapter move, and is what is saved what was trained?"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from boxtune.guard.callback import LearningCallback
from boxtune.guard.proofs import NotLearning
from boxtune.guard.traps import installed, known_traps
from boxtune.guard.watch import watch

WIDTH, WORDS, LENGTH = 64, 64, 12


def examine(tell: Callable[[str], None] = print) -> int:
    """Versions, their known traps, and a run of twelve steps; gives the exit code: 0, or 3 where it does not learn."""
    versions = installed()
    tell("versions: " + ", ".join(f"{name} {version or '(none)'}" for name, version in versions.items()))
    tell(f"device:   {torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'}")
    for trap in known_traps(versions):
        tell(f"\n[known] {trap.package} {versions[trap.package]}: {trap.what}")
        tell(f"  found by: {trap.check}\n  do:       {trap.fix}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        callback, what = run_tiny(Path(folder))
    failed = [finding for finding in callback.findings if finding.level == "fail"]
    passed = len({finding.check for finding in callback.findings if finding.level == "ok"})
    tell(f"\nself-test: {what}, {time.monotonic() - began:.1f} s, {passed} checks passed")
    for finding in callback.findings:
        if finding.level != "ok":
            tell(finding.as_text())
    tell(f"verdict: {callback.verdict}")
    return 3 if failed or callback.verdict.word == "not learning" else 0


def run_tiny(folder: Path, steps: int = 12) -> tuple[LearningCallback, str]:
    """Train a text model of three layers; 4-bit and with LoRA where the libraries for it are installed."""
    has = {name: importlib.util.find_spec(name) is not None for name in ("bitsandbytes", "peft")}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    four_bit = has["bitsandbytes"] and has["peft"]
    # What the libraries print while they load belongs to their own runs.
    with watch("warn") as stages, contextlib.redirect_stdout(io.StringIO()):
        model: Any = LlamaForCausalLM.from_pretrained(folder / "base", **(_four_bit() if four_bit else {}))
        if has["peft"]:
            from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

            for module in model.modules():
                if getattr(module, "support_avx512bf16_for_cpu", False):
                    module.support_avx512bf16_for_cpu = False
            if four_bit:
                model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
            model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"]))
        arguments = TrainingArguments(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=4,
            max_steps=steps,
            learning_rate=5e-3,
            logging_steps=1,
            save_strategy="no",
            eval_strategy="steps",
            eval_steps=steps // 2,
            eval_on_start=True,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        rows = [{"input_ids": row, "labels": row} for row in _rows()]
        trainer = Trainer(
            model=model, args=arguments, train_dataset=rows, eval_dataset=rows[:8], data_collator=_collate
        )
        with contextlib.suppress(NotLearning):
            trainer.train()
    what = ("NF4 " if four_bit else "") + ("LoRA" if has["peft"] else "full training") + f", {steps} steps"
    return stages.callbacks[0], what


def _four_bit() -> dict[str, Any]:
    from transformers import BitsAndBytesConfig

    return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")}


def _rows() -> list[list[int]]:
    return [[(7 * row + 3 * place) % WORDS for place in range(LENGTH)] for row in range(32)]


def _collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}
