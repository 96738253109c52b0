"""Several processes that train together: who speaks, what they agree on, and how all of them fall when one does.

`boxtune/launch.py` starts them. Where there is one process, everything here is the obvious thing. Objects travel over
gloo and the CPU, so that no agreement waits for a GPU.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from boxtune import launch
from boxtune.errors import BoxtuneError, ConfigError, UserError

Value = TypeVar("Value")

LONGEST = timedelta(hours=1)
"""How long a rank waits for what another one does alone, such as scoring. One that has failed is noticed in seconds."""
LOOK_S, GRACE_S = 0.5, 5.0
"""Seconds between two looks at the others, and until a rank that hangs on one that has failed is ended."""
SAME_FAULT_S = 2.0
"""Seconds in which rank 0 meets the fault of another rank too, if it is everybody's: then rank 0 alone tells it."""
TELLING_S = 1.0
"""Seconds in which a traceback is printed."""


def rank() -> int:
    """The number of this process, 0 where it is alone."""
    return int(dist.get_rank()) if dist.is_initialized() else 0


def num_ranks() -> int:
    """How many processes train together."""
    return int(dist.get_world_size()) if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return rank() == 0


def gather(value: Value) -> list[Value]:
    """What every rank gives, in their order, on every rank. All of them must come here."""
    if num_ranks() == 1:
        return [value]
    values: list[Any] = [None] * num_ranks()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Whether it is so on any of the ranks."""
    return any(gather(flag))


def highest(number: int) -> int:
    """The highest of the ranks' numbers; cheap enough for every step."""
    if num_ranks() == 1:
        return number
    value = torch.tensor([number], dtype=torch.int32)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def wait_for_all() -> None:
    """Come back once every rank has come here."""
    gather(None)


def first_does(call: Callable[[], Value]) -> Value:
    """What `call` gives on rank 0, on every rank; the others wait. What it raises is raised everywhere."""
    if num_ranks() == 1:
        return call()
    told: list[Any] = [None, None]
    if is_first():
        try:
            told[0] = call()
        except Exception as error:
            dist.broadcast_object_list([None, launch.describe_error(error, rank())])
            raise
    dist.broadcast_object_list(told)
    if told[1] is not None:
        raise _FirstFailed(told[1])
    return told[0]


