"""Tiny models that see every image as one square: PaliGemma, Gemma 3, Florence-2, DeepSeek-VL, Kosmos-2."""

from __future__ import annotations

from typing import Any

import architecture_tokens as tokens
from architecture_parts import LANGUAGE, SIGLIP, Parts, vocabulary_size

from boxtune.families.deepseek_vl import BOS, EOS

KOSMOS = (
    "</doc> <image> </image> </chunk> </line> <phrase> </phrase> <object> </object> </delimiter_of_multi_objects/> "
    "<grounding>"
).split()


def _paligemma(special: tuple[str, ...]) -> Parts:
    from transformers import PaliGemmaConfig, SiglipImageProcessorPil

    tokenizer = tokens.build_gemma(("<image>", *(f"<loc{i:04d}>" for i in range(1024)), *special))
    tokenizer.add_tokens([f"<seg{i:03d}>" for i in range(128)])
    config = PaliGemmaConfig(
        text_config={"model_type": "gemma", **LANGUAGE, "head_dim": 16, "vocab_size": vocabulary_size(tokenizer)},
        vision_config={**SIGLIP, "image_size": 224, "patch_size": 14},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vocab_size=vocabulary_size(tokenizer),
        projection_dim=64,
        hidden_size=64,
    )
    image = SiglipImageProcessorPil(
        size={"height": 224, "width": 224}, image_mean=[0.5] * 3, image_std=[0.5] * 3, image_seq_length=256
    )
    return Parts(config=config, tokenizer=tokenizer, image=image, processor={"processor_class": "PaliGemmaProcessor"})


def _gemma3(special: tuple[str, ...]) -> Parts:
    from transformers import Gemma3Config, Gemma3ImageProcessorPil

    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = tokens.build_gemma(("<start_of_turn>", "<end_of_turn>", *names.values(), *special), **names)
    config = Gemma3Config(
        text_config={**LANGUAGE, "head_dim": 16, "vocab_size": vocabulary_size(tokenizer), "sliding_window_pattern": 2},
        vision_config={**SIGLIP, "image_size": 896, "patch_size": 14},
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
    )
    image = Gemma3ImageProcessorPil(size={"height": 896, "width": 896}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = {"processor_class": "Gemma3Processor", "image_seq_length": 256}
    return Parts(config=config, tokenizer=tokenizer, image=image, processor=processor)


def _florence2(special: tuple[str, ...]) -> Parts:
    from transformers import CLIPImageProcessorPil, Florence2Config

    places = [f"<loc_{i}>" for i in range(1000)]
    tokenizer = tokens.build_bart(("<image>", "<od>", "</od>", *places, *special), image_token="<image>")
    config = Florence2Config(
        text_config={
            "model_type": "bart",
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128,
            "vocab_size": vocabulary_size(tokenizer),
            "max_position_embeddings": 4096,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "dropout": 0.0,
            "forced_eos_token_id": None,
        },
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [16, 16, 32, 64],
            "num_heads": [2, 2, 2, 4],
            "num_groups": [2, 2, 2, 4],
            "drop_path_rate": 0.0,
            "projection_dim": 64,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    image = CLIPImageProcessorPil(
        size={"height": 768, "width": 768},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        image_seq_length=577,
    )
    return Parts(config=config, tokenizer=tokenizer, image=image, processor={"processor_class": "Florence2Processor"})


def _deepseek_vl(special: tuple[str, ...]) -> Parts:
    from transformers import DeepseekVLConfig, DeepseekVLImageProcessorPil

    bos, eos, pad = BOS, EOS, "<\uff5c\u2581pad\u2581\uff5c>"
    tokenizer = tokens.build_byte_level(
        (bos, eos, pad, "<image_placeholder>", *special), bos=bos, eos=eos, pad=pad, image_token="<image_placeholder>"
    )
    config = DeepseekVLConfig(
        text_config={"model_type": "llama", **LANGUAGE, "vocab_size": vocabulary_size(tokenizer)},
        vision_config={**SIGLIP, "image_size": 384, "patch_size": 16},
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
        tie_word_embeddings=False,
    )
    image = DeepseekVLImageProcessorPil(
        size={"height": 384, "width": 384}, min_size=14, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor = {"processor_class": "DeepseekVLProcessor", "num_image_tokens": 576}
    return Parts(config=config, tokenizer=tokenizer, image=image, processor=processor)


def _kosmos2(special: tuple[str, ...]) -> Parts:
    from transformers import CLIPImageProcessorPil, Kosmos2Config

    tokenizer = tokens.build_xlm(())
    tokenizer.add_tokens([_left(token) for token in (*KOSMOS, *(f"<patch_index_{i:04d}>" for i in range(1024)))])
    tokenizer.add_tokens([_left(token) for token in special if token not in tokenizer.get_vocab()])
    config = Kosmos2Config(
        text_config={
            "embed_dim": 64,
            "layers": 2,
            "ffn_dim": 128,
            "attention_heads": 4,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "vocab_size": vocabulary_size(tokenizer),
            "max_position_embeddings": 2048,
        },
        vision_config={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        latent_query_num=64,
    )
    image = CLIPImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False)
    return Parts(config=config, tokenizer=tokenizer, image=image, processor={"processor_class": "Kosmos2Processor"})


def _left(token: str) -> Any:
    from tokenizers import AddedToken

    # As Kosmos-2's processor adds them: they take the spaces on their left.
    return AddedToken(token, lstrip=True, rstrip=False, normalized=False)


BUILDERS = {
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "florence2": _florence2,
    "deepseek_vl": _deepseek_vl,
    "kosmos2": _kosmos2,
}
