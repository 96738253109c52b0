"""Numbers in answers whose unit only the whole set tells."""

from __future__ import annotations

import numpy as np
import pytest

from boxtune.data.formats.chat_units import PADDED, choose_unit, to_shares
from boxtune.errors import ConfigError, DataError

WIDE = np.array([[64, 32]])


def choose(
    numbers: list[list[float]], sizes: list[tuple[int, int]], *, bare: bool = True, asked: str | None = None
) -> tuple[str, str]:
    return choose_unit(np.array(numbers, dtype=float), np.array(sizes), bare=bare, where="x", asked=asked)


TOUCHING = [[0.112, 0.25, 0.9, 0.75], [0.1, 0.2505, 0.877, 0.6], [0.1, 0.401, 0.9, 0.7495]]
MIDDLE = [0.113, 0.4, 0.9, 0.6]


def test_padded_boxes_end_at_the_edge_of_the_picture() -> None:
    name, why = choose([*TOUCHING, MIDDLE], [(64, 32)] * 4)
    assert name == PADDED and "3 end at its edge" in why and "boxes=xyxy_unit" in why


@pytest.mark.parametrize(
    ("numbers", "size_wh"),
    [
        ([MIDDLE] * 40, (64, 32)),  # nothing at the edge
        ([*TOUCHING[:2], MIDDLE], (64, 32)),  # two may be chance
        ([*TOUCHING, *[MIDDLE] * 60], (64, 32)),  # so may 3 of 63
        ([*TOUCHING, *[[0.1, 0.253, 0.9, 0.7]] * 3], (64, 32)),  # as many end anywhere
        ([[0.1, 0.25, 0.5, 0.75]] * 30, (64, 32)),  # round numbers
        ([[0.001, 0.001, 0.999, 0.999]] * 30, (500, 499)),  # hardly any padding
        ([[0.2, 0.25, 0.5, 0.75]] * 30, (1280, 720)),
    ],
)
def test_without_evidence_shares_are_asked_about(numbers: list[list[float]], size_wh: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="shares of the picture or of the square") as caught:
        choose(numbers, [size_wh] * len(numbers))
    assert "boxes=xyxy_padded" in caught.value.fix and "boxes=xyxy_unit" in caught.value.fix
    assert choose(numbers, [size_wh] * len(numbers), asked=PADDED)[0] == PADDED
    assert choose(numbers, [size_wh] * len(numbers), asked="xyxy_unit")[0] == "xyxy_unit"


def test_boxes_in_the_padding_are_of_the_picture_itself() -> None:
    name, why = choose([[0.1, 0.3, 0.9, 0.7], [0.1, 0.0, 0.9, 0.5]], [(64, 32), (64, 32)])
    assert name == "xyxy_unit" and "50.0% of 2 boxes" in why


def test_square_pictures_have_no_padding() -> None:
    assert choose([[0.1, 0.4, 0.9, 0.6]], [(64, 64)])[0] == "xyxy_unit"


def test_other_numbers() -> None:
    assert choose([[10, 20, 300, 400]], [(1000, 800)], asked="xyxy_bin1000")[0] == "xyxy_bin1000"
    assert choose([[10, 20, 30, 40], [900, 900, 1000, 1000]], [(64, 32)] * 2)[0] == "xyxy_bin1000"
    assert choose([[10, 20, 30, 40], [900, 900, 3000, 2000]], [(3000, 2000)] * 2)[0] == "xyxy_px"
    assert choose([[0.1, 0.2, 0.3, 0.4]], [(64, 32)], bare=False)[0] == "xyxy_unit"
    with pytest.raises(DataError, match=r"xyxy_px .* or xyxy_bin1000"):
        choose([[10, 20, 300, 400]], [(1000, 800)])
    with pytest.raises(ConfigError, match="no way to read a box"):
        choose([[10, 20, 300, 400]], [(1000, 800)], asked="xxyy")


def test_shares() -> None:
    assert to_shares(np.array([[0.0, 0.25, 1.0, 0.5]]), WIDE, PADDED).tolist() == [[0, 0, 1, 0.5]]
    assert to_shares(np.array([[0.25, 0.0, 0.5, 1.0]]), WIDE[:, ::-1], PADDED).tolist() == [[0, 0, 0.5, 1]]
    assert to_shares(np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0, 0]]), PADDED).round(9).tolist() == [
        [0.1, 0.2, 0.3, 0.4]
    ]
    assert to_shares(np.array([[16.0, 8.0, 32.0, 32.0]]), WIDE, "xyxy_px").tolist() == [[0.25, 0.25, 0.5, 1]]
    assert to_shares(np.array([[100.0, 0.0, 500.0, 1000.0]]), WIDE, "xyxy_bin1000").tolist() == [[0.1, 0, 0.5, 1]]
