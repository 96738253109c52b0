"""What happens beside the steps: rows of metrics, the best adapter, sealed checkpoints, the end on time or SIGTERM."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from boxtune.artifacts import RunFolder, read_json, write_json
from boxtune.errors import BoxtuneError
from boxtune.finetune import ranks
from boxtune.finetune.checkpoints import seal
from boxtune.finetune.resume import keep_best


class WriteMetrics(TrainerCallback):
    """Each logged row, as one line of metrics.jsonl, with every digit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        kind = "eval" if "eval_loss" in logs else "summary" if "train_runtime" in logs else "train"
        # JSON has no NaN: what is not finite is written as text, which float() reads back.
        logs = {
            key: value if not isinstance(value, float) or math.isfinite(value) else str(value)
            for key, value in logs.items()
        }
        row = {"kind": kind, "step": state.global_step, **logs}
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(row) + "\n")


class SealCheckpoints(TrainerCallback):
    """The best adapter so far and a list of files into every checkpoint that has been written to its end, by all."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # Each rank writes its own random state.
        ranks.wait_for_all()
        if state.is_world_process_zero:
            checkpoint = self.folder.checkpoints / f"checkpoint-{state.global_step}"
            keep_best(self.folder, checkpoint)
            seal(checkpoint)


class KeepBest(TrainerCallback):
    """The best adapter so far, in `adapter/`; `save(folder)` writes it, on all ranks.

    Best is the highest average precision of answers (`eval_ap`), of equal ones the lowest validation loss, and where
    answers are not asked for the lowest loss. The evaluation before the first step does not count: an adapter that has
    learned nothing is not a result. Nor does a loss that is not finite.
    """

    def __init__(self, folder: RunFolder, save: Callable[[Path], None]) -> None:
        self.folder, self.save = folder, save

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        loss = metrics.get("eval_loss")
        if loss is None or not math.isfinite(loss) or state.global_step == 0:
            return
        row = {"step": state.global_step, "eval_loss": loss, "eval_ap": metrics.get("eval_ap")}
        best = self.folder.best
        if ranks.first_does(lambda: not best.is_file() or _goodness(row) > _goodness(read_json(best))):
            self.save(self.folder.adapter)
            if ranks.is_first():
                write_json(best, row)


def _goodness(row: Mapping[str, Any]) -> tuple[float, float]:
    # An evaluation whose answers were not asked for (there was no time) is behind those where they were.
    ap = row.get("eval_ap")
    return (-1.0 if ap is None else ap, -row["eval_loss"])


class StopEarly(TrainerCallback):
    """Ends training once `patience` evaluations have come without a better one; stands behind `KeepBest`."""

    def __init__(self, patience: int, folder: RunFolder) -> None:
        self.patience, self.folder = patience, folder

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        best = ranks.first_does(lambda: read_json(self.folder.best)["step"] if self.folder.best.is_file() else 0)
        # The history comes back with a checkpoint; an evaluation that was asked for twice counts once.
        since = {row["step"] for row in state.log_history if "eval_loss" in row and row["step"] > best}
        if len(since) >= self.patience:
            control.should_training_stop = True
            if state.is_world_process_zero:
                print(f"stopped at step {state.global_step}: {len(since)} evaluations without a better one", flush=True)
        return control


class StopInTime(TrainerCallback):
    """Ends training after `hours` or on SIGTERM, at the next step's end, with an evaluation and a checkpoint.

    As a context it takes SIGTERM for the whole run. `reason` says afterwards why training stopped; empty if it ran to
    its end. The hours count from the first step of this process. One rank's reason is that of all, from the same step.
    """

    def __init__(self, hours: float | None) -> None:
        self.hours, self.deadline, self.reason = hours, math.inf, ""
        self._before: Any = None

    def __enter__(self) -> StopInTime:
        try:
            self._before = signal.signal(signal.SIGTERM, self._on_signal)
        except ValueError:
            # Not the main thread (a notebook's worker, a server): signals are not ours to take there.
            self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _on_signal(self, *_: object) -> None:
        self.reason = "SIGTERM"

    def require_going_on(self, what: str) -> None:
        """Raise if SIGTERM has come: there is nothing yet that could be scored."""
        if self.reason:
            raise BoxtuneError(f"stopped by {self.reason} while {what}, before training; resume=true begins it")

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.hours is not None:
            self.deadline = time.monotonic() + self.hours * 3600

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if not self.reason and time.monotonic() >= self.deadline:
            self.reason = f"train.hours={self.hours:g} are over"
        if ranks.highest(int(bool(self.reason))):
            self.reason = next(reason for reason in ranks.gather(self.reason) if reason)
            control.should_evaluate = control.should_save = control.should_training_stop = True
        return control


class TellEpoch(TrainerCallback):
    """Sets `epoch` of collator and sampler at the begin of each epoch, before workers are started with copies.

    accelerate 1.x does not reach the sampler of several ranks in an epoch that is resumed in its middle, where one more
    wrapper stands around it (`SkipBatchSampler`): the rest of that epoch would be that of the first one. To go with the
    release that does, which tests/finetune/test_callbacks.py waits for.
    """

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        # A resumed epoch has a fraction behind it.
        self.collator.epoch = epoch = int((state.epoch or 0.0) + 1e-6)
        inner: Any = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(inner, "batch_sampler"):
            inner = inner.batch_sampler
        sampler: Any = getattr(inner, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)


class AtFirstEvaluation(TrainerCallback):
    """Calls `tell(model)` once, after the first evaluation behind the first step."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self.tell, self.done = tell, False

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not self.done:
            self.done = True
            self.tell(model)


class ShowProgress(TrainerCallback):
    """One bar over the optimizer steps with the training loss beside it, and one line for each evaluation."""

    def __init__(self) -> None:
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, unit="step", dynamic_ncols=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.bar is None:
            return
        if "loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.4f}", refresh=False)
        elif "eval_loss" in logs:
            accuracy = logs.get("eval_mean_token_accuracy")
            told = "" if accuracy is None else f", token accuracy {accuracy:.3f}"
            told += f", AP {logs['eval_ap']:.3f}, AP50 {logs['eval_ap50']:.3f}" if "eval_ap" in logs else ""
            self.bar.write(f"  step {state.global_step}: validation loss {logs['eval_loss']:.6f}{told}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is None:
            return
        self.bar.close()
        # The first row's time holds the preflight too.
        waits = [row["wait_share"] for row in state.log_history if "wait_share" in row][1:]
        if waits:
            print(f"images were waited for in {100 * sum(waits) / len(waits):.1f} % of the training's time", flush=True)
