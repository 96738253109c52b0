"""Runs that are well, in many ways: the guard must say nothing, stop nothing, and change nothing.

`VARIATIONS` maps a name to the run's parts and what is done to them; `compare` trains it without the guard and with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from toys import WORDS, Parts, build_model, healthy, with_lora
from toys_of_pictures import healthy_pictures, load_base, lora_config
from transformers import TrainerCallback

from boxtune import guard

Change = Callable[[Parts], None]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """`make` gives the parts of a run, `change` makes it another that is just as well."""

    make: Callable[..., Parts]
    change: Change
    warns: frozenset[str] = frozenset()
    """What the guard may warn of, and rightly."""
    mended: bool = False
    """Whether the guard mends something, so that the run must not be the one without it."""


VARIATIONS: dict[str, Variation] = {}


def variation(*warns: str, mended: bool = False, **arguments: Any) -> Callable[[Change], Change]:
    """Register a change under its name; `arguments` go to the trainer's arguments."""

    def register(change: Change) -> Change:
        def both(parts: Parts) -> None:
            parts.arguments |= arguments
            change(parts)

        name = change.__name__.replace("_", " ")
        VARIATIONS[name] = Variation(make=healthy, change=both, warns=frozenset(warns), mended=mended)
        return change

    return register


def _plainly(name: str, *warns: str, of: Callable[..., Parts] = healthy, **arguments: Any) -> None:
    VARIATIONS[name] = Variation(
        make=of, change=lambda parts: parts.arguments.update(arguments), warns=frozenset(warns)
    )


_plainly("as it comes")
_plainly("accumulation", gradient_accumulation_steps=3)
for _name in ("cosine", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt", "cosine_with_restarts"):
    _plainly(f"schedule {_name}", lr_scheduler_type=_name, warmup_steps=4)
_plainly("bf16", bf16=True)
_plainly("sgd", optim="sgd", learning_rate=0.5)
_plainly("adafactor", optim="adafactor")
_plainly("no clipping", max_grad_norm=0.0)
_plainly("tiny rate", learning_rate=1e-7)
_plainly("label smoothing", label_smoothing_factor=0.1)
_plainly("weight decay", weight_decay=0.1)
_plainly("checkpointing", activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": False})
_plainly("evaluation at the start", eval_on_start=True)
_plainly("evaluation at every step", eval_steps=1)
_plainly("no evaluation", eval_strategy="no")
_plainly("workers", dataloader_num_workers=1)
_plainly("saving and the best at the end", save_strategy="steps", save_steps=8, load_best_model_at_end=True)
_plainly("log at every step", logging_steps=1)
_plainly("batch of one", per_device_train_batch_size=1)


@variation()
def seven_validation_samples(parts: Parts) -> None:
    parts.num_eval = 7


@variation()
def full_training_without_an_adapter(parts: Parts) -> None:
    parts.model = build_model()
    parts.arguments["learning_rate"] = 1e-3


@variation()
def dropout_in_the_adapter(parts: Parts) -> None:
    parts.model = with_lora(build_model(), lora_dropout=0.2)


@variation()
def dora(parts: Parts) -> None:
    parts.model = with_lora(build_model(), use_dora=True)


@variation()
def rank_stabilised_scaling_and_bias(parts: Parts) -> None:
    parts.model = with_lora(build_model(), use_rslora=True, bias="lora_only")


@variation()
def head_trained_and_saved_with_it(parts: Parts) -> None:
    parts.model = with_lora(build_model(), modules_to_save=["lm_head"])


@variation()
def base_in_bf16_adapter_in_fp32(parts: Parts) -> None:
    parts.model = with_lora(build_model(torch.bfloat16))
    parts.arguments["bf16"] = True


@variation("run.bad_step", mended=True)
def one_batch_that_is_not_a_number(parts: Parts) -> None:
    class Spoil(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step == 6:
                next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("nan"))

    parts.callbacks.insert(0, Spoil())


@variation()
def steps_skipped_as_a_scaler_does(parts: Parts) -> None:
    """Four of the first steps are left out, as with fp16 while the scaler looks for its scale."""

    class Skipping(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure) if parts.trainer.state.global_step not in (3, 4, 5, 6) else None

    mine = [parameter for parameter in parts.model.parameters() if parameter.requires_grad]
    optimizer = Skipping(mine, lr=5e-3)
    parts.optimizers = (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))


@variation()
def labels_that_are_classes_of_words(parts: Parts) -> None:
    """Not the tokens at their places, and no end."""
    from transformers import LlamaConfig, LlamaForTokenClassification

    torch.manual_seed(0)
    settings = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=2, pad_token_id=0
    )
    settings.num_attention_heads = settings.num_key_value_heads = 2
    settings.num_labels = 3
    parts.model = LlamaForTokenClassification(settings)
    parts.arguments["learning_rate"] = 1e-3
    for row in parts.rows:
        row["labels"] = [token % 3 for token in row["input_ids"]]
        del row["completion"]


