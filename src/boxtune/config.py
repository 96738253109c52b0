"""The settings tree: YAML recipe and key=value in, one frozen tree with the source of every value out.

The settings themselves, their types and defaults stand in `settings.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import pydantic
import yaml
from pydantic import BaseModel

from boxtune.errors import ConfigError
from boxtune.settings import Settings, is_group

FOREIGN = {
    "imgsz": "image.max_pixels (an area in pixels)",
    "max_length": "image.max_pixels; text is never cut",
    "batch": "train.effective_batch",
    "batch_size": "train.effective_batch",
    "per_device_train_batch_size": "train.micro_batch",
    "gradient_accumulation_steps": "train.effective_batch (accumulation is effective_batch / micro_batch)",
    "lr": "train.learning_rate",
    "lr0": "train.learning_rate",
    "num_train_epochs": "train.epochs",
    "lora_r": "adapter.r",
    "rank": "adapter.r",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "target_modules": "adapter.recipe and adapter.target",
    "load_in_4bit": "quantization=nf4",
    "load_in_8bit": "quantization=int8",
    "gradient_checkpointing": "train.checkpointing",
    "output_dir": "runs and name",
    "project": "runs",
    "dataset": "data (data.path)",
    "lr_scheduler_type": "train.schedule",
    "warmup_ratio": "train.warmup_share",
    "max_new_tokens_per_image": "generate.max_new_tokens",
}
"""What other tools call a setting -> what it is called here."""


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        if is_group(info.annotation):
            yield from _leaves(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name


SHORT = {"data": "data.path", "guard": "guard.mode"}
"""Groups whose name alone stands for one of their settings."""
PATHS: tuple[str, ...] = tuple(_leaves(Settings))
GROUPS = {path.split(".")[0] for path in PATHS if "." in path}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A settings tree and where each value comes from: default, recipe, override, family or derived.

    Raises ConfigError where two settings are at odds with each other.
    """

    settings: Settings
    sources: Mapping[str, str]

    def __post_init__(self) -> None:
        image, train = self.settings.image, self.settings.train
        least, most, micro, effective = image.min_pixels, image.max_pixels, train.micro_batch, train.effective_batch
        if least and most and least > most:
            what, keys = f"min_pixels={least} is more than max_pixels={most}", ("image.min_pixels", "image.max_pixels")
            fix = "give both, the smaller area as min_pixels"
        elif micro and effective and effective % micro:
            what = f"effective_batch={effective} is no multiple of micro_batch={micro}"
            keys = ("train.effective_batch", "train.micro_batch")
            fix = "make it a multiple, or leave micro_batch away: gradients are accumulated over whole micro-batches"
        else:
            return
        sources = "; ".join(f"{key}: {self.sources.get(key, 'default')}" for key in keys)
        raise ConfigError(what, where=sources, fix=fix)

    def with_values(self, values: Mapping[str, Any], source: str) -> Resolved:
        """The tree with the settings that are still None filled from `values` (path -> value)."""
        tree = self.settings.model_dump()
        sources = dict(self.sources)
        for path, value in values.items():
            group, leaf = path.split(".")
            if tree[group][leaf] is None:
                tree[group][leaf] = value
                sources[path] = source
        return Resolved(settings=Settings.model_validate(tree), sources=sources)

    def as_yaml(self) -> str:
        """The tree as a recipe that gives the same run, with the source of each value beside it."""
        lines, group = [], ""
        for path, value in self.values():
            head, _, leaf = path.rpartition(".")
            if head != group:
                group = head
                lines.append(f"{head}:")
            text = f"{'  ' if head else ''}{leaf}: {_scalar(value)}"
            lines.append(f"{text:<42}  # {self.sources.get(path, 'default')}")
        return "\n".join(lines) + "\n"

    def values(self) -> Iterator[tuple[str, Any]]:
        """Every setting's path and value, settings without a group first."""
        tree = self.settings.model_dump()
        for path in sorted(PATHS, key=lambda p: "." in p):
            head, _, leaf = path.rpartition(".")
            yield path, tree[head][leaf] if head else tree[path]


