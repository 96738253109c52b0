"""Drawn food packages on which the nutrition table is to be found: pictures with exact boxes, no download.

A package is cut to its shape and printed flat here (`package_art` has the tables, `package_decoys` the rest), then
photographed (`package_photo`). Boxes are the tight hulls of the tables' corners after all geometry. Torch-free.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw
from tqdm import tqdm

from boxtune.boxes import Boxes, clip_xyxy
from boxtune.errors import DataError
from boxtune.tiny.package_art import (
    BLACK,
    LANGUAGES,
    TABLE_STYLES,
    WHITE,
    Rect,
    Rgb,
    Sheet,
    TableStyle,
    any_colour,
    blend,
    draw_table,
    pick,
)
from boxtune.tiny.package_decoys import fill_face
from boxtune.tiny.package_photo import grain, hulls_of, photograph, place

LABEL = "nutrition-table"
NUM_TABLES_SHARES = (0.25, 0.60, 0.15)
"""The shares of pictures with no table, with one and with two."""
ANNOTATIONS = "_annotations.coco.json"
DRAWING = 2
"""Counts up with every change to what a seed draws, so that a folder of older pictures is not taken for a new one."""
MAX_PER_SPLIT = 500_000
"""Seeds reserved for each split of a data set."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A blank package: its picture, the mask that cuts it out, and the rectangle that can be printed on."""

    image: Image.Image
    mask: Image.Image
    safe: Rect


