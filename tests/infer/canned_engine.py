"""An engine without a model: what it says of an image follows from its size, and it keeps a log of what it was asked.

As a script it predicts a folder in a process of its own, which a test may kill:
canned_engine.py SOURCE OUT LOG NUMBER OF [FORMATS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxtune.boxes import Boxes
from boxtune.data.tiles import Tiling
from boxtune.errors import DataError
from boxtune.families import FAMILIES
from boxtune.infer import Answer, Predictor, predict_folder
from boxtune.infer.selection import EVERYTHING, Selection

LABELS = ("red", "no: 'ä' & <b>")


def boxes_of(size_wh: tuple[int, int], labels: Sequence[str] = LABELS) -> Boxes:
    """Boxes with numbers of many digits; none for every fourth width."""
    width, height = size_wh
    if width % 4 == 0:
        return Boxes.none()
    inner = [width / 7, height / 3, width * 0.9, height - 1 / 3]
    return Boxes(
        xyxy_px=np.array([[0.0, 0.0, width, height], inner]),
        labels=(labels[width % 2], labels[0]),
        scores=np.array([1 / 3, 0.7 + width / 10_000]),
    )


@dataclass(frozen=True, kw_only=True)
class CannedEngine:
    """See `boxtune.infer.Engine`; waits `pause_s` before each answer, and logs the size of each image that it saw.

    It says `said` of every image, or else what follows from its size, and is interrupted after `most` of them.
    """

    classes: tuple[str, ...] = LABELS
    tiling: Tiling | None = None
    at_once: int = 2
    budget: tuple[int, int] = (56 * 56, 112 * 112)
    selection: Selection = EVERYTHING
    pause_s: float = 0.0
    log: Path | None = None
    said: Boxes | None = None
    most: int | None = None
    seen: list[tuple[int, int]] = field(default_factory=list)
    family: Any = FAMILIES["qwen2_vl"]

    def summary(self) -> list[str]:
        return []

    def iter_answers(
        self,
        images: Sequence[Any],
        *,
        sizes: Sequence[tuple[int, int]],
        classes: Any = None,
        part: tuple[int, int] = (0, 1),
        freely: bool = False,
    ) -> Iterator[tuple[int, Answer | DataError]]:
        for start in range(0, len(images), self.at_once):
            batch: dict[int, Image.Image] = {}
            for i in range(start, min(start + self.at_once, len(images))):
                try:
                    batch[i] = images[i]()
                except DataError as error:
                    yield i, error
            for i, image in batch.items():
                if len(self.seen) == self.most:
                    raise KeyboardInterrupt
                time.sleep(self.pause_s)
                self.seen.append(image.size)
                if self.log is not None:
                    with self.log.open("a") as log:
                        log.write(f"{image.width}\n")
                boxes = boxes_of(image.size, self.classes) if self.said is None else self.said
                yield i, Answer(text="said", boxes=boxes, problems=(), truncated=False)


def write_images(folder: Path, count: int) -> Path:
    """PNG files of widths from 60 on, each of another width."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (60 + number, 50), (number % 256, 80, 90)).save(folder / f"{number:03d}.png")
    return folder


def main(source: str, out: str, log: str, number: str, of: str, formats: str = "json") -> None:
    engine = CannedEngine(pause_s=0.01, log=Path(log))
    part = (int(number), int(of))
    predict_folder(Predictor(engine=engine), source, Path(out), part=part, format=formats, draw=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
