"""Tiny models that cut an image into tiles: InternVL, Idefics3, SmolVLM, LLaVA-OneVision, MiniCPM-V."""

from __future__ import annotations

from typing import Any

import architecture_tokens as tokens
from architecture_parts import CHAT, LANGUAGE, SIGLIP, Parts, vocabulary_size


def _internvl(special: tuple[str, ...]) -> Parts:
    from transformers import InternVLConfig
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = tokens.build_qwen((*CHAT, *names.values(), *special), **names)
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **LANGUAGE, "vocab_size": vocabulary_size(tokenizer)},
        vision_config={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        tie_word_embeddings=False,
    )
    image = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448},
        crop_to_patches=True,
        min_patches=1,
        max_patches=12,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    processor = {"processor_class": "InternVLProcessor", "image_seq_length": 256}
    return Parts(config=config, tokenizer=tokenizer, image=image, processor=processor)


def _idefics3(special: tuple[str, ...]) -> Parts:
    from transformers import Idefics3Config, Idefics3ImageProcessorPil

    image = Idefics3ImageProcessorPil(
        size={"longest_edge": 1456}, max_image_size={"longest_edge": 364}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    tokenizer = _build_tiled(special, "<|begin_of_text|>")
    config = _tiled_config(Idefics3Config, tokenizer, {"image_size": 364, "patch_size": 14}, scale_factor=2)
    processor = {"processor_class": "Idefics3Processor", "image_seq_len": 169}
    return Parts(config=config, tokenizer=tokenizer, image=image, processor=processor)


def _smolvlm(special: tuple[str, ...]) -> Parts:
    from transformers import SmolVLMConfig, SmolVLMImageProcessorPil

    image = SmolVLMImageProcessorPil(
        size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    tokenizer = _build_tiled(special, "<|im_start|>")
    config = _tiled_config(SmolVLMConfig, tokenizer, {"image_size": 512, "patch_size": 16}, scale_factor=4)
    processor = {"processor_class": "SmolVLMProcessor", "image_seq_len": 64}
    return Parts(config=config, tokenizer=tokenizer, image=image, processor=processor)


def _build_tiled(special: tuple[str, ...], start: str) -> Any:
    places = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    ours = (start, "<|end_of_text|>", "<|pad|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>")
    return tokens.build_byte_level(
        (*ours, "<global-img>", *places, *special), bos=start, eos="<|end_of_text|>", pad="<|pad|>"
    )


def _tiled_config(config_class: Any, tokenizer: Any, vision: dict[str, int], *, scale_factor: int) -> Any:
    text = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return config_class(
        text_config={"model_type": "llama", **LANGUAGE, **text},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            **vision,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=scale_factor,
    )


def _minicpm_v(special: tuple[str, ...]) -> Parts:
    from architectures_grids import QWEN3_5_LANGUAGE
    from transformers import MiniCPMV4_6Config, MiniCPMV4_6ImageProcessorPil

    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tokenizer = tokens.build_qwen((*CHAT, *names.values(), *special), **names)
    config = MiniCPMV4_6Config(
        text_config={"model_type": "qwen3_5_text", **QWEN3_5_LANGUAGE, "vocab_size": vocabulary_size(tokenizer)},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 448,
            "patch_size": 14,
        },
        insert_layer_id=0,
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )
    processor = {"processor_class": "MiniCPMV4_6Processor"}
    return Parts(config=config, tokenizer=tokenizer, image=MiniCPMV4_6ImageProcessorPil(), processor=processor)


def _llava_onevision(special: tuple[str, ...]) -> Parts:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionImageProcessorPil

    tokenizer = tokens.build_qwen((*CHAT, "<image>", "<video>", *special))
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **LANGUAGE, "vocab_size": vocabulary_size(tokenizer)},
        vision_config={**SIGLIP, "image_size": 384, "patch_size": 14},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )
    image = LlavaOnevisionImageProcessorPil(image_grid_pinpoints=config.image_grid_pinpoints)
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": 729,
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    }
    return Parts(config=config, tokenizer=tokenizer, image=image, processor=processor)


BUILDERS = {
    "internvl": _internvl,
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
    "llava_onevision": _llava_onevision,
    "minicpm_v": _minicpm_v,
}
