"""Step time and memory of our trainer on a Qwen2-VL-7B shape with random weights; one GPU, no download.

    python bench/step_time.py make FOLDER            the checkpoint, 16.6 GB, which the peers' script reads too; with
                                                     a third word `small` one of two layers, to try this on a CPU
    python bench/step_time.py run FOLDER key=value   one configuration in this process; prints one line of JSON
    python bench/step_time.py tiny [key=value]       the embedded model, ours beside plain TRL, anywhere

Keys of `run`: batch=8 (images in an optimizer step), steps=12, images=same (or mixed: 8 sizes, answers of 20 to 600
tokens), and any setting (micro_batch=8, memory_gb=24, quantization=fp8, checkpointing=on, compile=off, dropout=0, ...).
What is left open is planned as a run plans it, but that each step computes the vision tower anew unless features=auto
keeps what it makes of the images. together=5 times so many steps as one, without a wait between them (with
logging_steps=100, since a log waits). system=trl: TRL's own step over the same samples, arguments, weights and
fp32 adapters; system=stock: with adapters as TRL leaves them. trace=FILE records the last three steps and counts how
often the host waits for the device. Under torchrun every rank does its share; `batch` is that of all.

The work is that of shared/bench/step_time_peers.py: images of 70 x 72 patches (1,260 visual tokens), 40 tokens of
prompt, 40 of answer, LoRA of rank 64 on the language tower. Times are of whole optimizer steps in the trainer's own
loop, each ended by a synchronisation; median of all but the first four.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import numpy as np
import torch
from datasets import Dataset
from seven_b import SHAPE, write_seven_b
from transformers import TrainerCallback
from trl import SFTTrainer

from boxtune.config import read_settings
from boxtune.families import Frame
from boxtune.finetune import (
    Loaded,
    Longest,
    build_trainer,
    choose_placement,
    find_model,
    load_base,
    plan_adapter,
    plan_training,
)
from boxtune.finetune.adapters import Plan, free_weights, keep_fp32
from boxtune.finetune.collate import Example, Layout, collate_for_training, token_marks
from boxtune.finetune.collator import TrainingCollator
from boxtune.finetune.features import IMAGES
from boxtune.finetune.packing import PACKING
from boxtune.finetune.planner import StepPlan
from boxtune.finetune.ranks import joined, num_ranks
from boxtune.finetune.split import CUTS, cuts_of
from boxtune.finetune.trainer import build_arguments
from boxtune.guard import watch_adapter
from boxtune.settings import Settings
from boxtune.tiny.model import model_folder

GPU = torch.cuda.is_available()
SAME = ((70, 72, 40),)
MIXED = (
    (70, 72, 40), (34, 46, 20), (58, 88, 600), (24, 24, 80), (46, 34, 300), (70, 50, 120), (36, 100, 200), (64, 64, 60),
)  # fmt: skip
TINY = ((16, 16, 30), (16, 20, 60), (20, 16, 40), (24, 20, 20), (20, 24, 100), (18, 22, 50), (24, 24, 30), (12, 16, 40))
"""Rows and columns of patches, and tokens of answer, of the images of a batch."""
SIZES = {"same": SAME, "mixed": MIXED, "tiny": TINY}
PROMPT = 40
LIMIT_TFLOPS = 798.0
"""What the card reaches in a large bf16 matrix product (H100, shared/MEASURED.md)."""


SMALL: dict[str, Any] = {
    **SHAPE,
    "text_config": {**SHAPE["text_config"], "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "num_key_value_heads": 1},
    "vision_config": {**SHAPE["vision_config"], "depth": 2, "embed_dim": 64, "hidden_size": 256, "num_heads": 2},
}
"""A shape of two layers each, to try this file on a CPU."""


def examples_of(num: int, sizes: Sequence[tuple[int, int, int]], tokenizer: Any) -> list[Example]:
    """Samples of random pixels and words, as the peers' script makes them."""
    source = torch.Generator().manual_seed(1)
    begin, image_id, end = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|image_pad|>", "<|vision_end|>"])
    # Below the special tokens of the real vocabulary; the embedded model has its own at the end.
    num_words = min(150000, len(tokenizer) - 50)
    made = []
    for number in range(num):
        rows, columns, answer = sizes[number % len(sizes)]
        words = torch.randint(0, num_words, (PROMPT,), generator=source).tolist()
        said = torch.randint(0, num_words, (answer,), generator=source).tolist()
        prompt = [*words[:20], begin, *[image_id] * (rows * columns // 4), end, *words[20:]]
        frame = Frame(original_wh=(columns * 14, rows * 14), seen_wh=(columns * 14, rows * 14))
        inputs = {
            "pixel_values": torch.randn(rows * columns, 1176, generator=source),
            "image_grid_thw": torch.tensor([[1, rows, columns]]),
        }
        made.append(Example(classes=(), prompt_ids=tuple(prompt), answer_ids=tuple(said), inputs=inputs, frame=frame))
    return made


class Fixed(TrainingCollator):
    """A collator that goes through the same samples again and again, whatever rows it is asked for; it opens none."""

    def __init__(self, examples: list[Example], layout: Layout, *, kept: bool) -> None:
        self.examples, self.layout, self.kept = examples, layout, kept
        self.encoder: Any = self
        self.epochs: Any = SimpleNamespace(negatives=None, conversations=())
        self.packer, self.next = None, 0

    def num_rows(self, split: str) -> int:
        """As many as are needed in one epoch; one batch where every epoch is to be the same."""
        return (len(self.examples) if self.kept else 100_000) if split == "train" else 1

    def __call__(self, rows: Any) -> dict[str, Any]:
        places = [(self.next + place) % len(self.examples) for place in range(len(rows))]
        examples = [self.examples[place] for place in places]
        self.next = (self.next + len(rows)) % len(self.examples)
        packing = {} if self.packer is None else self.packer.pack(examples) | {IMAGES: [str(place) for place in places]}
        return {**collate_for_training(examples, self.layout), PACKING: {CUTS: cuts_of(examples), **packing}}


class Timer(TrainerCallback):
    """Seconds of each optimizer step, or of each in `together` of them, and the losses.

    With `trace`, what the last three steps do is recorded there.
    """

    def __init__(self, steps: int, trace: str | None, together: int) -> None:
        self.together = together
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.traced = (steps - 3, steps) if trace else None
        self.trace = trace
        self.waits: dict[str, float] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.together:
            return
        if self.traced is None or state.global_step <= self.traced[0]:
            torch.accelerator.synchronize() if GPU else None
        if self.traced is not None and state.global_step == self.traced[0]:
            self.profiler = torch.profiler.profile(acc_events=True)
            self.profiler.start()
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 3 and GPU:
            torch.cuda.reset_peak_memory_stats()
        if state.global_step % self.together:
            return
        if self.traced is None or state.global_step <= self.traced[0]:
            torch.accelerator.synchronize() if GPU else None
            self.seconds.append((time.perf_counter() - self.started) / self.together)
        if self.traced is not None and state.global_step == self.traced[1]:
            self.profiler.stop()
            self.waits = waits_of(self.profiler, self.traced[1] - self.traced[0])
            self.profiler.export_chrome_trace(self.trace or "")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in (logs or {}):
            self.losses.append(round(logs["loss"], 5))


WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")


def waits_of(profiler: Any, steps: int) -> dict[str, float]:
    """How often in a step the host waited for the device, by what; and the share of the time the device worked."""
    counts = {event.key: event.count / steps for event in profiler.key_averages() if event.key in WAITS}
    # The profiler itself waits once, at its end.
    counts["cudaDeviceSynchronize"] = counts.get("cudaDeviceSynchronize", 1 / steps) - 1 / steps
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    if kernels:
        begin, end = min(k.time_range.start for k in kernels), max(k.time_range.end for k in kernels)
        counts["busy"] = sum(k.time_range.elapsed_us() for k in kernels) / (end - begin)
    return {name: round(count, 3) for name, count in counts.items() if count}


def least_tflop(example: Example) -> float:
    """Least arithmetic for one sample with a frozen base, in TFLOP: forward, and backward through activations only."""
    patches = int(example.inputs["image_grid_thw"].prod())
    answer = len(example.answer_ids)
    length = len(example.prompt_ids) + answer
    language = 28 * (3584 * 3584 * 2 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    vision = 32 * (1280 * 3840 + 1280 * 1280 + 2 * 1280 * 5120)
    merger = 5120 * 5120 + 5120 * 3584
    products = 4 * language * length + 4 * 3584 * 152064 * answer + 2 * vision * patches + 2 * merger * patches / 4
    attention = 28 * 4 * (length**2 / 2) * 3584 * 3 + 32 * 4 * patches**2 * 1280
    return (products + attention) / 1e12


def run(folder: Path, asked: dict[str, str]) -> dict[str, Any]:
    """One configuration: what was measured."""
    batch, steps = int(asked.pop("batch", "8")), int(asked.pop("steps", "12"))
    images, system, trace = asked.pop("images", "same"), asked.pop("system", "boxtune"), asked.pop("trace", None)
    together, kept = int(asked.pop("together", "1")), asked.get("features") == "auto"
    started = time.perf_counter()
    source = find_model(folder)
    defaults = source.family.defaults_for(source.config).as_settings()
    small = {"train.effective_batch": batch, "train.workers": 0, "image.min_pixels": 3136}
    settings = read_settings(None, {"model": str(folder), "data": str(folder), **asked})
    resolved = settings.with_values(small, "bench").with_values(defaults, "family").settings
    placement = choose_placement(resolved.quantization, resolved.train.precision)
    loaded = load_base(source, placement, min_pixels=3136, max_pixels=defaults["image.max_pixels"])
    torch.accelerator.synchronize() if GPU else None
    load_s, weights_gb = time.perf_counter() - started, torch.cuda.memory_allocated() / 2**30 if GPU else 0.0
    examples = examples_of(batch, SIZES[images], loaded.tokenizer)
    marks = token_marks(["mm_token_type_ids"], marks_suffix=False)
    layout = Layout(
        pad_id=loaded.tokenizer.pad_token_id, image_token_id=loaded.model.config.image_token_id, marks=marks
    )
    plan = plan_adapter(loaded.model, source.family, resolved.adapter)
    lengths = [(len(example.prompt_ids), len(example.answer_ids)) for example in examples]
    longest = Longest(prompt=max(p for p, _ in lengths), answer=max(a for _, a in lengths), train=np.array(lengths))
    step = plan_training(loaded, plan, longest, resolved)
    timer = Timer(steps, trace, together)
    with watch_adapter(lambda model: free_weights(model, plan)), tempfile.TemporaryDirectory() as checkpoints:
        collator: Any = Fixed(examples, layout, kept=kept)
        paths: Any = {"checkpoints": Path(checkpoints), "resuming": True}
        if system != "boxtune":
            trainer: Any = plain_trainer(system, loaded, plan, resolved, step, collator, timer, paths)
        else:
            trainer = build_trainer(loaded, plan, resolved, collator, [timer], **paths, step=step)
        trainer.args.max_steps, trainer.args.eval_strategy, trainer.args.save_strategy = steps, "no", "no"
        trainer.train()
    seconds = statistics.median(timer.seconds[-(-4 // together) :])
    tflop = sum(map(least_tflop, examples))
    return {
        "variant": f"{system} {resolved.quantization}",
        "B": batch,
        "micro": step.micro_batch,
        "twice": step.checkpointed,
        "images": images,
        **{key: value for key, value in asked.items() if key != "quantization"},
        **({"together": together} if together > 1 else {}),
        "step_s": round(seconds, 4),
        "samples_s": round(batch / seconds, 3),
        "share_of_limit": round(tflop / seconds / LIMIT_TFLOPS / num_ranks(), 3),
        **({"ranks": num_ranks()} if num_ranks() > 1 else {}),
        "planned_gb": round(step.peak / 2**30, 2),
        "planned_s": round(step.samples_s, 2),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 2**30, 2) if GPU else None,
        "weights_gb": round(weights_gb, 2),
        "load_s": round(load_s, 1),
        "first_step_s": round(timer.seconds[0], 1),
        **({"waits": timer.waits} if trace else {}),
        "losses": timer.losses,
    }


def plain_trainer(
    system: str,
    loaded: Loaded,
    plan: Plan,
    settings: Settings,
    step: StepPlan,
    collator: Fixed,
    timer: Timer,
    paths: dict[str, Any],
) -> SFTTrainer:
    """TRL's SFTTrainer with our arguments and its own checkpoints and loss: `trl` with fp32 adapters, or `stock`."""
    arguments = build_arguments(loaded, settings, step, collator.num_rows("train"), **paths)
    # Under both of transformers' names: the older one is read no more once the arguments are made.
    arguments.gradient_checkpointing = arguments.activation_checkpointing = settings.train.checkpointing != "off"
    arguments.activation_checkpointing_kwargs = {"use_reentrant": False}
    trainer = SFTTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=Dataset.from_dict({"i": list(range(1000))}),
        eval_dataset=Dataset.from_dict({"i": [0]}),
        data_collator=lambda rows: {key: value for key, value in collator(rows).items() if key != PACKING},
        processing_class=loaded.tokenizer,
        peft_config=plan.config,
        callbacks=[timer],
    )
    if system == "trl":
        keep_fp32(trainer.model)
    return trainer


def compare_tiny(asked: dict[str, str]) -> None:
    """Ours and TRL's step on the embedded model, each in a process of its own, twice, one after the other."""
    work = {"batch": "8", "micro_batch": "8", "images": "tiny", "steps": "12", "r": "16", "dropout": "0", **asked}
    rows = []
    for system in ("trl", "boxtune") * 2:
        words = [f"{key}={value}" for key, value in {**work, "system": system, "checkpointing": "off"}.items()]
        done = subprocess.run(
            [sys.executable, __file__, "run", str(model_folder()), *words], check=True, capture_output=True, text=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{'system':10}{'s a step':>10}{'samples/s':>11}{'first loss':>12}{'last loss':>11}")
    for row in rows:
        first, last = row["losses"][0], row["losses"][-1]
        print(f"{row['variant'].split()[0]:10}{row['step_s']:10.3f}{row['samples_s']:11.2f}{first:12.5f}{last:11.5f}")
    trl, ours = (statistics.median(row["step_s"] for row in rows[at::2]) for at in (0, 1))
    print(f"ours takes {trl / ours:.2f} times as many samples a second")


def main() -> None:
    """As the module says."""
    if sys.argv[1] == "tiny":
        compare_tiny(dict(word.split("=", 1) for word in sys.argv[2:]))
        return
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        write_seven_b(folder, SMALL if sys.argv[3:] == ["small"] else SHAPE)
        return
    with joined():
        found = run(folder, dict(word.split("=", 1) for word in sys.argv[3:]))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
