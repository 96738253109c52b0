"""Writes TFRecord files for tests, byte by byte and apart from the reader: framing, checksums, tf.train.Example."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ..cases import picture

Value = Sequence[bytes | str | float]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: Value, *, packed: bool = True) -> bytes:
    values = [value.encode() if isinstance(value, str) else value for value in values]
    if all(isinstance(value, bytes) for value in values):
        return part(1, b"".join(part(1, value) for value in values))
    if all(isinstance(value, int) for value in values):
        numbers = [varint(value) for value in values]
        return part(3, part(1, b"".join(numbers)) if packed else b"".join(varint(1 << 3) + one for one in numbers))
    floats = [struct.pack("<f", value) for value in values]
    return part(2, part(1, b"".join(floats)) if packed else b"".join(varint(1 << 3 | 5) + one for one in floats))


def example(values: Mapping[str, Value], *, packed: bool = True) -> bytes:
    entries = [part(1, key.encode()) + part(2, feature(value, packed=packed)) for key, value in values.items()]
    return part(1, b"".join(part(1, entry) for entry in entries))


def jpeg(seed: int, size_wh: tuple[int, int] = (64, 48)) -> bytes:
    file = BytesIO()
    picture(seed, size_wh).save(file, format="JPEG")
    return file.getvalue()


def detection(name: str, boxes: Sequence[tuple[str, int, Sequence[float]]], **more: Any) -> dict[str, Any]:
    """The keys of the TF Object Detection API for a picture; a box is text, id, and xmin, ymin, xmax, ymax."""
    edges = list(zip(*(box[2] for box in boxes), strict=True)) or [()] * 4
    values: dict[str, Any] = {
        "image/filename": [name],
        "image/encoded": [jpeg(len(name))],
        "image/width": [64],
        "image/height": [48],
        "image/object/class/text": [box[0] for box in boxes],
        "image/object/class/label": [box[1] for box in boxes],
    }
    for edge, column in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True):
        values[f"image/object/bbox/{edge}"] = [float(value) for value in column]
    return {key: value for key, value in (values | more).items() if value is not None}


def write(file: Path, *records: Mapping[str, Value] | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    framed = [frame(one if isinstance(one, bytes) else example(one)) for one in records]
    file.write_bytes(b"".join(framed))
    return file


def write_label_map(file: Path, *names: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    items = [f"item {{\n  id: {number}\n  name: '{name}'\n}}\n" for number, name in enumerate(names, start=1)]
    file.write_text("\n".join(items), encoding="utf-8")
    return file
