"""Who changed a parameter: every freeze, cast, detach and replacement while a model and its trainer are built.

A `TorchFunctionMode` sees the assignments that leave no other mark (`p.requires_grad = False`, `p.data = ...`), also
on packed 4-bit weights, and where they were made from. It belongs to the building: in a training step it would see
every operation.
"""

from __future__ import annotations

import sys
import sysconfig
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

_SETTERS = {"requires_grad": torch.Tensor.requires_grad, "data": torch.Tensor.data}
_OURS = str(Path(__file__).parent)
_LIBRARIES = tuple(
    {str(Path(path)) for key, path in sysconfig.get_paths().items() if key in ("stdlib", "purelib", "platlib")}
)
_TORCH = str(Path(torch.__file__).parent)

_CHECKOUTS = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "unsloth")

Kind = Literal["frozen", "unfrozen", "cast", "data", "detached", "replaced"]


class Frame(NamedTuple):
    """One place in a call chain."""

    file: str
    line: int
    function: str

    @property
    def is_library(self) -> bool:
        """Whether the file belongs to Python or to an installed package, not to the user."""
        return bool(_in_package(self.file)) or self.file.startswith(("<frozen", *_LIBRARIES)) or not self.file

    @property
    def is_torch(self) -> bool:
        """Whether the file is torch's own."""
        return self.file.startswith(_TORCH)

    @property
    def package(self) -> str:
        """The installed package the file belongs to, empty for the user's own."""
        inside = _in_package(self.file)
        return inside[0] if inside else "python" if self.is_library else ""

    def __str__(self) -> str:
        if inside := _in_package(self.file):
            return f"{'/'.join(inside)}:{self.line} {self.function}"
        path = Path(self.file)
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        return f"{path}:{self.line}" + (f" {self.function}" if self.function != "<module>" else "")


def _in_package(file: str) -> tuple[str, ...]:
    """The parts of a path from its installed package on, none for a file of the user's."""
    path = Path(file)
    for mark in ("site-packages", "dist-packages"):
        if mark in path.parts:
            return path.parts[len(path.parts) - path.parts[::-1].index(mark) :]
    # Installed from a checkout, or found on PYTHONPATH.
    for name in _CHECKOUTS:
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin and path.is_relative_to(Path(origin).parent):
            return path.parts[len(Path(origin).parent.parts) - 1 :]
    return ()


def user_frames() -> tuple[Frame, ...]:
    """The user's own lines that led here, innermost first."""
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_OURS) and code.co_name == "diagnose":
            break
        if not code.co_filename.startswith(_OURS):
            frames.append(Frame(code.co_filename, frame.f_lineno, code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(frame for frame in frames if not frame.package)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change of one parameter; `detail` says from what to what where that is not plain from the kind."""

    kind: Kind
    parameter: weakref.ref[Any]
    where: tuple[tuple[CodeType, int], ...]
    detail: str = ""

    @property
    def chain(self) -> tuple[Frame, ...]:
        """The calls that led to it, innermost first."""
        return tuple(Frame(code.co_filename, line, code.co_name) for code, line in self.where)


class Tracer(TorchFunctionMode):
    """A context in which every change of a parameter is recorded, in order, in `changes`.

    Threads that were started elsewhere are not seen (torch keeps such modes by thread). A parameter put into a
    module's `_parameters` by hand is not seen either; the stages' snapshots notice it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []
        self._hook: Any = None

    def __enter__(self) -> Tracer:
        super().__enter__()
        self._hook = register_module_parameter_registration_hook(self._registered)
        return self

    def __exit__(self, *error: Any) -> None:
        self._hook.remove()
        super().__exit__(*error)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        # Every access makes a new wrapper of the setter, so it is told by the attribute it belongs to.
        setter = getattr(func, "__self__", None) if getattr(func, "__name__", "") == "__set__" else None
        if setter is _SETTERS["requires_grad"]:
            self._grad(args[0], bool(args[1]))
        elif setter is _SETTERS["data"]:
            self._data(args[0], args[1])
        elif func is torch.Tensor.requires_grad_:
            wanted = args[1] if len(args) > 1 else (kwargs or {}).get("requires_grad", True)
            self._grad(args[0], bool(wanted))
        elif func is torch.Tensor.detach_:
            self._note("detached", args[0])
        return func(*args, **(kwargs or {}))

    def _grad(self, tensor: Any, wanted: bool) -> None:
        if isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad != wanted:
            self._note("unfrozen" if wanted else "frozen", tensor)

    def _data(self, tensor: Any, other: Any) -> None:
        if not isinstance(tensor, torch.nn.Parameter) or other is tensor:
            return
        if tensor.dtype != other.dtype:
            self._note("cast", tensor, f"{_short(tensor.dtype)} to {_short(other.dtype)}")
        elif tensor.shape != other.shape:
            self._note("data", tensor, f"{tuple(tensor.shape)} to {tuple(other.shape)}")
        elif tensor.device != other.device:
            self._note("data", tensor, f"{tensor.device} to {other.device}")
        else:
            self._note("data", tensor)

    def _registered(self, module: torch.nn.Module, name: str, parameter: Any) -> None:
        old = module._parameters.get(name)
        if old is None or parameter is None or old is parameter:
            return
        detail = "" if old.dtype == parameter.dtype else f"{_short(old.dtype)} to {_short(parameter.dtype)}"
        if old.requires_grad != parameter.requires_grad:
            self._note("unfrozen" if parameter.requires_grad else "frozen", parameter, "replaced by another parameter")
        self._note("replaced", parameter, detail)

    def _note(self, kind: Kind, parameter: Any, detail: str = "") -> None:
        if not isinstance(parameter, torch.nn.Parameter):
            return
        where, frame = [], sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            if not code.co_filename.startswith(_OURS):
                where.append((code, frame.f_lineno))
            elif code.co_name == "diagnose":
                # What lies behind is who started the doctor.
                break
            frame = frame.f_back  # type: ignore[assignment]
        self.changes.append(Change(kind=kind, parameter=weakref.ref(parameter), where=tuple(where), detail=detail))

    def last(self, parameter: Any, *kinds: Kind) -> Change | None:
        """The last change of those kinds that was made to the parameter."""
        return next((c for c in reversed(self.changes) if c.parameter() is parameter and c.kind in kinds), None)


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def short_chain(chain: Sequence[Frame]) -> tuple[Frame, ...]:
    """What a person needs of a call chain: who did it, where one package called another, the user's own lines.

    Torch's own frames and repeated frames of one package are left out, but for the innermost of each.
    """
    kept: list[Frame] = []
    chain = [frame for frame in chain if not frame.is_torch] or list(chain)
    for frame in chain:
        if frame.package == "python":
            continue
        if not frame.package or not kept or kept[-1].package != frame.package:
            kept.append(frame)
    # Whatever started the script (a runner, a notebook's kernel) lies behind the user's first line.
    users = [place for place, frame in enumerate(kept) if not frame.package]
    return tuple(kept[: users[-1] + 1] if users else kept)
