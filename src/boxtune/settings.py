"""The settings tree itself: every setting with its type, its default and what it is.

Nothing outside this file holds a default for a setting; a default that depends on the model is None here and comes
from the model's family (`config.Resolved.with_values`), so that a 7B model and the embedded one never share a number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

NOTHING = ("", "none", "null")
"""Text that leaves a setting unset, where the setting is not text itself."""


class Section(BaseModel):
    """A group of settings: frozen, and no key but the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _read_value(cls, value: Any, info: Any) -> Any:
        """The value as the setting's own type means it; pydantic then turns text into numbers and bools."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = _kinds(annotation)
        if is_group(annotation):
            return value
        if isinstance(value, str) and dict in kinds and value.lstrip().startswith("{"):
            value = _read_mapping(value)
        if isinstance(value, Mapping):
            if dict not in kinds:
                raise ValueError("one value belongs here, not a group of settings")
            return dict(value)
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, bool) and "on" in kinds:  # what YAML 1.1 makes of on and off
            return "on" if value else "off"
        if isinstance(value, bool) and kinds & {int, float}:
            raise ValueError("a number belongs here, not true or false")
        if isinstance(value, str) and tuple in kinds:
            parts = (part.strip(" '\"") for part in value.strip("[] ").split(","))
            return tuple(part for part in parts if part.lower() not in NOTHING)
        unset = isinstance(value, str) and NoneType in kinds and value.lower() in (("",) if str in kinds else NOTHING)
        return None if unset else value


def _read_mapping(text: str) -> Any:
    """A mapping written on the command line, such as `{kitten: cat, cat: cat}`; names stay text even if YAML knows
    them as numbers."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError("a mapping is written {name: value, other: value}") from error


