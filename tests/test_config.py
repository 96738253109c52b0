"""Settings: in by recipe and key=value, out as one tree with sources; what is wrong is said in one readable error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from boxtune.config import FOREIGN, PATHS, describe_settings, full_path, parse_pairs, read_settings
from boxtune.errors import ConfigError

NEEDED = {"model": "tiny", "data": "photos"}


def test_leaf_names_full_paths_and_groups_mean_the_same() -> None:
    trees = [
        read_settings(None, {**NEEDED, **how}).settings
        for how in ({"epochs": 2}, {"train.epochs": 2}, {"train": {"epochs": 2}}, {"epochs": "2"})
    ]
    assert all(tree == trees[0] for tree in trees)
    assert trees[0].train.epochs == 2.0
    assert trees[0].data.path == "photos"


def test_overrides_beat_the_recipe_and_sources_are_kept(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: tiny\ndata: photos\nseed: 3\ntrain:\n  epochs: 5\n  learning_rate: 1e-3\n")
    resolved = read_settings(recipe, {"epochs": 7})
    assert (resolved.settings.seed, resolved.settings.train.epochs) == (3, 7.0)
    assert resolved.settings.train.learning_rate == 1e-3
    assert resolved.sources["train.epochs"] == "override"
    assert resolved.sources["seed"] == "recipe r.yaml"


def test_model_defaults_fill_only_what_is_not_set() -> None:
    resolved = read_settings(None, {**NEEDED, "r": 5}).with_values({"adapter.r": 64, "adapter.alpha": 128}, "family x")
    assert (resolved.settings.adapter.r, resolved.settings.adapter.alpha) == (5, 128)
    assert (resolved.sources["adapter.r"], resolved.sources["adapter.alpha"]) == ("override", "family x")


def test_the_written_tree_is_a_recipe_for_the_same_run(tmp_path: Path) -> None:
    values = {**NEEDED, "epochs": 1.5, "name": "a: b # c", "report_to": ["tensorboard"], "learning_rate": 2e-5}
    resolved = read_settings(None, values)
    path = tmp_path / "recipe.yaml"
    path.write_text(resolved.as_yaml())
    assert read_settings(path, {}).settings == resolved.settings
    assert yaml.safe_load(resolved.as_yaml())["train"]["epochs"] == 1.5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epocs": 1}, ["no setting 'epocs'", "did you mean 'train.epochs'?"]),
        ({"train": {"epochss": 1}}, ["no setting 'train.epochss'", "train.epochs"]),
        ({"epochs": "many"}, ["train.epochs cannot be 'many'", "valid number"]),
        ({"epochs": -1}, ["train.epochs cannot be -1", "greater than 0"]),
        ({"quantization": "nf5"}, ["quantization cannot be 'nf5'", "'nf4', 'int8' or 'none'"]),
        ({"resume": "perhaps"}, ["train.resume cannot be 'perhaps'"]),
        ({"imgsz": 640}, ["no setting 'imgsz' here", "image.max_pixels"]),
        ({"per_device_train_batch_size": 4}, ["train.micro_batch"]),
        ({"images": "x"}, ["'images' is ambiguous", "data.images, eval.images"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        read_settings(None, {**NEEDED, **values})
    assert raised.value.exit_code == 2
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("missing", ["model", "data"])
def test_model_and_data_are_needed(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"the setting '{missing}' is missing"):
        read_settings(None, {key: value for key, value in NEEDED.items() if key != missing})


def test_a_recipe_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_settings(tmp_path / "none.yaml", {})
    for text in ("a: [1", "just words", "- 1\n- 2\n"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"not YAML|holds no settings"):
            read_settings(tmp_path / "bad.yaml", {})


def test_words_of_the_command_line() -> None:
    forms = [["epochs=1", "name=x"], ["--epochs=1", "--name", "x"], ["--epochs", "1", "name=x"]]
    assert all(parse_pairs(words) == ([], {"epochs": 1, "name": "x"}) for words in forms)
    plain, pairs = parse_pairs(["recipe.yaml", "r=[1, 2]", "a=true", "b=none", "d=a=b", "--json", "./x=y/z"], ("json",))
    assert plain == ["recipe.yaml", "./x=y/z"]
    assert pairs == {"r": [1, 2], "a": True, "b": None, "d": "a=b", "json": True}
    with pytest.raises(ConfigError, match="given twice"):
        parse_pairs(["a=1", "--a", "2"])
    with pytest.raises(ConfigError, match="has no value"):
        parse_pairs(["--epochs"])


def test_what_other_tools_say_leads_to_a_setting_of_ours() -> None:
    checked = 0
    for foreign, ours in FOREIGN.items():
        assert any(path.rpartition(".")[2] in ours for path in PATHS), foreign
        with pytest.raises(ConfigError):
            full_path(foreign)
        checked += 1
    assert checked == len(FOREIGN) > 15


def test_every_setting_is_described() -> None:
    lines = list(describe_settings())
    assert len(lines) == len(PATHS)
