"""An image as it is and as a model sees it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image, as it is and as the model sees it.

    `original_wh` is the upright original in pixels, `seen_wh` what the processor really made of it (for Qwen2-VL
    `image_grid_thw` times the patch size). Box text is written and read in the seen frame.
    """

    original_wh: tuple[int, int]
    seen_wh: tuple[int, int]
