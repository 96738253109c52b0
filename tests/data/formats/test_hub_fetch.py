"""Data sets by their name on the hub, from a cache that is made here; the hub itself is never asked."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from boxtune.data import read_dataset
from boxtune.data.formats.hub_fetch import is_hub_id
from boxtune.errors import DataError

from ..cases import write_splits
from . import hub_cases as hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data set owner/things in the hub's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "datasets--owner--things"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


def test_parquet_from_the_cache(snapshot: Path) -> None:
    blob = hub.write_parquet(snapshot.parents[1] / "blobs" / "0f", hub.rows(), hub.features(["cat", "dog"]))
    (snapshot / "data").mkdir()
    (snapshot / "data" / "train-00000-of-00001.parquet").symlink_to(blob)
    dataset = read_dataset("owner/things")
    assert dataset.format == "hf" and dataset.path == snapshot and len(dataset.splits["train"]) == 3


def test_any_format_may_be_in_there(snapshot: Path) -> None:
    write_splits(snapshot, {"train": 2, "valid": 1})
    assert read_dataset("owner/things").format == "coco"


def test_neither_here_nor_there(snapshot: Path) -> None:
    with pytest.raises(DataError, match=r"'owner/others' is neither a local path nor in the hub cache") as caught:
        read_dataset("owner/others")
    assert "then the hub" in caught.value.where and caught.value.fix


def test_a_local_path_is_never_asked_for(snapshot: Path) -> None:
    (snapshot.parents[3] / "owner").mkdir()
    with pytest.raises(DataError, match="owner/things does not exist"):
        read_dataset("owner/things")


def test_names(tmp_path: Path) -> None:
    assert is_hub_id("openfoodfacts/nutrition-table-detection") and is_hub_id("a/b.c_d")
    assert not any(map(is_hub_id, ("train", "./a/b", "/a/b", "a/b/c", "~/b", "a//b", "a/b c")))
