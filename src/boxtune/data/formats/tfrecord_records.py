"""TFRecord files -> records, and a record's tf.train.Example -> lists by key. Needs no TensorFlow.

Framing: length (8 bytes), its masked CRC-32C, the record, its masked CRC-32C; both checksums are verified. The file may
be packed with GZIP or ZLIB as a whole. An Example is a protobuf message, whose wire format is read as far as it needs.
Source: tensorflow/core/lib/io/record_writer.h, core/example/feature.proto; protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import UInt32

from boxtune.errors import DataError

Example = dict[str, list[bytes] | list[float] | list[int]]

_POLYNOMIAL = 0x82F63B78  # CRC-32C, bits reversed
_MASK = 0xA282EAD8


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def begins_like_tfrecord(path: Path) -> bool:
    """Whether the first twelve bytes are a length and the checksum of it, in a packed file too."""
    try:
        with _open(path) as stream:
            head = stream.read(12)
    except (OSError, EOFError, zlib.error, DataError):
        return False
    return len(head) == 12 and _matches(head[8:], head[:8])


def iter_records(path: Path) -> Iterator[bytes]:
    """The records of a file one by one; DataError with the number where it is cut off or a checksum differs."""
    with _open(path) as stream:
        number = 0
        while True:
            where = f"{path}, record {number}"
            try:
                head = stream.read(12)
                if not head:
                    return
                if len(head) < 12:
                    raise _cut_off(path, where)
                if not _matches(head[8:], head[:8]):
                    raise _damaged(path, where, "the length of a record")
                length = int.from_bytes(head[:8], "little")
                record, checksum = stream.read(length), stream.read(4)
            except (OSError, EOFError, zlib.error) as problem:
                raise DataError(f"{path.name} cannot be unpacked: {problem}", where=where, fix=_AGAIN) from problem
            if len(record) < length or len(checksum) < 4:
                raise _cut_off(path, where)
            if not _matches(checksum, record):
                raise _damaged(path, where, "a record")
            yield record
            number += 1


_AGAIN = "fetch or write the file again"


def _cut_off(path: Path, where: str) -> DataError:
    return DataError(f"{path.name} ends in the middle of a record", where=where, fix=_AGAIN)


def _damaged(path: Path, where: str, what: str) -> DataError:
    return DataError(f"{path.name} is damaged: {what} does not fit its checksum", where=where, fix=_AGAIN)


@contextmanager
def _open(path: Path) -> Iterator[_Stream]:
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=file) as packed:
                yield packed
        elif head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0 and not _matches(head[8:], head[:8]):
            yield _Inflated(file)
        else:
            yield file


class _Inflated:
    """A ZLIB stream as a file to read from."""

    def __init__(self, packed: _Stream) -> None:
        self._packed, self._inflate, self._ready = packed, zlib.decompressobj(), b""

    def read(self, size: int, /) -> bytes:
        parts, lacking = [self._ready], size - len(self._ready)
        while lacking > 0 and not self._inflate.eof:
            piece = self._packed.read(1 << 16)
            if not piece:
                break
            parts.append(self._inflate.decompress(piece))
            lacking -= len(parts[-1])
        data = b"".join(parts)
        self._ready = data[size:]
        return data[:size]


def parse_example(record: bytes) -> Example:
    """Key -> list of values of a tf.train.Example; ValueError if the record is none.

    A key that stands twice has its last value, as in any protobuf map.
    """
    features: Example = {}
    for number, value in _fields(record):
        if number != 1:
            continue
        for inner, entry in _fields(_message(value)):
            if inner == 1:
                parts = dict(_fields(_message(entry)))
                features[_message(parts.get(1, b"")).decode("utf-8")] = _feature(_message(parts.get(2, b"")))
    return features


def _feature(message: bytes) -> list[bytes] | list[float] | list[int]:
    values: list[bytes] | list[float] | list[int] = []
    for kind, content in _fields(message):
        items = [item for number, item in _fields(_message(content)) if number == 1]
        if kind == 1:
            values = [_message(item) for item in items]
        elif kind == 2:
            packed = b"".join(_message(item) for item in items)
            if len(packed) % 4:
                raise ValueError("a list of floats is cut off")
            values = [float(number) for number in np.frombuffer(packed, dtype="<f4")]
        elif kind == 3:
            values = [
                _signed(number) for item in items for number in ([item] if isinstance(item, int) else _ints(item))
            ]
    return values


def _message(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and content of each field: an int for a varint, else the bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at + size > len(message):
            raise ValueError("a field that reaches beyond its message")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number that is cut off or too long")


def _ints(packed: bytes) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _matches(checksum: bytes, data: bytes) -> bool:
    crc = crc32c(data)
    return int.from_bytes(checksum, "little") == (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The CRC-32C (Castagnoli) of the data.

    The data is laid out in rows whose checksums are computed side by side, two bytes a step, and then joined: leading
    zeros do not change a checksum that starts at zero, and starting at all ones is inverting the first four bytes.
    """
    if len(data) < 4:
        return _bytewise(data)
    width = 1 << max(1, (len(data) // 2).bit_length() // 2)  # words of two bytes in a row
    lead = -len(data) % (2 * width)
    padded = bytes(lead) + bytes(byte ^ 0xFF for byte in data[:4]) + data[4:]
    words = np.frombuffer(padded, dtype="<u2").reshape(-1, width).T.astype(np.uint32)
    table = _table()
    crcs: UInt32[np.ndarray, " rows"] = np.zeros(words.shape[1], dtype=np.uint32)
    for column in words:
        crcs ^= column
        crcs = table[crcs & 0xFFFF] ^ (crcs >> 16)
    joined, shift = 0, _shift(width)
    for crc in crcs.tolist():
        low, second, third, high = (joined & 255, joined >> 8 & 255, joined >> 16 & 255, joined >> 24)
        joined = shift[0][low] ^ shift[1][second] ^ shift[2][third] ^ shift[3][high] ^ crc
    return joined ^ 0xFFFFFFFF


def _bytewise(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> UInt32[np.ndarray, " 65536"]:
    """What two bytes at once do to a checksum."""
    crc: UInt32[np.ndarray, " 65536"] = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        crc = (crc >> 1) ^ np.where(crc & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return crc


@lru_cache(maxsize=16)
def _shift(width: int) -> list[list[int]]:
    """What a row of zeros does to each byte of a checksum."""
    crc: UInt32[np.ndarray, " 32"] = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(width):
        crc = _table()[crc & 0xFFFF] ^ (crc >> 16)
    bits = crc.tolist()
    tables = []
    for place in range(4):
        row = [0] * 256
        for byte in range(1, 256):
            lowest = (byte & -byte).bit_length() - 1
            row[byte] = row[byte & (byte - 1)] ^ bits[8 * place + lowest]
        tables.append(row)
    return tables
