"""What a frozen vision tower made of each image, kept in the machine's memory for the epochs and evaluations to come.

The tower is three tenths of a training step of Qwen2-VL-7B (H200, docs/speed.md), and says the same of an image each
time: where neither its weights nor the images change, that is computed once. 1,260 tokens of 3,584 numbers in bf16 are
9 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import psutil
import torch

from boxtune.finetune.planner import GIB

IMAGES = "images"
"""Key under `packing`: the names of a batch's images, in order; left out where they are not to be kept."""
SHARE = 0.33
"""Of the machine's free memory that may be filled."""
CHUNK = 1 << 28
"""Bytes that are set aside at once. torch rounds memory that a GPU reads from directly up to powers of two."""


class Features:
    """Features by the name of the image. `instead` takes a batch's from here, or has them computed and keeps them."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}
        self._written: dict[str, torch.cuda.Event] = {}
        self._free: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def instead(self, backbone: Any, names: Sequence[str], inputs: Mapping[str, Any], extras: Mapping[str, Any]) -> Any:
        """`inputs` of the backbone without pixels, with what the tower makes of them.

        `inputs` hold `pixel_values` and `image_grid_thw`; `extras` are what the tower is told besides.
        """
        rest = {name: value for name, value in inputs.items() if name not in ("pixel_values", "image_grid_thw")}
        device = inputs["pixel_values"].device
        if all(name in self._kept for name in names):
            made = [self._read(name, device) for name in names]
        else:
            # As the backbone itself calls it, grad mode and all: what is compiled for one fits the other.
            found = backbone.get_image_features(
                inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True, **extras
            )
            made = list(found.pooler_output)
            for name, features in zip(names, made, strict=True):
                if name not in self._kept:
                    self._write(name, features)
        return {**rest, "mm_encoder_outputs": {"image": SimpleNamespace(pooler_output=made)}}

    def _read(self, name: str, device: torch.device) -> torch.Tensor:
        if (written := self._written.pop(name, None)) is not None:
            # An epoch ago: the host waits for nothing that is still to be done.
            written.synchronize()
        return self._kept[name].to(device, non_blocking=True)

    def _write(self, name: str, features: torch.Tensor) -> None:
        place = self._take(features.numel(), features.dtype, features.is_cuda).view(features.shape)
        place.copy_(features, non_blocking=True)
        if features.is_cuda:
            self._written[name] = torch.cuda.Event()
            self._written[name].record()
        self._kept[name] = place

    def _take(self, num: int, dtype: torch.dtype, pinned: bool) -> torch.Tensor:
        """Memory for so many numbers, behind what was taken before."""
        if self._free is None or self._free.dtype != dtype or self._free.numel() < num:
            self._free = torch.empty(max(num, CHUNK // dtype.itemsize), dtype=dtype, pin_memory=pinned)
        taken, self._free = self._free[:num], self._free[num:]
        return taken


def choose_features(model: Any, num_tokens: int, *, num_ranks: int, epochs: float) -> tuple[Features | None, str]:
    """Whether the features of so many visual tokens are kept, and the line that says so.

    They are not where the tower or what joins it to the language tower is trained; with several processes, each of
    which sees other images in each epoch; in a run of one epoch; and where they would fill too much of the memory.
    """
    if epochs <= 1 or num_ranks > 1 or any(parameter.requires_grad for parameter in model.visual.parameters()):
        return None, ""
    width, dtype = model.get_decoder().config.hidden_size, model.visual.dtype
    needed, free = num_tokens * width * dtype.itemsize, psutil.virtual_memory().available
    told = f"{needed / GIB:.1f} GB for {num_tokens:,} tokens, {free / GIB:.1f} GB of memory free"
    if needed > SHARE * free:
        return None, f"features of the frozen vision tower are computed in each epoch anew: {told}"
    return Features(), f"features of the frozen vision tower are kept after the first epoch: {told}"