def _scalar(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n...\n").strip()


def read_settings(recipe: Path | None, overrides: Mapping[str, Any]) -> Resolved:
    """Settings from a recipe file and overrides (full paths, leaf names or nested groups), defaults below.

    Raises ConfigError that names the key and the nearest known one, or the value and the type that was wanted.
    """
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    layers = [] if recipe is None else [(_read_yaml(recipe), f"recipe {recipe.name}")]
    for values, source in [*layers, (overrides, "override")]:
        for path, value in _flat(values, source):
            head, _, leaf = path.rpartition(".")
            (tree.setdefault(head, {}) if head else tree)[leaf] = value
            sources[path] = source
    if not tree.get("model"):
        raise ConfigError("the setting 'model' is missing", fix="add model=Qwen/Qwen2-VL-7B-Instruct, or model=tiny")
    if not tree.get("data", {}).get("path"):
        raise ConfigError("the setting 'data' is missing", fix="add data=photos/")
    try:
        return Resolved(settings=Settings.model_validate(tree), sources=sources)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = _setting_of(first["loc"])
        why = first["msg"].removeprefix("Value error, ")
        unquoted = first["type"] == "string_type" and not isinstance(first["input"], list | tuple | NoneType)
        raise ConfigError(
            f"the setting {path} cannot be {first['input']!r}: {why[0].lower()}{why[1:]}",
            where=sources.get(path, "override"),
            fix=_describe(path) + ("; in YAML, put text that looks like a number or a date in quotes" * unquoted),
        ) from error


def _setting_of(place: Sequence[str | int]) -> str:
    """The setting that an error is about: behind it pydantic names the kinds of value that were tried, or a key."""
    parts = [part for part in place if isinstance(part, str)]
    ends = range(len(parts), 0, -1)
    return next((path for end in ends if (path := ".".join(parts[:end])) in PATHS), ".".join(parts))


def _describe(path: str) -> str:
    head, _, leaf = path.rpartition(".")
    owner: Any = Settings.model_fields[head].annotation if head else Settings
    info = owner.model_fields[leaf]
    default = "needed" if info.is_required() else "not set" if info.default is None else f"default {info.default!r}"
    return f"{path}: {info.description or leaf} ({default})"


def describe_settings() -> Iterator[str]:
    """A line for each setting: path, what it is, default."""
    for path in PATHS:
        yield f"  {_describe(path)}"


def _flat(values: Mapping[str, Any], source: str) -> Iterator[tuple[str, Any]]:
    """(full path, value) pairs; a nested mapping is a group; see SHORT."""
    for key, value in values.items():
        if key in GROUPS and isinstance(value, Mapping | None):
            for leaf, inner in (value or {}).items():  # None: a group whose lines are all commented out
                yield full_path(f"{key}.{leaf}", source), inner
        elif key in SHORT:
            yield SHORT[key], value
        elif key in GROUPS:
            what = f"{key!r} is a group of settings and cannot be {value!r}"
            members = ", ".join(path for path in PATHS if path.startswith(f"{key}."))
            raise ConfigError(what, where=source, fix=f"write one of: {members}")
        else:
            yield full_path(str(key), source), value


def full_path(key: str, source: str = "override") -> str:
    """The full path of a setting given by path or by leaf name; ConfigError if it is unknown or ambiguous."""
    if key in PATHS:
        return key
    ends = [path for path in PATHS if path.rpartition(".")[2] == key]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"the setting {key!r} is ambiguous", where=source, fix=f"write one of: {', '.join(ends)}")
    leaf = key.rpartition(".")[2]
    if leaf in FOREIGN:
        raise ConfigError(f"there is no setting {key!r} here", where=source, fix=f"boxtune calls it {FOREIGN[leaf]}")
    names = [*PATHS, *(path.rpartition(".")[2] for path in PATHS)]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5) or difflib.get_close_matches(leaf, names, n=1)
    hint = f"did you mean {full_path(near[0])!r}?" if near else f"known settings: {', '.join(PATHS)}"
    raise ConfigError(f"there is no setting {key!r}", where=source, fix=hint)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("the recipe does not exist", where=str(path), fix="give the path of a YAML file") from error
    except IsADirectoryError as error:
        raise ConfigError("that is a folder, no recipe", where=str(path), fix=f"did you mean data={path}/?") from error
    except OSError as error:
        raise ConfigError(f"the recipe cannot be read: {error.strerror}", where=str(path), fix="mend that") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe is not YAML: {error}", where=str(path), fix="mend it there") from error
    if not isinstance(values, dict):
        raise ConfigError("the recipe holds no settings", where=str(path), fix="write lines like `model: tiny`")
    return values


def parse_pairs(
    words: list[str], valueless: tuple[str, ...] = (), *, as_text: bool = False
) -> tuple[list[str], dict[str, Any]]:
    """Command line words -> (plain words, settings): `key=value`, `--key=value` and `--key value` mean the same.

    `valueless` names flags. Values are read as YAML, or left `as_text` for the setting's own type to read: 2024_01 is
    a folder as `data`, and a number to YAML.
    """
    plain: list[str] = []
    pairs: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        dashed = word.startswith("--")
        key, equals, value = word.removeprefix("--").partition("=")
        if dashed and not equals and key in valueless:
            value = "true"
        elif dashed and not equals:
            found = next(rest, None)
            if found is None:
                raise ConfigError(f"{word} has no value", fix=f"write {key}=VALUE")
            value = found
        elif not equals or not key.replace(".", "").replace("_", "").replace("-", "").isalnum():
            plain.append(word)
            continue
        key = key.replace("-", "_")
        if key in pairs:
            raise ConfigError(f"the setting {key!r} is given twice", fix="keep one of them")
        pairs[key] = value if as_text else yaml.safe_load(value)
    return plain, pairs
