"""Declared size against real size: which frame the boxes of turned pictures are in, and boxes moved where need be.

A camera stores a picture as its sensor saw it, and EXIF says how to turn it; tools that ignore EXIF annotate the
stored picture, others the upright one. A declared size shows which, but only where the turn swaps the sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.data.table import SampleTable
from boxtune.errors import Finding, Level, name_some

AskedFrame = Literal["auto", "upright", "stored"]
"""`data.frame`: the picture that boxes were drawn on, as viewers show it or as it is stored; auto: as sizes tell."""

_QUARTER = 5  # EXIF orientations from here on swap the sides
_FLIPS_X, _FLIPS_Y = (2, 3, 6, 7), (3, 4, 7, 8)


def turn_upright(
    xyxy_px: Float[np.ndarray, "n 4"], stored_wh: Float[np.ndarray, "n 2"], turns: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n 4"]:
    """Boxes in pixels of the upright pictures, from boxes in pixels of the stored ones.

    `stored_wh` and `turns` are the stored size and the EXIF orientation (1 to 8) of each box's picture. Exact, as the
    turns of `open_image` are. Source: the tag's table in the TIFF 6.0 and EXIF 2.3 specifications.
    """
    quarter = turns >= _QUARTER
    corners = np.where(quarter[:, None], xyxy_px[:, [1, 0, 3, 2]], xyxy_px)
    upright_wh = np.where(quarter[:, None], stored_wh[:, ::-1], stored_wh)
    for axis, flips in ((0, _FLIPS_X), (1, _FLIPS_Y)):
        low, high, flipped = corners[:, axis], corners[:, axis + 2], np.isin(turns, flips)
        side = upright_wh[:, axis]
        corners[:, axis], corners[:, axis + 2] = (
            np.where(flipped, side - high, low),
            np.where(flipped, side - low, high),
        )
    return corners


@dataclass(frozen=True, kw_only=True)
class Headers:
    """What the files' headers say of some images of a split.

    `places` are the images that were looked at, ascending; `sizes_wh` their upright sizes in pixels, (0, 0) where the
    file cannot be read; `turns` the EXIF orientations, 1 to 8; `problems` says of a place why it cannot be read.
    """

    places: Int[np.ndarray, " k"]
    sizes_wh: Int[np.ndarray, "k 2"]
    turns: Int[np.ndarray, " k"]
    problems: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class Framed:
    """A split with its boxes in the upright frame, and what was seen on the way, as places of images.

    `wrong` says of an image that keeps its boxes why its size is not the declared one. `turned` are all that EXIF
    turns; `says_stored` and `says_upright` those whose declared size tells; `scaled` those whose boxes were brought to
    the real size; `against` those whose declared size denies the frame that was asked for, with `num_cut` boxes that
    end where the declared size does and so may have been cut.
    """

    table: SampleTable
    wrong: Mapping[int, str]
    turned: Int[np.ndarray, " a"]
    says_stored: Int[np.ndarray, " c"]
    says_upright: Int[np.ndarray, " d"]
    scaled: Int[np.ndarray, " e"]
    against: Int[np.ndarray, " f"]
    num_cut: int


def count_evidence(table: SampleTable, headers: Headers) -> tuple[int, int]:
    """How many images declare the size of the upright picture, and how many that of the stored one.

    Counted are images whose sides the EXIF turn swaps, whose size is declared, and that are not square.
    """
    upright, stored = _evidence(table, headers)
    return int(upright.sum()), int(stored.sum())


def set_upright(table: SampleTable, headers: Headers, frame: AskedFrame, votes: tuple[int, int]) -> Framed:
    """The split with boxes in pixels of the upright pictures.

    `votes` are those of `count_evidence` over the whole data set. With `auto`, if all of them say the stored frame,
    every turned picture is taken to be annotated there, squares and mirrored ones too. If they disagree each image is
    taken as its own size says, and the others as upright; so is everything where there are none. Boxes that were
    annotated as shares of the sides (`SampleTable.relative`) are brought to the real size whatever was declared.
    """
    at, real = headers.places, headers.sizes_wh
    says_upright, says_stored = _evidence(table, headers)
    turned = headers.turns != 1
    if frame == "auto" and votes[0] and votes[1]:
        in_stored = says_stored
    else:
        in_stored = turned & (frame == "stored" or (frame == "auto" and votes[1] > 0))
    declared, quarter = table.sizes_wh[at], headers.turns >= _QUARTER
    frame_wh = np.where((in_stored & quarter)[:, None], real[:, ::-1], real)
    differs = (declared != frame_wh).any(axis=1) & (real > 0).all(axis=1)
    against = differs & quarter & (declared == frame_wh[:, ::-1]).all(axis=1)
    if frame == "auto":
        against &= False
    scaled = differs & ~against if table.relative else np.zeros_like(differs)
    sound = (real > 0).all(axis=1) & ~(differs & ~against & ~scaled)
    if table.relative and table.measured is not None:
        against &= ~table.measured[at]  # nobody declared that size, and shares are not cut by it
    changed = sound & (in_stored | (declared != real).any(axis=1))
    return Framed(
        table=_move(table, at[changed], in_stored[changed], headers.turns[changed], frame_wh[changed], real[changed]),
        wrong={
            place: _wrong_size(table.files[place], table.sizes_wh[place].tolist(), size_wh, turn)
            for place, size_wh, turn in zip(
                *(rows[differs & ~sound].tolist() for rows in (at, real, headers.turns)), strict=True
            )
        },
        turned=at[turned],
        says_stored=at[says_stored],
        says_upright=at[says_upright],
        scaled=at[scaled],
        against=at[against],
        num_cut=0 if table.relative else _count_at_border(table, at[against]),
    )


def _evidence(table: SampleTable, headers: Headers) -> tuple[Bool[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    at, real = headers.places, headers.sizes_wh
    tells = (headers.turns >= _QUARTER) & (real[:, 0] != real[:, 1])
    if table.measured is not None:
        tells &= ~table.measured[at]
    declared = table.sizes_wh[at]
    return tells & (declared == real).all(axis=1), tells & (declared == real[:, ::-1]).all(axis=1)


def _move(
    table: SampleTable,
    at: Int[np.ndarray, " c"],
    in_stored: Bool[np.ndarray, " c"],
    turns: Int[np.ndarray, " c"],
    frame_wh: Int[np.ndarray, "c 2"],
    upright_wh: Int[np.ndarray, "c 2"],
) -> SampleTable:
    """The table with the sizes and boxes of these images in their upright frames."""
    if not len(at):
        return table
    # Pixels are kept as they are, unless boxes were shares: those stretch from the declared size to the real one.
    stretch = frame_wh / np.maximum(table.sizes_wh[at], 1) if table.relative else np.ones(frame_wh.shape)
    counts = np.diff(table.starts)[at]
    of = np.repeat(np.arange(len(at)), counts)
    rows = np.repeat(table.starts[:-1][at], counts) + np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    xyxy_px, sizes_wh = table.xyxy_px.copy(), table.sizes_wh.copy()
    boxes = xyxy_px[rows] * np.tile(stretch, 2)[of]
    xyxy_px[rows] = turn_upright(boxes, frame_wh[of].astype(np.float64), np.where(in_stored, turns, 1)[of])
    sizes_wh[at] = upright_wh
    return replace(table, xyxy_px=xyxy_px, sizes_wh=sizes_wh)


def _count_at_border(table: SampleTable, at: Int[np.ndarray, " f"]) -> int:
    """Boxes of these images that end exactly where their declared size does."""
    if not len(at):
        return 0
    counts, sizes = np.diff(table.starts)[at], table.sizes_wh[at]
    rows = np.concatenate([np.arange(table.starts[i], table.starts[i + 1]) for i in at.tolist()])
    return int((table.xyxy_px[rows, 2:] >= np.repeat(sizes, counts, axis=0)).any(axis=1).sum())


def _wrong_size(file: str, declared_wh: list[int], real_wh: list[int], turn: int) -> str:
    declared, upright = (f"{width} x {height}" for width, height in (declared_wh, real_wh))
    if declared_wh == real_wh[::-1]:
        cause = "the annotation swaps width and height, or the picture lost its EXIF orientation"
        turned = f"its EXIF orientation is {turn}" if turn != 1 else "it has no EXIF turn"
        return f"{file} is {upright} upright but declared as {declared}, sides swapped ({turned}): {cause}"
    return f"{file} is {upright} but declared as {declared}"


def check_frames(
    framed: Mapping[str, Framed], frame: AskedFrame, name: Callable[[str, int], str], where: str
) -> list[Finding]:
    """What is to be said of turned pictures and of sizes; `name` calls the image at a place of a split."""

    def named(part: Callable[[Framed], Int[np.ndarray, " n"]]) -> list[str]:
        return [name(split, place) for split, one in framed.items() for place in part(one).tolist()]

    findings = []
    if scaled := named(lambda one: one.scaled):
        seen = f"images of another size than declared: {len(scaled):,} ({name_some(scaled)}); their boxes, shares of "
        seen += "the sides, are kept as such"
        findings.append(Finding(check="image.size_scaled", level="warn", seen=seen, where=where))
    if turned := named(lambda one: one.turned):
        level, told, fix = _judge(framed, frame)
        seen = f"{len(turned):,} images are turned by EXIF; {told} ({name_some(turned, limit=8)})"
        findings.append(Finding(check="image.exif_turned", level=level, seen=seen, where=where, fix=fix))
    return findings


def _judge(framed: Mapping[str, Framed], frame: AskedFrame) -> tuple[Level, str, str]:
    """Level, what is said of the frame that the boxes of turned images are in, and what to do."""
    num_upright = sum(len(one.says_upright) for one in framed.values())
    num_stored = sum(len(one.says_stored) for one in framed.values())
    look = "look at some on the contact sheet (out=DIR)"
    question = f"say data.frame=upright or data.frame=stored, the picture that the boxes were drawn on; {look}"
    if frame != "auto":
        told = f"boxes are taken to be in the {frame} picture, as data.frame={frame} asks"
        num_against = sum(len(one.against) for one in framed.values())
        num_cut = sum(one.num_cut for one in framed.values())
        if not num_against:
            return "ok", told, ""
        told += f"; the sizes of {num_against:,} say otherwise"
        told += f", and {num_cut:,} boxes that end with them may be cut" if num_cut else ""
        return "warn", told, f"state the {frame} sizes in the annotations"
    if num_upright and num_stored:
        told = f"{num_upright:,} declare the size of the upright picture and {num_stored:,} that of the stored one: "
        return "warn", f"{told}each is taken as its size says, and those whose size cannot say as upright", question
    if num_stored:
        told = (
            f"boxes are drawn on the stored picture, as declared sizes of {num_stored:,} show, and were turned with it"
        )
        return "warn", told, f"{look}; data.frame=upright if they were right before"
    if num_upright:
        return "ok", f"boxes are in the upright picture, as declared sizes of {num_upright:,} show", ""
    return "cannot_tell", "boxes are taken to be in the upright picture, which no declared size shows here", question
