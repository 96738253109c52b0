"""Whole images answered tile by tile: every tile is asked once, and boxes come back in the image's own pixels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.tiles import Tiling
from boxtune.errors import DataError
from boxtune.infer import Answer, LocalEngine, answer_images, tiled

SPOT = 8


def picture(size_wh: tuple[int, int], *corners: tuple[int, int]) -> Image.Image:
    """A black image with white squares of 8 pixels."""
    image = Image.new("RGB", size_wh)
    for x, y in corners:
        image.paste((255, 255, 255), (x, y, x + SPOT, y + SPOT))
    return image


def see(image: Image.Image) -> Boxes:
    """The one white square of a tile, by its pixels."""
    ys, xs = np.nonzero(np.asarray(image)[:, :, 0])
    if not len(xs):
        return Boxes.none()
    corners = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], dtype=np.float64)
    return Boxes(xyxy_px=corners, labels=("spot",))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, int], Any]]:
    """(size, classes) of everything that the model is asked; it answers what is there."""
    seen: list[tuple[tuple[int, int], Any]] = []

    def iter_answers(
        self: LocalEngine, images: Sequence[Callable[[], Image.Image]], *, sizes: Any, classes: Any, **_: Any
    ) -> Iterator[tuple[int, Answer | DataError]]:
        for i in reversed(range(len(images))):
            try:
                image = images[i]()
            except DataError as error:
                yield i, error
                continue
            assert image.size == sizes[i]
            seen.append((image.size, None if classes is None else classes[i]))
            yield i, Answer(text=f"{i}", boxes=see(image), problems=(), truncated=i == 0)

    monkeypatch.setattr(LocalEngine, "iter_answers", iter_answers)
    return seen


@pytest.fixture
def ask(tiny: Any, encoder: Any) -> Callable[..., list[Answer]]:
    """Answers for images, with tiles of 64 pixels or without."""

    def answer(images: Sequence[Image.Image], *, tiles: bool = True, **more: Any) -> list[Answer]:
        own = copy.copy(encoder)
        own.tiling = Tiling(size=64, overlap=0.25, min_visible=0.4) if tiles else None
        openers = [lambda image=image: image for image in images]
        sizes = [image.size for image in images]
        engine = LocalEngine(loaded=tiny, encoder=own, max_new_tokens=1, at_once=4)
        return answer_images(engine, openers, sizes=sizes, **more)

    return answer


def test_boxes_of_all_tiles_come_back_in_the_images_pixels(ask: Any, asked: list[Any]) -> None:
    # The first square lies in the overlap of two tiles and is one box all the same.
    answers = ask([picture((160, 64), (50, 40), (150, 0)), picture((40, 30), (3, 4))])
    assert sorted(answers[0].boxes.xyxy_px.tolist()) == [
        [50.0, 40.0, 58.0, 48.0],
        [150.0, 0.0, 158.0, 8.0],
    ]
    assert answers[1].boxes.xyxy_px.tolist() == [[3.0, 4.0, 11.0, 12.0]]
    assert [size for size, _ in asked].count((64, 64)) == 3 and (40, 30) in [size for size, _ in asked]
    assert answers[0].text == "0\n1\n2" and answers[0].truncated and not answers[1].truncated


def test_each_tile_is_asked_for_its_images_classes_and_progress_counts_images(ask: Any, asked: list[Any]) -> None:
    done: list[int] = []
    ask([picture((160, 64)), picture((64, 64))], classes=[("a",), ("b",)], progress=done.append)
    assert sorted(classes for _, classes in asked) == [("a",), ("a",), ("a",), ("b",)]
    assert done == [1, 1]


def test_without_tiles_an_image_is_asked_whole(ask: Any, asked: list[Any]) -> None:
    answers = ask([picture((160, 64), (10, 20))], tiles=False)
    assert [size for size, _ in asked] == [(160, 64)] and len(answers[0].boxes) == 1


def test_an_image_that_does_not_open_raises(ask: Any, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(open_whole: Any, windows: Any) -> Any:
        def refuse() -> Image.Image:
            raise DataError("broken.png is broken")

        return [refuse for _ in windows]

    monkeypatch.setattr(tiled, "open_tiles", broken)
    with pytest.raises(DataError, match=r"broken\.png"):
        ask([picture((160, 64))])