def require_same(parts: Mapping[str, Any]) -> None:
    """Raises BoxtuneError, naming the parts, unless they are equal on all ranks; each counts by its JSON."""
    digests = {
        name: hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
        for name, value in parts.items()
    }
    everywhere = gather(digests)
    different = [name for name in digests if len({each[name] for each in everywhere}) > 1]
    if different:
        raise BoxtuneError(
            f"the {len(everywhere)} ranks do not have the same {', '.join(different)}\n"
            "  do:    give every node the same files, settings and versions"
        )


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Inside, this process is one of the ranks that were started together: its GPU is chosen, the group stands, only
    rank 0 prints. When a rank fails all of them end within seconds: one raises the error, the others exit with its
    code and say nothing.
    """
    if launch.world_size() == 1:
        yield
        return
    store = _join()
    ended = threading.Event()
    watcher = threading.Thread(target=_fall_with_others, args=(store.clone(), ended), daemon=True)
    watcher.start()
    try:
        with _quiet():
            yield
            # Nobody leaves while another may still fail.
            wait_for_all()
    except Exception as error:
        fallen = _fall(store, error)
        if fallen is error:
            raise
        raise fallen from None
    finally:
        ended.set()
        # A thread inside the store while the interpreter ends would abort it.
        watcher.join()


_runs = 0
_store: Any = None


def _join() -> Any:
    """The group of all ranks, and a store of this run alone in which a rank says that it has failed."""
    global _runs, _store
    if _store is None:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(launch.local_rank())
        _store, number, size = next(dist.rendezvous("env://"))
        if not dist.is_initialized():
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            dist.init_process_group(backend, store=_store, rank=number, world_size=size, timeout=LONGEST)
            atexit.register(_leave)
    _runs += 1
    return dist.PrefixStore(f"boxtune/{_runs}", _store)


_failed = False


def _leave() -> None:
    # After a failure others may wait for this one, and it would wait for them.
    if not _failed and dist.is_initialized():
        dist.destroy_process_group()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """All ranks but the first print nothing: what they have to say is the same."""
    if is_first():
        yield
        return
    from datasets.utils import logging as of_datasets
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()
    of_datasets.disable_progress_bar()
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


FAILED, FIRST_FAILED, TOLD = "failed", "first failed", "told"


class _FirstFailed(BoxtuneError):
    """Rank 0 has failed in what it does for all: it tells, and the others only end."""

    def __init__(self, cause: Mapping[str, Any]) -> None:
        super().__init__(cause["what"])
        self.exit_code = cause["exit_code"]


def _fall(store: Any, error: Exception) -> BaseException:
    """What to raise for an error on this rank: itself on the rank that tells it, a silent exit on the others."""
    global _failed
    _failed = True
    mine = launch.describe_error(error, rank())
    try:
        if isinstance(error, _FirstFailed):
            return _silent(store, mine)
        cause = json.loads(store.compare_set(FAILED, "", json.dumps(mine)))
        if cause["rank"] != rank() and not isinstance(error, BoxtuneError):
            # A broken connection, most often: the rank that failed before tells why.
            return _silent(store, cause)
        if is_first():
            store.set(FIRST_FAILED, json.dumps({**mine, "rank": None}))
        elif _is_everybodys(store, mine):
            return _silent(store, mine)
        if int(store.compare_set(TOLD, "", str(rank()))) != rank():
            return _silent(store, mine)
    except dist.DistError:
        # Whoever started the ranks is gone, and the store with it.
        return error
    if isinstance(error, UserError) and rank():
        mine["where"] = f"{mine['where']} (on rank {rank()} of {num_ranks()})".strip()
        error = launch.build_error(mine)
    launch.leave_word(error=mine)
    return SystemExit(0) if launch.has_launcher() and isinstance(error, BoxtuneError) else error


def _silent(store: Any, told: Mapping[str, Any]) -> SystemExit:
    """An exit without a word, once the rank that tells has had the time: torchrun ends all when the first leaves."""
    until = time.monotonic() + GRACE_S
    while time.monotonic() < until and not store.check([TOLD]):
        time.sleep(0.05)
    time.sleep(TELLING_S)
    return SystemExit(0 if launch.has_launcher() else told["exit_code"])


def _is_everybodys(store: Any, mine: Mapping[str, Any]) -> bool:
    """Whether rank 0 meets the same fault: it is then told there."""
    until = time.monotonic() + SAME_FAULT_S
    while time.monotonic() < until:
        if store.check([FIRST_FAILED]):
            return bool(json.loads(store.get(FIRST_FAILED)) == {**mine, "rank": None})
        time.sleep(0.05)
    return False


def _fall_with_others(store: Any, ended: threading.Event) -> None:
    """End this process when another rank has failed and this one waits for it, or when whoever started it is gone."""
    while not ended.wait(LOOK_S):
        try:
            code = json.loads(store.get(FAILED))["exit_code"] if store.check([FAILED]) else None
        except dist.DistError:
            code = 1
        if code is None and not launch.is_orphan():
            continue
        if not ended.wait(GRACE_S):
            os._exit(0 if launch.has_launcher() and code else code or 1)


def share_batch(effective: int, micro: int, ranks: int) -> tuple[int, int]:
    """(images in a forward pass, passes in a step) of each rank, so that all together take `effective` images a step.

    The first is `micro`, or the largest number below that divides a rank's share. Raises ConfigError where the ranks
    cannot share a step's images evenly.
    """
    if effective % ranks:
        raise ConfigError(
            f"effective_batch={effective} cannot be shared evenly by {ranks} processes",
            where="train.effective_batch",
            fix=f"make it a multiple of {ranks}, or take fewer devices",
        )
    share = effective // ranks
    micro = next(number for number in range(min(micro, share), 0, -1) if not share % number)
    return micro, share // micro
