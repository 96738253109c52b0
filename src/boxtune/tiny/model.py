"""The embedded model: a Qwen2-VL of some millions of parameters, with a small tokenizer of our own.

It is an ordinary checkpoint folder, read by exactly the code that reads Qwen2-VL-7B. Its weights were trained from
scratch on drawn scenes (`pretrain.py`) and are shipped in `weights/`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from boxtune.families import Defaults
from boxtune.families.qwen2_vl import FACTOR, SPECIAL_TOKENS
from boxtune.tiny.words import WORDS

VOCABULARY = 768

DEFAULTS = Defaults(
    source="the embedded model's own",
    r=16,
    alpha=32,
    dropout=0.0,
    recipe="joint",
    learning_rate=1.5e-3,
    epochs=3.0,
    effective_batch=2,
    min_pixels=16 * FACTOR**2,
    max_pixels=144 * FACTOR**2,
)
"""Settings of the embedded model alone; they never reach another one."""


def model_folder() -> Path:
    """The checkpoint folder of the embedded model, as it is shipped; `card.json` in it says how it was made."""
    return Path(__file__).parent / "weights"


def build_config(token_id: Callable[[str], int]) -> Any:
    """transformers' Qwen2VLConfig of the embedded model; `token_id` maps a token's text to its id."""
    from transformers import Qwen2VLConfig

    return Qwen2VLConfig(
        text_config={
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10_000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
            "tie_word_embeddings": False,
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
        },
        vision_config={
            "depth": 8,
            "embed_dim": 192,
            "hidden_size": 256,
            "num_heads": 3,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=False,
    )


def build_tokenizer() -> Any:
    """A byte-level BPE with Qwen's special tokens that takes every digit alone; any text goes in and comes back."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", *SPECIAL_TOKENS, "<|video_pad|>"]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner = Tokenizer(models.BPE())
    # Digits one by one (\p{N}, as Qwen's own pattern has it). Unlike Qwen's, a word never takes the space before it, so
    # that a name has the same tokens in the question and in the answer and can be copied.
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}|\p{L}+|[^\s\p{L}\p{N}]+|\s+"), "isolated"), bytes_only]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    inner.train_from_iterator(WORDS, trainer)
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096
    )


def build_image_processor() -> Any:
    """The PIL image processor with the embedded model's patches and budget."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(min_pixels=DEFAULTS.min_pixels, max_pixels=DEFAULTS.max_pixels)
