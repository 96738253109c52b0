"""Tiny models that see an image as a grid of patches of its own size: Qwen's and GLM's."""

from __future__ import annotations

from typing import Any

import architecture_tokens as tokens
from architecture_parts import CHAT, LANGUAGE, Parts, vocabulary_size

MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 64}
QWEN = (*CHAT, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN3_5_LANGUAGE = {
    **LANGUAGE,
    "head_dim": 32,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "rope_parameters": {
        **MROPE,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
        "partial_rotary_factor": 0.25,
    },
}


def _qwen2_vl(special: tuple[str, ...]) -> Parts:
    from transformers import Qwen2VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = tokens.build_qwen((*QWEN, *special))
    config = Qwen2VLConfig(
        text_config={**LANGUAGE, "vocab_size": vocabulary_size(tokenizer), "rope_parameters": MROPE},
        vision_config={"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 2},
        **_qwen_ids(tokenizer),
    )
    return Parts(
        config=config,
        tokenizer=tokenizer,
        image=Qwen2VLImageProcessorPil(),
        processor={"processor_class": "Qwen2VLProcessor"},
    )


def _qwen2_5_vl(special: tuple[str, ...]) -> Parts:
    from transformers import Qwen2_5_VLConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = tokens.build_qwen((*QWEN, *special))
    config = Qwen2_5_VLConfig(
        text_config={**LANGUAGE, "vocab_size": vocabulary_size(tokenizer), "rope_parameters": MROPE},
        vision_config={**VISION, "fullatt_block_indexes": [1]},
        **_qwen_ids(tokenizer),
    )
    return Parts(
        config=config,
        tokenizer=tokenizer,
        image=Qwen2VLImageProcessorPil(),
        processor={"processor_class": "Qwen2_5_VLProcessor"},
    )


def _qwen3_vl(special: tuple[str, ...]) -> Parts:
    from transformers import Qwen3VLConfig

    tokenizer = tokens.build_qwen((*QWEN, *special))
    config = Qwen3VLConfig(
        text_config={
            **LANGUAGE,
            "head_dim": 16,
            "vocab_size": vocabulary_size(tokenizer),
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        vision_config={**VISION, "deepstack_visual_indexes": [0]},
        **_qwen_ids(tokenizer),
    )
    return _qwen3_parts(config, tokenizer)


def _qwen3_parts(config: Any, tokenizer: Any) -> Parts:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    image = Qwen2VLImageProcessorPil(
        patch_size=16,
        size={"shortest_edge": 65_536, "longest_edge": 16_777_216},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return Parts(config=config, tokenizer=tokenizer, image=image, processor={"processor_class": "Qwen3VLProcessor"})


def _qwen3_5(special: tuple[str, ...]) -> Parts:
    from transformers import Qwen3_5Config

    tokenizer = tokens.build_qwen((*QWEN, *special))
    config = Qwen3_5Config(
        text_config={**QWEN3_5_LANGUAGE, "vocab_size": vocabulary_size(tokenizer)},
        vision_config=VISION,
        **_qwen_ids(tokenizer),
    )
    return _qwen3_parts(config, tokenizer)


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


def _glm4v(special: tuple[str, ...]) -> Parts:
    from transformers import Glm4vConfig, Glm4vImageProcessorPil

    ours = "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|> <|image|> <|video|> <|begin_of_image|>"
    more = "<|end_of_image|> <|begin_of_video|> <|end_of_video|> <|begin_of_box|> <|end_of_box|> <think> </think>"
    names = {"image_token": "<|image|>", "video_token": "<|video|>"}
    tokenizer = tokens.build_byte_level(
        ("<|endoftext|>", *ours.split(), *more.split(), *special), eos="<|endoftext|>", pad="<|endoftext|>", **names
    )
    ids = {
        f"{medium}_{end}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}_of_{medium}|>")
        for medium in ("image", "video")
        for end, word in (("start", "begin"), ("end", "end"))
    }
    config = Glm4vConfig(
        text_config={**LANGUAGE, "vocab_size": vocabulary_size(tokenizer), "rope_parameters": MROPE},
        vision_config={**VISION, "image_size": 336},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        **ids,
    )
    return Parts(
        config=config,
        tokenizer=tokenizer,
        image=Glm4vImageProcessorPil(),
        processor={"processor_class": "Glm4vProcessor"},
    )


BUILDERS = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_5": _qwen3_5,
    "glm4v": _glm4v,
}
