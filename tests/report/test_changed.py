"""The sheet of training images: what the collator shows, drawn; nothing where nothing is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data import read_dataset
from boxtune.data.training import training_image
from boxtune.pictures import draw_boxes
from boxtune.report import changed, write_changed
from boxtune.settings import DataSettings


def test_changed_images_are_drawn(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = read_dataset(squares).splits["train"]
    data = DataSettings(path=".", augment=("flip", "mosaic", "scale"), absent=0.5)
    drawn: list[tuple[bytes, list[list[float]], str]] = []

    def draw(image: Image.Image, truth: Boxes, predicted: None, *, caption: str, max_side: int) -> Image.Image:
        drawn.append((image.tobytes(), truth.xyxy_px.tolist(), caption))
        return draw_boxes(image, truth, predicted, caption=caption, max_side=max_side)

    monkeypatch.setattr(changed, "draw_boxes", draw)
    sheet = write_changed(tmp_path, samples, ("red", "blue"), data, seed=3)
    assert sheet == tmp_path / "training.jpg" and len(drawn) == changed.NUM_SHOWN
    for place, (pixels, corners, caption) in enumerate(drawn):
        image, boxes, asked = training_image(
            samples, place, ("red", "blue"), data, seed=3, epoch=0, on_broken=lambda sample, error: None
        )
        assert pixels == image.tobytes() and corners == boxes.xyxy_px.tolist()
        assert caption == (samples[place].image.name if asked is None else f"asked for: {', '.join(asked)}")
    assert len({pixels for pixels, _, _ in drawn}) == len(drawn)
    assert any(caption.startswith("asked for") for *_, caption in drawn)
    with Image.open(sheet) as image:
        assert image.width > image.height > 300


def test_nothing_is_drawn_where_nothing_is_changed(squares: Path, tmp_path: Path) -> None:
    samples = read_dataset(squares).splits["train"]
    assert write_changed(tmp_path, samples, ("red", "blue"), DataSettings(path="."), seed=0) is None
    assert not list(tmp_path.iterdir())
