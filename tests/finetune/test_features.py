"""A frozen vision tower is run once for each image, and nothing but the time changes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from trained import build_squares_trainer, make_batch

from boxtune.finetune import features as features_
from boxtune.finetune.features import IMAGES, Features, choose_features
from boxtune.finetune.packing import PACKING
from boxtune.finetune.split import split_batch

NUM, EPOCHS = 6, 3


def count_images(model: Any) -> list[int]:
    """How many images each call of the vision tower is given from here on."""
    seen: list[int] = []
    visual = model.get_base_model().base_model.visual
    visual.register_forward_pre_hook(lambda _, args, kwargs: seen.append(len(kwargs["grid_thw"])), with_kwargs=True)
    return seen


def build(load_tiny: Any, squares: Path, folder: Path, features: str = "auto", **more: Any) -> Any:
    torch.manual_seed(0)
    train = {"micro_batch": 2, "effective_batch": 2, "epochs": EPOCHS, "features": features, **more}
    return build_squares_trainer(load_tiny(), squares, folder, num=NUM, measured=True, **train)


@pytest.mark.slow
def test_each_image_is_seen_once_and_the_run_is_the_same(
    load_tiny: Any, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []
    for way in ("auto", "off"):
        trainer = build(load_tiny, squares, tmp_path / way, way)
        assert ("are kept after the first epoch: " in capsys.readouterr().out) == (way == "auto")
        seen = count_images(trainer.model)
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        told = [trainer.evaluate()["eval_loss"] for _ in range(2)]
        assert len(losses) == NUM // 2 * EPOCHS and told[0] == told[1]
        weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])
        runs.append((losses, told, weights, sum(seen)))
    (losses, told, weights, few), (same, as_told, as_weights, many) = runs
    assert losses == same and told == as_told and torch.equal(weights, as_weights)
    assert (few, many) == (NUM + 2, NUM * EPOCHS + 2 * 2)


@pytest.mark.slow
def test_a_batch_cut_for_memory_is_computed_anew(load_tiny: Any, squares: Path, tmp_path: Path) -> None:
    trainer = build(load_tiny, squares, tmp_path)
    batch = make_batch(trainer, range(4))
    seen = count_images(trainer.model)
    trainer.model.train()
    whole = [float(trainer.compute_loss(trainer.model, dict(batch)).detach()) for _ in range(2)]
    assert whole[0] == whole[1] and seen == [4]
    parts = split_batch(batch, 2)
    assert not any(IMAGES in part[PACKING] for part in parts)
    total = sum(float(trainer.compute_loss(trainer.model, part, num_items_in_batch=1).detach()) for part in parts)
    assert seen == [4, 2, 2]
    assert total == pytest.approx(whole[0] * float((batch["labels"] != -100).sum()), rel=1e-5)


@pytest.mark.slow
def test_names_are_those_of_the_images(load_tiny: Any, squares: Path, tmp_path: Path) -> None:
    trainer = build(load_tiny, squares, tmp_path)
    collator = trainer.data_collator
    rows = [{"split": "train", "i": 2}, {"split": "train", "i": 0}]
    assert collator(rows)[PACKING][IMAGES] == ["train 2", "train 0"]
    assert collator([{"split": "valid", "i": 1}])[PACKING][IMAGES] == ["valid 1"]
    collator.data = collator.data.model_copy(update={"augment": ("flip",)})
    assert IMAGES not in collator(rows)[PACKING]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "more"), [("joint", {}), ("language", {"epochs": 1}), ("language", {"packing": "off"})]
)
def test_nothing_is_kept_where_it_may_change_or_brings_nothing(
    load_tiny: Any, squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, more: dict[str, Any]
) -> None:
    trainer = build(load_tiny, squares, tmp_path, recipe=recipe, **more)
    assert "frozen vision tower" not in capsys.readouterr().out
    batch, seen = make_batch(trainer, range(2)), count_images(trainer.model)
    for _ in range(2):
        trainer.compute_loss(trainer.model, dict(batch))
    assert seen == [2, 2]


def test_too_much_for_the_machine_is_said(load_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_tiny().model.requires_grad_(False).base_model
    width, size = base.get_decoder().config.hidden_size, base.visual.dtype.itemsize
    free = 30_000_000
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    fits = int(features_.SHARE * free / width / size)
    kept, line = choose_features(base, fits, num_ranks=1, epochs=2.0)
    assert isinstance(kept, Features) and "are kept after the first epoch" in line
    kept, line = choose_features(base, fits + 1, num_ranks=1, epochs=2.0)
    assert kept is None and "anew: 0.0 GB for" in line and f"{fits + 1:,} tokens" in line
    assert choose_features(base, 10, num_ranks=2, epochs=2.0) == (None, "")


def test_memory_is_set_aside_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_, "CHUNK", 64)
    made = {name: torch.randn(num, 3) for name, num in (("a", 2), ("b", 3), ("c", 1), ("d", 20))}
    kept = Features()
    for name, value in made.items():
        kept._write(name, value)
    assert len(kept) == 4
    for name, value in made.items():
        assert torch.equal(kept._read(name, torch.device("cpu")), value)
    assert kept._kept["a"].untyped_storage().data_ptr() == kept._kept["b"].untyped_storage().data_ptr()