def is_group(annotation: Any) -> bool:
    """Whether a field of this type is a group of settings."""
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _kinds(annotation: Any) -> set[Any]:
    """The types and literal values that an annotation allows."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType, Annotated):
        return {kind for part in (parts[:1] if origin is Annotated else parts) for kind in _kinds(part)}
    return set(parts) if origin is Literal else {origin or annotation}


def _absolute(text: str) -> str:
    # Links are kept: they are the names that the user knows.
    return os.path.abspath(os.path.expanduser(text))


# Made absolute as they are read, so that a written recipe gives the same run from any folder.
FolderPath = Annotated[str, AfterValidator(_absolute)]
DataPath = Annotated[str, AfterValidator(lambda text: _absolute(text) if Path(_absolute(text)).exists() else text)]
ModelRef = Annotated[
    str, AfterValidator(lambda text: _absolute(text) if text != "tiny" and Path(_absolute(text)).is_dir() else text)
]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Tracker = Literal[
    "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow", "neptune",
    "swanlab", "tensorboard", "trackio", "wandb",
]  # fmt: skip
"""The trackers that transformers has a callback for; a test compares them."""


Change = Literal["flip", "turn", "crop", "scale", "colour", "blur", "jpeg", "mosaic"]
"""What can be done to training images; data/augment.py says how."""
Tower = Literal["language", "projector", "vision"]


class DataSettings(Section):
    """What to learn from."""

    path: DataPath = Field(description="folder, annotation file, or hub id")
    format: str = Field("auto", description="auto, or the name of a reader")
    images: FolderPath | None = Field(None, description="folder of the images, where the annotations do not lead to it")
    boxes: str | None = Field(None, description="how four numbers are meant where the format leaves it open: xywh_px")
    frame: Literal["auto", "upright", "stored"] = Field(
        "auto", description="boxes are drawn after or before EXIF turns"
    )
    limit: Count | None = Field(None, description="use the first n images of each split only")
    split: Literal["valid", "test"] = Field("valid", description="the split that is scored")
    classes: tuple[str, ...] | dict[str, str] | None = Field(
        None, description="names to keep, or {old: new} to rename and merge; others are left out"
    )
    descriptions: dict[str, str] = Field({}, description="{class: what it is, in words for the prompt}")
    tile: Annotated[int, Field(ge=64)] | None = Field(None, description="cut images into tiles of this side in pixels")
    tile_overlap: Share = Field(0.2, description="share of a tile's side that neighbours have in common")
    augment: tuple[Change, ...] = Field(
        (), description="change training images anew each epoch: flip turn crop scale colour blur jpeg mosaic"
    )
    subset: Share = Field(0.0, description="share of training images asked for some of the classes only")
    absent: Share = Field(0.0, description="share of training images asked for classes that they do not show")
    held_out: Annotated[int, Field(ge=0)] | None = Field(
        None, description="training images kept back to calibrate scores; None: a tenth, 20 to 64 of them, else none"
    )
    negatives: Share | None = Field(None, description="share of training images without boxes; None: as they are")
    mix: FolderPath | None = Field(None, description="JSONL of other conversations to train on as well")
    mix_share: Share = Field(0.1, description="share of training samples that come from data.mix")

    @pydantic.model_validator(mode="after")
    def _check_shares(self) -> DataSettings:
        if self.subset + self.absent > 1:
            raise ValueError(f"subset={self.subset} and absent={self.absent} are more than all images together")
        return self


class AdapterSettings(Section):
    """What is trained: LoRA on the linear layers of one or more towers."""

    recipe: Literal["language", "vision", "joint", "two_stage", "full_vision", "full"] | None = Field(
        None, description="the towers that get an adapter, or are trained in full"
    )
    target: Literal["all", "attention", "mlp"] = Field("all", description="which linear layers of a tower")
    r: Count | None = Field(None, description="LoRA rank")
    alpha: Annotated[float, Field(ge=0)] | None = Field(None, description="LoRA alpha")
    dropout: Share | None = Field(None, description="LoRA dropout")


class TrainSettings(Section):
    """How it is trained."""

    epochs: Positive | None = Field(None, description="passes over the training split")
    hours: Positive | None = Field(None, description="stop with a checkpoint and scores after")
    patience: Count | None = Field(None, description="stop after so many evaluations without a better one")
    learning_rate: Positive | dict[Tower, Positive] | None = Field(
        None, description="peak learning rate, or {language: 1e-4, vision: 1e-5}"
    )
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field("cosine", description="of the learning rate")
    warmup_share: Share = Field(0.03, description="share of the steps that warm up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW weight decay")
    max_grad_norm: Positive = Field(1.0, description="gradients are clipped to this norm")
    effective_batch: Count | None = Field(None, description="images per optimizer step")
    micro_batch: Count | None = Field(
        None, description="images per forward pass; None: planned, from memory and lengths"
    )
    memory_gb: Positive | None = Field(None, description="plan for a card of so many GB, and keep to them")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", description="of compute; auto asks the device")
    checkpointing: Literal["auto", "on", "off"] = Field("auto", description="gradient checkpointing; auto: as planned")
    packing: Literal["auto", "off"] = Field("auto", description="no padding between samples where the family can")
    features: Literal["auto", "off"] = Field("auto", description="keep what a frozen vision tower makes of each image")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile the layers; auto: on a GPU")
    resume: bool = Field(False, description="go on from the last complete checkpoint of the run of this name")
    logging_steps: Count = Field(1, description="optimizer steps between two metric rows")
    keep_checkpoints: Annotated[int, Field(ge=2)] = Field(2, description="one must stand until the next is sealed")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="processes that prepare images; None: as many as pay on a GPU, 0 on a CPU"
    )
    devices: Literal["auto"] | Count = Field("auto", description="GPUs that train together; auto: all that are visible")
    sharding: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="what several GPUs share: gradients (ddp) or weights too; auto: fsdp for recipe=full"
    )


class ImageSettings(Section):
    """How large the model sees an image, as the area in pixels after the resize."""

    min_pixels: Count | None = Field(None, description="smaller images are enlarged to this area")
    max_pixels: Count | None = Field(None, description="larger images are shrunk to this area")


class EvalSettings(Section):
    """How often and on how much it is evaluated."""

    per_epoch: Count = Field(2, description="evaluations and checkpoints in one epoch")
    images: Count | None = Field(None, description="bound on the images of evaluations in the run")
    answers: Annotated[int, Field(ge=0)] = Field(
        32, description="validation images answered at each evaluation, for AP; 0: the best is by validation loss"
    )
    base: bool = Field(True, description="score the untuned model too")


class GenerateSettings(Section):
    """How answers are generated."""

    at_once: Count = Field(16, description="images answered in one batch")
    max_new_tokens: Count | None = Field(None, description="bound on an answer; None: the longest one plus a quarter")
    nms: Literal["off", "class", "all"] = Field(
        "off", description="leave out boxes that overlap a likelier one: of its class, or of any"
    )
    nms_iou: Share = Field(0.7, description="IoU from which boxes overlap")
    max_boxes: Count | None = Field(None, description="boxes of an image at most, the likeliest")


class GuardSettings(Section):
    """What the guard does about a run that does not learn."""

    mode: Literal["stop", "warn", "off"] = Field("stop", description="stop a run that is proved not to learn, or warn")
    skip: tuple[str, ...] = Field((), description="checks to leave out, by id or its first part")
    strict: bool = Field(False, description="exit code 4 where the verdict is: cannot tell")


class TrackSettings(Section):
    """Where metrics go besides metrics.jsonl."""

    report_to: tuple[Tracker, ...] = Field((), description="one or a list of: tensorboard, wandb, mlflow and others")


class Settings(Section):
    """Everything one run is asked to do."""

    model: ModelRef
    family: str | None = Field(None, description="box grammar for a model of no known family: json1000")
    name: str | None = Field(None, description="the run's name; None: made of data and model")
    runs: str = Field("runs", description="folder in which the run's own folder is made")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    quantization: Literal["nf4", "int8", "fp8", "none"] = Field("nf4", description="of the frozen base")
    data: DataSettings
    adapter: AdapterSettings = AdapterSettings()
    train: TrainSettings = TrainSettings()
    image: ImageSettings = ImageSettings()
    eval: EvalSettings = EvalSettings()
    generate: GenerateSettings = GenerateSettings()
    guard: GuardSettings = GuardSettings()
    track: TrackSettings = TrackSettings()
