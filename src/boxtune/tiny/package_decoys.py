"""What is printed around the nutrition table: brand, picture, and blocks that resemble a table but are none.

A block is drawn into a free rectangle of the sheet. `fill_face` cuts all room that the tables leave into such
rectangles, so that blocks stand in columns as on a real package and never cover a table.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from boxtune.tiny.package_art import (
    BLACK,
    CLAIMS,
    ENDINGS,
    SYLLABLES,
    WHITE,
    Rect,
    Sheet,
    any_colour,
    blend,
    fitting_size,
    ink_on,
    paper_for,
    pick,
    text_width,
    write,
)

Block = Callable[[Sheet, Rect], None]


def draw_brand(sheet: Sheet, rect: Rect) -> None:
    """An invented name, on a band, in an oval or bare, with a claim below where there is room."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    name = pick(rng, SYLLABLES) + pick(rng, ENDINGS)
    name = name.upper() if rng.random() < 0.4 else name
    width, height = x2 - x1, y2 - y1
    low = y1 + min(height, int(width * 0.5))
    paper, roll = sheet.base, rng.random()
    if roll < 0.55:
        paper = sheet.accent
        if roll < 0.25:
            draw.ellipse((x1, y1, x2 - 1, low - 1), fill=paper, outline=ink_on(paper))
        else:
            draw.rounded_rectangle((x1, y1, x2 - 1, low - 1), radius=int(height * rng.uniform(0, 0.3)), fill=paper)
    ink = ink_on(paper) if rng.random() < 0.6 else blend(ink_on(paper), any_colour(rng), 0.4)
    size = fitting_size(name, width * 0.8, (low - y1) * 0.62)
    write(draw, (x1 + x2) / 2, (y1 + low) / 2, name, size, ink, side="m", bold=True)
    if height - (low - y1) > 12:
        claim = pick(rng, CLAIMS)
        size = fitting_size(claim, width * 0.7, min(height - (low - y1), 34) * 0.8)
        write(draw, (x1 + x2) / 2, low + size * 0.7, claim, size, ink_on(sheet.base), side="m")


