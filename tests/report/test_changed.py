"""The sheet of training images: what the collator shows, drawn; nothing where nothing is changed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from boxtune.data import read_dataset
from boxtune.report import write_changed
from boxtune.settings import DataSettings


def test_changed_images_are_drawn(squares: Path, tmp_path: Path) -> None:
    samples = read_dataset(squares).splits["train"]
    data = DataSettings(path=".", augment=("flip", "mosaic", "scale"), absent=0.5)
    sheet = write_changed(tmp_path, samples, ("red", "blue"), data, seed=0)
    assert sheet == tmp_path / "training.jpg"
    with Image.open(sheet) as image:
        assert image.width > image.height > 300


def test_nothing_is_drawn_where_nothing_is_changed(squares: Path, tmp_path: Path) -> None:
    samples = read_dataset(squares).splits["train"]
    assert write_changed(tmp_path, samples, ("red", "blue"), DataSettings(path="."), seed=0) is None
    assert not list(tmp_path.iterdir())
