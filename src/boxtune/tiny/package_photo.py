"""A flat package as a photograph: put in perspective, on a background, lit, slightly blurred and noisy.

Frames: the sheet is the flat package in pixels, the picture is what comes out; both x right, y down, origin in the
top-left corner, continuous coordinates. A homography is a 3x3 matrix from sheet to picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from boxtune.tiny.package_art import BLACK, WHITE, Rect, any_colour, blend, pick

MAX_SHARE = 0.6
"""A table is at most this part of the picture's width and of its height."""


def corners_of(rect: Rect) -> Float[np.ndarray, "4 2"]:
    """The corners of a rectangle as x, y, clockwise from the top left."""
    x1, y1, x2, y2 = rect
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], dtype=np.float64)


def homography(source: Float[np.ndarray, "4 2"], target: Float[np.ndarray, "4 2"]) -> Float[np.ndarray, "3 3"]:
    """The matrix that carries four points to four points, its last entry 1."""
    rows = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = np.linalg.solve(np.array(rows), target.reshape(-1))
    return np.append(solved, 1.0).reshape(3, 3)


def hulls_of(matrix: Float[np.ndarray, "3 3"], rects: Sequence[Rect]) -> Float[np.ndarray, "n 4"]:
    """For each rectangle of the sheet x1, y1, x2, y2 of the tight hull of its corners in the picture, unclipped."""
    hulls = np.zeros((len(rects), 4))
    for i, rect in enumerate(rects):
        carried = np.column_stack([corners_of(rect), np.ones(4)]) @ matrix.T
        points = carried[:, :2] / carried[:, 2:]
        hulls[i] = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return hulls


def place(
    rng: np.random.Generator, sheet_wh: tuple[int, int], tables: Sequence[Rect], size_wh: tuple[int, int]
) -> Float[np.ndarray, "3 3"]:
    """A camera: the homography that turns, shears and tilts the sheet, so that the tables lie in the picture.

    The turn is within 12 degrees, in one picture of twelve a quarter turn more. A table is made smaller if it would
    take more than `MAX_SHARE` of a side, and may be cut by the edge by a few per cent of the picture.
    """
    turn = math.radians(float(np.clip(rng.normal(0, 4.5), -12, 12)))
    if rng.random() < 1 / 12:
        turn += pick(rng, (-math.pi / 2, math.pi / 2))
    shear, squeeze = rng.normal(0, 0.03), rng.uniform(0.94, 1.06)
    sheet = corners_of((0, 0, *sheet_wh))
    half = np.array(sheet_wh) / 2
    jitter = rng.normal(0, 0.02, (4, 2)).clip(-0.05, 0.05) * min(sheet_wh)
    cos, sin = math.cos(turn), math.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.array([[squeeze, shear], [0.0, 1.0]])
    target = (sheet - half + jitter) @ linear.T
    size = np.array(size_wh, dtype=np.float64)
    free = rng.uniform(-0.5, 0.5, 2)
    cut = 0.03 * rng.random() * size if rng.random() < 0.1 else -0.015 * size

    def shares(points: Float[np.ndarray, "4 2"]) -> float:
        """By how much the largest table, or all of them together, is too large for the picture."""
        hulls = hulls_of(homography(sheet, points), tables)
        union = (hulls[:, 2:].max(axis=0) - hulls[:, :2].min(axis=0)) / (size * 0.95)
        return float(max(((hulls[:, 2:] - hulls[:, :2]) / (size * MAX_SHARE)).max(), union.max()))

    if tables:
        target = target / max(1.0, shares(target))
    extent = target.max(axis=0) - target.min(axis=0)
    # Packages smaller than the picture stay inside it, larger ones cover it: both by sliding within the difference.
    target = target - (target.max(axis=0) + target.min(axis=0)) / 2 + size / 2 + free * np.abs(size - extent)
    if tables:
        hulls = hulls_of(homography(sheet, target), tables)
        low, high = hulls[:, :2].min(axis=0), hulls[:, 2:].max(axis=0)
        target = target + np.maximum(-cut - low, 0.0) + np.minimum(size + cut - high, 0.0)
    return homography(sheet, target)


