"""Sprites of what is printed or soldered: text, grids, forms, charts, codes, stamps and circuit boards.

Drawn with Pillow and its own font at twice the size, cut to their ink, and shrunk. Their field is the whole rectangle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from boxtune.tiny.scene_outlines import box_sdf
from boxtune.tiny.scene_sprites import FIELD_SIDE, Sprite

SIDE = 192
INNER = 166
"""SIDE over the reach of a sprite's frame."""
_SYLLABLES = (
    "ta re mi no la con de pro ver sal in est or tri an ge per lo fi ma ru ken bo ster al un sa vi te ce".split()
)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What is being drawn: the share of the second colour, of the third, and the light, each 0..255."""

    second: Image.Image
    third: Image.Image
    light: Image.Image
    rng: np.random.Generator

    @property
    def ink(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.second)

    @property
    def tint(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.third)


def _paper(rng: np.random.Generator, width: int | float, height: int | float) -> Paper:
    size = (int(width), int(height))
    return Paper(
        second=Image.new("L", size, 0), third=Image.new("L", size, 0), light=Image.new("L", size, 128), rng=rng
    )


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _written(rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words of made-up languages, and numbers in several forms."""
    syllables = rng.integers(len(_SYLLABLES), size=(500, 4))
    lengths, upper = rng.integers(1, 5, 500), rng.random(500) < 0.2
    words = ["".join(_SYLLABLES[i] for i in row[:n]) for row, n in zip(syllables, lengths, strict=True)]
    numbers = [
        *(str(int(10**power)) for power in rng.uniform(0, 5, 100)),
        *(f"{value:.2f}" for value in rng.uniform(0, 100, 100)),
        *(f"{value:.1f}" for value in rng.uniform(0, 1000, 100)),
        *(f"{value:,}" for value in rng.integers(1000, 99999, 100)),
        *(f"{value}{unit}" for unit in ("%", " g") for value in rng.integers(1, 100, 25)),
        *(["-"] * 25),
        *(f"({value})" for value in rng.integers(1, 999, 25)),
    ]
    return tuple(w.capitalize() if u else w for w, u in zip(words, upper, strict=True)), tuple(numbers)


_WORDS, _NUMBERS = _written(np.random.default_rng(0))


def _row(rng: np.random.Generator, size: int, width: int | float) -> str:
    """Words that fill about that width."""
    font, line = _font(size), _WORDS[rng.integers(len(_WORDS))]
    while font.getlength(line) < width:
        line += " " + _WORDS[rng.integers(len(_WORDS))]
    return line


def _finish(kind: str, paper: Paper, *, cut: bool = True, corner: float = 0.0) -> Sprite:
    size = paper.second.size
    box = (0, 0, *size)
    if cut:
        both = Image.fromarray(np.maximum(np.asarray(paper.second), np.asarray(paper.third)))
        box = both.point(lambda v: 255 * (v > 40)).getbbox() or box
    planes = []
    for plane in (paper.second, paper.third, paper.light):
        inner = plane.crop(box).resize((INNER, INNER), Image.Resampling.BOX)
        pad = (SIDE - INNER) // 2
        planes.append(np.pad(np.asarray(inner, dtype=np.float32) / 255, pad, mode="edge"))
    planes[0] = np.minimum(planes[0] * 1.3, 1)
    return Sprite(
        kind=kind,
        aspect=(box[2] - box[0]) / (box[3] - box[1]),
        field=box_sdf(FIELD_SIDE, corner=corner),
        second=planes[0],
        third=planes[1],
        light=planes[2],
    )


def _paragraph(rng: np.random.Generator) -> Sprite:
    size, lines = int(rng.integers(8, 18)), int(rng.integers(2, 21))
    width, step = int(rng.integers(240, 460)), int(size * rng.uniform(1.1, 1.6))
    paper, ragged = _paper(rng, width, step * lines + 4), rng.random() < 0.5
    for i in range(lines):
        room = width * (rng.uniform(0.8, 1) if ragged else 1.0) * (rng.uniform(0.2, 0.9) if i == lines - 1 else 1.0)
        if i == 0:
            room = width
        paper.ink.text((0, i * step), _row(rng, size, room), font=_font(size), fill=255)
        paper.ink.rectangle((room, i * step, width, (i + 1) * step), fill=0)
    return _finish("paragraph", paper)