def draw_picture(sheet: Sheet, rect: Rect) -> None:
    """The food itself: a plate, a heap or a slice, made of blobs."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    width, height = x2 - x1, y2 - y1
    radius = min(width, height) / 2
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    if rng.random() < 0.5:
        plate = blend(any_colour(rng, (0.0, 0.4), (0.8, 1.0)), WHITE, 0.5)
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=plate, outline=blend(plate, BLACK, 0.3))
        draw.ellipse(
            (cx - radius * 0.8, cy - radius * 0.8, cx + radius * 0.8, cy + radius * 0.8), fill=blend(plate, BLACK, 0.08)
        )
        width, height = int(radius * 1.2), int(radius * 1.2)
    flesh = any_colour(rng, (0.4, 0.9), (0.5, 0.95))
    for _ in range(int(rng.integers(5, 14))):
        bx, by = cx + rng.normal(0, 0.2) * width, cy + rng.normal(0, 0.2) * height
        big = radius * rng.uniform(0.15, 0.4)
        colour = blend(flesh, any_colour(rng), rng.uniform(0, 0.35))
        box = [
            min(max(bx - big, x1), x2 - 2), min(max(by - big, y1), y2 - 2),
            max(min(bx + big, x2 - 1), x1 + 1), max(min(by + big, y2 - 1), y1 + 1),
        ]  # fmt: skip
        box[2], box[3] = max(box[2], box[0] + 1), max(box[3], box[1] + 1)
        draw.ellipse(box, fill=colour)
        third = (box[2] - box[0]) / 3
        draw.ellipse(
            (box[0] + third * 0.6, box[1] + third * 0.4, box[0] + third * 1.4, box[1] + third),
            fill=blend(colour, WHITE, 0.4),
        )


def draw_prose(sheet: Sheet, rect: Rect) -> None:
    """A paragraph of ingredients; often boxed or tinted, so that a frame alone does not make a table."""
    draw, rng, words = sheet.draw, sheet.rng, sheet.language
    x1, y1, x2, y2 = rect
    size = int(rng.integers(6, 9)) + min(4, (x2 - x1) * (y2 - y1) // 12_000)
    pad, ink = 0, ink_on(sheet.base)
    if rng.random() < 0.5:
        paper = paper_for(sheet)
        ink, pad = ink_on(paper), 4
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paper, outline=ink if rng.random() < 0.6 else None)
    elif rng.random() < 0.7:
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=sheet.base)
    tokens = f"{words.ingredients}: {words.prose}".split()
    x, y, space = float(x1 + pad), y1 + pad + size * 0.6, size * 0.28
    # A text is printed once or a few times over; what is left of a large cell stays empty.
    for index in range(len(tokens) * int(rng.integers(1, 4))):
        token = tokens[index % len(tokens)]
        wide = text_width(token, size)
        if x + wide > x2 - pad and x > x1 + pad:
            x, y = float(x1 + pad), y + size * 1.15
        if y + size * 0.5 > y2 - pad:
            break
        if x + wide <= x2 - pad:
            write(draw, x, y, token, size, ink, bold=index == 0)
            x += wide + space


def draw_steps(sheet: Sheet, rect: Rect) -> None:
    """A ruled list of sentences with a title: rows as in a table, but no amounts on the right."""
    draw, rng, words = sheet.draw, sheet.rng, sheet.language
    x1, y1, x2, y2 = rect
    paper = paper_for(sheet)
    ink = ink_on(paper)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paper, outline=ink if rng.random() < 0.5 else None)
    row = int(rng.integers(13, 22))
    write(
        draw, x1 + 4, y1 + row * 0.55, words.stamp, fitting_size(words.stamp, (x2 - x1 - 8) * 0.95, row), ink, bold=True
    )
    tokens, size = words.prose.split(), max(6, int(row * 0.5))
    for i, y in enumerate(range(y1 + row, y2 - row // 2, row)):
        draw.line((x1 + 3, y, x2 - 4, y), fill=blend(ink, paper, 0.4))
        if y + row <= y2:
            line = f"{i + 1}."
            for token in tokens[i * 3 % len(tokens) :]:
                if text_width(f"{line} {token}", size) > x2 - x1 - 10:
                    break
                line = f"{line} {token}"
            write(draw, x1 + 4, y + row * 0.52, line, size, ink)


def draw_barcode(sheet: Sheet, rect: Rect) -> None:
    """Bars with digits below, on white, upright or lying."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    upright = x2 - x1 >= (y2 - y1) * 0.8
    width, height = (x2 - x1, y2 - y1) if upright else (y2 - y1, x2 - x1)
    width, height = min(width, 130), min(height, 70)
    x2, y2 = (x1 + width, y1 + height) if upright else (x1 + height, y1 + width)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=WHITE)
    digits = min(9, height // 4)
    at, end = 5, width - 5
    while at < end:
        thick = min(int(rng.integers(1, 4)), end - at)
        if upright:
            draw.rectangle((x1 + at, y1 + 3, x1 + at + thick - 1, y2 - 3 - digits), fill=BLACK)
        else:
            draw.rectangle((x1 + 3 + digits, y1 + at, x2 - 3, y1 + at + thick - 1), fill=BLACK)
        at += thick + int(rng.integers(1, 4))
    if upright and digits > 5:
        number = str(rng.integers(10**12, 10**13))
        write(
            draw, (x1 + x2) / 2, y2 - digits / 2 - 1, number, fitting_size(number, width - 8, digits), BLACK, side="m"
        )


def draw_grid(sheet: Sheet, rect: Rect) -> None:
    """A calendar, a word search, a crossword or a card of stamps: cells all of one size."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    kind = int(rng.integers(4))
    columns = (7, int(rng.integers(6, 10)), int(rng.integers(6, 10)), int(rng.integers(3, 6)))[kind]
    cell = max(6.0, min((x2 - x1) / columns, 34))
    columns = int((x2 - x1) / cell)
    head = min(16, (y2 - y1) // 5)
    rows = max(1, min(int((y2 - y1 - head) / cell), (6, 9, 9, 4)[kind]))
    paper = paper_for(sheet)
    ink = ink_on(paper)
    line = blend(ink, paper, 0.3)
    x2, y2 = int(x1 + columns * cell), int(y1 + head + rows * cell)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=paper)
    draw.rectangle((x1, y1, x2 - 1, y1 + head), fill=sheet.accent)
    title = ("2025", "Puzzle", "Quiz", "Bonus")[kind]
    write(
        draw, (x1 + x2) / 2, y1 + head / 2, title, max(4, int(head * 0.75)), ink_on(sheet.accent), side="m", bold=True
    )
    size = max(4, int(cell * 0.55))
    letters = [chr(65 + int(code)) for code in rng.integers(0, 26, rows * columns)]
    solid = rng.random(rows * columns)
    for i in range(rows * columns):
        left, top = x1 + i % columns * cell, y1 + head + i // columns * cell
        mx, my = left + cell / 2, top + cell / 2
        if kind == 0 and i < 31:
            write(draw, mx, my, str(i + 1), size, ink, side="m")
        elif kind == 1:
            write(draw, mx, my, letters[i], size, ink, side="m")
        elif kind == 2 and solid[i] < 0.35:
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=ink)
        elif kind == 3:
            third = cell * 0.3
            fill = sheet.accent if solid[i] < 0.5 else None
            draw.ellipse((mx - third, my - third, mx + third, my + third), fill=fill, outline=ink)
    if kind != 1:
        for i in range(columns + 1):
            draw.line((x1 + i * cell, y1 + head, x1 + i * cell, y2 - 1), fill=line)
        for i in range(rows + 1):
            draw.line((x1, y1 + head + i * cell, x2 - 1, y1 + head + i * cell), fill=line)


def draw_badge(sheet: Sheet, rect: Rect) -> None:
    """A round or star-shaped badge with a claim."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    radius = min(x2 - x1, y2 - y1, 110) / 2
    cx, cy, paper = (x1 + x2) / 2, (y1 + y2) / 2, any_colour(rng)
    if rng.random() < 0.5:
        draw.ellipse((cx - radius, cy - radius, cx + radius - 1, cy + radius - 1), fill=paper)
        inner = radius * 0.86
        draw.ellipse((cx - inner, cy - inner, cx + inner, cy + inner), outline=ink_on(paper))
    else:
        num = int(rng.integers(9, 18))
        around = [(radius * (1 if i % 2 else 0.82), math.pi * i / num) for i in range(2 * num)]
        draw.polygon([(cx + far * math.cos(turn), cy + far * math.sin(turn)) for far, turn in around], fill=paper)
    claim = pick(rng, CLAIMS)
    write(draw, cx, cy, claim, fitting_size(claim, radius * 1.4, radius * 0.7), ink_on(paper), side="m", bold=True)


def draw_signs(sheet: Sheet, rect: Rect) -> None:
    """A row of small signs: recycling arrows, a fork and cup, a letter in a ring."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    side = min(x2 - x1, y2 - y1, int(rng.integers(16, 34)))
    ink = ink_on(sheet.base)
    for left in range(x1, x2 - side + 1, side + 5):
        kind, box = int(rng.integers(4)), (left + 1, y1 + 1, left + side - 2, y1 + side - 2)
        if kind == 0:
            corners = [(left + side / 2, y1 + 1), (left + side - 2, y1 + side - 2), (left + 1, y1 + side - 2)]
            for i in range(3):
                (ax, ay), (bx, by) = corners[i], corners[(i + 1) % 3]
                draw.line((ax, ay, ax + (bx - ax) * 0.7, ay + (by - ay) * 0.7), fill=ink, width=max(1, side // 9))
        elif kind == 1:
            draw.ellipse(box, outline=ink, width=max(1, side // 12))
            write(draw, left + side / 2, y1 + side / 2, pick(rng, ("R", "e", "M", "U")), int(side * 0.6), ink, side="m")
        elif kind == 2:
            draw.arc(box, 20, 300, fill=ink, width=max(1, side // 8))
            draw.arc(
                (box[0] + side // 4, box[1] + side // 4, box[2] - side // 4, box[3] - side // 4), 200, 90, fill=ink
            )
        else:
            draw.rounded_rectangle(box, radius=side // 5, fill=any_colour(rng))


def draw_stamp(sheet: Sheet, rect: Rect) -> None:
    """A printed date and lot number."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    date = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.202{rng.integers(5, 9)}"
    lines = (sheet.language.stamp, date, f"L{rng.integers(1000, 99999)} {rng.integers(10, 24)}:{rng.integers(10, 60)}")
    size = max(4, min(12, (y2 - y1) // 4, *(fitting_size(line, x2 - x1, 12) for line in lines)))
    if rng.random() < 0.5:
        draw.rectangle((x1, y1, x2 - 1, min(y2, y1 + size * 4) - 1), fill=WHITE)
        ink = BLACK
    else:
        ink = ink_on(sheet.base)
    for i, line in enumerate(lines):
        write(draw, x1 + 2, y1 + size * (0.8 + 1.15 * i), line, size, ink, bold=bool(i))


def draw_sticker(sheet: Sheet, rect: Rect) -> None:
    """A price sticker: a bright label with one large number."""
    draw, rng = sheet.draw, sheet.rng
    x1, y1, x2, y2 = rect
    x2, y2 = min(x2, x1 + 90), min(y2, y1 + 50)
    paper = pick(rng, ((250, 220, 40), (240, 110, 40), (250, 250, 250), (120, 220, 90)))
    draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=4, fill=paper)
    price = f"{rng.integers(0, 9)}.{rng.integers(10, 99)}"
    ink = pick(rng, (BLACK, (190, 20, 20)))
    write(
        draw,
        (x1 + x2) / 2,
        (y1 + y2) / 2,
        price,
        fitting_size(price, (x2 - x1) * 0.8, (y2 - y1) * 0.7),
        ink,
        side="m",
        bold=True,
    )


# Least width and height in pixels, how often a cell that is large enough gets the block, and how many on one face.
BLOCKS: tuple[tuple[Block, int, int, float, int], ...] = (
    (draw_brand, 50, 24, 1.6, 2),
    (draw_picture, 46, 46, 1.3, 3),
    (draw_prose, 46, 24, 3.0, 6),
    (draw_steps, 60, 50, 1.0, 2),
    (draw_barcode, 34, 34, 1.5, 2),
    (draw_grid, 56, 56, 1.2, 2),
    (draw_badge, 24, 24, 0.8, 3),
    (draw_signs, 18, 16, 0.9, 3),
    (draw_stamp, 44, 16, 0.7, 1),
    (draw_sticker, 34, 18, 0.4, 1),
)


def _cut(sheet: Sheet, rect: Rect, depth: int) -> list[Rect]:
    """The rectangle cut in two again and again, until its parts are the size of one block."""
    x1, y1, x2, y2 = rect
    width, height = x2 - x1, y2 - y1
    if width < 16 or height < 12:
        return []
    longer = max(width, height)
    if depth == 0 or longer < 70 or (longer < 190 and sheet.rng.random() < 0.3):
        return [rect]
    share, gap = sheet.rng.uniform(0.3, 0.7), 6
    if width > height * sheet.rng.uniform(0.6, 1.3):
        at = x1 + int(width * share)
        return _cut(sheet, (x1, y1, at, y2), depth - 1) + _cut(sheet, (at + gap, y1, x2, y2), depth - 1)
    at = y1 + int(height * share)
    return _cut(sheet, (x1, y1, x2, at), depth - 1) + _cut(sheet, (x1, at + gap, x2, y2), depth - 1)


def room_around(safe: Rect, taken: Rect, gap: int, columns_first: bool) -> list[Rect]:
    """The four rectangles that are left of `safe` around `taken`; some may have no area."""
    x1, y1, x2, y2 = safe
    left, top, right, bottom = taken[0] - gap, taken[1] - gap, taken[2] + gap, taken[3] + gap
    if columns_first:
        return [
            (x1, y1, left, y2),
            (right, y1, x2, y2),
            (left + gap, y1, right - gap, top),
            (left + gap, bottom, right - gap, y2),
        ]
    return [
        (x1, y1, x2, top),
        (x1, bottom, x2, y2),
        (x1, top + gap, left, bottom - gap),
        (right, top + gap, x2, bottom - gap),
    ]


def fill_face(sheet: Sheet, safe: Rect, tables: Sequence[Rect]) -> None:
    """Blocks in all the room of `safe` that the tables (all inside one hull) leave; the largest gets the brand."""
    rng = sheet.rng
    room = [safe]
    if tables:
        hull = (
            min(t[0] for t in tables), min(t[1] for t in tables),
            max(t[2] for t in tables), max(t[3] for t in tables),
        )  # fmt: skip
        room = room_around(safe, hull, 7, rng.random() < 0.5)
    cells = [cell for part in room for cell in _cut(sheet, part, 4)]
    cells.sort(key=lambda cell: (cell[0] - cell[2]) * (cell[3] - cell[1]))
    drawn: Counter[Block] = Counter()
    for i, cell in enumerate(cells):
        width, height = cell[2] - cell[0], cell[3] - cell[1]
        fitting = [row for row in BLOCKS if width >= row[1] and height >= row[2] and drawn[row[0]] < row[4]]
        if not fitting or (i > 1 and rng.random() < 0.08):
            continue
        shares = np.cumsum([row[3] for row in fitting])
        block = fitting[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))][0]
        if i == 0 and fitting[0][0] is draw_brand and rng.random() < 0.6:
            block = draw_brand
        drawn[block] += 1
        part = sheet.part(cell)
        block(part, (0, 0, width, height))
        sheet.image.paste(part.image, cell[:2])
