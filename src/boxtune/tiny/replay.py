"""A step's work recorded as a CUDA graph for each shape of its inputs, so that the CPU launches it all at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch


class Replay:
    """Calls `function(key, *tensors)`; on a GPU, from the second call with a key on, by replaying a recording.

    The function must do the same device work for the same key, read nothing back, and leave its results in tensors
    that outlive it. The first call with a key runs plainly, so that whatever is compiled or tuned on the way is done
    before it is recorded. Recordings share their memory, so they must run one after another.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        self.function, self.recorded = function, device.type == "cuda"
        self.seen: set[Hashable] = set()
        self.inputs: dict[tuple[Any, ...], torch.Tensor] = {}
        self.graphs: dict[Hashable, Any] = {}
        self.memory: Any = None

    def __call__(self, key: Hashable, tensors: Sequence[torch.Tensor] = ()) -> None:
        if not self.recorded or key not in self.seen:
            self.seen.add(key)
            self.function(key, *tensors)
            return
        inside = [self._input(place, tensor) for place, tensor in enumerate(tensors)]
        if key not in self.graphs:
            # What the plain call left in the allocator's cache is out of a recording's reach.
            torch.cuda.empty_cache()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.memory):
                self.function(key, *inside)
            self.graphs[key], self.memory = graph, graph.pool()
        self.graphs[key].replay()

    def _input(self, place: int, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor's values where the recordings read them: one place for all inputs of one shape."""
        key = (place, tuple(tensor.shape), tensor.dtype)
        if key not in self.inputs:
            self.inputs[key] = torch.empty_like(tensor)
        return self.inputs[key].copy_(tensor)