def _title(rng: np.random.Generator) -> Sprite:
    size, lines = int(rng.integers(30, 60)), int(rng.choice([1, 1, 2]))
    paper = _paper(rng, int(rng.integers(200, 500)), size * 1.25 * lines + 8)
    upper = rng.random() < 0.4
    for i in range(lines):
        text = _row(rng, size, paper.second.width * rng.uniform(0.3, 0.8))
        text = text.upper() if upper else text.capitalize()
        middle = rng.random() < 0.5
        at = ((paper.second.width - _font(size).getlength(text)) / 2 if middle else 2, i * size * 1.2)
        paper.ink.text(at, text, font=_font(size), fill=255, stroke_width=int(rng.integers(0, 3)), stroke_fill=255)
    return _finish("title", paper)


def _text_line(rng: np.random.Generator) -> Sprite:
    size = int(rng.integers(28, 48))
    text = " ".join(
        _WORDS[rng.integers(len(_WORDS))] if rng.random() < 0.8 else _NUMBERS[rng.integers(len(_NUMBERS))]
        for _ in range(int(rng.integers(2, 6)))
    )
    paper = _paper(rng, _font(size).getlength(text) + 4, size * 1.5)
    paper.ink.text((1, 1), text, font=_font(size), fill=255)
    return _finish("text line", paper)


