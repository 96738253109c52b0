"""What answers images: a model in memory (`generate.LocalEngine`) or a server behind HTTP (`http.HttpEngine`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL.Image import Image

from boxtune.boxes import Boxes
from boxtune.data.tiles import Tiling, tile_windows
from boxtune.errors import DataError
from boxtune.families import Family, Problem, Said
from boxtune.infer.confidence import Signals


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said of one image.

    `boxes` are in pixels of the upright original; `text` is the answer as generated, special tokens included, without
    the end of turn; `truncated` if the end of turn did not come, `looped` if it was closed because nothing new came.
    `further` are boxes that the model would not have written but holds for possible (`decode.REACH`), none of which
    repeats another one: for average precision and for thresholds below the model's own.

    `signals` belong to the boxes and then to the further ones, and `num_swayed` tokens are others than the model would
    have written without a guide; both are unknown (None) of an answer that was written freely, which has no scores.
    `freely` is what the same image was answered without a guide, where it was asked so too.
    """

    text: str
    boxes: Boxes
    problems: tuple[Problem, ...]
    truncated: bool
    further: Boxes = field(default_factory=Boxes.none)
    looped: bool = False
    signals: tuple[Signals, ...] | None = None
    num_swayed: int | None = None
    freely: Said | None = None


Opener = Callable[[], Image]
"""Opens an upright RGB image when called; DataError where it cannot."""


class Engine(Protocol):
    """A model with its prompt, grammar, classes and image budget bound."""

    @property
    def family(self) -> Family:
        """The family whose grammar it writes."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names that it looks for."""
        ...

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut before they are shown, if they are; see `tiled.iter_images`."""
        ...

    @property
    def budget(self) -> tuple[int, int]:
        """Least and most pixels of an image as it is shown."""
        ...

    @property
    def at_once(self) -> int:
        """Images that are answered together, and in memory together."""
        ...

    def iter_answers(
        self,
        images: Sequence[Opener],
        *,
        sizes: Sequence[tuple[int, int]],
        classes: Sequence[Sequence[str]] | None = None,
        part: tuple[int, int] = (0, 1),
        freely: bool = False,
    ) -> Iterator[tuple[int, Answer | DataError]]:
        """(place, answer) of every image once it is there, in any order; what cannot be answered comes as a DataError.

        `sizes` are (width, height) of the images, each of which is opened once. An image is asked for its own of
        `classes`, or for all. `part` (number, of how many) takes every so-manieth batch alone: all parts together are
        the very batches of the whole, so that their answers are the same. `freely` asks without a guide.
        """
        ...


def require_shape(engine: Engine, size_wh: tuple[int, int], name: str) -> None:
    """Raises DataError, naming the image, where the family's resize rule refuses its shape, or that of its tiles."""
    if engine.tiling is not None:
        left, top, right, bottom = tile_windows(size_wh, engine.tiling)[0]
        size_wh = (right - left, bottom - top)
    try:
        engine.family.seen_wh(size_wh, *engine.budget)
    except ValueError as error:
        raise DataError(f"{name} cannot be shown to the model: {error}", where=name, fix="crop it") from error
