"""The shipped weights are those that their card describes, for this code's model, and find what the card says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_scenes import score_scenes

from boxtune.artifacts import read_json
from boxtune.tiny.card import checksum, read_card
from boxtune.tiny.model import build_config, build_image_processor, build_tokenizer, model_folder

MOST_BYTES = 20_000_000


def test_the_weights_are_those_of_the_card() -> None:
    assert read_card(model_folder())["sha256"] == checksum(model_folder())


def test_another_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert read_card(model_folder())["sha256"] != checksum(tmp_path)


def test_the_folder_is_small_enough_to_ship() -> None:
    files = [path for path in model_folder().iterdir() if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"} <= {p.name for p in files}
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES


def test_they_fit_the_model_and_the_tokenizer_of_this_code(tmp_path: Path) -> None:
    """A word list that changes the tokenizer, or another shape, needs a new pre-training."""
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    assert read_json(tmp_path / "tokenizer.json") == read_json(model_folder() / "tokenizer.json")
    built = json.loads(build_config(tokenizer.convert_tokens_to_ids).to_json_string())
    shipped = read_json(model_folder() / "config.json")
    for part in ("text_config", "vision_config"):
        for key, value in built[part].items():
            if key not in ("dtype", "transformers_version"):
                assert shipped[part][key] == value, key
    processor = read_json(model_folder() / "preprocessor_config.json")
    assert processor["patch_size"] == build_image_processor().patch_size


@pytest.mark.slow
def test_they_find_what_the_card_says() -> None:
    """The first 40 questions of the card's 200: another machine may round otherwise and flip a digit."""
    scores = score_scenes(40)
    card = read_card(model_folder())["scores"]["first 40 scenes"]
    for key in ("mean_iou", "recall"):
        assert scores[key] == pytest.approx(card[key], abs=0.03)
    assert scores["parse_failure_rate"] <= 0.05
