"""What the libraries of the present environment do with a QLoRA run: a JSON file. Standalone; TRL 0.8 to 1.16.

    python compat/probe.py device=cpu out=FILE

The same script runs unchanged in every version: a text-only Llama with random weights and a tokenizer of made-up words
are made on the spot, loaded in NF4, adapted with LoRA and trained with SFTTrainer on eight rows to be memorised, once
for each pattern:

    manual        prepare_model_for_kbit_training, get_peft_model, SFTTrainer(model=PeftModel)
    peft_config   SFTTrainer(model=4-bit model, peft_config=LoraConfig)
    twice         as manual, but the PeftModel is prepared once more before SFTTrainer gets it

Up to TRL 0.23, SFTTrainer looks whether the 4-bit weights lie on a CPU, takes that for a model that is sharded, and
leaves out what it does with the same model on a GPU. There, manual and peft_config run twice on a CPU: once as they
are, and once with the class of the weights hidden under another name from SFTTrainer's constructor, so that it takes
the branch of a GPU.

What this file does not name is left at the libraries' defaults. If something raises, the file holds what was measured
until then and the exception, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import inspect
import json
import os
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PATTERNS = ("manual", "peft_config", "twice")
LIBRARIES = ("trl", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "torch")

# The wide inner size is that of a 7B model: LoRA's A starts with values up to 1/sqrt(inputs), and how much of it moves
# in bf16 depends on that size.
HIDDEN, INNER, LAYERS = 64, 3584, 2
RANK, ALPHA = 8, 16
TARGETS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
NUM_ROWS, NUM_WORDS, ROW_LENGTH = 8, 48, 12
NUM_STEPS, RATE = 30, 5e-3
# The step in which moved elements are counted, at a rate that is usual for a vision-language model of 7B. It starts
# from a small B: from the B = 0 of a new adapter, A would get no gradient.
ONE_STEP_RATE, SMALL_B = 1e-5, 1e-3
SEED = 0

Tell = Callable[[str, Any], None]
Run = tuple[str, bool]
"""A pattern, and whether SFTTrainer is to take the branch of a GPU."""


def num_parameters(parameter: Any) -> int:
    """How many parameters a tensor stands for; a packed 4-bit weight counts with its real shape."""
    state = getattr(parameter, "quant_state", None)
    shape = parameter.shape if state is None else state.shape
    count = 1
    for side in shape:
        count *= int(side)
    return count


def count_stage(name: str, model: Any) -> dict[str, Any]:
    """Parameters of the model now: trainable, all, and the adapter's by dtype, whether trainable or not."""
    trainable, every, adapter = 0, 0, Counter[str]()
    for parameter_name, parameter in model.named_parameters():
        count = num_parameters(parameter)
        every += count
        trainable += count if parameter.requires_grad else 0
        if "lora_" in parameter_name:
            adapter[str(parameter.dtype).removeprefix("torch.")] += count
    return {"stage": name, "trainable": trainable, "all": every, "adapter_dtypes": dict(adapter)}


def watch_peft(tell: Tell) -> None:
    """From now on, `tell` hears of every model that PEFT has prepared or attached an adapter to.

    Must come before the first import of trl, which copies the function's name. TRL prepares, adapts and casts inside
    its constructor, so no other moment shows the adapter as PEFT made it.
    """
    import peft

    prepare, attach = peft.prepare_model_for_kbit_training, peft.PeftModel.__init__

    @functools.wraps(prepare)  # TRL reads the signature
    def prepare_and_tell(model: Any, *args: Any, **kwargs: Any) -> Any:
        prepared = prepare(model, *args, **kwargs)
        tell("prepared again" if isinstance(model, peft.PeftModel) else "prepared", prepared)
        return prepared

    @functools.wraps(attach)
    def attach_and_tell(self: Any, *args: Any, **kwargs: Any) -> None:
        attach(self, *args, **kwargs)
        tell("adapted", self)

    peft.prepare_model_for_kbit_training = prepare_and_tell
    peft.PeftModel.__init__ = attach_and_tell


def make_rows() -> list[str]:
    """Eight rows of made-up words, the same at every call."""
    source = random.Random(SEED)
    return [" ".join(f"w{source.randrange(NUM_WORDS)}" for _ in range(ROW_LENGTH)) for _ in range(NUM_ROWS)]


