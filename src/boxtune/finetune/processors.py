"""The family's own processor, without the parts that only videos need, and its files beside an adapter."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

from boxtune.errors import ModelError
from boxtune.finetune.source import ModelSource

VIDEO = "video_processor"
FILES = {
    "processor": "processor_config.json",
    "image": "preprocessor_config.json",
    "video": "video_preprocessor_config.json",
}
SAME_IMAGES = {"SmolVLMProcessor": "Idefics3Processor"}
"""A processor class that cannot be built for images alone -> one that treats an image the same way.

SmolVLM's refuses to be built without num2words, which it needs to count the frames of a video.
"""


def build_processor(source: ModelSource, tokenizer: Any, image_processor: Any) -> Any:
    """transformers' processor for this model around a tokenizer and an image processor.

    A class that wants a video processor too is built without one: video processors need torchvision. The instance
    keeps the upstream name of its class, so that what it writes is found again by AutoProcessor.
    """
    import transformers

    name = _class_name(source)
    upstream = getattr(transformers, SAME_IMAGES.get(name, name))
    values, _ = upstream.get_processor_dict(source.folder)
    parts = upstream.get_attributes()
    known = inspect.signature(upstream.__init__).parameters
    values = {key: value for key, value in values.items() if key in known and key not in parts}
    given: dict[str, Any] = {"image_processor": image_processor, "tokenizer": tokenizer}
    images_only = _images_only(upstream, name)
    if VIDEO not in parts:
        return images_only(**given, **values)
    # The image processor in its place, for those classes that ask the video processor how it was set up.
    processor = images_only(**given, **{VIDEO: image_processor}, **values)
    images_only.parts = [part for part in parts if part != VIDEO]
    delattr(processor, VIDEO)
    return processor


def _class_name(source: ModelSource) -> str:
    """The name of transformers' processor class for the model's type, else the one that its files name."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    named = [PROCESSOR_MAPPING_NAMES.get(source.config["model_type"])]
    for file in (FILES["processor"], FILES["image"]):
        path = source.folder / file
        if path.is_file():
            named.append(json.loads(path.read_text(encoding="utf-8")).get("processor_class"))
    for name in named:
        if name and hasattr(transformers, name):
            return str(name)
    raise ModelError(
        f"transformers has no processor for models of type {source.config['model_type']!r}",
        where=str(source.folder),
        fix="take a checkpoint in transformers' own layout, or a newer transformers",
    )


def _images_only(upstream: Any, name: str) -> Any:
    """A class of its own that takes anything for a video processor, and can be told that it has none."""

    class ImagesOnly(upstream):
        parts = upstream.get_attributes()

        @classmethod
        def get_attributes(cls) -> list[str]:
            return list(cls.parts)

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return None if argument_name == VIDEO else super().check_argument_for_proper_class(argument_name, argument)

    ImagesOnly.__name__ = ImagesOnly.__qualname__ = name
    return ImagesOnly


def save_processor(processor: Any, source: ModelSource, folder: Path) -> None:
    """Tokenizer, image processor and processor files into `folder`, with what the base says of videos.

    The image processor stands in a file of its own too, which older readers look for; both files name the processor's
    upstream class.
    """
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    _add(folder / FILES["image"], processor_class=type(processor).__name__)
    video = source.folder / FILES["video"]
    if video.is_file():
        shutil.copy2(video, folder)
    base = source.folder / FILES["processor"]
    if base.is_file() and VIDEO in (told := json.loads(base.read_text(encoding="utf-8"))):
        _add(folder / FILES["processor"], **{VIDEO: told[VIDEO]})


def _add(path: Path, **values: Any) -> None:
    written = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**written, **values}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
