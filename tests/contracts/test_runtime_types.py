"""The annotations of boxtune are enforced while the tests run, shapes included."""

from __future__ import annotations

from io import BytesIO, StringIO
from typing import IO, Protocol

import numpy as np
import pytest
import runtime_types
from beartype.roar import BeartypeCallHintParamViolation
from jaxtyping import TypeCheckError

import boxtune
from boxtune.boxes import Boxes, iou_matrix


def test_shapes_are_enforced() -> None:
    assert iou_matrix(np.zeros((2, 4)), np.zeros((3, 4))).shape == (2, 3)
    with pytest.raises(TypeCheckError, match="left"):
        iou_matrix(np.zeros((2, 3)), np.zeros((3, 4)))


def test_dataclasses_are_enforced() -> None:
    assert len(Boxes(xyxy_px=np.zeros((1, 4)), labels=("a",))) == 1
    with pytest.raises(TypeCheckError, match="scores"):
        Boxes(xyxy_px=np.zeros((2, 4)), labels=("a", "b"), scores=np.zeros(3))


def test_protocols_are_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader(Protocol):
        def read(self) -> str: ...

    # As if boxtune had defined both.
    Reader.__module__ = "boxtune"
    monkeypatch.setattr(boxtune, "Reader", Reader, raising=False)

    def take(reader: Reader) -> int:
        return 1

    take.__module__ = "boxtune"
    take.__annotations__ = {"reader": Reader, "return": int}
    checked = runtime_types.checked(take)
    assert checked(StringIO()) == 1
    with pytest.raises(BeartypeCallHintParamViolation, match="reader"):
        checked(3)


def test_bytes_in_memory_are_a_file() -> None:
    def take(file: IO[bytes]) -> int:
        return 1

    checked = runtime_types.checked(take)
    assert checked(BytesIO()) == 1
    with pytest.raises(BeartypeCallHintParamViolation, match="file"):
        checked(StringIO())
