"""What answers images: a model in memory (`generate.LocalEngine`) or a server behind HTTP (`http.HttpEngine`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from PIL.Image import Image

from boxtune.data.tiles import Tiling, tile_windows
from boxtune.errors import DataError
from boxtune.families import Family
from boxtune.finetune.encode import Encoder
from boxtune.infer.answer import Answer
from boxtune.infer.selection import Selection

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

    @property
    def selection(self) -> Selection:
        """Which boxes of an answer are kept, once it is joined of its tiles."""
        ...

    def summary(self) -> list[str]:
        """Lines to print once all is asked: what went otherwise than it should, and how often; none of a model here."""
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


class OfEncoder:
    """What an `Engine` says of itself, told by its encoder."""

    encoder: Encoder

    @property
    def family(self) -> Family:
        """See `Engine`."""
        return self.encoder.family

    @property
    def classes(self) -> tuple[str, ...]:
        """See `Engine`."""
        return self.encoder.classes

    @property
    def tiling(self) -> Tiling | None:
        """See `Engine`."""
        return self.encoder.tiling

    @property
    def budget(self) -> tuple[int, int]:
        """See `Engine`."""
        return self.encoder.min_pixels, self.encoder.max_pixels


def require_shape(engine: Engine, size_wh: tuple[int, int], name: str) -> None:
    """Raises DataError, naming the image, where the family's resize rule refuses its shape, or that of its tiles."""
    if engine.tiling is not None:
        left, top, right, bottom = tile_windows(size_wh, engine.tiling)[0]
        size_wh = (right - left, bottom - top)
    try:
        engine.family.seen_wh(size_wh, *engine.budget)
    except ValueError as error:
        raise DataError(f"{name} cannot be shown to the model: {error}", where=name, fix="crop it") from error
