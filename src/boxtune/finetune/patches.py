"""One image into the patches of Qwen's vision towers, in a few passes over bytes; equal to the processor bit for bit.

The processors of transformers go over the whole image a dozen times, in numbers of four and eight bytes. All they do
after resizing is to map each byte to a float and to put it in its place. So bytes are put in their places first, and
mapped last, by a table that is read off the processor itself. Measured with bench/preparation.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image

from boxtune.errors import Finding

CHECK = "images.fast_patches"
TRIED = ((97, 61), (640, 480), (50, 300))
"""Sizes of the random images on which the fast way must give what the processor gives."""
BYTES_NDIM = 3
"""Patches as bytes are (patches, channels, area); as floats they are (patches, values)."""
MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Models whose tower, `visual`, is called with the patches first."""
CLASSES = ("Qwen2VLImageProcessorPil", "Qwen2VLImageProcessor")
"""The image processors of Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5, from Pillow and from torchvision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FastWay:
    """What stands in for one image processor.

    `patch` is the side of a patch in pixels, `merge` how many lie across one visual token, `frames` how often the
    model wants the one frame of an image; `table` the float that the processor makes of each byte of each channel.
    """

    patch: int
    merge: int
    frames: int
    table: Float[torch.Tensor, "3 256"]

    def see(
        self, images: Any, image: Image.Image
    ) -> tuple[UInt8[torch.Tensor, "patches 3 area"], Int[torch.Tensor, "1 3"]]:
        """The patches of an RGB image as bytes, and their grid: 1, rows, columns. `images` is the processor."""
        pixels = _resized(images, image)
        rows, columns = (side // self.patch for side in pixels.shape[:2])
        return _cut(pixels, self.patch, self.merge), torch.tensor([[1, rows, columns]])

    def as_floats(self, patches: UInt8[torch.Tensor, "patches 3 area"]) -> Float[torch.Tensor, "patches values"]:
        """Patches as the model takes them, on the device where the bytes are: of two frames, eight times their size."""
        num, channels, area = patches.shape
        made = torch.empty(num, channels, self.frames, area, dtype=torch.float32, device=patches.device)
        if patches.device.type == "cpu":
            # numpy takes a byte for an index; torch wants it in eight.
            for channel, table in enumerate(self.table.numpy()):
                made[:, channel] = torch.from_numpy(table.take(patches[:, channel].numpy()))[:, None]
        else:
            table = _on_device(self, patches.device)
            first = torch.arange(channels, device=patches.device)[:, None] * table.shape[1]
            made[:] = table.take(patches + first)[:, :, None]
        return made.reshape(num, -1)


@lru_cache(maxsize=8)
def _on_device(way: FastWay, device: torch.device) -> Float[torch.Tensor, "3 256"]:
    """The table where it is used, moved once: each copy would make the host wait."""
    return way.table.to(device)


@dataclass(frozen=True, kw_only=True, eq=False)
class TakeBytes:
    """Before a vision tower's forward: patches as bytes become the floats that it would have been given.

    Bytes are told by their third dimension, not by their type: the model has cast them to its own by then, which holds
    every byte exactly.
    """

    way: FastWay

    def __call__(self, tower: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        patches, *more = given
        if patches.ndim != BYTES_NDIM:
            return None
        return (self.way.as_floats(patches.to(torch.uint8)).to(patches.dtype), *more)


def accept_bytes(model: Any, images: Any) -> bool:
    """Whether the model takes `pixel_values` as bytes from now on, as well as floats, to the same last bit.

    Batches are then an eighth of the size all the way from the workers to the device. False, and nothing done, where
    the model is none of MODEL_TYPES or the fast way is not known for its image processor. Calling it twice is once.
    """
    way = find_fast_way(images)
    if way is None or model.config.model_type not in MODEL_TYPES:
        return False
    (tower,) = (module for name, module in model.named_modules() if name.rpartition(".")[2] == "visual")
    if not any(isinstance(hook, TakeBytes) for hook in tower._forward_pre_hooks.values()):
        tower.register_forward_pre_hook(TakeBytes(way=way))
    return True


def _resized(images: Any, image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """The image resized as its processor does: by Pillow on the image itself, or by the processor's torchvision."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    size, factor = images.size, images.patch_size * images.merge_size
    if type(images).__name__.endswith("Pil"):
        least, most = size["shortest_edge"], size["longest_edge"]
        height, width = smart_resize(image.height, image.width, factor, min_pixels=least, max_pixels=most)
        return np.asarray(image.resize((width, height), Image.Resampling(images.resample)))
    # Channels stay last in memory, which torch resizes as they are.
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    made = images.resize(images=pixels[None], size=_size(size), resample=images.resample, factor=factor)
    return made[0].permute(1, 2, 0).numpy()


