"""The best and the worst images of a split, drawn with truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxtune.data import Sample, open_image
from boxtune.measure import Prediction, rank_images
from boxtune.pictures import contact_sheet, draw_boxes

CELL_PX = 360


def write_gallery(
    folder: Path, samples: Sequence[Sample], predictions: Sequence[Prediction], *, num_each: int = 10
) -> list[Path]:
    """The `num_each` best and worst images as JPEGs, and a sheet of each kind; returns the two sheets.

    Ranked by `measure.rank_images`. Where there are fewer than twice `num_each` images, the best half and the worst
    half are drawn, so that no image is in both.
    """
    by_id = {sample.image_id: sample for sample in samples}
    said = {prediction.image_id: prediction for prediction in predictions}
    ranked = rank_images(samples, predictions)
    num = min(num_each, (len(ranked) + 1) // 2)
    folder.mkdir(parents=True, exist_ok=True)
    sheets = []
    for kind, rows in (("best", ranked[:num]), ("worst", ranked[::-1][: min(num, len(ranked) - num)])):
        drawn = []
        for place, (image_id, quality) in enumerate(rows, start=1):
            sample = by_id[image_id]
            image = open_image(sample.image)
            picture = draw_boxes(
                image,
                sample.targets,
                said[image_id].boxes,
                caption=f"{sample.image.name}  quality {quality:.2f}",
            )
            picture.save(folder / f"{kind}_{place:02d}.jpg", quality=90)
            drawn.append(
                draw_boxes(image, sample.targets, said[image_id].boxes, caption=f"{quality:.2f}", max_side=CELL_PX)
            )
        if drawn:
            sheets.append(folder / f"{kind}.jpg")
            contact_sheet(drawn, columns=min(5, len(drawn)), cell_px=CELL_PX, title=f"{kind} {len(drawn)}").save(
                sheets[-1], quality=90
            )
    return sheets
