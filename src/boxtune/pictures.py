"""Boxes drawn on images, and contact sheets of such pictures.

Truth is a solid green line with its label at the top of the box, prediction a dashed orange line with its label at the
bottom. Both have a dark rim, so that they stand out from a picture of any colour; the two hues stay apart for
colour-blind eyes (after Okabe and Ito 2008), and the dashes tell them apart in print.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from boxtune.boxes import Boxes, clip_xyxy

Colour = tuple[int, int, int]
Rect = tuple[int, int, int, int]

TRUTH: Colour = (0, 200, 140)
PREDICTED: Colour = (255, 150, 0)
INK: Colour = (16, 16, 20)
PAPER: Colour = (255, 255, 255)
MATTE: Colour = (226, 228, 232)

_MIN_SIDE = 400
"""Pictures with a shorter long side are enlarged to it: letters need a size that a tiny scene does not have."""


def draw_boxes(
    image: Image.Image, truth: Boxes | None, predicted: Boxes | None, *, caption: str = "", max_side: int = 1000
) -> Image.Image:
    """A new RGB picture: the image with its boxes, under a bar with the caption, a legend and the counts.

    Boxes are in pixels of `image`, which must be the upright original; what lies outside it is drawn on its border.
    None leaves a kind out, legend included; no boxes are counted as 0. The long side is brought to at most `max_side`
    and at least 400 pixels (or `max_side`, if that is smaller); the bar comes on top of that. A label that would lie
    on another one is moved to another corner of its box, and left out where none is free; the bar then says how many.
    Raises ValueError for `max_side` below 1.
    """
    if max_side < 1:
        raise ValueError(f"max_side must be at least 1, not {max_side}")
    scale = _scale(image.size, max_side)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    font = _font(max(11, round(max(size) / 62)))
    width = max(2, round(max(size) / 330))
    kinds = [
        _Kind(name="truth", boxes=truth, colour=TRUTH, dash=0),
        _Kind(name="predicted", boxes=predicted, colour=PREDICTED, dash=4 * width),
    ]
    draw = ImageDraw.Draw(picture)
    rects = {kind.name: _rects(kind.boxes, image.size, size, width) for kind in kinds if kind.boxes is not None}
    for kind in kinds:
        for rect in rects.get(kind.name, []):
            _outline(draw, rect, kind.colour, width, kind.dash)
    taken: list[Rect] = []
    num_hidden = 0
    for kind in kinds:
        if kind.boxes is None:
            continue
        for text, rect in zip(_labels(kind.boxes), rects[kind.name], strict=True):
            tag = _shorten(text, font, size[0] - 8)
            place = _free_place(_tag_size(tag, font), rect, size, taken, kind.name)
            if place is None:
                num_hidden += 1
                continue
            taken.append(place)
            draw.rectangle(place, fill=kind.colour)
            draw.text((place[0] + 3, place[1] + 2), tag, font=font, fill=INK)
    return _with_bar(picture, caption, [kind for kind in kinds if kind.boxes is not None], num_hidden, font)


def contact_sheet(images: Sequence[Image.Image], *, columns: int, cell_px: int, title: str) -> Image.Image:
    """The images in rows of `columns`, each fitted into a square of `cell_px` and centred, under a title.

    Images smaller than a cell are not enlarged, and a row is only as high as its highest image. For labels that stay
    readable make the pictures with `draw_boxes(..., max_side=cell_px)`. An empty title leaves no bar.
    Raises ValueError for no images, or for `columns` or `cell_px` below 1.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    if columns < 1 or cell_px < 1:
        raise ValueError(f"columns and cell_px must be at least 1, not {columns} and {cell_px}")
    gap = max(4, cell_px // 40)
    cells = [_fit(image, cell_px) for image in images]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    used = min(columns, len(cells))
    heights = [max(cell.height for cell in row) for row in rows]
    sheet_width = used * (cell_px + gap) + gap
    font = _font(max(13, min(28, sheet_width // 50)))
    lines = _wrap(title, font, sheet_width - 2 * gap, limit=3)
    top = gap + len(lines) * _line_height(font)
    sheet = Image.new("RGB", (sheet_width, top + sum(heights) + gap * len(rows) + (gap if lines else 0)), MATTE)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((gap, gap + i * _line_height(font)), line, font=font, fill=INK)
    y = top + (gap if lines else 0)
    for row, height in zip(rows, heights, strict=True):
        for i, cell in enumerate(row):
            x = gap + i * (cell_px + gap)
            sheet.paste(cell, (x + (cell_px - cell.width) // 2, y + (height - cell.height) // 2))
        y += height + gap
    return sheet


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Truth or prediction: its boxes and how they are drawn; `dash` is the length of a dash, 0 for a solid line."""

    name: Literal["truth", "predicted"]
    boxes: Boxes | None
    colour: Colour
    dash: int


def _scale(size_wh: tuple[int, int], max_side: int) -> float:
    """The factor that brings the long side into range."""
    long_side = max(size_wh)
    return min(max_side, max(long_side, _MIN_SIDE)) / long_side


def _fit(image: Image.Image, cell_px: int) -> Image.Image:
    """The image as RGB, made smaller where it is larger than a cell."""
    factor = min(1.0, cell_px / max(image.size))
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _rects(boxes: Boxes, from_wh: tuple[int, int], to_wh: tuple[int, int], inset: int) -> list[Rect]:
    """The boxes as whole pixels of the picture, cut to it so that a line along its border is seen in full."""
    factor = np.array([to_wh[0] / from_wh[0], to_wh[1] / from_wh[1]] * 2)
    scaled = np.rint(clip_xyxy(boxes.xyxy_px, from_wh) * factor).astype(int)
    high = np.maximum(np.array([to_wh[0] - 1 - inset, to_wh[1] - 1 - inset] * 2), 0)
    return [(int(x1), int(y1), int(x2), int(y2)) for x1, y1, x2, y2 in np.clip(scaled, np.minimum(inset, high), high)]


def _outline(draw: ImageDraw.ImageDraw, rect: Rect, colour: Colour, width: int, dash: int) -> None:
    """Draws the four sides, centred on the edge of the box: first the dark rim, then the colour."""
    x1, y1, x2, y2 = rect
    before, after = width // 2, width - width // 2 - 1
    strokes = [(a - before, y - before, b + after, y + after) for y in (y1, y2) for a, b in _dashes(x1, x2, dash)]
    strokes += [(x - before, a - before, x + after, b + after) for x in (x1, x2) for a, b in _dashes(y1, y2, dash)]
    for left, top, right, bottom in strokes:
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=INK)
    for stroke in strokes:
        draw.rectangle(stroke, fill=colour)


def _dashes(start: int, end: int, dash: int) -> list[tuple[int, int]]:
    """The painted stretches of a side; the first starts and the last ends in a corner, so that corners are seen."""
    if not dash:
        return [(start, end)]
    # An odd number of equal parts, of which every second one is painted.
    marks = np.linspace(start, end, 2 * round((end - start) / dash / 2) + 2)
    return [(round(float(a)), round(float(b))) for a, b in zip(marks[::2], marks[1::2], strict=True)]


def _labels(boxes: Boxes) -> list[str]:
    """What stands at each box: its class, and its score if there are scores."""
    if boxes.scores is None:
        return [_plain(label) for label in boxes.labels]
    return [f"{_plain(label)} {score:.2f}" for label, score in zip(boxes.labels, boxes.scores, strict=True)]


def _free_place(
    size_wh: tuple[int, int], rect: Rect, picture_wh: tuple[int, int], taken: Sequence[Rect], name: str
) -> Rect | None:
    """Where a label goes: the first corner of the box, inside the picture, that no other label covers."""
    (width, height), (x1, y1, x2, y2) = size_wh, rect
    at_top = [(x1, y1 - height), (x2 - width, y1 - height), (x1, y1), (x2 - width, y1)]
    at_bottom = [(x2 - width, y2), (x1, y2), (x2 - width, y2 - height), (x1, y2 - height)]
    for x, y in at_top + at_bottom if name == "truth" else at_bottom + at_top:
        left = min(max(x, 0), max(0, picture_wh[0] - 1 - width))
        place = (left, y, left + width, y + height)
        inside = y >= 0 and place[3] < picture_wh[1]
        if inside and not any(_overlap(place, other) for other in taken):
            return place
    return None


def _overlap(left: Rect, right: Rect) -> bool:
    """Whether two rectangles share a pixel."""
    return left[0] <= right[2] and right[0] <= left[2] and left[1] <= right[3] and right[1] <= left[3]


def _with_bar(picture: Image.Image, caption: str, kinds: Sequence[_Kind], num_hidden: int, font: Font) -> Image.Image:
    """The picture under a bar: the caption on the left, the legend on the right, or below it if both are long."""
    entries = [f"{kind.name} {0 if kind.boxes is None else len(kind.boxes)}" for kind in kinds]
    note = f"{num_hidden} label{'s' if num_hidden > 1 else ''} left out" if num_hidden else ""
    pad, line, swatch = max(6, _line_height(font) // 2), _line_height(font), 2 * _line_height(font)
    legend = sum(swatch + 4 + _text_width(entry, font) + 2 * pad for entry in entries)
    legend += _text_width(note, font) + 2 * pad if note else 0
    room = picture.width - 2 * pad
    text = _plain(caption)
    beside = bool(legend) and _text_width(text, font) + legend <= room
    lines = [text] if beside else _wrap(text, font, room, limit=3)
    num_lines = len([row for row in lines if row]) + (0 if beside and text else bool(legend))
    if not num_lines:
        return picture
    height = num_lines * line + pad
    page = Image.new("RGB", (picture.width, picture.height + height), INK)
    page.paste(picture, (0, height))
    draw = ImageDraw.Draw(page)
    for i, row in enumerate(lines):
        draw.text((pad, pad // 2 + i * line), row, font=font, fill=PAPER)
    x, y = (max(pad, picture.width - legend + pad) if beside and text else pad), pad // 2 + (num_lines - 1) * line
    for kind, entry in zip(kinds, entries, strict=True):
        middle = y + line // 2
        for a, b in _dashes(x, x + swatch, swatch // 3 if kind.dash else 0):
            draw.rectangle((a, middle - 1, b, middle + 1), fill=kind.colour)
        x += swatch + 4
        draw.text((x, y), entry, font=font, fill=kind.colour)
        x += _text_width(entry, font) + 2 * pad
    if note:
        draw.text((x, y), note, font=font, fill=PAPER)
    return page


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def _font(size_px: int) -> Font:
    """Pillow's own font: a machine without any fonts draws too."""
    return ImageFont.load_default(size_px)


def _plain(text: str) -> str:
    """The text on one line in ASCII, which is what Pillow's own font has: accents go, other letters become "?"."""
    letters = unicodedata.normalize("NFKD", text).translate(_NEAREST)
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return " ".join("".join(c if c.isspace() or " " <= c <= "~" else "?" for c in bare).split())


_NEAREST = str.maketrans(
    {"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "ß": "ss", "æ": "ae", "œ": "oe", "\u03bc": "u"}
    | {"\u2010": "-", "\u2013": "-", "\u2014": "-", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00d7": "x"}
)
"""Letters and signs that lose nothing but an accent, though Unicode does not take them apart."""


def _text_width(text: str, font: Font) -> int:
    """Width in pixels, rounded up."""
    return int(np.ceil(font.getlength(text)))


def _line_height(font: Font) -> int:
    """The same for every text, so that labels and lines sit level."""
    return int(font.getbbox("Ag")[3]) + 4


def _tag_size(text: str, font: Font) -> tuple[int, int]:
    """Width and height of a label with its margin."""
    return _text_width(text, font) + 6, _line_height(font)


def _shorten(text: str, font: Font, room: int) -> str:
    """The text cut to a width, with three dots where something is gone."""
    if _text_width(text, font) <= room:
        return text
    fits = bisect_right(range(1, len(text) + 1), room, key=lambda length: _text_width(text[:length] + "...", font))
    return text[:fits].rstrip() + "..."


def _wrap(text: str, font: Font, room: int, *, limit: int) -> list[str]:
    """The text as lines of at most `room` pixels, the last of `limit` shortened; no line for no text."""
    lines: list[str] = []
    words = _plain(text).split()
    while words and len(lines) < limit - 1:
        line = words.pop(0)
        while words and _text_width(f"{line} {words[0]}", font) <= room:
            line += f" {words.pop(0)}"
        lines.append(_shorten(line, font, room))
    return [*lines, _shorten(" ".join(words), font, room)] if words else lines
