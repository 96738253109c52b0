"""Four numbers of another system's boxes -> corners in pixels of the upright originals, or why they cannot be that.

COCO results are x, y, width, height in pixels. Corners, centres and shares of the sides are written in their place
often enough, and score near 0: what the numbers and the sizes of the images show is asked about, never mended.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.data.reading import CRAMPED, FITS, LEAST_BOXES, READINGS, Reading
from boxtune.errors import ConfigError, DataError, Finding, name_some

BY_RULE = "xywh_px"
"""What COCO results are."""
SOME_OFF, MOST_OFF = 0.05, 0.5
"""Share of boxes that reach out of their image from which that is said, and from which they are not scored."""
_OTHERS = ("xyxy_px", "cxcywh_px")  # what is written in its place, in pixels
_SLACK = 0.02  # share of a side that a box may reach out, 2 px at least: detectors regress corners


def read_boxes(
    numbers: Float[np.ndarray, "n 4"],
    sizes_wh: Int[np.ndarray, "n 2"],
    rows: Int[np.ndarray, " n"],
    *,
    known: str | None,
    asked: str | None,
    where: str,
) -> tuple[Float[np.ndarray, "n 4"], list[Finding]]:
    """The corners of the boxes, and what there is to say of them.

    `sizes_wh` are the upright sizes of each box's image in pixels, `rows` their places in the file. `known` is the
    reading where the form of the file settles it, `asked` what the user says. Raises DataError for a width or height
    below 0, for numbers that are better read otherwise, and where most boxes lie partly outside their image.
    """
    if asked is not None and asked not in READINGS:
        what = f"{asked!r} is no way to read a box"
        raise ConfigError(what, where="predicted_boxes", fix=f"one of {', '.join(READINGS)}")
    if not len(numbers):
        return np.zeros((0, 4)), []
    said = known or asked
    if said is None:
        _require_pixels(numbers, where)
    xyxy = _corners(numbers, sizes_wh, READINGS[said or BY_RULE])
    inverted = (xyxy[:, 2:] < xyxy[:, :2]).any(axis=1)
    if inverted.any():
        odd = [f"row {rows[i]}: {numbers[i].tolist()}" for i in np.flatnonzero(inverted)]
        raise DataError(
            f"boxes with a width or height below 0: {len(odd):,} of {len(numbers):,} ({name_some(odd)})",
            where=where,
            fix=f"mend them, or say how they are meant, with predicted_boxes= one of {', '.join(READINGS)}",
        )
    off = float((~_inside(xyxy, sizes_wh)).mean())
    fits = [name for name in _OTHERS if said is None and _share_that_fits(numbers, sizes_wh, READINGS[name]) >= FITS]
    if fits and off > SOME_OFF:
        named = " or ".join(f"{READINGS[name]}" for name in fits)
        raise DataError(
            f"{off:.0%} of {len(numbers):,} boxes reach out of their image as {READINGS[BY_RULE]}, which COCO results "
            f"are; as {named} they lie inside",
            where=where,
            fix=f"say which: {' or '.join(f'predicted_boxes={name}' for name in (*fits, BY_RULE))}",
        )
    if said is None and off > MOST_OFF:
        raise DataError(
            f"{off:.0%} of {len(numbers):,} boxes reach out of their image: they are not in pixels of these images",
            where=where,
            fix="bring them to pixels of the upright originals (were images resized, or turned by EXIF?), or say "
            f"predicted_boxes={BY_RULE} to score them all the same",
        )
    return xyxy, _remark(xyxy, sizes_wh, off, fits, where)


def _require_pixels(numbers: Float[np.ndarray, "n 4"], where: str) -> None:
    if np.abs(numbers).max() <= 1:
        ways = " or ".join(f"predicted_boxes={order}_unit" for order in ("xywh", "cxcywh", "xyxy"))
        what = f"all numbers of the {len(numbers):,} boxes lie within 0..1: shares of the sides, and no pixels"
        raise DataError(what, where=where, fix=f"say how they are meant: {ways}")


def _remark(
    xyxy: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], off: float, fits: list[str], where: str
) -> list[Finding]:
    findings = []
    if off > SOME_OFF:
        seen = f"{off:.0%} of {len(xyxy):,} boxes reach out of their image"
        fix = "they should be in pixels of the upright originals: were some images resized, or turned by EXIF?"
        findings.append(Finding(check="eval.boxes_outside", level="warn", seen=seen, where=where, fix=fix))
    reach = (xyxy[:, 2:] / sizes_wh).max(axis=0) if len(xyxy) >= LEAST_BOXES else np.ones(2)
    if (reach < CRAMPED).all():
        seen = f"no box reaches beyond {reach[0]:.0%} of the width and {reach[1]:.0%} of the height of its image"
        fix = "are they in pixels of smaller copies? they should be in pixels of the upright originals"
        findings.append(Finding(check="eval.boxes_cramped", level="warn", seen=seen, where=where, fix=fix))
    # Centres are not asked about here: small boxes away from the borders always fit as both.
    if "xyxy_px" in fits and len(xyxy) >= LEAST_BOXES:
        seen = f"boxes read as {READINGS[BY_RULE]}, as COCO results are; as {READINGS['xyxy_px']} they would fit too"
        fix = "if they are that, say predicted_boxes=xyxy_px"
        findings.append(Finding(check="eval.boxes_either", level="warn", seen=seen, where=where, fix=fix))
    return findings


def _corners(
    numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], reading: Reading
) -> Float[np.ndarray, "n 4"]:
    """x1, y1, x2, y2 in pixels."""
    xyxy = reading.to_xyxy(numbers)
    return xyxy if reading.scale is None else xyxy / reading.scale * np.concatenate([sizes_wh, sizes_wh], axis=1)


def _inside(xyxy: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    slack = np.maximum(_SLACK * sizes_wh, 2.0)
    return np.asarray((xyxy[:, :2] >= -slack).all(axis=1) & (xyxy[:, 2:] <= sizes_wh + slack).all(axis=1))


def _share_that_fits(numbers: Float[np.ndarray, "n 4"], sizes_wh: Int[np.ndarray, "n 2"], reading: Reading) -> float:
    """Share of the boxes with ordered corners inside their image."""
    xyxy = _corners(numbers, sizes_wh, reading)
    return float(((xyxy[:, 2:] > xyxy[:, :2]).all(axis=1) & _inside(xyxy, sizes_wh)).mean())
