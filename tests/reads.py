"""Where a model's own arithmetic asks for a number: on a GPU each time waits for all that was asked of it before."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

ASKS = (
    "_local_scalar_dense",
    "nonzero",
    "equal",
    "masked_select",
    "_unique2",
    "is_nonzero",
    "repeat_interleave.Tensor",
)


class Reads(TorchDispatchMode):
    """Inside, `found` gathers the files and functions that ask for a number of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function).removeprefix("aten.")
        if name.startswith(ASKS):
            frames = [f for f in traceback.extract_stack()[:-1] if "/torch/" not in f.filename and f.name != "inner"]
            self.found.append(f"{Path(frames[-1].filename).name}:{frames[-1].name}")
        return function(*args, **(kwargs or {}))
