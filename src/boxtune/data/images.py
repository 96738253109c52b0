"""Image files -> upright RGB pixels. Every image that boxtune opens comes through here."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from boxtune.errors import DataError

MAX_PIXELS = 2 * 89_478_485
"""Largest image that is opened: 179 megapixels, where PIL refuses by itself (it warns from half of it on).

PIL's limit is one number for the whole process; using the same one means that it need not be touched."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = (5, 6, 7, 8)

# What PIL's decoders raise on bytes that they cannot make sense of. MemoryError is not among them on purpose.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, LookupError, EOFError, struct.error, zlib.error)

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def open_image(
    source: Path | str | bytes | Image.Image | Shaped[np.ndarray, "*shape"], *, name: str | None = None
) -> Image.Image:
    """The image upright, in mode RGB, fully decoded and without metadata.

    `source` is a file, the bytes of one, a PIL image, or an array of uint8, (height, width) or (height, width, 3).
    `name` stands for it in messages. The EXIF orientation is applied; values that EXIF does not know, such as 0,
    mean "as stored". Metadata is dropped so that nobody turns the image a second time. Of an animation or a file
    with several pages the first picture is taken.

    Modes: transparency (RGBA, LA, palette with a transparent entry) is laid over white; 16-bit grey is scaled by its
    full range, 65535 -> 255, and never stretched; CMYK and 1-bit are converted by PIL; no colour profile is applied.
    32-bit integers are taken as 16-bit grey if they fit in there. Floating point and Lab are refused.

    Raises DataError with the file's name if it is missing, empty, no image, broken, truncated, or larger than
    MAX_PIXELS. Nothing of PIL's global state is changed; with `ImageFile.LOAD_TRUNCATED_IMAGES` set by somebody else
    PIL gives no error for truncated files, and so neither can this.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "array")
    if isinstance(source, Image.Image):
        called = name or str(getattr(source, "filename", "") or "image")
        with _reading(called):
            require_size(source.size, called)
            turn = _orientation(source, None) if isinstance(source, ImageFile.ImageFile) else _tag(source)
            upright = _upright(source, turn, called)
            # The caller's pixels stay the caller's.
            return upright.copy() if upright.im is source.im else upright
    if isinstance(source, bytes):
        called = name or f"{len(source):,} bytes"
        with _reading(called, source[:200]):
            return _decode(BytesIO(source), called)
    called = name or str(source)
    with _open_file(Path(source), called) as file, _reading(called, _head(file)):
        return _decode(file, called)


def open_window(path: Path, window: tuple[int, int, int, int]) -> Image.Image:
    """That part of an image file, x1, y1, x2, y2 in pixels of the upright picture; all of it is decoded for that.

    Raises DataError as `open_image` does, and where the window does not lie inside the picture.
    """
    image = open_image(path)
    left, top, right, bottom = window
    if not (0 <= left < right <= image.width and 0 <= top < bottom <= image.height):
        raise DataError(
            f"the tile {window} does not lie inside the image of {image.width} x {image.height}",
            where=str(path),
            fix="annotate the image as it is, or put back the image that was annotated",
        )
    return image.crop(window)


def read_size(path: Path | str) -> tuple[int, int]:
    """Width and height in pixels after the EXIF turn, from the file's header; no pixel is decoded.

    Raises the same DataErrors as `open_image`, as far as a header can show them.
    """
    return read_header(path)[0]


def read_header(path: Path | str) -> tuple[tuple[int, int], int]:
    """Upright width and height in pixels, and the EXIF orientation (1 to 8; 1 where it is missing or illegal)."""
    called = str(path)
    with _open_file(Path(path), called) as file, _reading(called, _head(file)), Image.open(file) as image:
        require_size(image.size, called)
        turn = _orientation(image, file)
        width, height = _stored_size(image)
        return ((height, width) if turn in _SIDES_SWAPPED else (width, height)), turn


def require_size(size_wh: tuple[int, int], name: str) -> None:
    """Raises DataError if an image of that many pixels is larger than MAX_PIXELS."""
    width, height = size_wh
    if width * height > MAX_PIXELS:
        raise _too_large(name, f"{width} x {height} pixels, {width * height / 1e6:.0f} megapixels")


def _too_large(name: str, size: str) -> DataError:
    return DataError(
        f"{name} is too large: {size} (at most {MAX_PIXELS / 1e6:.0f} megapixels are opened)",
        where=name,
        fix="scale it down and its boxes with it, or cut it into tiles",
    )


def _decode(file: BufferedReader | BytesIO, name: str) -> Image.Image:
    with Image.open(file) as image:
        require_size(image.size, name)
        return _upright(image, _orientation(image, file), name)


@contextmanager
def _open_file(path: Path, name: str) -> Iterator[BufferedReader | BytesIO]:
    try:
        file = path.open("rb")
    except FileNotFoundError as problem:
        raise DataError(f"{name} does not exist", where=name, fix="check the path, or restore the file") from problem
    except ValueError as problem:  # a name with a NUL byte
        raise DataError(f"{name!r} is no file name", where=repr(name), fix="check the annotations") from problem
    except OSError as problem:
        reason = "it is a folder" if problem.errno == errno.EISDIR else problem.strerror or str(problem)
        raise DataError(f"{name} cannot be read: {reason}", where=name, fix="give a readable image file") from problem
    with file:
        yield file


def _head(file: BufferedReader | BytesIO) -> bytes:
    head = file.read(200)
    file.seek(0)
    return head


@contextmanager
def _reading(name: str, head: bytes | None = None) -> Iterator[None]:
    """Turns what PIL raises inside into one DataError that names the image; `head` are the first bytes of it."""
    if head == b"":
        raise DataError(f"{name} is empty (0 bytes)", where=name, fix="restore the file or take it out of the data set")
    try:
        yield
    except _BOMBS as problem:
        raise _too_large(name, str(problem)) from problem
    except UnidentifiedImageError as problem:
        if (head or b"").startswith(b"version https://git-lfs"):
            raise DataError(
                f"{name} is a git-lfs pointer, not the image", where=name, fix="fetch the images with `git lfs pull`"
            ) from problem
        begins = f"; it begins with {head[:24]!r}" if head else ""
        raise DataError(
            f"{name} is not an image that can be read{begins}",
            where=name,
            fix="convert it to JPEG or PNG, or take it out of the data set",
        ) from problem
    except _DECODER_ERRORS as problem:
        raise DataError(
            f"{name} is broken: {problem}", where=name, fix="restore the file or take it out of the data set"
        ) from problem


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # PIL gives some TIFF files the size that they will have once it has turned them, so the tags are asked.
        return int(image.tag_v2[256]), int(image.tag_v2[257])
    return image.size


def _orientation(image: ImageFile.ImageFile, file: BufferedReader | BytesIO | None) -> int:
    """The EXIF orientation that is still to be applied, without decoding; 1 where there is none or an illegal one."""
    if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info and file is not None:
        late = _late_png_exif(file)
        if late:
            exif = Image.Exif()
            exif.load(late)
            return _legal(exif.get(_ORIENTATION))
    return _tag(image)


def _tag(image: Image.Image) -> int:
    # PngImageFile.getexif decodes the whole picture when the header holds no EXIF; the plain method does not.
    try:
        return _legal(Image.Image.getexif(image).get(_ORIENTATION))
    except (SyntaxError, ValueError, struct.error):
        return 1  # a broken EXIF block, which viewers ignore too; the pixels are judged on their own


def _legal(value: object) -> int:
    return value if isinstance(value, int) and value in _TURNS else 1


def _late_png_exif(file: BufferedReader | BytesIO) -> bytes:
    """The eXIf chunk of a PNG wherever it stands: the format allows it behind the pixels, out of the header."""
    place = file.tell()
    file.seek(8)
    found = b""
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            found = file.read(length)
            break
        file.seek(length + 4, 1)
    file.seek(place)
    return found


def _upright(image: Image.Image, turn: int, name: str) -> Image.Image:
    image.load()
    turned_by_pil = isinstance(image, TiffImagePlugin.TiffImageFile)  # while it decodes, unlike every other format
    rgb = _to_rgb(image, name)
    upright = rgb if turn == 1 or turned_by_pil else rgb.transpose(_TURNS[turn])
    upright.info.clear()
    return upright


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A plain image without what its file class knows; of an image that is RGB already with the same pixels."""
    if image.mode.startswith("I"):
        return _from_16_bit(image, name)
    if image.mode in ("F", "LAB"):
        raise DataError(
            f"{name} has pixels of mode {image.mode}, which have no agreed range",
            where=name,
            fix="save it as 8-bit RGB",
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "RGB":
        # `convert` would copy: 5 to 10 ms for a photograph of 12 megapixels.
        return image._new(image.im)
    return image.convert("RGB")


def _from_16_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(
            f"{name} has 32-bit pixels from {values.min()} to {values.max()}", where=name, fix="save it as 8-bit RGB"
        )
    return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")


def _from_array(array: Shaped[np.ndarray, "*shape"], name: str) -> Image.Image:
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not shape_fits or array.size == 0:
        raise DataError(
            f"{name} is {array.dtype} of shape {array.shape}; expected is uint8, (height, width, 3) or (height, width)",
            where=name,
            fix="scale to 0..255, convert with .astype('uint8'), and put the three RGB channels last",
        )
    require_size((array.shape[1], array.shape[0]), name)
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
