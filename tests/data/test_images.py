"""Every image opens upright and in RGB, or says why not."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from boxtune.data import images
from boxtune.data.images import open_image, read_header, read_size
from boxtune.errors import DataError

from .cases import picture, save

SIDE = 24


def marked() -> Image.Image:
    """Black, 24 x 16, with a red top-left and a green top-right block."""
    pixels = np.zeros((16, SIDE, 3), dtype=np.uint8)
    pixels[:8, :8, 0] = 255
    pixels[:8, -8:, 1] = 255
    return Image.fromarray(pixels)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# What a camera held that way stores of an upright picture: the inverse of what viewers do.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", range(0, 10))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_exif_turn(tmp_path: Path, orientation: int, suffix: str) -> None:
    stored = marked().transpose(STORED[orientation]) if orientation in STORED else marked()
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = save(stored, tmp_path / f"a.{suffix}", exif=exif(orientation), **options)
    image = open_image(path)
    assert image.mode == "RGB" and image.size == (SIDE, 16) == read_size(path)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(marked())).max() < 40  # a JPEG rings at its edges
    again = open_image(image)
    assert np.array_equal(np.asarray(again), np.asarray(image)), "must not be turned twice"
    assert open_image(path.read_bytes()).size == (SIDE, 16)
    with Image.open(path) as opened:
        assert open_image(opened).size == (SIDE, 16)
    assert read_header(path)[1] == (orientation if orientation in STORED else 1)


def test_png_exif_behind_the_pixels(tmp_path: Path) -> None:
    plain = io.BytesIO()
    marked().transpose(STORED[6]).save(plain, "PNG")
    block = exif(6).tobytes().removeprefix(b"Exif\0\0")
    data = plain.getvalue()
    path = tmp_path / "late.png"
    path.write_bytes(data[:-12] + chunk(b"eXIf", block) + data[-12:])
    assert read_size(path) == open_image(path).size == (SIDE, 16)


def test_broken_exif_means_as_stored(tmp_path: Path) -> None:
    path = save(marked(), tmp_path / "a.png", exif=b"Exif\0\0no tags at all")
    assert read_size(path) == open_image(path).size == (SIDE, 16)


def colour(path: Path) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(open_image(path))[4, 4])


@pytest.mark.parametrize(
    ("mode", "value", "suffix", "expected"),
    [
        ("1", 1, "png", (255, 255, 255)),
        ("L", 77, "png", (77, 77, 77)),
        ("LA", (10, 0), "png", (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), "png", (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), "png", (255, 255, 255)),
        ("I;16", 65535, "png", (255, 255, 255)),
        ("I;16", 257 * 100, "png", (100, 100, 100)),
        ("I", 257 * 50, "tiff", (50, 50, 50)),
        ("CMYK", (0, 0, 0, 0), "jpg", (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), "tiff", (255, 0, 0)),
    ],
)
def test_modes(tmp_path: Path, mode: str, value: object, suffix: str, expected: tuple[int, ...]) -> None:
    path = save(Image.new(mode, (8, 8), value), tmp_path / f"a.{suffix}")
    assert np.abs(np.array(colour(path)) - expected).max() <= 1


def test_palette_with_transparency(tmp_path: Path) -> None:
    indexed = Image.new("P", (8, 8), 0)
    indexed.putpalette([200, 0, 0, 0, 200, 0])
    assert colour(save(indexed, tmp_path / "solid.png")) == (200, 0, 0)
    assert colour(save(indexed, tmp_path / "clear.png", transparency=0)) == (255, 255, 255)


def test_modes_without_a_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="mode F"):
        open_image(save(Image.new("F", (8, 8), 0.5), tmp_path / "a.tiff"))
    with pytest.raises(DataError, match="32-bit pixels from 70000"):
        open_image(save(Image.new("I", (8, 8), 70000), tmp_path / "b.tiff"))


def test_first_picture_of_an_animation(tmp_path: Path) -> None:
    path = save(
        Image.new("RGB", (8, 8), "red"), tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 8))]
    )
    assert colour(path) == (255, 0, 0)


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    whole = save(picture(0, (400, 300)), folder / "whole.png").read_bytes()
    jpeg = save(picture(0, (400, 300)), folder / "whole.jpg").read_bytes()
    content = {
        "empty.jpg": (b"", "0 bytes"),
        "text.jpg": (b"not an image, only words\n", "not an image"),
        "page.png": (b"<html><body>404</body></html>", "not an image"),
        "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs"),
        "cut.png": (whole[: len(whole) // 2], "broken"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "broken"),
        "head.png": (whole[:20], "broken|not an image"),
    }
    for name, (data, _) in content.items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, words) for name, (_, words) in content.items()}


def test_broken_files_are_named(tmp_path: Path) -> None:
    cases = broken_files(tmp_path)
    for name, (path, words) in cases.items():
        with pytest.raises(DataError, match=words) as caught:
            open_image(path)
        assert name in caught.value.what and caught.value.where == str(path) and caught.value.fix
        with pytest.raises(DataError):
            open_image(path.read_bytes(), name=name)
        if not name.startswith("cut"):
            with pytest.raises(DataError):
                read_size(path)
    assert len(cases) == 7
    assert open_image(tmp_path / "whole.png").size == read_size(tmp_path / "whole.jpg") == (400, 300)


def test_missing_and_folder(tmp_path: Path) -> None:
    for read in (open_image, read_size):
        with pytest.raises(DataError, match=r"gone\.jpg does not exist"):
            read(tmp_path / "gone.jpg")
        with pytest.raises(DataError, match="it is a folder"):
            read(tmp_path)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(picture(0), tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 48)
    assert open_image(path).size == (64, 48)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 48 - 1)
    for read in (open_image, read_size):
        with pytest.raises(DataError, match=r"a\.png is too large: 64 x 48"):
            read(path)
    with pytest.raises(DataError, match="too large"):
        open_image(np.zeros((48, 64), dtype=np.uint8))


def test_bomb_that_pil_refuses(tmp_path: Path) -> None:
    """A header that declares 20,000 x 20,000 pixels in 57 bytes."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    for read in (open_image, read_size):
        with warnings.catch_warnings(), pytest.raises(DataError, match=r"bomb\.png is too large"):
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            read(path)


