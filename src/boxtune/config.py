"""The settings tree: YAML recipe and key=value in, one frozen tree with the source of every value out.

Nothing outside this file holds a default for a setting; a default that depends on the model is None here and comes
from the model's family (`with_model_defaults`), so that a 7B model and the embedded one never share a number.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from boxtune.errors import ConfigError


class Section(BaseModel):
    """A group of settings: frozen, and no key but the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class DataSettings(Section):
    """What to learn from."""

    path: str = Field(description="folder or annotation file")
    format: str = Field("auto", description="auto, or the name of a reader")
    images: str | None = Field(None, description="folder of the images, where it cannot be found from the annotations")
    limit: Annotated[int, Field(gt=0)] | None = Field(None, description="use the first n images of each split only")
    split: Literal["valid", "test"] = Field("valid", description="the split that is scored")


class AdapterSettings(Section):
    """What is trained: LoRA on the linear layers of one or more towers."""

    recipe: Literal["language", "vision", "joint"] | None = Field(None, description="the towers that get an adapter")
    target: Literal["all", "attention", "mlp"] = Field("all", description="which linear layers of a tower")
    r: Annotated[int, Field(gt=0)] | None = Field(None, description="LoRA rank")
    alpha: Annotated[float, Field(ge=0)] | None = Field(None, description="LoRA alpha")
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(None, description="LoRA dropout")


class TrainSettings(Section):
    """How it is trained."""

    epochs: Annotated[float, Field(gt=0)] | None = Field(None, description="passes over the training split")
    hours: Annotated[float, Field(gt=0)] | None = Field(None, description="stop with a checkpoint and scores after")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(None, description="peak learning rate")
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field("cosine", description="of the learning rate")
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = Field(0.03, description="share of the steps that warm up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW weight decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradients are clipped to this norm")
    effective_batch: Annotated[int, Field(gt=0)] | None = Field(None, description="images per optimizer step")
    micro_batch: Annotated[int, Field(gt=0)] | None = Field(None, description="images per forward pass")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of the compute; auto asks the device"
    )
    checkpointing: Literal["auto", "on", "off"] = Field("auto", description="gradient checkpointing; auto: on a GPU")
    resume: bool = Field(False, description="go on from the last complete checkpoint of the newest run of this name")
    logging_steps: Annotated[int, Field(gt=0)] = Field(1, description="optimizer steps between two metric rows")
    keep_checkpoints: Annotated[int, Field(gt=0)] = Field(2, description="how many checkpoints stay on disk")
    workers: Annotated[int, Field(ge=0)] = Field(0, description="processes that prepare images")


class ImageSettings(Section):
    """How large the model sees an image, as the area in pixels after the resize."""

    min_pixels: Annotated[int, Field(gt=0)] | None = Field(None, description="smaller images are enlarged to this area")
    max_pixels: Annotated[int, Field(gt=0)] | None = Field(None, description="larger images are shrunk to this area")


class EvalSettings(Section):
    """How often and on how much it is evaluated."""

    per_epoch: Annotated[int, Field(gt=0)] = Field(2, description="evaluations and checkpoints in one epoch")
    images: Annotated[int, Field(gt=0)] | None = Field(
        None, description="bound on the images of evaluations in the run"
    )
    base: bool = Field(True, description="score the untuned model too")


class GenerateSettings(Section):
    """How answers are generated."""

    at_once: Annotated[int, Field(gt=0)] = Field(16, description="images answered in one batch")
    max_new_tokens: Annotated[int, Field(gt=0)] | None = Field(
        None, description="bound on an answer; None: the longest training answer plus a quarter"
    )


class TrackSettings(Section):
    """Where metrics go besides metrics.jsonl."""

    report_to: tuple[str, ...] = Field((), description="trackers of transformers, such as tensorboard, wandb, mlflow")


