"""What a processor makes of one image: tensors, the text that stands for it in a prompt, the size it is seen at."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from boxtune.errors import ConfigError, ModelError
from boxtune.finetune.patches import find_fast_way
from boxtune.finetune.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image as the model gets it.

    `inputs` are the tensors of the model's forward pass, their first dimension being the image's own; `text` is what
    stands for it in the prompt; `size_wh` the size in pixels that the whole image was resized to, padding apart.
    """

    inputs: dict[str, torch.Tensor]
    text: str
    size_wh: tuple[int, int]


def see_image(processor: Any, image: Image, *, as_bytes: bool = False) -> Seen:
    """An upright RGB image through the processor's image side, with the text that the processor puts for it.

    Where a faster way to the same numbers is known, it is taken. With `as_bytes` it leaves `pixel_values` as bytes
    (patches, 3, area), which `FastWay.as_floats` makes the same numbers of, on any device; other processors do not.
    """
    images = processor.image_processor
    made = _made(images, image, as_bytes)
    # The tensors that only the text is made from stay behind.
    inputs = {name: made[name] for name in processor.model_input_names if torch.is_tensor(made.get(name))}
    return Seen(inputs=inputs, text=_text(processor, made), size_wh=_seen_wh(images, image.size, made))


def _made(images: Any, image: Image, as_bytes: bool) -> Any:
    way = find_fast_way(images)
    if way is not None:
        patches, grid = way.see(images, image)
        return {"pixel_values": patches if as_bytes else way.as_floats(patches), "image_grid_thw": grid}
    # What the processors add to their image processor's own defaults; `size` and tiles stay as they were set.
    ways = {"crop_to_patches": True, "return_row_col_info": True, "do_pan_and_scan": False}
    return images(images=[image], return_tensors="pt", **{way: to for way, to in ways.items() if hasattr(images, way)})


def _text(processor: Any, made: Any) -> str:
    if "image_embeds_position_mask" in processor.model_input_names:
        # Kosmos-2's processor has no method for it. It also swaps the ids between the first and the last for others,
        # which no model reads: its image features take their places.
        # Before transformers 5.23 the number stood inside the processor's call only.
        number = getattr(processor, "num_image_tokens", 64)
        return f"{processor.boi_token * (1 + number)}{processor.eoi_token}"
    # Patches in one token; the processors of MiniCPM-V want to be told, the others do not listen.
    ways = {"image_token_divisor": processor.image_token_divisor} if "target_sizes" in made else {}
    return str(processor.replace_image_token(made, image_idx=0, **ways))


def _seen_wh(images: Any, size_wh: tuple[int, int], made: Any) -> tuple[int, int]:
    """The size that the image was resized to, read off what the processor made of it.

    A grid of patches says it; so do rows and columns of tiles. Where only the number of tiles is known, the
    processor's own choice of a grid is asked for, and must give that number. Of images that are padded, the part that
    is no padding counts.
    """
    if "image_grid_thw" in made:
        rows, columns = (int(side) for side in made["image_grid_thw"][0, 1:])
        return columns * images.patch_size, rows * images.patch_size
    if "target_sizes" in made:
        rows, columns = (max(1, int(side)) for side in made["grids"][0])
        high, wide = (int(side) * images.patch_size for side in made["target_sizes"][-1])
        return columns * wide, rows * high
    height, width = made["pixel_values"].shape[-2:]
    if "rows" in made:
        rows, columns = (max(1, int(made[side][0][0])) for side in ("rows", "cols"))
        return columns * width, rows * height
    own = sys.modules[type(images).__module__]
    if "num_patches" in made:
        grid = own.get_optimal_tiled_canvas(size_wh[::-1], (height, width), images.min_patches, images.max_patches)
        tiles = grid[0] * grid[1] + (grid[0] * grid[1] > 1)
        if tiles != int(made["num_patches"][0]):
            raise ValueError(f"the processor made {int(made['num_patches'][0])} tiles of {size_wh}, its grid {tiles}")
        return grid[0] * width, grid[1] * height
    if "image_sizes" in made:
        best = own.select_best_resolution(size_wh[::-1], images.image_grid_pinpoints)
        return _inside(size_wh, (best[1], best[0]))
    if hasattr(images, "min_size"):
        scale = width / max(size_wh)
        seen = [max(round(side * scale), images.min_size) for side in size_wh]
        return seen[0], seen[1]
    return int(width), int(height)


def _inside(size_wh: tuple[int, int], room_wh: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same aspect in a room, as LLaVA's processors count it."""
    across, down = room_wh[0] / size_wh[0], room_wh[1] / size_wh[1]
    if across < down:
        return room_wh[0], min(math.ceil(size_wh[1] * across), room_wh[1])
    return min(math.ceil(size_wh[0] * down), room_wh[0]), room_wh[1]


def load_image_processor(source: ModelSource, min_pixels: int, max_pixels: int) -> Any:
    """The family's image processor with our budget, from torchvision where it works, else from Pillow alone.

    Built by class and not through AutoProcessor, which needs a video processor and so torchvision.
    """
    from transformers import AutoImageProcessor

    try:
        settings = source.family.image_settings(min_pixels, max_pixels)
    except ValueError as error:
        raise ConfigError(str(error), where="image", fix="leave image.min_pixels and image.max_pixels away") from error
    try:
        return AutoImageProcessor.from_pretrained(source.folder, backend=_image_backend(), **settings)
    except (OSError, ValueError, ImportError) as error:
        fix = "fetch preprocessor_config.json of this model again"
        raise ModelError(f"the image processor cannot be built: {error}", where=str(source.folder), fix=fix) from error


def _image_backend() -> str:
    """`torchvision` where it is installed and works, else `pil`; ModelError where it is installed and broken."""
    if importlib.util.find_spec("torchvision") is None:
        return "pil"
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        # A torchvision built for another torch also breaks transformers, so going on without it is no way out.
        raise ModelError(
            f"torchvision is installed but does not work with torch {torch.__version__}: {error}",
            fix="pip uninstall torchvision (boxtune does without), or install the one made for this torch",
        ) from error
    return "torchvision"