def test_globals_of_pil_stay(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    open_image(save(picture(0), tmp_path / "a.png"))
    with pytest.raises(DataError):
        open_image(b"no image")
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))


def test_arrays() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert np.array_equal(np.asarray(open_image(grey))[..., 2], grey)
    rgb = np.asarray(picture(3))
    assert np.array_equal(np.asarray(open_image(rgb[:, ::-1])), rgb[:, ::-1])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((3, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        np.zeros(4, dtype=np.uint8),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="frame 7 is") as caught:
        open_image(array, name="frame 7")
    assert str(array.shape) in caught.value.what


def test_result_does_not_share_the_source(tmp_path: Path) -> None:
    with Image.open(save(picture(1), tmp_path / "a.png")) as opened:
        for source in (picture(1), opened):
            open_image(source).paste((0, 0, 0), (0, 0, 64, 48))
            assert np.asarray(source).any()


def test_result_is_plain(tmp_path: Path) -> None:
    """No longer of its file's class: nothing is left to be read late, or to turn it again."""
    path = save(picture(1), tmp_path / "a.jpg", exif=exif(6), dpi=(300, 300))
    opened = [open_image(path), open_image(path.read_bytes())]
    path.unlink()
    for image in opened:
        assert type(image) is Image.Image and image.info == {} and not image.getexif()
        assert np.asarray(image).any()


@pytest.mark.parametrize(("name", "words"), [("a\0b.png", "is no file name"), ("x" * 5000, "cannot be read")])
def test_names_that_no_file_can_have(name: str, words: str) -> None:
    for read in (open_image, read_size):
        with pytest.raises(DataError, match=words):
            read(Path(name))