class Settings(Section):
    """Everything one run is asked to do."""

    model: str
    name: str | None = Field(None, description="the run's name; None: made of data and model")
    runs: str = Field("runs", description="folder in which the run's own folder is made")
    seed: int = 0
    quantization: Literal["nf4", "int8", "none"] = Field("nf4", description="of the frozen base")
    data: DataSettings
    adapter: AdapterSettings = AdapterSettings()
    train: TrainSettings = TrainSettings()
    image: ImageSettings = ImageSettings()
    eval: EvalSettings = EvalSettings()
    generate: GenerateSettings = GenerateSettings()
    track: TrackSettings = TrackSettings()


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
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from _leaves(info.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


PATHS: tuple[str, ...] = tuple(_leaves(Settings))
GROUPS = {path.split(".")[0] for path in PATHS if "." in path}


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A settings tree and where each value comes from: default, recipe, override, family or derived."""

    settings: Settings
    sources: Mapping[str, str]

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
            text = f"{'  ' if head else ''}{leaf or path}: {_scalar(value)}"
            lines.append(f"{text:<42}  # {self.sources.get(path, 'default')}")
        return "\n".join(lines) + "\n"

    def values(self) -> Iterator[tuple[str, Any]]:
        """Every setting's path and value, settings without a group first."""
        tree = self.settings.model_dump()
        for path in sorted(PATHS, key=lambda p: "." in p):
            head, _, leaf = path.rpartition(".")
            yield path, tree[head][leaf] if head else tree[path]


def _scalar(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("\n...\n").strip()
    )


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
    for key, example in (("model", "model=Qwen/Qwen2-VL-7B-Instruct, or model=tiny"), ("data", "data=photos/")):
        if not (tree.get(key) if key == "model" else tree.get("data", {}).get("path")):
            raise ConfigError(f"the setting {key!r} is missing", fix=f"add {example}")
    try:
        return Resolved(settings=Settings.model_validate(tree), sources=sources)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"] if part in _known_parts())
        raise ConfigError(
            f"the setting {path} cannot be {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}",
            where=sources.get(path, "override"),
            fix=_describe(path),
        ) from error


def _known_parts() -> set[str]:
    return {part for path in PATHS for part in path.split(".")}


def _describe(path: str) -> str:
    owner: type[BaseModel] = Settings
    *groups, leaf = path.split(".")
    for group in groups:
        annotation = owner.model_fields[group].annotation
        assert isinstance(annotation, type)
        owner = annotation
    info = owner.model_fields[leaf]
    default = "needed" if info.is_required() else "not set" if info.default is None else f"default {info.default!r}"
    return f"{path}: {info.description or leaf} ({default})"


def describe_settings() -> Iterator[str]:
    """A line for each setting: path, what it is, default."""
    for path in PATHS:
        yield f"  {_describe(path)}"


def _flat(values: Mapping[str, Any], source: str) -> Iterator[tuple[str, Any]]:
    """(full path, value) pairs; a nested mapping is a group, `data: folder` stands for `data.path`."""
    for key, value in values.items():
        if key in GROUPS and isinstance(value, Mapping):
            for leaf, inner in value.items():
                yield full_path(f"{key}.{leaf}", source), inner
        elif key == "data":
            yield "data.path", str(value)
        else:
            yield full_path(str(key), source), str(value) if isinstance(value, Path) else value


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the recipe is not YAML: {error}", where=str(path)) from error
    if not isinstance(values, dict):
        raise ConfigError("the recipe holds no settings", where=str(path), fix="write lines like `model: tiny`")
    return values


def parse_pairs(words: list[str], valueless: tuple[str, ...] = ()) -> tuple[list[str], dict[str, Any]]:
    """Command line words -> (plain words, settings): `key=value`, `--key=value` and `--key value` mean the same.

    Values are read as YAML scalars or lists; what YAML leaves a string stays one. `valueless` names flags.
    """
    plain: list[str] = []
    pairs: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        dashed = word.startswith("--")
        key, equals, value = word.removeprefix("--").partition("=")
        if dashed and not equals and key in valueless:
            pairs[key] = True
            continue
        if dashed and not equals:
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
        pairs[key] = parse_value(value)
    return plain, pairs


def parse_value(text: str) -> Any:
    """A command line value: true, false, null, a number or a [list] as YAML reads it, else the text itself."""
    if text.lower() in ("none", "null", ""):
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, bool | int | float | list) else text
