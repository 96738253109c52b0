"""What the tiny models of all families share: narrow towers, and what is written of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LANGUAGE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16384,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vision_use_head": False,
}
CHAT = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A tiny model before it is written: the config's class and values, tokenizer, image processor, processor file."""

    config: Any
    tokenizer: Any
    image: Any
    processor: dict[str, Any]


def vocabulary_size(tokenizer: Any) -> int:
    """The number of tokens, in whole 64s as vocabularies are padded."""
    return -(-len(tokenizer) // 64) * 64