def write_model(folder: Path) -> None:
    """Write a Llama with random bf16 weights and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = {word: index for index, word in enumerate([*special, *(f"w{n}" for n in range(NUM_WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=64,  # a multiple of the 64 that share one scale in NF4
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(SEED)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def load_model(folder: Path, device: str) -> tuple[Any, bool]:
    """The model in NF4 with double quantisation, and whether bitsandbytes would have packed its weights on this CPU."""
    import bitsandbytes
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantization,
        torch_dtype=torch.bfloat16,  # the old name, which transformers 5 still reads
        device_map={"": 0 if device == "cuda" else "cpu"},
    )
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    if len(layers) != LAYERS * len(TARGETS):
        raise RuntimeError(f"{len(layers)} layers are in 4 bits instead of {LAYERS * len(TARGETS)}")
    packs = False
    for layer in layers:
        packs = packs or bool(getattr(layer, "support_avx512bf16_for_cpu", False))
        # bitsandbytes 0.49 and later, on a CPU with AVX512-BF16: the first forward in eval mode packs the weight into a
        # layout without a backward, and what is trained after it gets no gradient or raises.
        layer.support_avx512bf16_for_cpu = False
    return model, packs


def first_known(callee: Any, *names: str) -> str | None:
    """The first of the names that the callee takes as an argument; None if it takes none of them."""
    parameters = inspect.signature(callee).parameters
    return next((name for name in names if name in parameters), None)


def asks_for_device() -> bool:
    """Whether this SFTTrainer treats 4-bit weights on a CPU otherwise than on a GPU."""
    import trl
    from trl.models import utils  # prepare_peft_model stands here from 0.20 on

    trainer = inspect.getmodule(trl.SFTTrainer)
    if trainer is None:
        raise RuntimeError("SFTTrainer is in no module")
    return any("is_sharded_qlora" in inspect.getsource(module) for module in (trainer, utils))


@contextlib.contextmanager
def hidden_weights(hide: bool) -> Iterator[None]:
    """While open and if asked to hide, 4-bit weights do not bear the name by which SFTTrainer looks for them.

    PEFT asks for the name too, in order not to cast them to fp32; their bytes are no floating numbers, so that it casts
    none of them either way.
    """
    import bitsandbytes

    weights = bitsandbytes.nn.Params4bit
    name = weights.__name__
    weights.__name__ = f"{name}OnGpu" if hide else name
    try:
        yield
    finally:
        weights.__name__ = name


def build_trainer(
    run: Run, folder: Path, device: str, rate: float, num_steps: int, tell: Tell
) -> tuple[Any, Any, bool]:
    """A trainer made by the run's pattern, its tokenizer, and what `load_model` says of packing."""
    import peft
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainingArguments, set_seed

    set_seed(SEED)
    model, packs = load_model(folder, device)
    tell("loaded", model)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    # SFTConfig came with TRL 0.9; until then SFTTrainer itself took the settings of the text.
    config_class = getattr(trl, "SFTConfig", TrainingArguments)
    arguments: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "max_steps": num_steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": NUM_ROWS,
        "optim": "adamw_torch",
        "bf16": True,
        "use_cpu": device == "cpu",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }
    extra: dict[str, Any] = {}
    for names, value in ((("max_length", "max_seq_length"), 64), (("dataset_text_field",), "text")):
        if name := first_known(config_class, *names):
            arguments[name] = value
        elif name := first_known(trl.SFTTrainer, *names):
            extra[name] = value
        else:
            raise RuntimeError(f"neither {config_class.__name__} nor SFTTrainer takes {' or '.join(names)}")
    name = first_known(trl.SFTTrainer, "processing_class", "tokenizer")
    if name is None:
        raise RuntimeError("SFTTrainer takes no tokenizer")
    extra[name] = tokenizer

    lora = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=TARGETS, bias="none", task_type="CAUSAL_LM"
    )
    pattern, as_on_gpu = run
    if pattern == "peft_config":
        extra["peft_config"] = lora
    else:
        model = peft.get_peft_model(peft.prepare_model_for_kbit_training(model), lora)
        if pattern == "twice":
            model = peft.prepare_model_for_kbit_training(model)
    rows = Dataset.from_dict({"text": make_rows()})
    with hidden_weights(as_on_gpu):
        trainer = trl.SFTTrainer(model=model, args=config_class(**arguments), train_dataset=rows, **extra)
    tell("trainer built", trainer.model)
    return trainer, tokenizer, packs


