"""Tiny models of the families whose samples can lie in one row, and samples for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from architectures import write_architecture
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES

PACKED = tuple(name for name, family in FAMILIES.items() if family.packing is not None)
CASES = tuple(name if name == "qwen2_vl" else pytest.param(name, marks=pytest.mark.slow) for name in PACKED)
"""The same as parameters of a test; but for one they are slow."""
CLASSES = ("cat", "traffic light")
RAGGED = ((320, 240), (240, 320), (300, 300), (640, 200))
"""Sizes of images that take several numbers of tokens, where the family lets them."""
EVEN = ((320, 240),) * 3


def load_family(name: str, folder: Path, quantization: str = "none") -> Any:
    """The family's tiny model with random weights, freshly written, under a budget of few tokens."""
    from boxtune.finetune import choose_placement, find_model, load_base

    source = find_model(write_architecture(name, folder / name), family=name)
    own = source.family.defaults_for(source.config)
    most = min(own.max_pixels, 4 * own.min_pixels)
    try:
        source.family.image_settings(own.min_pixels, most)
    except ValueError:
        most = own.max_pixels
    return load_base(source, choose_placement(quantization, "fp32"), min_pixels=own.min_pixels, max_pixels=most)


def make_examples(encoder: Any, sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Any]:
    """One image of noise of each size; the first has no box, each other one box more than the one before."""
    rng, made = np.random.default_rng(seed), []
    for num, (wide, high) in enumerate(sizes):
        image = Image.fromarray(rng.integers(0, 255, (high, wide, 3), dtype=np.uint8))
        boxes = np.array([[10 + 20 * place, 20, 100 + 20 * place, 150] for place in range(num)], dtype=float)
        made.append(encoder.encode_image(image, Boxes(xyxy_px=boxes.reshape(-1, 4), labels=("cat",) * num)))
    return made


def make_talk(encoder: Any) -> Any:
    """A conversation without an image, as an example."""
    from dataclasses import replace

    example = make_examples(encoder, [(320, 240)])[0]
    text = tuple(token for token in example.prompt_ids if token != encoder.layout.image_token_id)
    return replace(example, prompt_ids=text[-20:], answer_ids=text[-9:-2], inputs={})


def packer_for(loaded: Any, encoder: Any, **bounds: int) -> Any:
    """The packer of this model, as the trainer builds it."""
    from boxtune.finetune.packing import build_packer

    return build_packer(loaded.source.family, loaded.model.config, encoder.layout.image_token_id, **bounds)


@contextmanager
def scoring(model: Any) -> Iterator[None]:
    """A base model that scores packed batches, with our attention in both towers; as it was, behind it."""
    from boxtune.finetune.attention import NAME, register_attention
    from boxtune.finetune.scoring import install_scoring

    register_attention()
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    before = [(config, config._attn_implementation) for config in configs]
    take_back = install_scoring(model)
    for config in configs:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        take_back()
        for config, name in before:
            config._attn_implementation = name
