"""A checkpoint of the shape of Qwen2-VL-7B-Instruct with random weights: what needs the real size, without a download.

    python bench/seven_b.py FOLDER        16.6 GB in FOLDER, in about 20 s on a GPU

The tokenizer knows bytes and the real numbers of the special tokens, so that `boxtune train` takes the folder as it is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
    },
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "num_heads": 16,
        "mlp_ratio": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "tie_word_embeddings": False,
}


WORDS = "endoftext im_start im_end object_ref_start object_ref_end box_start box_end quad_start quad_end vision_start "
WORDS += "vision_end vision_pad image_pad video_pad"
SPECIAL = {f"<|{word}|>": 151643 + place for place, word in enumerate(WORDS.split())}
"""The real numbers of the special tokens."""
IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "eos_token_id": "<|im_end|>",
    "pad_token_id": "<|endoftext|>",
}


def build_tokenizer() -> Any:
    """A token for each byte and the special ones at their real numbers; what lies between is never written."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {number: word for word, number in SPECIAL.items()}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(special.get(n, f"<unused {n}>") for n in range(len(letters), 152064))]
    inner = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<|endoftext|>", eos_token="<|im_end|>")


def write_seven_b(folder: Path, shape: dict[str, Any] = SHAPE) -> None:
    """Write the checkpoint; needs a GPU, or 17 GB of memory and patience."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from boxtune.tiny.model import build_image_processor

    config = Qwen2VLConfig(**shape, **{name: SPECIAL[word] for name, word in IDS.items()})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, max_shard_size="4GB")
    build_tokenizer().save_pretrained(folder)
    build_image_processor().save_pretrained(folder)


if __name__ == "__main__":
    started = time.perf_counter()
    write_seven_b(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {time.perf_counter() - started:.0f} s")
