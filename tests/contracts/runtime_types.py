"""The type checker that tests/conftest.py puts around every function and dataclass of boxtune."""

from __future__ import annotations

import sys
import typing
from io import BytesIO
from typing import IO, Any

from beartype import BeartypeConf, FrozenDict, beartype

# Typeshed says that BytesIO is an IO[bytes]; beartype denies it, since it has no `mode` and no `name`.
_CONF = BeartypeConf(hint_overrides=FrozenDict({IO[bytes]: IO[bytes] | BytesIO}))


def checked(function: Any) -> Any:
    """The function, raising where an argument or the result is not of its annotated type and shape.

    beartype refuses annotations with a protocol that is not runtime-checkable, and src needs none to be: it is made
    so here, for the protocols that the function's module can name.
    """
    for value in list(vars(sys.modules[function.__module__]).values()):
        if isinstance(value, type) and getattr(value, "_is_protocol", False) and value.__module__.startswith("boxtune"):
            typing.runtime_checkable(value)
    return beartype(function, conf=_CONF)
