"""What of validation is evaluated in the run: whole images, tiles of them, never none with a box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data import Sample, choose_valid
from boxtune.data.sample import Dataset
from boxtune.data.tiles import Tiling, tile_dataset
from boxtune.errors import ConfigError


def sample(number: int, *corners: list[float]) -> Sample:
    boxes = Boxes(xyxy_px=np.array(corners, dtype=np.float64).reshape(-1, 4), labels=("a",) * len(corners))
    none = np.zeros(len(corners), dtype=bool)
    image = Path(f"{number}.png")
    return Sample(image=image, image_id=number, size_wh=(200, 200), boxes=boxes, crowd=none, ignore=none)


SAMPLES = [sample(0), sample(1, [150.0, 150, 190, 190]), sample(2, [5.0, 5, 20, 20])]


def test_the_first_images_or_all_their_tiles() -> None:
    assert [one.image_id for one in choose_valid(SAMPLES, 2)] == [0, 1]
    assert choose_valid(SAMPLES, None) is SAMPLES
    whole = Dataset(path=Path(), format="", why="", classes=("a",), splits={"valid": SAMPLES})
    tiles = tile_dataset(whole, Tiling(size=100, overlap=0.0, min_visible=0.4)).splits["valid"]
    chosen = choose_valid(tiles, 2)
    assert len(tiles) == 12 and [one.image.name for one in chosen] == ["0.png"] * 4 + ["1.png"] * 4
    assert sum(len(one.targets) for one in chosen) == 1


def test_images_without_a_box_cannot_choose_an_adapter() -> None:
    with pytest.raises(ConfigError, match="not one of the first 1 images of valid has a box"):
        choose_valid(SAMPLES, 1)