def measure_loss(trainer: Any, tokenizer: Any) -> float:
    """Mean loss of the eight rows in eval mode, under bf16 autocast before and after training alike."""
    import torch

    device = next(trainer.model.parameters()).device
    tokens = torch.tensor(tokenizer(make_rows())["input_ids"], device=device)
    trainer.model.eval()
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        loss = trainer.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss
    trainer.model.train()
    return round(float(loss), 4)


def copy_adapter(model: Any) -> dict[str, Any]:
    """The adapter's tensors as they are now, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def share_moved(model: Any, before: dict[str, Any]) -> dict[str, float]:
    """Share of the adapter's elements that differ from `before`: of all, of LoRA's A, of its B."""
    moved, every = Counter[str](), Counter[str]()
    after = copy_adapter(model)
    if sorted(after) != sorted(before) or not after:
        raise RuntimeError("the adapter has other tensors than before training")
    for name, tensor in after.items():
        for part in ("all", "A" if "lora_A" in name else "B"):
            moved[part] += int((tensor.float() != before[name].float()).sum())
            every[part] += tensor.numel()
    return {part: round(moved[part] / every[part], 4) for part in ("all", "A", "B")}


def step_once(run: Run, folder: Path, device: str) -> dict[str, float]:
    """Share of the adapter's elements that one optimizer step moves at the rate `ONE_STEP_RATE`, from a small B."""
    import torch

    trainer, _, _ = build_trainer(run, folder, device, ONE_STEP_RATE, 1, lambda name, model: None)
    torch.manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=SMALL_B)
    before = copy_adapter(trainer.model)
    trainer.train()
    return share_moved(trainer.model, before)


def measure_run(run: Run, folder: Path, device: str, record: dict[str, Any], listeners: list[Tell]) -> None:
    """Train by the run's pattern and fill its record, stage by stage."""

    def tell(name: str, model: Any) -> None:
        record["stages"].append(count_stage(name, model))

    listeners[:] = [tell]
    trainer, tokenizer, record["packs"] = build_trainer(run, folder, device, RATE, NUM_STEPS, tell)
    before = copy_adapter(trainer.model)
    record["loss_before"] = measure_loss(trainer, tokenizer)
    trainer.train()
    tell("trained", trainer.model)
    listeners.clear()
    record["num_steps"] = trainer.state.global_step
    record["loss_after"] = measure_loss(trainer, tokenizer)
    record["moved_in_run"] = share_moved(trainer.model, before)
    record["moved_in_one_step"] = step_once(run, folder, device)


def probe(device: str, folder: Path, record: dict[str, Any]) -> None:
    """Measure every pattern; one that raises does not keep the next from running. Raises them together at the end."""
    listeners: list[Tell] = []

    def tell(name: str, model: Any) -> None:
        for listener in listeners:
            listener(name, model)

    watch_peft(tell)
    import torch

    if device == "cuda":
        record["machine"].update(gpu=torch.cuda.get_device_name(0), cuda=torch.version.cuda)
    write_model(folder)
    runs = [(pattern, False) for pattern in PATTERNS]
    if device == "cpu" and asks_for_device():
        runs += [("manual", True), ("peft_config", True)]
    errors = []
    for run in runs:
        found: dict[str, Any] = {"pattern": run[0], "as_on_gpu": run[1], "raised": None, "stages": []}
        record["runs"].append(found)
        try:
            measure_run(run, folder, device, found, listeners)
        except Exception as error:
            found["raised"] = f"{type(error).__name__}: {error}"
            errors.append(error)
    if errors:
        raise ExceptionGroup(f"{len(errors)} of {len(runs)} runs raised", errors)


def main(arguments: list[str]) -> None:
    """Read `device=` and `out=`, and write the file."""
    options = dict(argument.partition("=")[::2] for argument in arguments)
    device, out = options.pop("device", ""), options.pop("out", "")
    if options or device not in ("cpu", "cuda") or not out:
        raise SystemExit("usage: probe.py device=cpu|cuda out=FILE")
    record: dict[str, Any] = {
        "device": device,
        "machine": {"system": platform.system(), "processor": platform.machine(), "python": platform.python_version()},
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "raised": None,
        "runs": [],
    }
    with tempfile.TemporaryDirectory() as name:
        # Nothing is downloaded, no run is reported to anybody, and no settings of the user are read.
        os.environ.update(
            HF_HOME=name, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false"
        )
        if device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # some versions put the model on a GPU whatever they are told
        else:
            # One card: the Trainer would spread its batches over all that it sees.
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        try:
            probe(device, Path(name) / "model", record)
        except BaseException as error:
            record["raised"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            Path(out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
