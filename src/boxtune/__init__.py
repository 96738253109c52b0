"""boxtune: tune vision-language models to detect objects, and prove of every run that it learns.

run = boxtune.train(model="Qwen/Qwen2-VL-7B-Instruct", data="photos/")
boxes = boxtune.load(run.folder.path).predict("photo.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boxtune.boxes import Boxes
    from boxtune.data import inspect_dataset, read_dataset
    from boxtune.errors import BoxtuneError, NotLearningError, UndecidedError, UserError
    from boxtune.run import Run, demo, load, train

__version__ = "0.1.0"

__all__ = [
    "Boxes",
    "BoxtuneError",
    "NotLearningError",
    "Run",
    "UndecidedError",
    "UserError",
    "demo",
    "inspect_dataset",
    "load",
    "read_dataset",
    "train",
]

_HOMES = {
    "Boxes": "boxes",
    "BoxtuneError": "errors",
    "NotLearningError": "errors",
    "Run": "run",
    "UndecidedError": "errors",
    "UserError": "errors",
    "demo": "run",
    "inspect_dataset": "data",
    "load": "run",
    "read_dataset": "data",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import boxtune` and `boxtune --help` cost nothing.
    if name not in _HOMES:
        raise AttributeError(f"module 'boxtune' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"boxtune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
