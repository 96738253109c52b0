"""Settings: in by recipe and key=value, out as one tree with sources; what is wrong is said in one readable error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from boxtune.config import FOREIGN, PATHS, Resolved, describe_settings, full_path, parse_pairs, read_settings
from boxtune.errors import ConfigError
from boxtune.settings import Tracker

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
        ({"quantization": "nf5"}, ["quantization cannot be 'nf5'", "'nf4', 'int8', 'fp8' or 'none'"]),
        ({"resume": "perhaps"}, ["train.resume cannot be 'perhaps'"]),
        ({"imgsz": 640}, ["no setting 'imgsz' here", "image.max_pixels"]),
        ({"per_device_train_batch_size": 4}, ["train.micro_batch"]),
        ({"images": "x"}, ["'images' is ambiguous", "data.images, eval.images"]),
        ({"epochs": True}, ["train.epochs cannot be True", "a number belongs here"]),
        ({"r": True}, ["adapter.r cannot be True", "a number belongs here"]),
        ({"epochs": float("inf")}, ["train.epochs cannot be inf", "finite"]),
        ({"hours": "nan"}, ["train.hours cannot be 'nan'", "finite"]),
        ({"seed": -1}, ["seed cannot be -1"]),
        ({"seed": 2**32}, ["seed cannot be 4294967296"]),
        ({"keep_checkpoints": 1}, ["train.keep_checkpoints cannot be 1", "until the next is sealed"]),
        ({"min_pixels": 9000, "max_pixels": 800}, ["min_pixels=9000 is more than max_pixels=800", "override"]),
        ({"learning_rate": "abc"}, ["train.learning_rate", "'abc'"]),
        ({"devices": "many"}, ["train.devices", "'many'"]),
        ({"effective_batch": 6, "micro_batch": 4}, ["effective_batch=6 is no multiple of micro_batch=4"]),
        ({"effective_batch": 2, "micro_batch": 4}, ["effective_batch=2 is no multiple of micro_batch=4"]),
        ({"report_to": "tensorbored"}, ["track.report_to cannot be 'tensorbored'", "'tensorboard'", "'wandb'"]),
        ({"epochs": {"a": 1}}, ["train.epochs cannot be {'a': 1}", "one value belongs here"]),
        ({"model": {"name": "tiny"}}, ["model cannot be {'name': 'tiny'}", "one value belongs here"]),
        ({"image": 448}, ["'image' is a group", "image.min_pixels, image.max_pixels"]),
        ({"track": "wandb"}, ["'track' is a group", "track.report_to"]),
        ({"name": 1.1}, ["name cannot be 1.1", "in quotes"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        read_settings(None, {**NEEDED, **values})
    assert raised.value.exit_code == 2
    for word in words:
        assert word in str(raised.value)


def test_values_at_the_edge_pass() -> None:
    values = {"seed": 2**32 - 1, "keep_checkpoints": 2, "min_pixels": 800, "max_pixels": 800, "resume": True}
    settings = read_settings(None, {**NEEDED, **values, "effective_batch": 8, "micro_batch": 4}).settings
    assert (settings.seed, settings.train.keep_checkpoints, settings.train.resume) == (2**32 - 1, 2, True)


def with_defaults(**values: Any) -> Resolved:
    """Settings under a model whose own batch is 16, and whose budget is 1000 to 2000 pixels."""
    defaults = {"train.effective_batch": 16, "image.min_pixels": 1000, "image.max_pixels": 2000}
    return read_settings(None, {**NEEDED, **values}).with_values(defaults, "family x")


def test_a_micro_batch_is_left_to_the_plan() -> None:
    assert with_defaults(effective_batch=8).settings.train.micro_batch is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"micro_batch": 3}, ["effective_batch=16 is no multiple of micro_batch=3", "effective_batch: family x"]),
        ({"micro_batch": 32}, ["effective_batch=16 is no multiple of micro_batch=32", "micro_batch: override"]),
        ({"max_pixels": 500}, ["min_pixels=1000 is more than max_pixels=500", "image.min_pixels: family x"]),
    ],
)
def test_settings_at_odds_with_the_models_are_refused(values: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        with_defaults(**values)
    for word in words:
        assert word in str(raised.value)


def test_trackers_come_alone_or_in_a_list() -> None:
    forms = ["tensorboard", "[tensorboard]", "tensorboard,", ["tensorboard"], ("tensorboard",)]
    for form in forms:
        assert read_settings(None, {**NEEDED, "report_to": form}).settings.track.report_to == ("tensorboard",)
    assert read_settings(None, {**NEEDED, "report_to": "[wandb, mlflow]"}).settings.track.report_to == (
        "wandb",
        "mlflow",
    )
    for form in ("none", "", "[]", []):
        assert read_settings(None, {**NEEDED, "report_to": form}).settings.track.report_to == ()


@pytest.mark.slow
def test_trackers_are_those_of_transformers() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(get_args(Tracker)) == set(INTEGRATION_TO_CALLBACK)


def test_text_is_read_by_the_type_of_the_setting() -> None:
    text = {
        "data": "2024_01", "name": "1.10", "runs": "007", "epochs": "1e1", "limit": "none", "r": "8", "base": "false",
        "checkpointing": "on", "quantization": "none", "hours": "", "workers": "0",
    }  # fmt: skip
    settings = read_settings(None, {"model": "tiny", **text}).settings
    assert (settings.data.path, settings.name, settings.runs) == ("2024_01", "1.10", "007")
    assert (settings.train.epochs, settings.data.limit, settings.adapter.r) == (10.0, None, 8)
    assert (settings.eval.base, settings.train.checkpointing, settings.quantization) == (False, "on", "none")
    assert (settings.train.hours, settings.train.workers) == (None, 0)
    for name in ("12:30", "2024-01-01", "none", "yes"):
        assert read_settings(None, {**NEEDED, "name": name}).settings.name == name


def test_empty_lines_of_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: tiny\ndata: photos\nadapter:\n  # r: 8\ntrain:\n  epochs:\n  checkpointing: off\n")
    settings = read_settings(recipe, {}).settings
    assert (settings.adapter.r, settings.train.epochs, settings.train.checkpointing) == (None, None, "off")
    for text in ("model: tiny\ndata:\n", "model: tiny\ndata:\n  path:\n"):
        recipe.write_text(text)
        with pytest.raises(ConfigError, match="the setting 'data' is missing"):
            read_settings(recipe, {})
    recipe.write_text("model:\ndata: photos\n")
    with pytest.raises(ConfigError, match="the setting 'model' is missing"):
        read_settings(recipe, {})


def test_paths_that_are_there_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("photos", "base", "tiny"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("photos")
    asked = read_settings(None, {"model": "base", "data": {"path": "./link/", "images": "~/photos"}})
    settings = asked.settings
    assert (settings.model, settings.data.path) == (str(tmp_path / "base"), str(tmp_path / "link"))
    assert settings.data.images == str(tmp_path / "photos")
    (tmp_path / "recipe.yaml").write_text(asked.as_yaml())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_settings(tmp_path / "recipe.yaml", {}).settings == settings


def test_names_that_are_no_path_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    for model in ("tiny", "Qwen/Qwen2-VL-7B-Instruct"):
        settings = read_settings(None, {"model": model, "data": "somebody/set"}).settings
        assert (settings.model, settings.data.path) == (model, "somebody/set")
    assert read_settings(None, {"model": "tiny", "data": Path("tiny")}).settings.data.path == str(tmp_path / "tiny")


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
    with pytest.raises(ConfigError, match=rf"that is a folder.*\n.*\n.*did you mean data={tmp_path}/\?"):
        read_settings(tmp_path, {})
    with pytest.raises(ConfigError, match="the recipe cannot be read: Not a directory"):
        read_settings(tmp_path / "bad.yaml" / "recipe.yaml", {})


def test_words_of_the_command_line() -> None:
    forms = [["epochs=1", "name=x"], ["--epochs=1", "--name", "x"], ["--epochs", "1", "name=x"]]
    assert all(parse_pairs(words) == ([], {"epochs": 1, "name": "x"}) for words in forms)
    words = ["recipe.yaml", "r=[1, 2]", "a=true", "b=null", "d=a=b", "--json", "./x=y/z"]
    plain, pairs = parse_pairs(words, ("json",))
    assert plain == ["recipe.yaml", "./x=y/z"]
    assert pairs == {"r": [1, 2], "a": True, "b": None, "d": "a=b", "json": True}
    plain, pairs = parse_pairs(words, ("json",), as_text=True)
    assert pairs == {"r": "[1, 2]", "a": "true", "b": "null", "d": "a=b", "json": "true"}
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
