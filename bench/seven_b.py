"""A checkpoint of the shape of Qwen2-VL-7B-Instruct with random weights: what needs the real size, without a download.

    python bench/seven_b.py FOLDER        16.6 GB in FOLDER, in about 20 s on a GPU

Tokenizer and image processor are the embedded model's; the vocabulary keeps the real 152,064 rows.
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


def write_seven_b(folder: Path) -> None:
    """Write the checkpoint; needs a GPU, or 17 GB of memory and patience."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from boxtune.tiny.model import build_image_processor, build_tokenizer

    tokenizer = build_tokenizer()
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    config = Qwen2VLConfig(**SHAPE, **{key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()})
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2VLForConditionalGeneration(config)
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)


if __name__ == "__main__":
    started = time.perf_counter()
    write_seven_b(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {time.perf_counter() - started:.0f} s")
