"""How many processes train together, and starting them: one for each GPU, through torchrun, as if by hand.

Whoever calls `boxtune.train` on a machine with several GPUs is the launcher: it starts the ranks, hands signals on, and
reads back what they leave: a word (the finished run's folder, or the error of the rank that failed), since torchrun
turns every exit code into 1. The ranks themselves are `finetune/ranks.py`.

Imports torch only to count GPUs: the launcher need not wait for what the ranks load.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from boxtune import errors
from boxtune.artifacts import read_json, write_json, write_text
from boxtune.config import Resolved
from boxtune.errors import BoxtuneError, ConfigError, UserError

Devices = int | Literal["auto"]

LAUNCH, LAUNCHER = "BOXTUNE_LAUNCH", "BOXTUNE_LAUNCHER"
"""Environment of ranks that boxtune itself has started: the folder for their word, and the process that waits."""
RECIPE, SOURCES, WORD = "recipe.yaml", "sources.json", "word.json"
ENDING_S = 3600
"""Seconds that ranks have to end in after SIGTERM: a last evaluation, a checkpoint and the scores. torchrun's own 30
would cut them off."""


def is_rank() -> bool:
    """Whether torchrun or accelerate has started this process as one of several."""
    return all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))


def world_size() -> int:
    """How many processes were started together."""
    return int(os.environ["WORLD_SIZE"]) if is_rank() else 1


def local_rank() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if is_rank() else 0


def count_devices() -> int:
    """The CUDA devices that are visible; 1 where there is none."""
    import torch

    return max(1, torch.cuda.device_count())


def ranks_to_start(devices: Devices) -> int:
    """How many ranks are to be started from here; 1 where this process trains alone, or is a rank itself.

    Raises ConfigError where more GPUs are asked for than are visible. On a machine without any, that many CPU processes
    are started.
    """
    if is_rank() or _is_accelerate():
        return 1
    if devices == 1:
        return 1
    visible = count_devices()
    if devices == "auto":
        return visible
    if visible > 1 and devices > visible:
        fix = "devices=auto takes all of them; CUDA_VISIBLE_DEVICES says which are visible"
        raise ConfigError(f"devices={devices}, and {visible} GPUs are visible", where="train.devices", fix=fix)
    return devices


def require_size(devices: Devices) -> None:
    """Raises ConfigError where another number of processes was started than `devices` asks for."""
    if devices == "auto" or devices == world_size():
        return
    by = "torchrun or accelerate" if is_rank() else "accelerate"
    if not is_rank() and not _is_accelerate():
        return
    raise ConfigError(
        f"train.devices={devices}, and {by} has started {world_size()}",
        where="train.devices",
        fix="leave devices away, or start without torchrun and accelerate: boxtune starts the processes itself "
        "(accelerate launch --cpu starts one, whatever --num_processes says)",
    )


def _is_accelerate() -> bool:
    """Whether `accelerate launch` has started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def start(asked: Resolved, num_ranks: int) -> Path:
    """Train in `num_ranks` processes on this machine, and wait for them: the finished run's folder.

    What they print is passed through. Raises the error of the rank that failed, as it was raised there.
    """
    with tempfile.TemporaryDirectory(prefix="boxtune-") as name:
        folder = Path(name)
        tree: dict[str, Any] = {}
        for path, value in asked.values():
            head, _, leaf = path.rpartition(".")
            if path in asked.sources:
                (tree.setdefault(head, {}) if head else tree)[leaf] = list(value) if isinstance(value, tuple) else value
        write_text(folder / RECIPE, yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))
        write_json(folder / SOURCES, dict(asked.sources))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_ranks)]
        command += [*_shutdown_words(), "-m", "boxtune", "train", str(folder / RECIPE)]
        # torchrun would give each one thread, and say so.
        threads = str(max(1, (os.cpu_count() or 1) // num_ranks))
        mine = {LAUNCH: name, LAUNCHER: str(os.getpid())}
        process = subprocess.Popen(command, env={"OMP_NUM_THREADS": threads, **os.environ, **mine})
        code = _wait(process)
        if not (folder / WORD).is_file():
            raise BoxtuneError(f"the {num_ranks} ranks have ended with code {code} and left no word; see above")
        word = read_json(folder / WORD)
    if word["error"] is not None:
        raise build_error(word["error"])
    return Path(word["folder"])


def _shutdown_words() -> list[str]:
    """How torchrun is told to wait for ranks that end with a checkpoint and scores; that of torch 2.11 cannot be told,
    and waits for half a minute."""
    from torch.distributed.run import get_args_parser

    known = "--shutdown_timeout" in get_args_parser().format_help()
    return ["--shutdown_timeout", str(ENDING_S)] if known else []


def _wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code; SIGTERM is handed on, and an interrupt from the keyboard has reached them already."""
    try:
        with _handing_on(process):
            return process.wait()
    except BaseException:
        # Nothing goes on training behind the user's back.
        process.terminate()
        process.wait()
        raise


@contextlib.contextmanager
def _handing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    except ValueError:
        # Not the main thread: signals are not ours to take there.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def has_launcher() -> bool:
    """Whether boxtune itself has started this rank, and waits for its word."""
    return is_rank() and LAUNCH in os.environ


def is_orphan() -> bool:
    """Whether the launcher of this rank is gone."""
    if not has_launcher():
        return False
    try:
        os.kill(int(os.environ[LAUNCHER]), 0)
    except ProcessLookupError:
        return True
    return False


def with_sources(asked: Resolved) -> Resolved:
    """The settings of a rank with the sources that the launcher knows, instead of its temporary recipe."""
    if not has_launcher():
        return asked
    return Resolved(settings=asked.settings, sources=read_json(Path(os.environ[LAUNCH]) / SOURCES))


def leave_word(*, folder: Path | None = None, error: Mapping[str, Any] | None = None) -> None:
    """Tell the launcher, where there is one, how the run ended."""
    if has_launcher():
        write_json(Path(os.environ[LAUNCH]) / WORD, {"folder": None if folder is None else str(folder), "error": error})


def end_rank() -> None:
    """End this process at once, with exit code 0, where it is one of several ranks and its work is done.

    A thread of gloo may still hold a tensor of the last exchange, and an interpreter that ends meanwhile is aborted
    ("terminate called without an active exception", one run in seventy on two busy cores; pytorch/pytorch 179291). So
    what wants to be told of the end is told, as at any end, and the interpreter is not taken apart.
    """
    if world_size() == 1:
        return
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def describe_error(error: Exception, rank: int) -> dict[str, Any]:
    """An error as JSON that `build_error` reads in another process."""
    user = isinstance(error, UserError)
    return {
        "rank": rank,
        "kind": type(error).__name__,
        "what": error.what if user else str(error),  # type: ignore[attr-defined]
        "where": error.where if user else "",  # type: ignore[attr-defined]
        "fix": error.fix if user else "",  # type: ignore[attr-defined]
        "exit_code": getattr(error, "exit_code", 1),
    }


def build_error(told: Mapping[str, Any]) -> BoxtuneError:
    """The error of another process, as it was raised there; what is none of ours is named, its traceback is there."""
    kind = getattr(errors, told["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, BoxtuneError)):
        return BoxtuneError(
            f"rank {told['rank']} ended with {told['kind']}: {told['what']}; its traceback stands above"
        )
    if issubclass(kind, UserError):
        return kind(told["what"], where=told["where"], fix=told["fix"])
    return kind(told["what"])
