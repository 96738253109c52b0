"""A text model of three layers that learns sums by heart in a plain transformers Trainer: a run takes half a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

WORDS = ("<pad>", "<end>", "<unk>", "plus", "is", *(str(number) for number in range(40)))
Change = Callable[["Parts"], None]


@dataclass
class Parts:
    """What a trainer is made of; a change edits it before the trainer is built."""

    model: Any
    tokenizer: Any
    rows: list[dict[str, Any]]
    arguments: dict[str, Any]
    collate: Any
    callbacks: list[Any] = field(default_factory=list)
    trainer: Any = None
    after: list[Callable[[Any], None]] = field(default_factory=list)
    optimizers: tuple[Any, Any] = (None, None)
    # Of a run with pictures: what TRL attaches, and whether its cast of the adapter to bf16 is undone.
    adapter: Any = None
    in_fp32: bool = True
    num_eval: int = 8
    # A step at which the run is resumed, and the checkpoint it then goes on from.
    resume_at: int = 0
    resume: str | None = None
    build: Callable[[Parts], Any] = field(default_factory=lambda: build)


def build_tokenizer() -> Any:
    """One token a word."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


def build_model(dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """Random weights, the same for a seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    ).to(dtype)


def with_lora(model: Any, **more: Any) -> Any:
    """The model with an adapter of rank 4."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"], **more}
    return get_peft_model(model, LoraConfig(**settings))


def make_rows(tokenizer: Any, num: int = 48) -> list[dict[str, Any]]:
    """Questions such as `3 plus 4 is` with the answer as labels."""
    rows = []
    for place in range(num):
        a, b = place % 7, place // 7
        question = tokenizer(f"{a} plus {b} is")["input_ids"]
        answer = tokenizer(f"{a + b}")["input_ids"] + [tokenizer.eos_token_id]
        rows.append(
            {
                "input_ids": question + answer,
                "labels": [-100] * len(question) + answer,
                "completion": f"{a + b}",
            }
        )
    return rows


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """All rows are of one length."""
    made = {key: torch.tensor([row[key] for row in rows]) for key in ("input_ids", "labels")}
    return {**made, "attention_mask": torch.ones_like(made["input_ids"])}


def healthy(folder: Path, *, seed: int = 0, **arguments: Any) -> Parts:
    """The parts of a run that learns."""
    tokenizer = build_tokenizer()
    return Parts(
        model=with_lora(build_model(seed=seed)),
        tokenizer=tokenizer,
        rows=make_rows(tokenizer),
        collate=collate,
        arguments={
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "max_steps": 24,
            "learning_rate": 5e-3,
            "logging_steps": 4,
            "eval_strategy": "steps",
            "eval_steps": 8,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "remove_unused_columns": False,
            "seed": seed,
            **arguments,
        },
    )


def build(parts: Parts) -> Any:
    """The trainer of these parts."""
    from transformers import Trainer, TrainingArguments

    parts.trainer = Trainer(
        model=parts.model,
        args=TrainingArguments(**parts.arguments),
        train_dataset=parts.rows,
        eval_dataset=parts.rows[: parts.num_eval],
        data_collator=parts.collate,
        processing_class=parts.tokenizer,
        callbacks=parts.callbacks,
        optimizers=parts.optimizers,
    )
    for change in parts.after:
        change(parts.trainer)
    return parts.trainer
