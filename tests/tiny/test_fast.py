"""The fast forward pass of the embedded model gives transformers' numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from boxtune.finetune import build_encoder
from boxtune.finetune.collate import collate_for_prediction
from boxtune.finetune.patches import find_fast_way
from boxtune.tiny.fast import FastForward, build_grid, build_rope, patchify


@pytest.mark.parametrize("size", [(112, 112), (56, 196)])
def test_logits_equal_those_of_transformers(load_tiny: Any, size: tuple[int, int]) -> None:
    loaded = load_tiny("none", "fp32")
    encoder = build_encoder(loaded, ("red", "blue"))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, size[1], size[0]), generator=generator, dtype=torch.uint8)
    examples = [encoder.encode_image(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images]
    batch = collate_for_prediction(examples, encoder.layout)
    with torch.no_grad():
        wanted = loaded.model(**batch).logits

    processor = loaded.image_processor
    mean, std = torch.tensor(processor.image_mean), torch.tensor(processor.image_std)
    patches = patchify(images, mean, std)
    way = find_fast_way(processor)
    assert way is not None
    assert torch.allclose(patches.flatten(0, 1), one_frame(way.as_floats(batch["pixel_values"])), atol=1e-5)

    is_image = batch["input_ids"][0] == encoder.layout.image_token_id
    first, last = (int(torch.nonzero(is_image)[at]) for at in (0, -1))
    before, after = batch["input_ids"][:, :first], batch["input_ids"][:, last + 1 :]
    grid = build_grid(loaded.model, size[1] // 14, size[0] // 14, torch.device("cpu"))
    assert grid.num_tokens == last - first + 1
    rope = build_rope(loaded.model, grid, before.shape[1], after.shape[1], torch.device("cpu"))
    fast = FastForward(loaded.model)
    with torch.no_grad():
        hidden, tapped = fast.read(fast.see(patches, grid), before, after, rope, tap=2)
        got = loaded.model.lm_head(hidden)
    assert (got - wanted[:, last + 1 :]).abs().max() < 1e-4
    assert tapped is not None and tapped.shape == (3, grid.num_tokens, 256)


def one_frame(pixel_values: torch.Tensor) -> torch.Tensor:
    """The processor's patches hold the image twice, channel by channel; this takes the first."""
    return pixel_values.reshape(len(pixel_values), 3, 2, -1)[:, :, 0].flatten(1)
