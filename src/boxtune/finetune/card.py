"""The run card, which binds what prediction must repeat, and the environment that a run was made in."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from boxtune import __version__
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Loaded
from boxtune.finetune.source import fingerprint
from boxtune.settings import Settings


def build_card(loaded: Loaded, encoder: Encoder, max_new_tokens: int, settings: Settings) -> dict[str, Any]:
    """The run card: what prediction must repeat, bound to the weights it was trained on.

    `selected_classes` is what the classes were made of (`data.classes`): names that were kept, or old names and new
    ones; `selection` which boxes of an answer are kept (`infer.Selection`).
    """
    source, asked = loaded.source, settings.generate
    # A folder is named by where it is; a hub id, and the embedded model, by what the user wrote.
    is_folder = Path(source.ref).expanduser().is_dir()
    return {
        "model": str(source.folder.absolute()) if is_folder else source.ref,
        "base_fingerprint": fingerprint(source.folder),
        "family": source.family.name,
        "prompt": encoder.prompt(encoder.classes, ""),
        "classes": list(encoder.classes),
        "selected_classes": settings.data.classes,
        "descriptions": encoder.descriptions,
        "tiling": None if encoder.tiling is None else asdict(encoder.tiling),
        "quantization": loaded.placement.quantization,
        "precision": loaded.placement.precision,
        "full_towers": list(loaded.full),
        "min_pixels": encoder.min_pixels,
        "max_pixels": encoder.max_pixels,
        "max_new_tokens": max_new_tokens,
        "selection": {"nms": asked.nms, "iou": asked.nms_iou, "most": asked.max_boxes},
        "versions": read_environment()["versions"],
    }


def read_environment() -> dict[str, Any]:
    """Versions, machine and command line: what is needed to repeat the run."""
    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"boxtune": __version__, **{name: metadata.version(name) for name in packages}},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "command": sys.argv,
    }