def grain(rng: np.random.Generator, cells_wh: tuple[int, int], size_wh: tuple[int, int]) -> Image.Image:
    """Smooth grey noise, 0..255, with about that many bumps across and down."""
    low = rng.integers(0, 256, (cells_wh[1], cells_wh[0]), dtype=np.uint8)
    return Image.fromarray(low).resize(size_wh, Image.Resampling.BICUBIC)


def _as_rgb(grey: Image.Image) -> Image.Image:
    """A grey picture with three equal channels."""
    return Image.merge("RGB", [grey] * 3)


def draw_background(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image.Image:
    """A table of wood or stone, a checked cloth, tiles, a plain surface, or a shelf with other packages.

    Drawn at a third of the size and enlarged: what is behind the package is out of focus.
    """
    width, height = small = (size_wh[0] // 3, size_wh[1] // 3)
    kind = int(rng.integers(7))
    colour = any_colour(rng, (0.05, 0.5), (0.3, 0.95))
    if kind <= 1:  # wood
        wood = pick(rng, ((150, 100, 60), (190, 150, 105), (110, 72, 46), (205, 180, 150), (90, 80, 72)))
        streaks = Image.blend(grain(rng, (4, height // 2), small), grain(rng, (9, height), small), 0.4)
        image = ImageOps.colorize(streaks, blend(wood, BLACK, 0.35), blend(wood, WHITE, 0.25))
        draw = ImageDraw.Draw(image)
        plank = int(rng.integers(24, 70))
        for y in range(int(rng.integers(plank)), height, plank):
            draw.line((0, y, width, y), fill=blend(wood, BLACK, 0.6))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.ROTATE_90)
    elif kind == 2:  # stone
        veins = Image.blend(grain(rng, (5, 5), small), grain(rng, (width // 2, height // 2), small), 0.35)
        image = ImageOps.colorize(veins, blend(colour, BLACK, 0.3), blend(colour, WHITE, 0.5))
    elif kind == 3:  # checked cloth
        image = Image.new("RGB", small, blend(colour, WHITE, 0.75))
        draw, step = ImageDraw.Draw(image, "RGBA"), int(rng.integers(6, 18))
        for x in range(0, width, 2 * step):
            draw.rectangle((x, 0, x + step - 1, height), fill=(*colour, 110))
        for y in range(0, height, 2 * step):
            draw.rectangle((0, y, width, y + step - 1), fill=(*colour, 110))
    elif kind == 4:  # tiles
        image = Image.new("RGB", small, colour)
        draw, step = ImageDraw.Draw(image), int(rng.integers(18, 50))
        for at in range(int(rng.integers(step)), max(small), step):
            draw.line((at, 0, at, height), fill=blend(colour, WHITE, 0.5))
            draw.line((0, at, width, at), fill=blend(colour, WHITE, 0.5))
    elif kind == 5:  # shelf
        image = Image.new("RGB", small, blend(colour, BLACK, 0.6))
        draw = ImageDraw.Draw(image)
        x = -int(rng.integers(10))
        while x < width:
            step, top = int(rng.integers(14, 44)), int(rng.integers(0, height // 3))
            other = any_colour(rng)
            draw.rectangle((x, top, x + step - 2, height), fill=other)
            draw.rectangle((x + 2, top + 6, x + step - 4, top + 6 + step // 2), fill=blend(other, WHITE, 0.6))
            draw.ellipse((x + 3, top + step, x + step - 5, top + 2 * step), fill=any_colour(rng))
            x += step
        floor = int(height * rng.uniform(0.75, 0.95))
        draw.rectangle((0, floor, width, height), fill=blend(colour, WHITE, 0.6))
        for x in range(int(rng.integers(20)), width, 37):
            draw.rectangle((x, floor + 3, x + 16, floor + 11), fill=pick(rng, (WHITE, (250, 220, 40))))
    else:  # plain, with a fold or a seam of light
        image = ImageOps.colorize(grain(rng, (3, 3), small), blend(colour, BLACK, 0.25), blend(colour, WHITE, 0.3))
    return image.resize(size_wh, Image.Resampling.BILINEAR)


def draw_shadow(rng: np.random.Generator, mask: Image.Image) -> Image.Image:
    """Grey 0..255 by which to darken the background: the package's mask, shifted and blurred."""
    small = mask.reduce(6)
    far, turn = rng.uniform(0.5, 3.5), rng.uniform(0, 2 * math.pi)
    moved = small.transform(
        small.size, Image.Transform.AFFINE, (1, 0, -far * math.cos(turn), 0, 1, -far * math.sin(turn))
    )
    depth = rng.uniform(0.35, 0.75)
    dark = moved.filter(ImageFilter.GaussianBlur(rng.uniform(1.0, 2.5))).point(
        [int(255 - v * depth) for v in range(256)]
    )
    return dark.resize(mask.size, Image.Resampling.BILINEAR)


def light(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The picture under uneven light: a tint, a gradient, a vignette, perhaps a shadow's edge or a glare, noise.

    The maps of light are coarse and enlarged, and all work on pixels is Pillow's own: three times faster than arrays.
    """
    across = np.linspace(-1, 1, 24)
    x, y = across[None, :], across[:, None]

    def enlarged(levels: Float[np.ndarray, "24 24"]) -> Image.Image:
        coarse = Image.fromarray((levels * 255).clip(0, 255).astype(np.uint8))
        return _as_rgb(coarse.resize(image.size, Image.Resampling.BICUBIC))

    turn, edge = rng.uniform(0, 2 * math.pi, 2)
    gain = 1 + rng.uniform(0, 0.22) * (x * math.cos(turn) + y * math.sin(turn)) - rng.uniform(0, 0.16) * (x**2 + y**2)
    if rng.random() < 0.3:
        distance = x * math.cos(edge) + y * math.sin(edge) - rng.uniform(0.1, 0.8)
        gain = gain * (1 - rng.uniform(0.15, 0.4) / (1 + np.exp(-distance * rng.uniform(6, 25))))
    exposure, lift = rng.uniform(0.82, 1.12), rng.uniform(0, 18)
    tint = exposure * (1 + rng.normal(0, 0.035, 3).clip(-0.08, 0.08))
    levels = (lift + np.outer(tint, np.arange(256))).clip(0, 255).astype(int).reshape(-1).tolist()
    image = ImageChops.multiply(image.point(levels), enlarged(gain / gain.max()))
    if rng.random() < 0.3:
        at, spread = rng.uniform(-1, 1, 2), rng.uniform(0.05, 0.25)
        glare = rng.uniform(0.1, 0.45) * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2 * 0.5) / spread)
        image = ImageChops.screen(image, enlarged(glare))
    strength = rng.uniform(0.5, 6.0)
    # Bytes are uniform; the logit of their rank makes them nearly normal.
    rank = (np.arange(256) + 0.5) / 256
    bell = (128.5 + strength * 0.6 * np.log(rank / (1 - rank))).clip(0, 255).astype(int).tolist()
    noise = Image.frombytes("L", image.size, rng.bytes(image.width * image.height)).point(bell)
    return ImageChops.add(image, _as_rgb(noise), 1, -128)


def soften(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The picture as a lens or a small sensor leaves it: slightly blurred, or made smaller and larger again."""
    roll = rng.random()
    if roll < 0.35:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.1)))
    if roll < 0.6:
        share = rng.uniform(0.6, 0.9)
        small = (int(image.width * share), int(image.height * share))
        return image.resize(small, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BICUBIC)
    return image


def warp(image: Image.Image, matrix: Float[np.ndarray, "3 3"], size_wh: tuple[int, int]) -> Image.Image:
    """A flat picture seen through `matrix`, black where there is none of it."""
    back = np.linalg.inv(matrix)
    inverse = tuple(float(v) for v in (back / back[2, 2]).reshape(-1)[:8])
    return image.transform(size_wh, Image.Transform.PERSPECTIVE, inverse, Image.Resampling.BILINEAR)


def photograph(
    rng: np.random.Generator,
    sheet: Image.Image,
    mask: Image.Image,
    matrix: Float[np.ndarray, "3 3"],
    size_wh: tuple[int, int],
) -> Image.Image:
    """The picture of a sheet, cut out by its mask, seen through `matrix`."""
    front, cut = warp(sheet, matrix, size_wh), warp(mask, matrix, size_wh)
    scene = draw_background(rng, size_wh)
    scene = ImageChops.multiply(scene, _as_rgb(draw_shadow(rng, cut)))
    scene.paste(front, (0, 0), cut)
    return light(rng, soften(rng, scene))
