"""The true sizes of images that a reader has to know before it can tell what its numbers mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boxtune.data.draft import Size
from boxtune.data.images import read_size
from boxtune.data.places import ImageFinder, image_folders
from boxtune.errors import DataError


def read_sizes(
    names: Sequence[str], paths: Sequence[Path | None], annotation: Path, split: str, images: Path | None
) -> list[Size | None]:
    """Upright width and height in pixels of each image, from its file's header; None where no file gives one.

    `paths` are the files as far as they are known; the others are looked for around `annotation` as `assemble` does.
    """
    finder = ImageFinder(image_folders(annotation, split, images))

    def measure(place: int) -> Size | None:
        path: Path | str | None = paths[place]
        if path is None:
            found = finder.find(names[place])
            path = found.path if found is not None else None
        try:
            return read_size(path) if path is not None else None
        except DataError:  # `assemble` and `leave_out_broken` say what is wrong with it
            return None

    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        return list(pool.map(measure, range(len(names))))
