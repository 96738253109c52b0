"""What tuning did to everything else: conversations that were kept back, with the adapter on and off."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from boxtune.data.mix import Conversation
from boxtune.finetune.collate import answers_begin, collate_for_prediction, collate_for_training
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Loaded
from boxtune.finetune.talk import Talker

MOST_TOKENS = 64
"""Bound on an answer: enough to see whether the model still talks."""


@torch.no_grad()
def ask_generally(loaded: Loaded, encoder: Encoder, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
    """For each conversation its question, its own answer, and what the model says with the adapter `on` and `off`.

    `loss_on` and `loss_off` are the mean cross entropy, in nats, of the tokens of the conversation's own answer.
    `loaded` holds a PeftModel. Where weights of the base were trained themselves, `off` cannot be had and is None.
    """
    talker, model = Talker(encoder), loaded.model
    model.eval()
    rows = []
    for conversation in conversations:
        question = next(text for role, text in reversed(conversation.turns[:-1]) if role == "user")
        row: dict[str, Any] = {"question": question, "answer": conversation.turns[-1][1]}
        for state, context in (("on", contextlib.nullcontext()), ("off", model.disable_adapter())):
            if state == "off" and loaded.full:
                row["off"] = row["loss_off"] = None
                continue
            with context, loaded.placement.autocast():
                row[state], row[f"loss_{state}"] = _say(loaded, encoder, talker, conversation)
        rows.append(row)
    return rows


def _say(loaded: Loaded, encoder: Encoder, talker: Talker, conversation: Conversation) -> tuple[str, float]:
    from transformers import GenerationConfig

    example = talker.encode(conversation)
    device = loaded.placement.device
    learned = {name: one.to(device) for name, one in collate_for_training([example], encoder.layout).items()}
    loss = float(loaded.model(**learned).loss)
    asked = {name: one.to(device) for name, one in collate_for_prediction([example], encoder.layout).items()}
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=MOST_TOKENS,
        eos_token_id=encoder.end_id,
        pad_token_id=encoder.layout.pad_id,
        use_cache=True,
    )
    ids = loaded.model.generate(**asked, generation_config=config)[0, answers_begin(asked) :].tolist()
    kept = ids[: ids.index(encoder.end_id)] if encoder.end_id in ids else ids
    return encoder.tokenizer.decode(kept, skip_special_tokens=False, clean_up_tokenization_spaces=False), loss


def tell_generally(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A few lines for the terminal: the mean losses, and what is said to the first question."""
    on = sum(row["loss_on"] for row in rows) / len(rows)
    known = [row["loss_off"] for row in rows if row["loss_off"] is not None]
    without = f"{sum(known) / len(known):.4f} without the adapter" if known else "weights of the base were trained"
    first = rows[0]
    lines = [f"other conversations kept back ({len(rows)}): loss {on:.4f} with the adapter, {without}"]
    for name in ("question", "answer", "on", "off"):
        lines.append(f"  {name:<9} {str(first[name])[:100]!r}")
    return lines
