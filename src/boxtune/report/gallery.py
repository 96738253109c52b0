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

    Chosen by `choose_images`.
    """
    by_id = {sample.image_id: sample for sample in samples}
    said = {prediction.image_id: prediction for prediction in predictions}
    best, worst = choose_images(samples, predictions, num_each)
    folder.mkdir(parents=True, exist_ok=True)
    sheets = []
    for kind, rows in (("best", best), ("worst", worst)):
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


def choose_images(
    samples: Sequence[Sample], predictions: Sequence[Prediction], num_each: int
) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Ids and qualities of the best and of the worst images, by `measure.rank_images`; no image is in both.

    Where there are fewer than twice `num_each` images, the best half and the worst half. Images without truth that are
    rightly answered with nothing are perfect, and show nothing: they are among the best only where hits are too few.
    """
    with_truth = {sample.image_id for sample in samples if len(sample.targets)}
    ranked = rank_images(samples, predictions)
    num = min(num_each, (len(ranked) + 1) // 2)
    # A stable sort: hits in their order, then the rest in theirs.
    best = sorted(ranked, key=lambda row: not (row[0] in with_truth and row[1] > 0))[:num]
    rest = [row for row in ranked[::-1] if row not in best]
    return best, rest[: min(num, len(ranked) - num)]
