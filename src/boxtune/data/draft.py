"""What a reader found in annotation files, before anything of it has been checked.

A reader's whole work is to fill one `Draft` for each split and to say why it took the path for its format; finding
the images, their sizes, cutting boxes and counting defects is the same for every format and stands in `assemble`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from boxtune.errors import Finding

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may say about a data set: the folder of its `images`, and how its four numbers are meant (`boxes`,
    a name such as `xywh_px`; see `reading`), for formats that leave that open."""

    images: Path | None = None
    boxes: str | None = None


class Draft:
    """The images and boxes of one split in the order of the file.

    `annotation` is the file, or the folder of files, that it came from: images are looked for around it. Corners are
    x1, y1, x2, y2 in pixels of the image, or, with `scale`, in that many parts of its sides (1 for shares, 100 for
    percent, 1000 for thousandths).
    """

    def __init__(self, split: str, annotation: Path, *, scale: float | None = None) -> None:
        self.split, self.annotation, self.scale = split, annotation, scale
        self.files: list[str] = []
        self.paths: dict[int, Path] = {}
        self.sizes_wh: list[Size | None] = []
        self.image_ids: list[int | float | str | None] = []
        self.name_codes: dict[str, int] = {}
        self.owners, self.codes, self.corners = array("q"), array("i"), array("d")
        self.crowd, self.ignore = bytearray(), bytearray()
        self.called: Callable[[int], str] | None = None
        """What to call the box of a row in messages, where the format has a name for it."""
        self.findings: list[Finding] = []
        """What the reader itself has to remark."""

    def add_image(
        self, name: str, *, size_wh: Size | None = None, image_id: float | str | None = None, path: Path | None = None
    ) -> int:
        """The place of a new image. `name` is the file as the annotations write it, `path` where it is known to be;
        `size_wh` the declared size, None where the file's own header has to be asked."""
        place = len(self.files)
        if path is not None:
            self.paths[place] = path
        self.files.append(name)
        self.sizes_wh.append(size_wh)
        self.image_ids.append(image_id)
        return place

    def add_box(
        self, image: int, label: str, xyxy: Iterable[float], *, crowd: bool = False, ignore: bool = False
    ) -> None:
        """One box of the image at that place."""
        corners = tuple(float(value) for value in xyxy)
        if len(corners) != 4:
            raise ValueError(f"a box of {len(corners)} numbers")
        self.owners.append(image)
        self.codes.append(self.code(label))
        self.corners.extend(corners)
        self.crowd.append(crowd)
        self.ignore.append(ignore)

    def code(self, label: str) -> int:
        """The number that stands for a class name in `codes`."""
        return self.name_codes.setdefault(label, len(self.name_codes))

    @property
    def xyxy(self) -> Float[np.ndarray, "m 4"]:
        """The corners of all boxes as they were annotated, in the unit of the draft."""
        return np.array(self.corners, dtype=np.float64).reshape(-1, 4)

    @property
    def box_owners(self) -> Int[np.ndarray, " m"]:
        """The place of each box's image."""
        return np.array(self.owners, dtype=np.int64)

    @property
    def labels(self) -> list[str]:
        """The class name of each box."""
        names = list(self.name_codes)
        return [names[code] for code in self.codes]

    def call(self, row: int) -> str:
        """The box of a row for a message: its image, and its name, or its class and corners."""
        file = self.files[self.owners[row]]
        if self.called is not None:
            return f"{file} {self.called(row)}"
        numbers = ", ".join(f"{value:g}" for value in self.corners[4 * row : 4 * row + 4])
        return f"{file} {list(self.name_codes)[self.codes[row]]} [{numbers}]"


@dataclass(frozen=True, kw_only=True)
class Raw:
    """What a reader gives: a draft for each split, and `why` it took the path for its format.

    `classes` are the names in the order of the format's own ids, where it has such an order. `read` are the files that
    were read, so that others can be named.
    """

    drafts: Sequence[Draft]
    why: str
    classes: Sequence[str] = ()
    read: Sequence[Path] = ()
    findings: tuple[Finding, ...] = field(default=())
