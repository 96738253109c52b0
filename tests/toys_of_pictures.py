"""The embedded model in TRL's SFTTrainer as a plain script would have it: NF4, LoRA on all towers, rows of an image, a
prompt and a completion, and TRL's own collator. A run takes a few seconds."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from toys import Parts

PLACES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv", "attn.proj", "fc1", "fc2")
"""Linear layers of the language and the vision tower."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIDE = 112


def build_processor() -> Any:
    """The embedded model's processor without a video part, which needs torchvision."""
    from transformers import AutoImageProcessor, AutoTokenizer, Qwen2VLProcessor

    from boxtune.run import find_source

    class ImageProcessor(Qwen2VLProcessor):
        """Qwen2-VL's processor for images alone."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            super(Qwen2VLProcessor, self).__init__(image_processor, tokenizer, chat_template=chat_template)

        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    folder = find_source("tiny").folder
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    images = AutoImageProcessor.from_pretrained(folder, size=size, backend="pil")
    return ImageProcessor(images, AutoTokenizer.from_pretrained(folder), chat_template=TEMPLATE)


def load_base(*, packed: bool = False, **more: Any) -> Any:
    """The embedded model in NF4; `packed` leaves bitsandbytes' inference layout on where this CPU has one."""
    from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

    from boxtune.run import find_source

    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    settings = {"quantization_config": four_bit, "dtype": torch.float32, "device_map": {"": "cpu"}, **more}
    model = AutoModelForImageTextToText.from_pretrained(find_source("tiny").folder, **settings)
    for module in model.modules():
        if not packed and getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
    return model


def lora_config(**more: Any) -> Any:
    """A small adapter on every tower."""
    from peft import LoraConfig

    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": list(PLACES), **more})


def make_rows(num: int = 16, seed: int = 0) -> list[dict[str, Any]]:
    """A red square on grey, and where it is."""
    source, rows = np.random.default_rng(seed), []
    for _ in range(num):
        image = Image.new("RGB", (SIDE, SIDE), (120, 120, 120))
        side = int(source.integers(24, 56))
        x, y = (int(value) for value in source.integers(0, SIDE - side, 2))
        ImageDraw.Draw(image).rectangle((x, y, x + side, y + side), fill=(210, 40, 40))
        unit = [value * 1000 // SIDE for value in (x, y, x + side, y + side)]
        answer = (
            "<|object_ref_start|>red<|object_ref_end|>"
            f"<|box_start|>({unit[0]},{unit[1]}),({unit[2]},{unit[3]})<|box_end|>"
        )
        rows.append(
            {
                "images": [image],
                "prompt": [{"role": "user", "content": "Detect red."}],
                "completion": [{"role": "assistant", "content": answer}],
            }
        )
    return rows


def healthy_pictures(folder: Path, *, seed: int = 0, **arguments: Any) -> Parts:
    """The parts of a run with pictures that learns."""
    return Parts(
        model=load_base(),
        tokenizer=build_processor(),
        rows=make_rows(seed=seed),
        collate=None,
        arguments={
            "output_dir": str(folder),
            "per_device_train_batch_size": 4,
            "max_steps": 8,
            "learning_rate": 2e-3,
            "logging_steps": 2,
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "disable_tqdm": True,
            "max_length": None,
            "dataloader_pin_memory": False,
            "gradient_checkpointing": False,
            "seed": seed,
            **arguments,
        },
        adapter=lora_config(),
        build=build_pictures,
    )


def build_pictures(parts: Parts) -> Any:
    """TRL's trainer of these parts, its bf16 cast of the adapter undone."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        parts.trainer = SFTTrainer(
            model=parts.model,
            args=SFTConfig(**parts.arguments),
            train_dataset=Dataset.from_list(parts.rows),
            eval_dataset=Dataset.from_list(parts.rows[: parts.num_eval]),
            data_collator=parts.collate,
            processing_class=parts.tokenizer,
            peft_config=parts.adapter,
            callbacks=parts.callbacks,
        )
    if parts.in_fp32:
        for parameter in parts.trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    for change in parts.after:
        change(parts.trainer)
    return parts.trainer
