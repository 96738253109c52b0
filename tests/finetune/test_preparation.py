"""bench/preparation.py on a few small photographs: both collators make the same batch, and every part is timed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import preparation

from boxtune.data.images import read_size

MEGAPIXELS = (0.05, 0.1)


@pytest.fixture(scope="module")
def sitting(tmp_path_factory: pytest.TempPathFactory) -> preparation.Sitting:
    folder = tmp_path_factory.mktemp("preparation")
    samples = preparation.write_photographs(folder / "photographs", 6, MEGAPIXELS)
    return preparation.build_sitting(folder / "model", samples, "qwen2_vl", 2, MEGAPIXELS)


def test_photographs_are_hard_to_compress_and_kept(sitting: preparation.Sitting, tmp_path: Path) -> None:
    for sample in sitting.samples:
        assert read_size(sample.image) == sample.size_wh
        assert sample.image.stat().st_size > 0.1 * np.prod(sample.size_wh)
        assert len(sample.targets) == preparation.BOXES
    again = preparation.write_photographs(tmp_path, 1, MEGAPIXELS)
    assert again[0].image.read_bytes() == sitting.samples[0].image.read_bytes()
    kept = preparation.write_photographs(sitting.samples[0].image.parent, 6, MEGAPIXELS)
    assert [sample.image for sample in kept] == [sample.image for sample in sitting.samples]


def test_both_do_the_same_work(sitting: preparation.Sitting) -> None:
    """All that TRL's batch holds, ours holds too, and equal: only then may their times be compared."""
    theirs = sitting.collate("trl", [0, 1])
    said = preparation.same(sitting)
    assert {line.split()[0] for line in said} == set(theirs) and all(line.endswith(" equal") for line in said)
    other = sitting.collate("ours", [2, 3])
    assert not torch.equal(other["input_ids"], theirs["input_ids"])


def test_every_size_and_part_is_timed(sitting: preparation.Sitting, capsys: pytest.CaptureFixture[str]) -> None:
    found = preparation.race(sitting, 1)
    assert set(found) == set(MEGAPIXELS) and all(set(row) == set(preparation.KINDS) for row in found.values())
    assert all(seconds > 0 for row in found.values() for seconds in row.values())
    assert set(preparation.parts(sitting, 0.1)) == set(preparation.PARTS)
    preparation.print_speed(found)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["megapixels", "0.05", "0.1", "all"]
    assert sorted(place for batch in sitting.batches(0.1) for place in batch) == [1, 3, 5]
    speed, busy = preparation.behind_workers(sitting, "ours", 0)
    assert speed > 0 and busy > 0
