"""Trainers whose loss is another: DPO on preferences, GRPO on rewards, plain transformers without TRL's ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import build_model, build_tokenizer, with_lora

from boxtune import guard

ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "max_steps": 12,
    "learning_rate": 5e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*deprecated.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]


def _dpo(folder: Path, model: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [
        {"prompt": f"{a} plus {b} is ", "chosen": f"{a + b} <end>", "rejected": f"{a + b + 1} <end>"}
        for a in range(6)
        for b in range(4)
    ]
    tokenizer = build_tokenizer()
    return DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(folder), **ARGUMENTS),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def _grpo(folder: Path, model: Any, *, same_rewards: bool = False) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [0.0 if same_rewards else float(len(set(text.split()))) for text in completions]

    rows = [{"prompt": f"{a} plus {b} is"} for a in range(6) for b in range(4)]
    settings = {"num_generations": 4, "max_completion_length": 8, "beta": 0.0}
    return GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=GRPOConfig(output_dir=str(folder), **ARGUMENTS, **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=build_tokenizer(),
    )


def _grpo_in_vain(folder: Path, model: Any) -> Any:
    """All rewards are the same, so that every gradient is exactly zero: on a hard task that is so for a while."""
    return _grpo(folder, model, same_rewards=True)


@pytest.mark.slow
@pytest.mark.parametrize("make", [_dpo, _grpo, _grpo_in_vain])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_loss_that_need_not_fall(make: Any, frozen: bool, tmp_path: Path) -> None:
    with guard.watch() as stages:
        model = with_lora(build_model())
        if frozen:
            model.requires_grad_(False)
        trainer = make(tmp_path, model)
        if frozen:
            with pytest.raises(guard.NotLearning, match=r"test_other_trainers\.py"):
                trainer.train()
        else:
            trainer.train()
    (callback,) = stages.callbacks
    found = [finding.check for finding in callback.findings if finding.level in ("warn", "fail")]
    assert found == (["ledger.frozen"] if frozen else [])
    still = make is _grpo_in_vain
    assert callback.verdict.word == ("not learning" if frozen or still else "cannot tell")