def _paint(rng: np.random.Generator, size_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Image.Image:
    """The ground of a package: plain, a gradient, stripes, dots, a band, waves or a large disc."""
    width, height = size_wh
    image = Image.new("RGB", size_wh, base)
    draw = ImageDraw.Draw(image)
    near = blend(base, accent, rng.uniform(0.1, 0.4))
    kind, step = int(rng.integers(9)), int(rng.integers(8, 40))
    if kind == 1:
        ramp = Image.linear_gradient("L").resize(size_wh)
        image.paste(near, (0, 0), ramp if rng.random() < 0.5 else ImageChops.invert(ramp))
    elif kind == 2:
        for x in range(0, width, step):
            draw.rectangle((x, 0, x + step // 2, height), fill=blend(base, near, 0.6))
    elif kind == 3:
        for y in range(0, height, step):
            for x in range(y // step % 2 * step // 2, width, step):
                draw.ellipse((x, y, x + step // 3, y + step // 3), fill=near)
    elif kind == 4:
        top = height * rng.uniform(0, 0.7)
        lean = height * rng.uniform(-0.3, 0.3)
        thick = height * rng.uniform(0.15, 0.4)
        draw.polygon([(0, top), (width, top + lean), (width, top + lean + thick), (0, top + thick)], fill=accent)
    elif kind == 5:
        for y in range(0, height, 2 * step):
            wave = [(x, y + step * 0.4 * math.sin(x / step)) for x in range(0, width + 8, 8)]
            draw.line(wave, fill=near, width=max(2, step // 4))
    elif kind == 6:
        radius, cx, cy = max(size_wh) * rng.uniform(0.3, 0.7), width * rng.random(), height * rng.random()
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=near)
    elif kind == 7:
        at = int(height * rng.uniform(0.2, 0.8))
        draw.rectangle((0, at, width, height), fill=blend(accent, base, 0.2))
    return image


def _shade(image: Image.Image, profile: Float[np.ndarray, " n"]) -> None:
    """Lights the picture in place by a row of grey levels, 0..255 from left to right: a cylinder, a fold."""
    row = Image.fromarray(profile.clip(0, 255).astype(np.uint8)[None, :]).resize(image.size, Image.Resampling.BILINEAR)
    image.paste(ImageChops.multiply(image, Image.merge("RGB", [row] * 3)))


def _crumple(rng: np.random.Generator, image: Image.Image, strength: float) -> None:
    """Soft creases in place, as in foil; `strength` in 0..1."""
    creases = Image.blend(Image.new("L", image.size, 128), grain(rng, (7, 9), image.size), strength)
    image.paste(ImageChops.overlay(image, Image.merge("RGB", [creases] * 3)))


def _cylinder(rng: np.random.Generator, depth: float) -> Float[np.ndarray, " n"]:
    """Grey levels across a round body: bright off the middle, dark at both sides."""
    across = np.linspace(-1, 1, 32)
    return np.asarray(255 * (1 - depth * np.abs(across - rng.uniform(-0.3, 0.3)) ** 2.5))


def _make_box(rng: np.random.Generator, need_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Body:
    """A carton: a face, a darker side on one edge, sometimes a lid on top."""
    margin, side = int(rng.integers(6, 16)), int(need_wh[0] * rng.uniform(0.0, 0.16))
    top = int(need_wh[1] * rng.uniform(0.04, 0.12)) if rng.random() < 0.4 else 0
    width, height = need_wh[0] + 2 * margin + side, need_wh[1] + 2 * margin + top
    image = _paint(rng, (width, height), base, accent)
    draw = ImageDraw.Draw(image)
    left = side if rng.random() < 0.5 else 0
    strip = (0, 0, side, height) if left else (width - side, 0, width, height)
    draw.rectangle(strip, fill=blend(base, BLACK, rng.uniform(0.25, 0.5)))
    if top:
        draw.rectangle((0, 0, width, top), fill=blend(base, WHITE, 0.35))
        draw.line((0, top, width, top), fill=blend(base, BLACK, 0.3))
    face = (left + margin, top + margin, left + margin + need_wh[0], top + margin + need_wh[1])
    return Body(image=image, mask=Image.new("L", image.size, 255), safe=face)


def _make_pouch(rng: np.random.Generator, need_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Body:
    """A bag with rounded sides and a ribbed seal at the top and the bottom, slightly creased."""
    margin, seal = int(rng.integers(12, 24)), int(rng.integers(14, 28))
    width, height = need_wh[0] + 2 * margin, need_wh[1] + 2 * seal + 12
    image = _paint(rng, (width, height), base, accent)
    draw = ImageDraw.Draw(image)
    for y in (*range(0, seal, 4), *range(height - seal, height, 4)):
        draw.line((0, y, width, y), fill=blend(base, BLACK, 0.25))
    mask = Image.new("L", image.size, 0)
    pen, bulge = ImageDraw.Draw(mask), int(rng.integers(0, 9))
    pen.rounded_rectangle((0, seal // 2, width - 1, height - seal // 2), radius=margin, fill=255)
    for y in (0, height - seal):
        pen.rectangle((bulge, y, width - 1 - bulge, y + seal), fill=255)
    for x in range(bulge, width - bulge, 8):
        pen.polygon([(x, -1), (x + 4, 4), (x + 8, -1)], fill=0)
        pen.polygon([(x, height), (x + 4, height - 5), (x + 8, height)], fill=0)
    _crumple(rng, image, rng.uniform(0.15, 0.4))
    return Body(image=image, mask=mask, safe=(margin, seal + 6, margin + need_wh[0], seal + 6 + need_wh[1]))


def _make_bottle(rng: np.random.Generator, need_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Body:
    """A bottle or jar with a label round its middle."""
    width = int(need_wh[0] / 0.84)
    above, below = int(need_wh[1] * rng.uniform(0.2, 0.5)) + 30, int(need_wh[1] * rng.uniform(0.05, 0.25)) + 14
    height = need_wh[1] + 16 + above + below
    glass = any_colour(rng, (0.1, 0.8), (0.25, 0.9))
    image = Image.new("RGB", (width, height), glass)
    image.paste(_paint(rng, (width, need_wh[1] + 16), base, accent), (0, above))
    draw = ImageDraw.Draw(image)
    cap, neck = above // 3, int(width * rng.uniform(0.15, 0.3))
    draw.rectangle((0, 0, width, cap), fill=accent)
    for y in (above, above + need_wh[1] + 15):
        draw.line((0, y, width, y), fill=blend(base, WHITE, 0.6), width=2)
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    shoulder = cap + (above - cap) // 2
    pen.rectangle((neck, 0, width - 1 - neck, above), fill=255)
    pen.polygon([(neck, shoulder), (width - neck, shoulder), (width, above), (0, above)], fill=255)
    pen.rectangle((0, above, width, height - 12), fill=255)
    pen.rounded_rectangle((0, above, width - 1, height - 1), radius=12, fill=255)
    _shade(image, _cylinder(rng, 0.55))
    left = (width - need_wh[0]) // 2
    return Body(image=image, mask=mask, safe=(left, above + 8, left + need_wh[0], above + 8 + need_wh[1]))


def _make_can(rng: np.random.Generator, need_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Body:
    """A can: metal rims, and the light of a cylinder."""
    width, rim = int(need_wh[0] / 0.82), int(rng.integers(12, 26))
    height = need_wh[1] + 2 * rim + 16
    image = Image.new("RGB", (width, height), (196, 198, 202))
    image.paste(_paint(rng, (width, need_wh[1] + 16), base, accent), (0, rim))
    draw = ImageDraw.Draw(image)
    for y in (rim // 2, rim - 2, height - rim + 1, height - rim // 2):
        draw.line((0, y, width, y), fill=(120, 122, 128), width=2)
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), radius=rim, fill=255)
    _shade(image, _cylinder(rng, 0.6))
    left = (width - need_wh[0]) // 2
    return Body(image=image, mask=mask, safe=(left, rim + 8, left + need_wh[0], rim + 8 + need_wh[1]))


def _make_bar(rng: np.random.Generator, need_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Body:
    """The wrapper of a bar: serrated, ribbed ends left and right, foil."""
    end, margin = int(rng.integers(18, 34)), int(rng.integers(6, 12))
    width, height = need_wh[0] + 2 * end + 8, need_wh[1] + 2 * margin
    image = _paint(rng, (width, height), base, accent)
    draw = ImageDraw.Draw(image)
    for x in (*range(0, end, 4), *range(width - end, width, 4)):
        draw.line((x, 0, x, height), fill=blend(base, WHITE, 0.4))
    mask = Image.new("L", image.size, 255)
    pen = ImageDraw.Draw(mask)
    for y in range(0, height, 8):
        pen.polygon([(-1, y), (5, y + 4), (-1, y + 8)], fill=0)
        pen.polygon([(width, y), (width - 6, y + 4), (width, y + 8)], fill=0)
    _crumple(rng, image, rng.uniform(0.2, 0.45))
    return Body(image=image, mask=mask, safe=(end + 4, margin, end + 4 + need_wh[0], margin + need_wh[1]))


def _make_lid(rng: np.random.Generator, need_wh: tuple[int, int], base: Rgb, accent: Rgb) -> Body:
    """The lid of a cup: a disc with a rim and a tab to pull."""
    side = int(math.hypot(*need_wh)) + 24
    tab = side // 12
    image = _paint(rng, (side + tab, side), base, accent)
    mask = Image.new("L", image.size, 0)
    pen = ImageDraw.Draw(mask)
    pen.ellipse((0, 0, side - 1, side - 1), fill=255)
    pen.rounded_rectangle((side - 3 * tab, side // 2 - tab, side + tab - 1, side // 2 + tab), radius=tab, fill=255)
    draw = ImageDraw.Draw(image)
    draw.ellipse((2, 2, side - 3, side - 3), outline=blend(base, WHITE, 0.6), width=5)
    draw.ellipse((8, 8, side - 9, side - 9), outline=blend(base, BLACK, 0.3), width=1)
    _crumple(rng, image, rng.uniform(0.1, 0.3))
    left, top = (side - need_wh[0]) // 2, (side - need_wh[1]) // 2
    return Body(image=image, mask=mask, safe=(left, top, left + need_wh[0], top + need_wh[1]))


Maker = Callable[[np.random.Generator, tuple[int, int], Rgb, Rgb], Body]
# The shape, and the least and greatest width over height of what is printed on it.
MAKERS: tuple[tuple[Maker, float, float], ...] = (
    (_make_box, 0.6, 1.5),
    (_make_box, 0.6, 1.5),
    (_make_pouch, 0.55, 1.1),
    (_make_bottle, 0.5, 0.9),
    (_make_can, 0.5, 1.0),
    (_make_bar, 1.7, 3.0),
    (_make_lid, 0.8, 1.25),
)


def _plan_tables(
    rng: np.random.Generator, num: int, aspect: float, side: int
) -> tuple[TableStyle, list[Rect], tuple[int, int]]:
    """A style, a rectangle for each table with the hull's corner at 0, 0, and the width and height of that hull."""
    style: TableStyle = pick(rng, TABLE_STYLES if aspect < 1.5 else TABLE_STYLES[2:])
    shape = rng.uniform(0.46, 0.8) if style == "us" else rng.uniform(0.7, 1.6) * (1.2 if aspect > 1.5 else 1.0)
    longer = side * math.exp(rng.uniform(math.log(0.2), math.log(0.56 if num == 1 else 0.36)))
    width, height = (longer, longer / shape) if shape > 1 else (longer * shape, longer)
    shortest = 0.12 * side
    width, height = int(max(width, shortest)), int(max(height, shortest))
    if num == 0:
        return style, [], (int(side * 0.3), int(side * 0.3))
    if num == 1:
        return style, [(0, 0, width, height)], (width, height)
    gap = int(rng.integers(5, 30))
    if aspect > 1 or (aspect > 0.7 and width < height):
        return style, [(0, 0, width, height), (width + gap, 0, 2 * width + gap, height)], (2 * width + gap, height)
    return style, [(0, 0, width, height), (0, height + gap, width, 2 * height + gap)], (width, 2 * height + gap)


def draw_package(seed: int, *, size: int = 448) -> tuple[Image.Image, Boxes]:
    """One picture of a food package and the boxes of its nutrition tables: none, one or two.

    The sides are 0.8 to 1.16 times `size` pixels, each on its own. Boxes are the tight hulls of the tables' corners,
    clipped to the picture, in its pixels, rounded to 1/100 px. The same seed and size give the same picture wherever
    Pillow and numpy are the same. Raises ValueError for a negative seed or a size below 160, where rows of a table
    can no longer be seen.
    """
    if size < 160:
        raise ValueError(f"size {size}: below 160 pixels the rows of a table cannot be seen")
    rng = np.random.default_rng(seed)
    size_wh = (round(size * rng.uniform(0.8, 1.16)), round(size * rng.uniform(0.8, 1.16)))
    num = int(np.searchsorted(np.cumsum(NUM_TABLES_SHARES[:2]), rng.random(), side="right"))
    make, low, high = pick(rng, MAKERS)
    aspect = rng.uniform(low, high)
    style, tables, hull_wh = _plan_tables(rng, num, aspect, min(size_wh))
    # The face fills 0.6 to 1.1 of the picture, and is never smaller than what its tables need.
    reach = rng.uniform(0.6, 1.1)
    height = min(size_wh[1], size_wh[0] / aspect) * reach
    face_wh = (max(int(height * aspect), hull_wh[0] + 4), max(int(height), hull_wh[1] + 4))
    base = any_colour(rng) if rng.random() < 0.65 else blend(any_colour(rng), WHITE, rng.uniform(0.6, 0.95))
    accent = any_colour(rng)
    body = make(rng, face_wh, base, accent)
    sheet = Sheet(
        image=body.image,
        draw=ImageDraw.Draw(body.image),
        rng=rng,
        language=pick(rng, LANGUAGES),
        base=base,
        accent=accent,
    )
    spare = (face_wh[0] - hull_wh[0], face_wh[1] - hull_wh[1])
    # Tables keep to a corner or an edge more often than not.
    dx, dy = (int(room * pick(rng, (0.0, 0.0, 1.0, 1.0, rng.random()))) for room in spare)
    dx, dy = dx + body.safe[0], dy + body.safe[1]
    tables = [(x1 + dx, y1 + dy, x2 + dx, y2 + dy) for x1, y1, x2, y2 in tables]
    fill_face(sheet, body.safe, tables)
    for i, table in enumerate(tables):
        # A second table often says the same in another language.
        words = sheet.language if i == 0 or rng.random() < 0.4 else pick(rng, LANGUAGES)
        draw_table(replace(sheet, language=words), table, style)
    matrix = place(rng, body.image.size, tables, size_wh)
    image = photograph(rng, body.image, body.mask, matrix, size_wh)
    xyxy = clip_xyxy(hulls_of(matrix, tables), size_wh).round(2)
    return image, Boxes(xyxy_px=xyxy, labels=(LABEL,) * len(xyxy))


def _write_split(folder: Path, seeds: range, description: str) -> None:
    """The pictures of these seeds and their `_annotations.coco.json` in a new folder."""
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    drawn = tqdm(seeds, unit="image", desc=f"drawing {folder.name}", dynamic_ncols=True)
    for image_id, seed in enumerate(drawn, start=1):
        image, boxes = draw_package(seed)
        name = f"package_{image_id:05d}.jpg"
        image.save(folder / name, quality=88)
        images.append({"id": image_id, "file_name": name, "width": image.width, "height": image.height})
        for row in boxes.to_coco(image_id, {LABEL: 1}):
            del row["score"]
            row["bbox"] = [round(value, 2) for value in row["bbox"]]
            area = round(row["bbox"][2] * row["bbox"][3], 2)
            annotations.append({"id": len(annotations) + 1, **row, "area": area, "iscrowd": 0, "segmentation": []})
    content = {
        "info": {"description": description, "version": str(DRAWING)},
        "licenses": [],
        "categories": [{"id": 1, "name": LABEL}],
        "images": images,
        "annotations": annotations,
    }
    (folder / ANNOTATIONS).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _require_same(folder: Path, description: str) -> None:
    """Raises DataError unless both splits of the folder were written by the call that `description` tells of."""
    for split in ("train", "valid"):
        path = folder / split / ANNOTATIONS
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["info"]["description"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                "the folder holds something else than drawn packages",
                where=str(path),
                fix="name a folder that does not exist yet, or delete this one",
            ) from error
        if found != description:
            raise DataError(
                f"the folder holds other pictures: {found!r}, wanted: {description!r}",
                where=str(path),
                fix="name another folder, or delete this one to have it drawn anew",
            )


def write_packages(folder: Path, *, num_train: int = 200, num_valid: int = 100, seed: int = 0) -> Path:
    """The folder, made absolute, with drawn packages as COCO.

    `train/` and `valid/` hold JPEGs and `_annotations.coco.json`; boxes are in pixels, rounded to 1/100. Everything
    is drawn into a sibling folder that is renamed at the end, so that a killed run leaves nothing that looks
    complete. A complete folder of the same numbers and seed is left as it is. The seeds of the splits, and of calls
    with different `seed`, are disjoint. Raises DataError for a folder with anything else in it, for numbers that are
    not in 1 to 500000, and for a negative seed.
    """
    if not (1 <= num_train <= MAX_PER_SPLIT and 1 <= num_valid <= MAX_PER_SPLIT and seed >= 0):
        raise DataError(
            f"cannot draw {num_train} packages for training and {num_valid} for validation with seed {seed}",
            fix=f"give numbers from 1 to {MAX_PER_SPLIT} and a seed of 0 or more",
        )
    folder = Path(folder).resolve()
    description = f"boxtune packages, drawing {DRAWING}: {num_train} train, {num_valid} valid, seed {seed}"
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if folder.exists():
        _require_same(folder, description)
        return folder
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    first = 2 * MAX_PER_SPLIT * seed
    try:
        _write_split(partial / "train", range(first, first + num_train), description)
        first += MAX_PER_SPLIT
        _write_split(partial / "valid", range(first, first + num_valid), description)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder
