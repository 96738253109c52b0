"""The same images at every call, and drawn at every evaluation under the same names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data import Sample, read_dataset
from boxtune.errors import DataError
from boxtune.measure import Prediction
from boxtune.report import samples as of_samples
from boxtune.report.samples import SIDE_PX, choose_samples, sheet_path, write_samples


def build_sample(place: int, *, boxes: int = 1, crowd: bool = False) -> Sample:
    """A sample without an image."""
    return Sample(
        image=Path(f"{place}.jpg"),
        image_id=place,
        size_wh=(100, 80),
        boxes=Boxes(xyxy_px=np.tile([10.0, 10.0, 40.0, 30.0], (boxes, 1)), labels=("cup",) * boxes),
        crowd=np.full(boxes, crowd),
        ignore=np.zeros(boxes, dtype=bool),
    )


def build_samples(num_boxes: str) -> list[Sample]:
    """One sample for each digit: that many boxes."""
    return [build_sample(place, boxes=int(digit)) for place, digit in enumerate(num_boxes)]


@pytest.mark.parametrize(
    ("num_boxes", "num", "places"),
    [
        ("1" * 8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("1" * 80, 8, [5, 15, 25, 35, 45, 55, 65, 75]),
        ("1" * 3, 8, [0, 1, 2]),
        ("10101010", 4, [0, 4, 5, 6]),  # the middles of 0 2 4 6 in three parts, and of 1 3 5 7 in one
        ("00000100", 4, [1, 3, 5, 6]),  # one with boxes, the rest without
        ("0000", 2, [1, 3]),
        ("0110", 1, [2]),  # a single one has boxes
        ("", 8, []),
    ],
)
def test_choice(num_boxes: str, num: int, places: list[int]) -> None:
    samples = build_samples(num_boxes)
    assert [sample.image_id for sample in choose_samples(samples, num)] == places
    assert [sample.image_id for sample in choose_samples(tuple(samples), num)] == places


def test_eight_are_chosen_where_nothing_is_said(squares: Path) -> None:
    samples = read_dataset(squares).splits["train"]
    chosen = choose_samples(samples)
    assert len(chosen) == 8
    assert [len(sample.targets) > 0 for sample in chosen].count(False) == 1
    assert [sample.image_id for sample in chosen] == sorted(sample.image_id for sample in chosen)


def test_crowds_are_no_truth() -> None:
    samples = [build_sample(0, crowd=True), build_sample(1), build_sample(2, crowd=True), build_sample(3)]
    assert [sample.image_id for sample in choose_samples(samples, 3)] == [1, 2, 3]


def test_none_is_no_number() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        choose_samples(build_samples("11"), 0)


def say(sample: Sample, boxes: Boxes) -> Prediction:
    return Prediction(image_id=sample.image_id, boxes=boxes, text="", problems=(), truncated=False)


def test_pictures_have_the_same_names_at_every_step(squares: Path, tmp_path: Path) -> None:
    chosen = choose_samples(read_dataset(squares).splits["valid"], 3)
    right = [say(sample, sample.targets) for sample in chosen]
    # The order of the predictions plays no part.
    first = write_samples(tmp_path, 0, chosen, right[::-1])
    later = write_samples(tmp_path, 123, chosen, [say(sample, Boxes.none()) for sample in chosen])
    assert [path.name for path in first] == [f"{i:02d}_{sample.image.stem}.jpg" for i, sample in enumerate(chosen)]
    assert [path.name for path in later] == [path.name for path in first]
    assert {path.parent for path in later} == {tmp_path / "step_000123"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_000000",
        "step_000000.jpg",
        "step_000123",
        "step_000123.jpg",
    ]
    for sample, before, after in zip(chosen, first, later, strict=True):
        assert (before.read_bytes() == after.read_bytes()) == (not len(sample.targets))
    with Image.open(sheet_path(tmp_path, 123)) as sheet:
        assert sheet.width > 3 * 360


def test_step_is_written_anew(squares: Path, tmp_path: Path) -> None:
    chosen = choose_samples(read_dataset(squares).splits["valid"], 2)
    nothing, right = ([say(sample, boxes) for sample in chosen] for boxes in (Boxes.none(), chosen[0].targets))
    written = [[path.read_bytes() for path in write_samples(tmp_path, 5, chosen, said)] for said in (nothing, right)]
    assert written[0] != written[1]
    assert written[0] == [path.read_bytes() for path in write_samples(tmp_path, 5, chosen, nothing)]


def test_large_images_are_shrunk_and_captions_say_how_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = of_samples.draw_boxes

    def keep(*args: object, **kwargs: object) -> Image.Image:
        drawn.append(kwargs)
        return draw(*args, **kwargs)

    monkeypatch.setattr(of_samples, "draw_boxes", keep)
    Image.new("RGB", (3000, 2000), (90, 120, 90)).save(tmp_path / "a b#1.png")
    sample = replace(build_sample(1), image=tmp_path / "a b#1.png", size_wh=(3000, 2000))
    boxes = replace(sample.targets, scores=np.array([0.5]))
    (path,) = write_samples(tmp_path / "out", 7, [sample], [say(sample, boxes)])
    assert path.name == "00_a-b-1.jpg"
    with Image.open(path) as picture:
        assert picture.width == SIDE_PX and picture.height < SIDE_PX
    assert [kwargs["caption"] for kwargs in drawn] == ["a b#1.png  quality 1.00", "1.00"]


def test_tile_is_drawn_as_such(tmp_path: Path) -> None:
    image = Image.new("RGB", (200, 80), (250, 250, 250))
    image.paste((0, 0, 0), (100, 0, 200, 80))
    image.save(tmp_path / "a.png")
    tile = replace(build_sample(1, boxes=0), image=tmp_path / "a.png", window=(100, 0, 200, 80))
    (path,) = write_samples(tmp_path / "out", 7, [tile], [say(tile, Boxes.none())])
    with Image.open(path) as picture:
        # Below the bar there is only what the tile shows.
        assert np.asarray(picture)[-picture.width * 8 // 10 + 20 :].max() < 40


def test_what_does_not_belong_together_is_refused(squares: Path, tmp_path: Path) -> None:
    chosen = choose_samples(read_dataset(squares).splits["valid"], 2)
    with pytest.raises(ValueError, match="no samples"):
        write_samples(tmp_path, 1, [], [])
    with pytest.raises(ValueError, match="no prediction for image id"):
        write_samples(tmp_path, 1, chosen, [say(chosen[0], Boxes.none())])
    gone = replace(chosen[0], image=tmp_path / "gone.png")
    with pytest.raises(DataError, match="gone"):
        write_samples(tmp_path, 1, [gone], [say(gone, Boxes.none())])
