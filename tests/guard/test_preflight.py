"""The preflight finds nothing in a healthy run, leaves no trace in it, and is told by what it looks at."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import build, build_model, healthy

from boxtune import guard


def _train(folder: Path, watched: bool, **arguments: Any) -> tuple[Any, list[guard.Finding]]:
    """The trained trainer and what was found; everything that is random begins the same."""
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    parts = healthy(folder, **arguments)
    parts.callbacks = [guard.LearningCallback(out=folder / "guard")] if watched else []
    trainer = build(parts)
    trainer.train()
    return trainer, parts.callbacks[0].findings if watched else []


HEALTHY = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 3},
    "cosine": {"lr_scheduler_type": "cosine", "warmup_steps": 4},
    "polynomial": {"lr_scheduler_type": "polynomial"},
    "constant": {"lr_scheduler_type": "constant"},
    "bf16": {"bf16": True},
    "sgd": {"optim": "sgd", "learning_rate": 0.5},
    "adafactor": {"optim": "adafactor"},
    "no clipping": {"max_grad_norm": 0.0},
    "tiny rate": {"learning_rate": 1e-7},
    "checkpointing": {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}},
    "evaluation at the start": {"eval_on_start": True},
    "no evaluation": {"eval_strategy": "no"},
    "workers": {"dataloader_num_workers": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_quiet_and_the_same_with_the_guard(tmp_path: Path, name: str) -> None:
    plain, _ = _train(tmp_path / "plain", False, **HEALTHY[name])
    watched, findings = _train(tmp_path / "watched", True, **HEALTHY[name])
    assert [finding.as_text() for finding in findings if finding.level in ("fail", "warn")] == []
    assert len({finding.check for finding in findings}) >= 10
    for (key, one), (_, other) in zip(plain.model.named_parameters(), watched.model.named_parameters(), strict=True):
        assert torch.equal(one, other), key
    timed = ("runtime", "second")

    def logged(trainer: Any) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in row.items() if not any(word in key for word in timed)}
            for row in trainer.state.log_history
        ]

    assert logged(plain) == logged(watched)


def test_a_model_without_an_adapter_is_fine_too(tmp_path: Path) -> None:
    parts = healthy(tmp_path)
    parts.model = build_model()
    trainer = build(parts)
    findings = guard.check(trainer)
    assert [finding.as_text() for finding in findings if finding.level in ("fail", "warn")] == []


@pytest.mark.slow
def test_check_leaves_the_trainer_as_it_was(tmp_path: Path) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    plain = build(healthy(tmp_path / "a"))
    plain.train()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    checked = build(healthy(tmp_path / "b"))
    findings = guard.check(checked)
    assert len(findings) >= 10
    checked.train()
    for one, other in zip(plain.model.parameters(), checked.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_skipped_checks_are_not_told(tmp_path: Path) -> None:
    parts = healthy(tmp_path, learning_rate=0.0)
    found = {finding.check for finding in guard.check(build(parts), skip=("rate.zero",))}
    assert "rate.zero" not in found
    assert "rate.zero" in {finding.check for finding in guard.check(build(healthy(tmp_path, learning_rate=0.0)))}