def _grid(rng: np.random.Generator) -> Sprite:
    rows, columns = int(rng.integers(3, 27)), int(rng.choice([2, 2, 3, 3, 4, 5, 6, 7, 9]))
    step = int(rng.integers(14, 30))
    first, size = rng.uniform(1.0, 3.0), int(step * rng.uniform(0.55, 0.85))
    weights = np.array([first, *rng.uniform(0.8, 1.2, columns - 1)])
    width = int(min(560, max(160, columns * rng.uniform(2.4, 4.5) * step)))
    edges = np.concatenate([[0], np.cumsum(weights / weights.sum())]) * (width - 3) + 1
    top = int(step * rng.uniform(1.0, 1.8)) if rng.random() < 0.7 else step
    tops = np.concatenate([[0], top + np.arange(rows) * step]).astype(int) + 1
    paper = _paper(rng, width, int(tops[-1]) + 3)
    ink, tint, font = paper.ink, paper.tint, _font(size)
    style = str(rng.choice(["full", "full", "rows", "ends", "none", "none", "box", "columns"]))
    thick, filled, bands = int(rng.integers(1, 4)), rng.random() < 0.3, rng.random() < 0.25
    end = int(tops[-1])
    if filled:
        tint.rectangle((0, 0, width, tops[1]), fill=255)
    for i in range(2, rows, 2):
        if bands:
            tint.rectangle((0, tops[i], width, tops[i + 1]), fill=90)
    sparse, spread = rng.uniform(0, 0.3), bool(rng.random() < 0.3)
    for r in range(rows):
        ruled = r == 0 or style in ("full", "rows", "box")
        for c in range(columns):
            if r and c and rng.random() < sparse:
                continue
            words = c == 0 or r == 0 or (spread and c == columns - 1)
            text = (
                (
                    _WORDS[rng.integers(len(_WORDS))]
                    + (" " + _WORDS[rng.integers(len(_WORDS))] if c == 0 and first > 1.8 else "")
                )
                if words
                else _NUMBERS[rng.integers(len(_NUMBERS))]
            )
            room = edges[c + 1] - edges[c] - 4
            while len(text) > 1 and font.getlength(text) > room:
                text = text[:-1]
            pad = 4 if ruled or style in ("full", "columns") else 0
            right = c > 0 and r > 0 and not words
            x = edges[c + 1] - font.getlength(text) - pad if right else edges[c] + pad
            if filled and r == 0:
                tint.text((x, tops[r] + 1), text, font=font, fill=0)
            else:
                ink.text(
                    (x, tops[r] + (step - size) // 3), text, font=font, fill=255, stroke_width=int(r == 0 and thick > 1)
                )
    if style in ("full", "rows"):
        for y in tops:
            ink.line((0, y, width, y), fill=255, width=1)
    if style in ("full", "columns"):
        for x in edges:
            ink.line((x, 0, x, end), fill=255, width=1)
    if style in ("ends", "rows", "columns"):
        for y in (1, tops[1], end):
            ink.line((0, y, width, y), fill=255, width=thick)
    if style in ("full", "box"):
        ink.rectangle((0, 0, width - 1, end + 2), outline=255, width=thick)
        ink.line((0, tops[1], width, tops[1]), fill=255, width=thick)
    return _finish("grid", paper)


def _form(rng: np.random.Generator) -> Sprite:
    rows, step = int(rng.integers(3, 10)), int(rng.integers(26, 44))
    width, split = int(rng.integers(240, 420)), rng.uniform(0.25, 0.5)
    paper = _paper(rng, width, rows * step)
    ink, font, style = paper.ink, _font(step // 2), int(rng.integers(3))
    for r in range(rows):
        y = r * step
        if style == 2 and rng.random() < 0.6:
            ink.rectangle((1, y + 4, step - 10, y + step - 8), outline=255, width=2)
            ink.text((step, y + 3), _row(rng, step // 2, width * 0.3), font=font, fill=255)
            continue
        ink.text((1, y + 4), _WORDS[rng.integers(len(_WORDS))].capitalize() + ":", font=font, fill=255)
        left = width * split if rng.random() < 0.8 else width * 0.7
        if style == 0:
            ink.line((left, y + step - 8, width - 2, y + step - 8), fill=255, width=2)
        else:
            ink.rectangle((left, y + 3, width - 2, y + step - 6), outline=255, width=2)
    return _finish("form", paper)


def _chart(rng: np.random.Generator) -> Sprite:
    width, height = int(rng.integers(220, 400)), int(rng.integers(160, 320))
    paper, num = _paper(rng, width, height), int(rng.integers(4, 12))
    ink, tint, style = paper.ink, paper.tint, int(rng.integers(3))
    base = height - 22
    ink.line((20, 2, 20, base), fill=255, width=2)
    ink.line((20, base, width - 2, base), fill=255, width=2)
    levels = base - rng.uniform(0.1, 0.95, num) * (base - 10)
    xs = np.linspace(30, width - 20, num)
    for y in np.linspace(10, base, 5):
        ink.line((14, y, 20 if style else width, y), fill=110, width=1)
    for i, (x, y) in enumerate(zip(xs, levels, strict=True)):
        ink.text((x - 4, base + 4), str(i + 1), font=_font(12), fill=255)
        if style == 0:
            draw = tint if rng.random() < 0.7 else ink
            draw.rectangle((x - 0.35 * width / num, y, x + 0.25 * width / num, base), fill=255)
        elif style == 2:
            ink.ellipse((x - 4, y - 4, x + 4, y + 4), fill=255)
    if style == 1:
        for draw in (ink, tint):
            draw.line([(x, y) for x, y in zip(xs, rng.permutation(levels), strict=True)], fill=255, width=4)
    return _finish("chart", paper)


def _barcode(rng: np.random.Generator) -> Sprite:
    paper, x, height = _paper(rng, 300, 200), 0, int(rng.integers(100, 180))
    while x < 290:
        bar = int(rng.choice([2, 2, 4, 6]))
        paper.ink.rectangle((x, 0, x + bar - 1, height), fill=255)
        x += bar + int(rng.choice([2, 4, 6]))
    if rng.random() < 0.7:
        paper.ink.text((10, height + 2), " ".join(str(d) for d in rng.integers(0, 10, 13)), font=_font(22), fill=255)
    return _finish("barcode", paper)


def _square_code(rng: np.random.Generator) -> Sprite:
    num = int(rng.integers(17, 30))
    bits = (rng.random((num, num)) < 0.5).astype(np.uint8)
    for r, c in ((0, 0), (0, num - 7), (num - 7, 0)):
        bits[max(0, r - 1) : r + 8, max(0, c - 1) : c + 8] = 0
        bits[r : r + 7, c : c + 7] = 1
        bits[r + 1 : r + 6, c + 1 : c + 6] = 0
        bits[r + 2 : r + 5, c + 2 : c + 5] = 1
    paper = _paper(rng, num * 10, num * 10)
    paper.second.paste(Image.fromarray(bits * 255).resize(paper.second.size, Image.Resampling.NEAREST))
    return _finish("square code", paper, cut=False)


def _stamp(rng: np.random.Generator) -> Sprite:
    round_, width = rng.random() < 0.5, int(rng.integers(200, 340))
    height = width if round_ else int(width * rng.uniform(0.35, 0.6))
    paper, thick = _paper(rng, width, height), int(rng.integers(4, 10))
    for inset in (0, thick * 2) if rng.random() < 0.6 else (0,):
        box = (inset, inset, width - 1 - inset, height - 1 - inset)
        (paper.ink.ellipse if round_ else paper.ink.rectangle)(box, outline=255, width=thick // (1 + (inset > 0)))
    size = int(height * (0.14 if round_ else 0.26))
    for i in range(3 if round_ else 2):
        text = (_WORDS[rng.integers(len(_WORDS))] if rng.random() < 0.7 else str(rng.integers(1900, 2030))).upper()[
            : 8 if round_ else 11
        ]
        paper.ink.text(
            (width / 2, height * (0.3 + 0.2 * i if round_ else 0.33 + 0.34 * i)),
            text,
            font=_font(size),
            fill=255,
            anchor="mm",
        )
    worn = np.asarray(paper.second) * (rng.random((height, width)) < rng.uniform(0.6, 1.0))
    faded = Image.fromarray(worn.astype(np.uint8)).filter(ImageFilter.BoxBlur(1))
    return _finish("stamp", Paper(second=faded, third=paper.third, light=paper.light, rng=rng), cut=False)


def _board(rng: np.random.Generator) -> Sprite:
    """A circuit board: dark chips, metal pins and sockets, traces and white marks."""
    aspect = float(np.exp(rng.uniform(-0.1, 1.2)))
    width, height = 340, int(340 / aspect)
    paper = _paper(rng, width, height)
    ink, tint, glow = paper.ink, paper.tint, ImageDraw.Draw(paper.light)
    for _ in range(int(rng.integers(10, 30))):
        x, y, dx, dy = rng.uniform(0, width), rng.uniform(0, height), rng.normal(0, 60), rng.normal(0, 40)
        glow.line((x, y, x + dx, y, x + dx, y + dy), fill=int(rng.choice([100, 145, 155])), width=2)
    for _ in range(int(rng.integers(10, 50))):
        x, y, w, h = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 18), rng.uniform(4, 12)
        draw = (ink, tint)[int(rng.integers(2))]
        draw.rectangle((x, y, x + w, y + h), fill=int(rng.integers(150, 256)))
        if rng.random() < 0.4:
            glow.rectangle((x + 2, y - 4, x + w + 6, y - 2), fill=230)
    for _ in range(int(rng.integers(1, 6))):
        w, h = rng.uniform(0.1, 0.4) * width, rng.uniform(0.15, 0.45) * height
        x, y = rng.uniform(0.05, 0.95) * width - w / 2, rng.uniform(0.1, 0.9) * height - h / 2
        big = (tint if rng.random() < 0.4 else ink), (ink if rng.random() < 0.5 else tint)
        for at in np.arange(x, x + w, 10):
            tint.rectangle((at, y - 5, at + 4, y + h + 5), fill=220)
        big[1].rectangle((x, y, x + w, y + h), fill=0)
        big[0].rectangle((x, y, x + w, y + h), fill=255)
        glow.rectangle((x, y, x + w, y + h), fill=int(rng.integers(100, 170)))
        glow.text((x + 5, y + 5), _WORDS[rng.integers(len(_WORDS))].upper(), font=_font(14), fill=200)
    sides = rng.random(4) < [0.6, 0.6, 0.2, 0.2]
    pitch, pin = int(rng.integers(11, 18)), int(rng.integers(5, 9))
    for i in range(6, max(width, height) - pin, pitch):
        spots = [(i, 4), (i, height - 4 - pin), (4, i), (width - 4 - pin, i)]
        for (x, y), used in zip(spots, sides, strict=True):
            if used and x < width and y < height:
                tint.rectangle((x, y, x + pin, y + pin), fill=255)
                glow.rectangle((x, y, x + pin, y + pin), fill=150)
    for _ in range(int(rng.integers(0, 4))):
        s, y = rng.uniform(0.15, 0.3) * min(width, height), rng.uniform(0.1, 0.7) * height
        x = 0 if rng.random() < 0.5 else width - s
        ink.rectangle((x, y, x + s, y + s), fill=0)
        tint.rectangle((x, y, x + s, y + s), fill=255)
        glow.rectangle((x, y, x + s, y + s), fill=int(rng.integers(120, 190)))
    return _finish("board", paper, cut=False, corner=float(rng.choice([0.0, 0.05, 0.12])))


_PRINTED: dict[str, tuple[Callable[[np.random.Generator], Sprite], int]] = {
    "paragraph": (_paragraph, 28),
    "title": (_title, 16),
    "text line": (_text_line, 16),
    "grid": (_grid, 88),
    "form": (_form, 16),
    "chart": (_chart, 16),
    "barcode": (_barcode, 8),
    "square code": (_square_code, 6),
    "stamp": (_stamp, 10),
    "board": (_board, 128),
}
"""By kind: what draws it, and how many."""
KINDS_PRINTED = frozenset(_PRINTED)


def draw_printed(rng: np.random.Generator) -> Iterator[Sprite]:
    """Every printed sprite and every board, kind by kind."""
    for draw, num in _PRINTED.values():
        for _ in range(num):
            yield draw(rng)
