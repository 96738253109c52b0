"""Images answered in a second: one by one by `model.generate`, as scripts do, against boxtune's batches.

    python bench/answer_time.py                                   the embedded model, on a CPU or a GPU
    python bench/seven_b.py FOLDER                                the shape of Qwen2-VL-7B, 16.6 GB
    python bench/answer_time.py FOLDER [quantization=nf4] [batches=1,8,32,128] [images=128] [side=994]

Every image gets the same work on both sides: an answer of two boxes that is written down beforehand, since an untrained
model would say something else each time. The model computes every token of it all the same; only what it would have
chosen is not taken. `freely` is `generate` in batches, without a guide. Images are prepared beforehand; `prepared` says
how many a second one core makes ready. Peak memory is that of the GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.finetune import Encoder, build_encoder, choose_placement, load_base
from boxtune.finetune.collate import Example, collate_for_prediction
from boxtune.finetune.load import Loaded
from boxtune.infer import decode
from boxtune.infer.guide import guides_of
from boxtune.run import find_source

NAME = "nutrition-table"
ONE_BY_ONE = 6


class Told(decode.Row):
    """A row that writes a given answer, whatever the model would choose."""

    answer: Sequence[int] = ()

    def take(self, token: int, most: int) -> None:
        super().take((*self.answer, self.guide.end_id)[len(self.ids)], most)


def answer_of(encoder: Encoder, example: Example, random: np.random.Generator) -> list[int]:
    """Ids of two boxes with three digits to each number that can have them, without the end of turn."""
    width, height = example.frame.original_wh
    low = random.uniform(0.1, 0.4, (2, 2))
    corners = np.concatenate([low, low + random.uniform(0.2, 0.5, (2, 2))], axis=1) * [width, height, width, height]
    return list(encoder.answer_ids(Boxes(xyxy_px=corners, labels=(NAME, NAME)), example.frame, (NAME,)))[:-1]


def generate(loaded: Loaded, encoder: Encoder, examples: Sequence[Example], num_tokens: int, **more: Any) -> None:
    from transformers import GenerationConfig

    batch = collate_for_prediction(list(examples), encoder.layout)
    batch = {name: tensor.to(loaded.placement.device) for name, tensor in batch.items()}
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=num_tokens,
        min_new_tokens=num_tokens if not more else None,
        eos_token_id=encoder.end_id,
        pad_token_id=encoder.layout.pad_id,
    )
    with torch.no_grad(), loaded.placement.autocast():
        loaded.model.generate(**batch, generation_config=config, **more)


def write(loaded: Loaded, encoder: Encoder, examples: Sequence[Example], answers: Sequence[list[int]]) -> int:
    """Answer under a guide; the passes through the model."""
    guides = guides_of(encoder)
    writer = decode.Writer(
        [guides.of(example.frame, example.classes) for example in examples],
        max_new_tokens=10_000,
        pad_id=encoder.layout.pad_id,
    )
    writer.rows = [Told(guide=row.guide, state=row.state) for row in writer.rows]
    for row, answer in zip(writer.rows, answers, strict=True):
        row.answer = answer  # type: ignore[attr-defined]
    generate(loaded, encoder, examples, 10_000, custom_generate=writer)
    assert [row.ids for row in writer.rows] == list(answers)
    return writer.num_passes


def write_freely(loaded: Loaded, encoder: Encoder, examples: Sequence[Example], answers: Sequence[list[int]]) -> int:
    """As many tokens by `generate`; its passes."""
    num_tokens = max(map(len, answers)) + 1
    generate(loaded, encoder, examples, num_tokens)
    return num_tokens


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and GB of GPU memory at most."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else float("nan")
    return time.perf_counter() - began, peak


def main() -> None:
    words = [word for word in sys.argv[1:] if "=" not in word]
    asked = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    source = find_source(words[0] if words else "tiny")
    own = source.family.defaults_for(source.config)
    placement = choose_placement(asked.get("quantization", "none"), asked.get("precision", "auto"))
    loaded = load_base(source, placement, min_pixels=own.min_pixels, max_pixels=own.max_pixels)
    loaded.model.eval()
    encoder = build_encoder(loaded, (NAME,))
    random, side = np.random.default_rng(0), int(asked.get("side", 994 if words else 224))
    batches = [int(number) for number in asked.get("batches", "1,8,32,128").split(",")]
    images = [
        Image.fromarray(random.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8)).resize((side, side))
        for _ in range(int(asked.get("images", max(batches))))
    ]
    seconds, _ = timed(lambda: [encoder.encode_image(image) for image in images[:16]])
    examples = [encoder.encode_image(image) for image in images]
    answers = [answer_of(encoder, example, random) for example in examples]
    num_tokens = max(map(len, answers)) + 1
    print(f"{loaded.source.ref} {placement.quantization} {placement.precision} on {placement.device}: ", end="")
    print(f"prompts of {len(examples[0].prompt_ids)} tokens, answers of {min(map(len, answers))} to {num_tokens}")
    print(f"prepared: {min(16, len(images)) / seconds:.1f} images/s on one core\n")
    for warm in (examples[:1], examples[: batches[-1]]):
        generate(loaded, encoder, warm, 3)
        write(loaded, encoder, warm, answers[: len(warm)])
    singles = examples[:ONE_BY_ONE]
    seconds, peak = timed(lambda: [generate(loaded, encoder, [one], num_tokens) for one in singles])
    base = len(singles) / seconds
    print(f"{'':<22}{'batch':>7}{'images/s':>10}{'times':>7}{'tokens/s':>10}{'passes':>8}{'peak GB':>9}")
    row = "{:<22}{:>7}{:>10.2f}{:>7.1f}{:>10.0f}{:>8}{:>9.1f}"
    print(row.format("generate, one by one", 1, base, 1.0, base * num_tokens, num_tokens, peak), flush=True)
    for batch in batches:
        num = ONE_BY_ONE if batch == 1 else batch
        parts = [(examples[at : at + batch], answers[at : at + batch]) for at in range(0, num, batch)]
        for name, call in (("freely", write_freely), ("guided", write)):
            passes: list[int] = []
            seconds, peak = timed(
                lambda call=call, parts=parts, passes=passes: passes.extend(
                    call(loaded, encoder, *part) for part in parts
                )
            )
            rate = num / seconds
            print(row.format(name, batch, rate, rate / base, rate * num_tokens, max(passes), peak), flush=True)


if __name__ == "__main__":
    main()
