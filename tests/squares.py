"""A data set that takes a second to make: coloured squares on grey, as an ordinary COCO folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("red", "blue")
COLOURS = {"red": (210, 40, 40), "blue": (40, 70, 210)}
SIDE = 112


def write_squares(folder: Path, *, train: int = 16, valid: int = 6, seed: int = 0) -> Path:
    """SPLIT/_annotations.coco.json with one or two squares an image; every fifth image is empty."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("valid", valid)):
        if not count:
            continue
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            image = Image.new("RGB", (SIDE, SIDE), (120, 120, 120))
            draw = ImageDraw.Draw(image)
            for _ in range(0 if number % 5 == 0 else int(rng.integers(1, 3))):
                label = CLASSES[int(rng.integers(2))]
                side = int(rng.integers(24, 56))
                x, y = (int(v) for v in rng.integers(0, SIDE - side, 2))
                draw.rectangle((x, y, x + side - 1, y + side - 1), fill=COLOURS[label])
                box = {"bbox": [x, y, side, side], "category_id": 1 + CLASSES.index(label)}
                annotations.append({"id": len(annotations) + 1, "image_id": number, **box})
            image.save(folder / split / f"{number:03d}.png")
            images.append({"id": number, "file_name": f"{number:03d}.png", "width": SIDE, "height": SIDE})
        categories = [{"id": place, "name": name} for place, name in enumerate(CLASSES, start=1)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(document))
    return folder
