"""Columns of samples: the same samples as a list of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.data import Sample, SampleTable, as_table, take_samples


def samples() -> list[Sample]:
    rows = []
    for i, labels in enumerate([("cat",), (), ("dog", "cat"), ("dog",)]):
        corners = np.arange(4.0 * len(labels)).reshape(-1, 4).cumsum(axis=1) + i
        rows.append(
            Sample(
                image=Path(f"/there/{i}.png"),
                image_id=10 * i,
                size_wh=(60 + i, 40),
                boxes=Boxes(xyxy_px=corners, labels=labels),
                crowd=np.array([n == 1 for n in range(len(labels))], dtype=bool),
                ignore=np.zeros(len(labels), dtype=bool),
            )
        )
    return rows


def same(left: Sample, right: Sample) -> bool:
    return (
        (left.image, left.image_id, left.size_wh, left.boxes.labels)
        == (right.image, right.image_id, right.size_wh, right.boxes.labels)
        and bool((left.boxes.xyxy_px == right.boxes.xyxy_px).all())
        and bool((left.crowd == right.crowd).all())
    )


def test_a_table_is_a_sequence_of_the_same_samples() -> None:
    rows = samples()
    table = as_table(rows)
    assert len(table) == 4 and as_table(table) is table
    assert all(same(a, b) for a, b in zip(table, rows, strict=True)) and same(table[-1], rows[-1])
    assert table.owners.tolist() == [0, 2, 2, 3] and table.targets.tolist() == [True, True, False, True]
    with pytest.raises(IndexError):
        table[4]


@pytest.mark.parametrize("places", [[2, 0], [1], [], [0, 1, 2, 3], [3, 3]])
def test_taking_keeps_boxes_with_their_images(places: list[int]) -> None:
    rows = samples()
    taken = take_samples(as_table(rows), places)
    assert isinstance(taken, SampleTable)
    assert all(same(a, rows[i]) for a, i in zip(taken, places, strict=True))
    assert take_samples(rows, places) == [rows[i] for i in places]


def test_slices_are_tables() -> None:
    table = as_table(samples())[1:3]
    assert isinstance(table, SampleTable) and [sample.image_id for sample in table] == [10, 20]


def test_no_samples_at_all() -> None:
    table = as_table([])
    assert len(table) == 0 and list(table) == [] and not len(table.owners)


def test_columns_of_other_lengths_are_refused() -> None:
    table = as_table(samples())
    with pytest.raises(ValueError, match="4 images"):
        SampleTable(**{**vars(table), "starts": table.starts[:-1]})
