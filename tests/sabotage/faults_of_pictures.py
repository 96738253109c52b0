"""Ways to break a run with pictures: the embedded model, NF4, in TRL's SFTTrainer; registered among the others in
`faults.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from faults import At, fault
from PIL import Image
from torch.utils.checkpoint import checkpoint
from toys import Parts
from toys_of_pictures import healthy_pictures, lora_config


def broken(*checks: str) -> Callable[[Callable[[Parts], None]], Callable[[Parts], None]]:
    """A fault of a run with pictures."""
    return fault(*checks, of=healthy_pictures)


def _rebatch(parts: Parts, change: Callable[[dict[str, Any]], None]) -> None:
    """Change each batch that TRL's own collator makes."""

    def wrap(trainer: Any) -> None:
        collate = trainer.data_collator

        def changed(rows: Any) -> Any:
            batch = collate(rows)
            change(batch)
            return batch

        trainer.data_collator = changed

    parts.after.append(wrap)


def _pixels(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], None]:
    def apply(batch: dict[str, Any]) -> None:
        batch["pixel_values"] = change(batch["pixel_values"])

    return apply


def _visual(model: Any) -> Any:
    return next(module for name, module in model.named_modules() if name.endswith(("model.visual", ".visual")))


def _detached(out: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return out.detach()
    for key in ("pooler_output", "last_hidden_state"):
        if torch.is_tensor(getattr(out, key, None)):
            out[key] = out[key].detach()
    return out


@broken("image.used")
def images_left_out_by_the_collator(parts: Parts) -> None:
    def drop(batch: dict[str, Any]) -> None:
        del batch["pixel_values"], batch["image_grid_thw"]

    _rebatch(parts, drop)


@broken("image.used")
def images_opened_as_one_colour(parts: Parts) -> None:
    for row in parts.rows:
        row["images"] = [Image.new("RGB", image.size) for image in row["images"]]


@broken("image.used")
def every_row_with_the_first_image(parts: Parts) -> None:
    first = parts.rows[0]["images"]
    for row in parts.rows:
        row["images"] = first


@broken("image.used")
def pixels_multiplied_by_zero(parts: Parts) -> None:
    _rebatch(parts, _pixels(torch.zeros_like))


@broken("image.used")
def vision_features_thrown_away(parts: Parts) -> None:
    def blank(module: Any, given: Any, out: Any) -> Any:
        for key in ("pooler_output", "last_hidden_state"):
            if torch.is_tensor(getattr(out, key, None)):
                out[key] = out[key] * 0
        return out * 0 if torch.is_tensor(out) else out

    parts.after.append(lambda trainer: _visual(trainer.model).register_forward_hook(blank))


@broken("grad.tower")
def vision_tower_detached(parts: Parts) -> None:
    hook = lambda module, given, out: _detached(out)  # noqa: E731
    parts.after.append(lambda trainer: _visual(trainer.model).register_forward_hook(hook))


@broken("grad.tower")
def vision_tower_under_no_grad(parts: Parts) -> None:
    def wrap(trainer: Any) -> None:
        visual = _visual(trainer.model)
        visual.forward = torch.no_grad()(visual.forward)

    parts.after.append(wrap)


def _checkpointed(forward: Any, hidden: Any, **more: Any) -> Any:
    return checkpoint(partial(forward, **more), hidden, use_reentrant=True)


@broken("grad.tower")
def vision_cut_off_by_checkpointing_with_reentry(parts: Parts) -> None:
    def checkpoint_blocks(trainer: Any) -> None:
        for block in _visual(trainer.model).blocks:
            block.forward = partial(_checkpointed, block.forward)

    parts.after.append(checkpoint_blocks)


@broken("positions.3d")
def one_dimensional_positions(parts: Parts) -> None:
    def count(batch: dict[str, Any]) -> None:
        num, length = batch["input_ids"].shape
        batch["position_ids"] = torch.arange(length).expand(num, length)

    _rebatch(parts, count)


@broken("batch.same")
def images_of_other_answers_in_a_batch(parts: Parts) -> None:
    _rebatch(parts, _pixels(lambda pixels: pixels.roll(64, 0)))


@broken("labels.cut", "step.raises", "image.tokens")
def cut_within_the_answer(parts: Parts) -> None:
    parts.arguments["max_length"] = 40


@broken("labels.prompt", "labels.image", "labels.answer")
def prompt_and_image_in_the_loss(parts: Parts) -> None:
    parts.arguments["completion_only_loss"] = False


@broken("labels.end")
def no_end_of_turn_in_the_answer(parts: Parts) -> None:
    def mask(batch: dict[str, Any]) -> None:
        batch["labels"][batch["labels"] == parts.tokenizer.tokenizer.eos_token_id] = -100

    _rebatch(parts, mask)


@broken("ledger.frozen")
def prepared_twice_in_four_bits(parts: Parts) -> None:
    from peft import get_peft_model, prepare_model_for_kbit_training

    model = prepare_model_for_kbit_training(parts.model, use_gradient_checkpointing=False)
    model = get_peft_model(model, lora_config())
    parts.model, parts.adapter = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False), None


@broken("move.lost")
def adapter_cast_to_half_at_a_small_rate(parts: Parts) -> None:
    parts.in_fp32 = False
    parts.arguments["learning_rate"] = 1e-5


@broken("grad.zero", "move.none", "adapter.used")
def dropout_of_everything(parts: Parts) -> None:
    parts.adapter = lora_config(lora_dropout=1.0)


@broken("run.frozen")
def frozen_within_training(parts: Parts) -> None:
    def freeze(state: Any, model: Any) -> None:
        if state.global_step == 3:
            model.requires_grad_(False)

    parts.callbacks.append(At(on_step_end=freeze))
