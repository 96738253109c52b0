"""Images in other light, less sharp, and worse compressed; things stay where they are."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

LIGHT = 0.35
"""Brightness, contrast and saturation are changed by up to this share, each colour channel by a third of it."""
BLUR, BLUR_SHARE = 0.002, 0.5
"""Largest radius of the blur as a share of the image's mean side, and how many images are blurred.

A share, since the model sees a large photograph made smaller: a radius in pixels would be lost there."""
QUALITIES, JPEG_SHARE = (30, 90), 0.5
"""JPEG quality (least and most), and how many images are compressed."""
_LONGEST_JPEG = 65_500
"""Longest side in pixels that the JPEG encoder takes."""


def change_light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another brightness, contrast, saturation and balance of the channels."""
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(float(rng.uniform(1 - LIGHT, 1 + LIGHT)))
    gains = rng.uniform(1 - LIGHT / 3, 1 + LIGHT / 3, 3)
    table = np.clip(np.rint(np.arange(256)[None] * gains[:, None]), 0, 255).astype(int)
    return image.point(table.reshape(-1).tolist())


def blur_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blurred with a Gaussian of a radius of up to 2 pixels for every 1,000 of the mean side."""
    radius = float(rng.uniform(0, BLUR)) * (image.width * image.height) ** 0.5
    return image.filter(ImageFilter.GaussianBlur(radius))


def compress_image(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What JPEG of a quality of 30 to 90 leaves of it; as it is where a side is longer than JPEG can hold."""
    quality = int(rng.integers(QUALITIES[0], QUALITIES[1] + 1))
    if max(image.size) > _LONGEST_JPEG:
        return image
    file = BytesIO()
    image.save(file, format="JPEG", quality=quality)
    with Image.open(file) as compressed:
        return compressed.convert("RGB")
