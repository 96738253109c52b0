"""A plain SFTTrainer run of a text model, as somebody might have written it; `freeze` breaks it on a line of its own.

Runs unchanged with TRL 0.12 to 1.16; `python -m compat.doctor` puts it under the doctor in each of them.
"""

from __future__ import annotations

import sys
import tempfile

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

words = {word: place for place, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *(f"w{n}" for n in range(40))])}
core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words),
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"]))
if "freeze" in sys.argv:
    model.requires_grad_(False)
rows = Dataset.from_dict({"text": [" ".join(f"w{(7 * i + 3 * j) % 40}" for j in range(10)) for i in range(16)]})
arguments = SFTConfig(
    output_dir=tempfile.mkdtemp(),
    max_steps=12,
    per_device_train_batch_size=4,
    learning_rate=5e-3,
    logging_steps=4,
    save_strategy="no",
    report_to=[],
    use_cpu=True,
    bf16=False,
    disable_tqdm=True,
    gradient_checkpointing=False,
)
trainer = SFTTrainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
trainer.train()
