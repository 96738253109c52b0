"""A batch cut into smaller ones of the same samples, for a step that did not fit into memory."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from boxtune.finetune.collate import Example
from boxtune.finetune.packing import PACKING, Packer

CUTS = "cuts"
"""Key under `packing`: input -> (dimension, how much of it belongs to each sample)."""


def cuts_of(examples: Sequence[Example]) -> dict[str, tuple[int, list[int]]]:
    """Where the images' tensors of a batch can be cut between samples; a sample without an image has 0 of each."""
    names = dict.fromkeys(name for example in examples for name in example.inputs)
    # As `collate` joins them: patches of all images in one long row where their sizes stand beside them.
    dims = {name: -1 if name == "pixel_values" and "target_sizes" in names else 0 for name in names}
    return {
        name: (dim, [example.inputs[name].shape[dim] if name in example.inputs else 0 for example in examples])
        for name, dim in dims.items()
    }


def split_batch(batch: Mapping[str, Any], parts: int) -> list[dict[str, Any]]:
    """Batches of about equal numbers of samples, at most `parts` of them, in order; each as if it had been collated.

    Padding that only a longer sample of another part needed is taken away, so that packing is as it was.
    """
    packing = batch[PACKING]
    num = batch["input_ids"].shape[0]
    sizes = [len(chunk) for chunk in torch.arange(num).chunk(min(parts, num))]
    made, begin = [], 0
    for size in sizes:
        made.append(_rows(batch, packing, begin, begin + size))
        begin += size
    return made


def _rows(batch: Mapping[str, Any], packing: Mapping[str, Any], begin: int, end: int) -> dict[str, Any]:
    cuts = packing[CUTS]
    own: dict[str, Any] = {CUTS: {name: (d, s[begin:end]) for name, (d, s) in cuts.items() if any(s[begin:end])}}
    part: dict[str, Any] = {}
    for name, value in batch.items():
        if name in own[CUTS]:
            dim, sizes = cuts[name]
            part[name] = value.narrow(dim, sum(sizes[:begin]), sum(sizes[begin:end]))
        elif name in cuts:
            continue  # none of these samples has an image: then the collator says nothing of images
        elif isinstance(value, torch.Tensor):
            part[name] = value[begin:end]
    if "keep" in packing:
        lengths = packing["lengths"][begin:end]
        width = max(sum(pair) for pair in lengths)
        part = {name: _narrow(value, part, width) if name not in cuts else value for name, value in part.items()}
        own |= _repack(packing, batch, begin, end)
    part[PACKING] = own
    return part


def _narrow(value: torch.Tensor, part: Mapping[str, Any], width: int) -> torch.Tensor:
    return value[:, :width] if value.ndim > 1 and value.shape[1] == part["input_ids"].shape[1] else value


def _repack(packing: Mapping[str, Any], batch: Mapping[str, Any], begin: int, end: int) -> dict[str, Any]:
    packer: Packer = packing["packer"]
    borders = packing["borders"].tolist()
    rows = [packing["position_ids"].reshape(-1, borders[-1])[:, a:b].cpu() for a, b in itertools.pairwise(borders)]
    grids = batch["image_grid_thw"].tolist() if "image_grid_thw" in batch else []
    first, last = (sum(packing[CUTS]["image_grid_thw"][1][:at]) if grids else 0 for at in (begin, end))
    laid = packer.lay(packing["lengths"][begin:end], rows[begin:end], grids[first:last])
    device = packing["keep"].device
    return {name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in laid.items()}
