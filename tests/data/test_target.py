"""Whose eyes a data set is seen with: a family by name or by a model's folder, its budget, its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from boxtune.data.target import build_target, read_vocabulary
from boxtune.errors import ConfigError, ModelError
from boxtune.families import FAMILIES


def write_model(folder: Path, config: Any, tokenizer: Tokenizer | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def bytes_tokenizer() -> Tokenizer:
    """One token a byte: holds every text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def letters_tokenizer() -> Tokenizer:
    """One token for each of a few letters, in lower case: what else there is becomes unknown."""
    vocab = {"[UNK]": 0, **{letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz ", start=1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def test_default_is_said() -> None:
    target = build_target()
    own = FAMILIES["qwen2_vl"].defaults
    assert target.family.name == "qwen2_vl" and "by default" in target.why and target.vocabulary is None
    assert (target.min_pixels, target.max_pixels) == (own.min_pixels, own.max_pixels)


def test_family_by_name_and_budget() -> None:
    target = build_target(family="qwen3_vl", min_pixels=1000, max_pixels=2000)
    assert (target.family.name, target.min_pixels, target.max_pixels) == ("qwen3_vl", 1000, 2000)
    assert target.why == "family=qwen3_vl"
    assert build_target(max_pixels=5000).min_pixels == 5000  # the family's own least is more than that
    with pytest.raises(ModelError, match="no family 'yolo'"):
        build_target(family="yolo")
    for wrong in ({"min_pixels": 9, "max_pixels": 8}, {"max_pixels": 0}, {"min_pixels": 10**9}):
        with pytest.raises(ConfigError, match="image budget"):
            build_target(**wrong)


def test_family_of_a_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", {"model_type": "qwen2_5_vl"}, bytes_tokenizer())
    target = build_target(model=str(folder))
    assert target.family.name == "qwen2_5_vl" and target.why == f"model={folder}"
    assert target.vocabulary is not None and target.vocabulary.count("abc") == 3
    asked = build_target(model=str(folder), family="json1000")
    assert asked.family.name == "json1000"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "resnet"}, "models of type 'resnet'"),
        ({}, "models of type 'None'"),
        ("{", "config cannot be read"),
        ("[]", "no JSON object"),
    ],
)
def test_models_that_are_none(tmp_path: Path, config: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_target(model=str(write_model(tmp_path / "model", config)))


def test_folders_that_are_none(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ModelError, match=r"holds no config\.json") as caught:
            build_target(model=str(name))
        assert "qwen2_vl" in caught.value.fix


def test_vocabulary(tmp_path: Path) -> None:
    """A tokenizer that falls back to bytes holds everything; one that does not changes what it lacks."""
    assert read_vocabulary(tmp_path) is None
    whole = read_vocabulary(write_model(tmp_path / "bytes", {}, bytes_tokenizer()))
    part = read_vocabulary(write_model(tmp_path / "letters", {}, letters_tokenizer()))
    assert whole is not None and part is not None
    assert whole.keeps("Ärger (2) 猫") and whole.count("猫") == 3
    assert part.keeps("wine glass") and not part.keeps("猫") and not part.keeps("Wine") and not part.keeps("a2")


def test_padding_of_somebody_is_taken_off(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(4)
    vocabulary = read_vocabulary(write_model(tmp_path / "model", {}, tokenizer))
    assert vocabulary is not None and [vocabulary.count("a" * n) for n in (1, 10)] == [1, 10]


def test_broken_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be read"):
        read_vocabulary(tmp_path)