def _cut(pixels: UInt8[np.ndarray, "height width 3"], side: int, across: int) -> UInt8[torch.Tensor, "patches 3 area"]:
    """Patches of that side, those of one visual token (`across` by `across` of them) together, channels first."""
    height, width, _ = pixels.shape
    grid = pixels.reshape(height // side // across, across, side, width // side // across, across, side, 3)
    return torch.from_numpy(np.ascontiguousarray(grid.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, 3, side * side))


def _size(size: Any) -> Any:
    from transformers.image_utils import SizeDict

    return size if isinstance(size, SizeDict) else SizeDict(**size)


def find_fast_way(images: Any) -> FastWay | None:
    """What does the same as this image processor, faster; None where nothing is known that does.

    Tried on random images once for all processors of the same settings, and given only where every tensor is equal.
    """
    if _reason(images):
        return None
    settings = _settings(images)
    if settings not in _TRIED:
        _TRIED[settings] = _tried(images)
    return _TRIED[settings]


def check_patches(images: Any) -> list[Finding]:
    """One finding where images of a processor of Qwen's class go the slow way; nothing for other classes."""
    if type(images).__name__ not in CLASSES:
        return []
    reason = _reason(images)
    if not reason and find_fast_way(images) is None:
        reason = "it makes other numbers of a random image than boxtune's own steps do"
    if not reason:
        return []
    fix = "nothing has to be done: the processor itself prepares the images, at half the speed"
    return [Finding(check=CHECK, level="warn", seen=f"images are prepared slowly: {reason}", fix=fix)]


_TRIED: dict[tuple[Any, ...], FastWay | None] = {}


def _settings(images: Any) -> tuple[Any, ...]:
    """All that the numbers depend on, but the budget, which is read at each image."""
    names = ("resample", "rescale_factor", "patch_size", "merge_size", "temporal_patch_size")
    colours = (tuple(images.image_mean), tuple(images.image_std))
    return (type(images), *(getattr(images, name) for name in names), *colours)


def _reason(images: Any) -> str:
    """Why the fast way is not known for this processor; empty where it is."""
    if type(images).__name__ not in CLASSES:
        return f"{type(images).__name__} is none of {', '.join(CLASSES)}"
    steps = ("do_resize", "do_rescale", "do_normalize")
    off = [step for step in steps if not getattr(images, step)]
    return f"{', '.join(off)} of the image processor is off" if off else ""


def _tried(images: Any) -> FastWay | None:
    way = FastWay(
        patch=images.patch_size,
        merge=images.merge_size,
        frames=images.temporal_patch_size,
        table=_read_table(images),
    )
    rng = np.random.default_rng(0)
    for width, height in TRIED:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        theirs = images(images=[image], return_tensors="pt")
        patches, grid = way.see(images, image)
        if not torch.equal(theirs["image_grid_thw"], grid):
            return None
        if not torch.equal(theirs["pixel_values"], way.as_floats(patches)):
            return None
    return way


def _read_table(images: Any) -> Float[torch.Tensor, "3 256"]:
    """What the processor makes of each byte, from an image that holds them all and is not resized."""
    factor = images.patch_size * images.merge_size
    side = factor * math.ceil(16 / factor)
    ramp = np.arange(side * side).astype(np.uint8).reshape(side, side, 1).repeat(3, axis=2)
    made = images(images=[Image.fromarray(ramp)], do_resize=False, return_tensors="pt")["pixel_values"]
    patches = _cut(ramp, images.patch_size, images.merge_size)
    num, channels, area = patches.shape
    first = made.reshape(num, channels, images.temporal_patch_size, area)[:, :, 0]
    table = torch.empty(channels, 256, dtype=torch.float32)
    for channel in range(channels):
        table[channel, patches[:, channel].long()] = first[:, channel]
    return table
