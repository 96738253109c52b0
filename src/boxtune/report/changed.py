"""Training images as the model is shown them in the first epoch, with the boxes that it has to answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boxtune.data import Sample, build_epochs
from boxtune.data.training import training_image
from boxtune.errors import DataError
from boxtune.pictures import contact_sheet, draw_boxes
from boxtune.report.gallery import CELL_PX

if TYPE_CHECKING:
    from boxtune.settings import DataSettings

NUM_SHOWN = 15


def write_changed(
    folder: Path, samples: Sequence[Sample], classes: Sequence[str], data: DataSettings, *, seed: int
) -> Path | None:
    """A sheet of training images as they are changed and asked about; None where nothing is.

    Images are taken in equal steps of the first epoch's rows. The caption names the classes asked for, where those are
    not all. Images that cannot be opened are passed over: training names them.
    """
    if not data.augment and not data.subset and not data.absent and data.tile is None:
        return None
    drawn = []
    rows = build_epochs(samples, data, (), seed=seed)
    for row in range(0, len(rows), max(1, len(rows) // NUM_SHOWN))[:NUM_SHOWN]:
        _, place = rows.find(row, 0)
        try:
            image, boxes, asked = training_image(
                samples, place, classes, data, seed=seed, epoch=0, on_broken=lambda sample, error: None
            )
        except DataError:
            continue
        caption = samples[place].image.name if asked is None else f"asked for: {', '.join(asked)}"
        drawn.append(draw_boxes(image, boxes, None, caption=caption, max_side=CELL_PX))
    if not drawn:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / "training.jpg"
    title = f"{len(drawn)} training images as they are shown"
    contact_sheet(drawn, columns=min(5, len(drawn)), cell_px=CELL_PX, title=title).save(sheet, quality=90)
    return sheet
