"""The type checker that tests/conftest.py puts around every function and dataclass of boxtune."""

from __future__ import annotations

import sys
import typing
from typing import Any

from beartype import beartype


def checked(function: Any) -> Any:
    """The function, raising where an argument or the result is not of its annotated type and shape.

    beartype refuses annotations with a protocol that is not runtime-checkable, and src needs none to be: it is made
    so here, for the protocols that the function's module can name.
    """
    for value in list(vars(sys.modules[function.__module__]).values()):
        if isinstance(value, type) and getattr(value, "_is_protocol", False) and value.__module__.startswith("boxtune"):
            typing.runtime_checkable(value)
    return beartype(function)
