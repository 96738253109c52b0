"""Folders of runs: never two in one, found again by name, and one clear error where none can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from boxtune.artifacts import build_run_folder, cache_folder, find_runs, slugify
from boxtune.errors import ConfigError


def test_runs_are_numbered_and_found_again(tmp_path: Path) -> None:
    names = [build_run_folder(tmp_path / "runs", "x").name for _ in range(3)]
    assert names == ["x", "x-2", "x-3"]
    build_run_folder(tmp_path / "runs", "x-2")
    for name in ("x-2", "x-3", "x-2-2"):
        assert [run.name for run in find_runs(tmp_path / "runs", name)] == [name]
    assert [run.name for run in find_runs(tmp_path / "runs", "x")] == names
    assert find_runs(tmp_path / "runs", "y") == find_runs(tmp_path / "none", "x") == []


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for parent in (tmp_path / "file", tmp_path / "file" / "runs", tmp_path / "link"):
        with pytest.raises(ConfigError, match="the folder cannot be made") as raised:
            build_run_folder(parent, "x")
        assert raised.value.fix and str(parent) in raised.value.where
    assert find_runs(tmp_path / "file", "x") == []


@pytest.mark.parametrize("name", ["n" * 300, "表" * 300, "a" * 99 + "-" * 300])
def test_a_long_name_is_cut(tmp_path: Path, name: str) -> None:
    first, second = (build_run_folder(tmp_path, name) for _ in range(2))
    assert first.path.is_dir() and second.path.is_dir() and first != second
    assert len(first.name) <= 100 and len(first.name.encode()) <= 200
    assert find_runs(tmp_path, name) == [first, second]


def test_names_become_safe() -> None:
    assert slugify("a/b c:1.10") == "a-b-c-1.10"
    assert slugify("Größe_表") == "Größe_表"
    assert slugify("///") == slugify("") == "run"


def test_the_cache_is_made_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXTUNE_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b" and cache_folder().is_dir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BOXTUNE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ConfigError, match="BOXTUNE_CACHE"):
        cache_folder()


def test_a_cache_without_leave_to_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of the system, since a test that runs as root may write everywhere."""
    monkeypatch.setenv("BOXTUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be written in"):
        cache_folder()
