"""Answers drawn at random from untrained models of every family: not one may be malformed.

    python bench/drawn_answers.py [num=10000] [temperature=1.5] [families=qwen2_vl,paligemma]

Each family's architecture is built with random weights and its own kind of tokenizer (tests/architectures.py); `num`
answers are drawn at the temperature under its guide, for images of several shapes and sizes, and read. `own` are those
that ended by themselves; the others met the bound of 60 tokens and were closed behind their last box. Unguided answers
of such models never parse.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import GenerationConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from architectures import write_architecture

from boxtune.families import FAMILIES
from boxtune.finetune import build_encoder, choose_placement, find_model, load_base
from boxtune.finetune.collate import collate_for_prediction
from boxtune.infer.decode import Writer
from boxtune.infer.guide import guides_of

CLASSES = ("cat", "ca", "cat-like (small)")
SHAPES = ((200, 150), (150, 200), (180, 180), (300, 120), (64, 400))
BATCH, MOST = 200, 60


def draw(name: str, folder: Path, num: int, temperature: float) -> dict[str, int]:
    """How many of `num` answers ended by themselves, how many boxes they hold, and how many are malformed."""
    source = find_model(write_architecture(name, folder), family=name)
    own = source.family.defaults_for(source.config)
    budget = {"min_pixels": own.min_pixels, "max_pixels": own.max_pixels}
    try:
        small = {**budget, "max_pixels": min(own.max_pixels, 4 * own.min_pixels)}
        source.family.image_settings(**small)
        budget = small
    except ValueError:
        pass  # a family of one size
    loaded = load_base(source, choose_placement("none", "fp32"), **budget)
    loaded.model.eval()
    encoder = build_encoder(loaded, CLASSES)
    random = np.random.default_rng(0)
    shown = [
        encoder.encode_image(Image.fromarray(random.integers(0, 255, (high, wide, 3), dtype=np.uint8)))
        for wide, high in SHAPES
    ]
    if not encoder.layout.pads_left:
        shown = shown[:1]
    config = GenerationConfig(max_new_tokens=MOST, eos_token_id=encoder.end_id, pad_token_id=encoder.layout.pad_id)
    found = {"answers": 0, "own": 0, "boxes": 0, "malformed": 0}
    for seed in range(-(-num // BATCH)):
        examples = [shown[i % len(shown)] for i in range(BATCH)]
        guides = [guides_of(encoder).of(example.frame, example.classes) for example in examples]
        bounds = {"max_new_tokens": MOST, "pad_id": encoder.layout.pad_id}
        writer = Writer(guides, temperature=temperature, seed=seed, **bounds)
        batch = {
            key: tensor.to(loaded.placement.device)
            for key, tensor in collate_for_prediction(examples, encoder.layout).items()
        }
        with torch.no_grad():
            loaded.model.generate(**batch, generation_config=config, custom_generate=writer)
        for row, example in zip(writer.rows, examples, strict=True):
            text = encoder.tokenizer.decode(row.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            decoded = source.family.decode(text, example.frame, CLASSES)
            found["answers"] += 1
            found["own"] += row.ended
            found["boxes"] += len(decoded.boxes)
            found["malformed"] += bool(decoded.problems)
    return found


def main() -> None:
    """Print a row for each family."""
    asked = dict(word.split("=", 1) for word in sys.argv[1:])
    num, temperature = int(asked.get("num", "10000")), float(asked.get("temperature", "1.5"))
    logging.disable(logging.WARNING)
    print(f"{'':<18}{'answers':>9}{'own':>9}{'boxes':>9}{'malformed':>11}{'s':>7}")
    for name in asked.get("families", ",".join(FAMILIES)).split(","):
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = draw(name, Path(folder) / name, num, temperature)
        row = "".join(
            f"{found[key]:>{width}}" for key, width in (("answers", 9), ("own", 9), ("boxes", 9), ("malformed", 11))
        )
        print(f"{name:<18}{row}{time.perf_counter() - began:>7.0f}", flush=True)


if __name__ == "__main__":
    main()
