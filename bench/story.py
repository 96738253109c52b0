"""The run with which this project began, as its user wrote it: Qwen2-VL-7B in NF4, LoRA of rank 64, TRL's SFTTrainer.

    python bench/story.py make FOLDER                       a checkpoint of that shape with random weights, 16.6 GB
    boxtune doctor bench/story.py manual FOLDER             prepare, get_peft_model, SFTTrainer(model=PeftModel)
    boxtune doctor bench/story.py peft_config FOLDER        SFTTrainer(model=4-bit model, peft_config=...)

With TRL 0.22 on a GPU `manual` trains 0 of 8,452,856,320 parameters. Nothing here is of boxtune; it runs with
transformers 4.56 to 5 and TRL 0.22 to 1. Images and words are random, the same at every call.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from seven_b import SHAPE
from tokenizers import Tokenizer, models
from transformers import BitsAndBytesConfig, PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from trl import SFTConfig, SFTTrainer

SPECIAL = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|object_ref_start|>": 151646,
    "<|object_ref_end|>": 151647,
    "<|box_start|>": 151648,
    "<|box_end|>": 151649,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
GRID_HW = (70, 72)
"""Patches of an image: 1,260 visual tokens."""
PROMPT, ANSWER = 40, 40
WHERE = 0 if torch.cuda.is_available() else "cpu"
LORA = LoraConfig(
    r=64,
    lora_alpha=128,
    lora_dropout=0.05,
    target_modules=r".*(language_model|^model|model\.model)\.layers\.\d+\..*\.(q|k|v|o|gate|up|down)_proj",
    task_type="CAUSAL_LM",
)


def make(folder: str) -> None:
    """Write the checkpoint."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "eos_token_id": "<|im_end|>",
        "pad_token_id": "<|endoftext|>",
    }
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2VLForConditionalGeneration(
            Qwen2VLConfig(**SHAPE, **{name: SPECIAL[word] for name, word in names.items()})
        )
    model.save_pretrained(folder, max_shard_size="4GB")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The real numbers of the special tokens; every other word is made up."""
    words = {number: word for word, number in SPECIAL.items()}
    vocabulary = {words.get(number, f"t{number}"): number for number in range(152064)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="t0",
    )


def collate(rows: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
    """An image, a question and an answer for each row."""
    height, width = GRID_HW
    image = [
        SPECIAL["<|vision_start|>"],
        *[SPECIAL["<|image_pad|>"]] * (height * width // 4),
        SPECIAL["<|vision_end|>"],
    ]
    ids, pixels = [], []
    for row in rows:
        source = torch.Generator().manual_seed(row["i"])
        words = torch.randint(0, 150000, (PROMPT + ANSWER - 1,), generator=source).tolist()
        ids.append([*words[: PROMPT // 2], *image, *words[PROMPT // 2 :], SPECIAL["<|im_end|>"]])
        pixels.append(torch.randn(height * width, 1176, generator=source))
    batch = {"input_ids": torch.tensor(ids), "pixel_values": torch.cat(pixels)}
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, :-ANSWER] = -100
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["image_grid_thw"] = torch.tensor([[1, height, width]] * len(rows))
    if "mm_token_type_ids" in inspect.signature(Qwen2VLForConditionalGeneration.forward).parameters:
        batch["mm_token_type_ids"] = (batch["input_ids"] == SPECIAL["<|image_pad|>"]).long()
    return batch


def build(pattern: str, folder: str, **settings: Any) -> SFTTrainer:
    """The trainer, by one of the two patterns."""
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = Qwen2VLForConditionalGeneration.from_pretrained(
        folder, quantization_config=quantization, torch_dtype=torch.bfloat16, device_map={"": WHERE}
    )
    if pattern == "manual":
        model = prepare_model_for_kbit_training(model)
        model = get_peft_model(model, LORA)
    arguments = {
        "output_dir": "story",
        "max_steps": 12,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,
        "learning_rate": 1e-4,
        "bf16": True,
        "use_cpu": WHERE == "cpu",
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 6,
        "save_strategy": "no",
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
        "report_to": [],
        "disable_tqdm": True,
    }
    return SFTTrainer(
        model=model,
        args=SFTConfig(**{**arguments, **settings}),
        train_dataset=Dataset.from_list([{"i": number} for number in range(16)]),
        eval_dataset=Dataset.from_list([{"i": number} for number in range(4)]),
        data_collator=collate,
        processing_class=build_tokenizer(),
        peft_config=LORA if pattern == "peft_config" else None,
    )


def main() -> None:
    """Train as the story did."""
    what, folder = sys.argv[1:3]
    if what == "make":
        make(folder)
        return
    trainer = build(what, folder)
    every = [p for p in trainer.model.parameters() if p.requires_grad]
    print(f"trainable: {sum(p.numel() for p in every):,}", flush=True)
    trainer.train()


if __name__ == "__main__":
    main()
