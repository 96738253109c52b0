"""Three lines for anybody's script: `with guard.watch():` round it, `guard.check(trainer)`, or the callback alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from boxtune.guard.callback import LearningCallback
from boxtune.guard.finding import Finding
from boxtune.guard.stages import Stages


class _Enough(Exception):
    """Training has been brought to its first step, which is as far as a check goes."""


@contextlib.contextmanager
def watch(
    mode: Literal["stop", "warn", "off"] = "stop",
    *,
    skip: Collection[str] = (),
    towers: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    trace_training: bool = False,
    tell: Callable[[Finding], None] | None = None,
) -> Iterator[Stages]:
    """While open, every model that is loaded, every adapter and every trainer is watched, and each trainer guarded.

    Gives the stages, whose `ledger` is the story of what was trainable when. `trace_training` makes steps slow, and
    names the line of what is frozen in them. `tell` is handed each finding instead of its being printed.
    """

    def make(stages: Stages) -> LearningCallback:
        return LearningCallback(mode, skip=skip, towers=towers, stages=stages, out=out, tell=tell)

    stages = Stages(towers, make, trace_training=trace_training)
    with stages.watching():
        yield stages


def check(trainer: Any, *, skip: Collection[str] = (), towers: Mapping[str, str] | None = None) -> list[Finding]:
    """The preflight of a trainer that has been built: what it found; the trainer is as it was.

    Its own `train()` is run up to where the first step would begin, for only there are the optimizer, the schedule
    and the mixed precision what the run will use.
    """
    callback = LearningCallback("warn", skip=skip, towers=towers)
    whole = callback.on_train_begin

    def begin_only(*args: Any, **kwargs: Any) -> None:
        whole(*args, **kwargs)
        raise _Enough

    callback.on_train_begin = begin_only  # type: ignore[method-assign]
    # First, so that no other callback has begun anything (a tracker its run, for one).
    trainer.callback_handler.callbacks.insert(0, callback)
    held = {name: getattr(trainer, name, None) for name in ("optimizer", "lr_scheduler", "model_wrapped")}
    try:
        trainer.train()
    except _Enough:
        pass
    finally:
        trainer.callback_handler.callbacks.remove(callback)
        trainer.is_in_train = False
        if (noise := getattr(trainer, "neftune_hook_handle", None)) is not None:
            # train() puts it there anew, and would add the noise twice.
            noise.remove()
        for name, value in held.items():
            setattr(trainer, name, value)
    return callback.findings