@variation()
def plain_text_in_blocks(parts: Parts) -> None:
    """Every token is learned, and blocks end anywhere."""
    parts.model = with_lora(build_model())
    for number, row in enumerate(parts.rows):
        del row["completion"]
        row["input_ids"] = row["labels"] = [5 + (number * 3 + place * 7) % 30 for place in range(8)]


@variation("ledger.frozen")
def half_of_the_adapter_frozen_on_purpose(parts: Parts) -> None:
    """As LoRA-FA does."""
    for name, parameter in parts.model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)


@variation("run.partly_frozen")
def other_layers_trained_by_turns(parts: Parts) -> None:
    """As LISA does: some tensors are frozen and others freed every so many steps."""

    class Turns(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if state.global_step % 4 == 0:
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.requires_grad_(("layers.0." in name) == (state.global_step % 8 == 0))

    parts.callbacks.append(Turns())


@variation(max_steps=12)
def a_base_that_is_good_already(parts: Parts) -> None:
    torch.manual_seed(0)
    base = build_model()
    optimizer = torch.optim.AdamW(base.parameters(), lr=2e-3)
    batch = parts.collate(parts.rows)
    for _ in range(300):
        base(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    parts.model = with_lora(base)


@variation("rate.low", save_strategy="steps", save_steps=22)
def resumed_at_the_end(parts: Parts) -> None:
    parts.resume_at = 22


@variation()
def two_stages(parts: Parts) -> None:
    """A second adapter on what a first one was merged into."""
    first = with_lora(build_model())
    parts.model = with_lora(first.merge_and_unload(), target_modules=["q_proj", "k_proj"])


def _pictures(name: str, change: Change = lambda parts: None, **arguments: Any) -> None:
    def both(parts: Parts) -> None:
        parts.arguments |= arguments
        change(parts)

    VARIATIONS[f"pictures, {name}"] = Variation(make=healthy_pictures, change=both)


def _on(*layers: str) -> Change:
    return lambda parts: setattr(parts, "adapter", lora_config(target_modules=list(layers)))


def _not_quantised(parts: Parts) -> None:
    parts.model = load_base(quantization_config=None)


def _whole(parts: Parts) -> None:
    parts.model, parts.adapter = load_base(quantization_config=None), None


_pictures("joint")
_pictures("language only", _on("q_proj", "v_proj", "up_proj", "down_proj"))
_pictures("vision only", _on("qkv", "attn.proj", "fc1", "fc2"))
_pictures("not quantised", _not_quantised)
_pictures("full training", _whole, learning_rate=2e-4)
_pictures("bf16 compute", bf16=True)
_pictures("accumulation", gradient_accumulation_steps=2, per_device_train_batch_size=2)


def train(name: str, folder: Path, *, watched: bool, seed: int = 0) -> tuple[Any, guard.LearningCallback | None]:
    """The trained trainer of a variation and its guard; everything that is random begins the same."""
    found = VARIATIONS[name]
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    parts = found.make(folder, seed=seed)
    found.change(parts)
    callback = guard.LearningCallback(out=folder / "guard") if watched else None
    torch.manual_seed(seed)
    trainer = parts.build(parts)
    if parts.resume_at:
        trainer.train()
        parts.resume, parts.resume_at = f"{folder}/checkpoint-{parts.resume_at}", 0
        again = found.make(folder, seed=seed)
        found.change(again)
        trainer = again.build(again)
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=parts.resume)
    return trainer, callback


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Checks that warned, beyond those the variation expects; whether weights and log are those of the run without."""

    warned: tuple[str, ...]
    same_weights: bool
    same_log: bool
    verdict: str


def compare(name: str, folder: Path, seed: int = 0) -> Compared:
    """Train a variation without the guard and with it. Raises what the guard raises, which is what must not happen."""
    plain, _ = train(name, folder / "plain", watched=False, seed=seed)
    watched, callback = train(name, folder / "watched", watched=True, seed=seed)
    assert callback is not None
    pairs = zip(plain.model.named_parameters(), watched.model.named_parameters(), strict=True)
    return Compared(
        warned=tuple(sorted(set(callback.first_seen) - VARIATIONS[name].warns)),
        same_weights=all(_equal(one, other) for (_, one), (_, other) in pairs),
        same_log=_log_of(plain) == _log_of(watched),
        verdict=callback.verdict.word,
    )


def _equal(one: Any, other: Any) -> bool:
    return bool(torch.equal(one.detach().view(torch.uint8), other.detach().view(torch.uint8)))


def _log_of(trainer: Any) -> list[dict[str, Any]]:
    timed = ("runtime", "second")
    return [
        {key: value for key, value in row.items() if not any(word in key for word in timed)}
        for row in trainer.state.log_history
    ]
