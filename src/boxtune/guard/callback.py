"""The guard inside a run: preflight before the first step, a watch over every step, the verdict at the end.

It stops a run only on these proofs (`PROOFS`), each of which no amount of waiting can undo; everything else warns.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Trainer, TrainerCallback

from boxtune.guard.finding import Finding, name_some
from boxtune.guard.monitor import Sample, all_sums, gradient_norms, rising, same
from boxtune.guard.paired import Paired
from boxtune.guard.preflight import Preflight, run_preflight
from boxtune.guard.stages import Stages
from boxtune.guard.towers import Towers
from boxtune.guard.verdict import Verdict, judge, share_moved, snapshot

PROOFS = {
    "preflight": "a check before the first step failed",
    "run.frozen": "no parameter is trainable any more; `boxtune doctor --trace` names the line",
    "run.no_gradient": "no trainable tensor has had a gradient for three optimizer steps",
    "run.still": "no byte of the trainable weights has changed in five steps with a learning rate above 0",
    "run.undone": "five updates in a row were taken back before the next step began",
    "run.not_finite": "twenty optimizer steps in a row had a gradient that is not finite",
}
"""Everything that stops a run, by id."""
REPLAY = "`boxtune doctor --trace` names the line"
NO_GRADIENT, STILL, UNDONE, NOT_FINITE = 3, 5, 5, 20
CLOSELY = 20
"""The first steps, each of which is read back; later ones are where the trainer logs."""
APART = 10
"""Least distance of those later steps."""
RISES = 0.01
"""Share of runs without any trend that are said to rise."""


class NotLearning(RuntimeError):
    """The guard stopped the run, or did not let it begin."""

    exit_code = 3


class LearningCallback(TrainerCallback):
    """Watches any transformers Trainer. `mode` is stop, warn or off; `skip` names checks to leave out; `towers` maps
    names of parts to patterns of parameter names; `out` is a folder for verdict.json and findings.json; `tell` is
    handed each finding instead of its being printed.
    """

    def __init__(
        self,
        mode: Literal["stop", "warn", "off"] = "stop",
        *,
        skip: Collection[str] = (),
        towers: Mapping[str, str] | None = None,
        preflight: bool = True,
        stages: Stages | None = None,
        out: str | Path | None = None,
        tell: Callable[[Finding], None] | None = None,
    ) -> None:
        if mode not in ("stop", "warn", "off"):
            raise ValueError(f"mode={mode!r}: one of stop, warn, off")
        self.mode, self.skip, self.towers = mode, frozenset(skip), towers
        self.with_preflight, self.stages = preflight, stages
        self.out, self.tell = None if out is None else Path(out), tell
        self.findings: list[Finding] = []
        self.first_seen: dict[str, int] = {}
        """Optimizer steps done when a check first warned or failed, by its id."""
        self.preflight: Preflight | None = None
        self.verdict = Verdict(word="cannot tell", evidence=("the run has not finished",))
        self.bad_steps = self.step = 0
        self.pairs: list[tuple[float, float]] = []
        """Losses of single samples of the split `what`, before and after; none until the end of the run."""
        self.what = ""
        self.eval_losses: list[float] = []
        self.losses: list[float] = []
        self.peak_rate = self.rate_since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.mode == "off":
            return
        trainer = running_trainer()
        if self.stages is not None:
            self._note(*self.stages.at_begin(trainer), *self.stages.heard)
        if self.with_preflight:
            self.preflight = run_preflight(trainer, towers=self.towers, skip=self.skip)
            frozen = any(finding.check == "ledger.frozen" for finding in self.findings)
            # The ledger has said so already, with the cause.
            self._note(*(f for f in self.preflight.findings if not (frozen and f.check == "trainable.none")))
        failed = of_all_ranks([finding for finding in self.findings if finding.level == "fail"])
        self._note(*(finding for finding in failed if finding not in self.findings))
        if failed:
            self._stop("preflight", failed)
        self.names = Towers(self.towers)
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.sample = Sample(self.trainable, self.names)
        self.before = snapshot(model)
        self.paired = Paired(trainer) if self.preflight is not None and self.preflight.probed is not None else None
        self.no_gradient = self.still = self.undone = self.not_finite = 0
        self.sums: dict[str, int] | None = None
        self.rate = 0.0
        # Of the step that is looked at closely: the sample when it began and when the optimizer had stepped.
        self.begun: list[torch.Tensor] | None = None
        self.stepped: list[torch.Tensor] | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.mode == "off":
            return
        self.step = int(state.global_step)
        if not self._closely(args, state):
            self.begun = self.stepped = None
            return
        frozen = [name for name, parameter in self.trainable.items() if not parameter.requires_grad]
        if frozen and len(frozen) == len(self.trainable):
            seen = f"all {len(frozen)} trainable tensors were frozen before step {state.global_step + 1}"
            self._prove("run.frozen", *self._who_froze(seen, frozen))
        elif frozen:
            seen = f"{len(frozen)} of {len(self.trainable)} tensors were frozen before step {state.global_step + 1}"
            seen, where = self._who_froze(seen, frozen)
            self._note(Finding(check="run.partly_frozen", level="warn", seen=seen, where=where, fix=REPLAY))
        now = self.sample.now()
        if self.begun is not None and self.stepped is not None and not same(self.begun, self.stepped):
            self._between(state.global_step, self.begun, self.stepped, now)
        self.begun, self.stepped = now, None

    def _who_froze(self, seen: str, names: list[str]) -> tuple[str, str]:
        """What was seen and where, with the line where it was traced."""
        by, lines = ("", "") if self.stages is None else self.stages.who_froze(self.trainable[names[0]])
        return seen + by, "\n".join(part for part in (name_some(names), lines) if part)

    def _between(
        self, step: int, begun: list[torch.Tensor], stepped: list[torch.Tensor], now: list[torch.Tensor]
    ) -> None:
        """What became of an update until the next step began: it stands, it was undone, or something else happened."""
        if same(now, begun):
            self.undone += 1
            if self.undone >= UNDONE:
                self._prove("run.undone", f"{self.undone} updates in a row up to step {step} were taken back")
            return
        self.undone = 0
        if not same(now, stepped):
            seen = f"weights changed between step {step} and the next: something else than the optimizer"
            self._note(Finding(check="run.outside", level="warn", seen=seen, fix="look at the other callbacks"))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.mode == "off":
            return
        self.no_gradient = 0 if any(p.grad is not None for p in self.trainable.values()) else self.no_gradient + 1
        if self.no_gradient >= NO_GRADIENT:
            seen = f"{self.no_gradient} steps up to {state.global_step + 1} had no gradient at all"
            self._prove("run.no_gradient", seen)
        if self.no_gradient or args.fp16:
            # With fp16 the scaler leaves out such steps itself, and means to.
            return
        norms = gradient_norms(self.trainable, self.names)
        if all(math.isfinite(norm) for norm in norms.values()):
            self.not_finite = 0
            return
        self.bad_steps += 1
        self.not_finite += 1
        for parameter in self.trainable.values():
            parameter.grad = None
        seen = (
            f"step {state.global_step + 1} had a gradient that is not finite and was left out ({self.bad_steps} so far)"
        )
        self._note(
            Finding(check="run.bad_step", level="warn", seen=seen, fix="look at the batch, and at the precision")
        )
        if self.not_finite >= NOT_FINITE:
            self._prove("run.not_finite", f"{self.not_finite} steps in a row up to {state.global_step + 1}")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        if self.mode == "off" or optimizer is None:
            return
        self.rate = max((float(group["lr"]) for group in optimizer.param_groups), default=0.0)
        self.peak_rate = max(self.peak_rate, self.rate)
        self.rate_since = max(self.rate_since, self.rate)
        self.stepped = None if self.begun is None else self.sample.now()

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        if self.mode == "off" or self.begun is None:
            return
        if self.stepped is None:
            # Trainers older than that event.
            self.on_optimizer_step(args, state, control, optimizer)
        assert self.stepped is not None
        if self.rate == 0 or self.not_finite or not same(self.begun, self.stepped):
            self.still, self.sums = 0, None
        elif self.sums is None:
            # Only now all the weights are looked at: the sample may lie where nothing moves.
            self.still, self.sums = 1, all_sums(self.trainable)
        else:
            self.still += 1
            if self.still > _patience(args):
                if all_sums(self.trainable) == self.sums:
                    self._prove("run.still", f"no trainable weight has changed up to step {state.global_step}")
                self.still, self.sums = 1, all_sums(self.trainable)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.mode != "off" and logs and isinstance(logs.get("loss"), (int, float)):
            self.losses.append(float(logs["loss"]))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, metrics: Any = None, **_: Any
    ) -> None:
        loss = (metrics or {}).get("eval_loss")
        if self.mode == "off" or loss is None or not hasattr(self, "sample"):
            return
        self.eval_losses.append(float(loss))
        sums = all_sums(self.trainable)
        previous = getattr(self, "evaluated", None)
        if previous is not None and self.rate_since > 0 and state.global_step > previous[0]:
            step, before, weights = previous
            if f"{before:.6f}" == f"{float(loss):.6f}":
                if weights == sums:
                    # Steps that are left out for what they are (a scaler looking for its scale) prove nothing here.
                    if self.not_finite or state.global_step - step < _patience(args):
                        return
                    steps = f"steps {step} and {state.global_step}"
                    seen = f"evaluation loss {loss:.6f} and every weight are the same at {steps}"
                    self._prove("run.still", seen)
                seen = f"evaluation loss {loss:.6f} at steps {step} and {state.global_step}, though weights moved"
                fix = "evaluation runs without the adapter, or on another model"
                self._note(Finding(check="run.eval_blind", level="warn", seen=seen, fix=fix))
        self.rate_since = 0.0
        self.evaluated = (state.global_step, float(loss), sums)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.mode == "off" or not hasattr(self, "before"):
            return
        if (chance := rising(self.losses)) < RISES:
            seen = (
                f"the training loss rises (Mann-Kendall, p = {chance:.2g}; one run in a hundred without any trend does)"
            )
            self._note(Finding(check="run.rising", level="warn", seen=seen, fix="lower the learning rate"))
        if self.stages is not None:
            told = {finding.check for finding in self.findings}
            self._note(*(finding for finding in self.stages.heard if finding.check not in told))
        if self.paired is not None:
            self.pairs, self.what = self.paired.pairs(running_trainer()), self.paired.what
        moved = share_moved(self.before, model)
        self.verdict = judge(self.eval_losses, moved, self.peak_rate, self.pairs, self.what)
        if self.tell is None and rank() == 0:
            print(f"verdict: {self.verdict}", flush=True)
        self._write()

    def _closely(self, args: Any, state: Any) -> bool:
        """Whether the step that begins is read back: the first ones, then two in a row at each log, or each tenth."""
        every = max(APART, int(args.logging_steps)) if args.logging_steps >= 1 else 50
        return state.global_step <= CLOSELY or state.global_step % every in (0, 1) or self.still > 0

    def _note(self, *findings: Finding) -> None:
        for finding in findings:
            if finding.check in self.skip or finding.check.split(".")[0] in self.skip:
                continue
            told = [f for f in self.findings if f.check == finding.check]
            self.findings.append(finding)
            if finding.level in ("warn", "fail"):
                self.first_seen.setdefault(finding.check, self.step)
            # The same thing again and again is told once, and kept.
            if self.tell is not None:
                self.tell(finding)
            elif finding.level != "ok" and not told and (rank() == 0 or hasattr(self, "names")):
                print((f"[rank {rank()}] " if rank() else "") + finding.as_text(), flush=True)
        self._write()

    def _prove(self, check: str, seen: str, where: str = "") -> None:
        finding = Finding(check=check, level="fail", seen=seen, where=where, fix=PROOFS[check])
        if check in self.skip:
            return
        known = any(f.check == check for f in self.findings)
        self._note(finding)
        if not known:
            self._stop(check, [finding])

    def _stop(self, proof: str, findings: list[Finding]) -> None:
        self.verdict = Verdict(word="not learning", evidence=tuple(finding.seen for finding in findings))
        self._write()
        if self.mode != "stop":
            return
        if proof != "preflight":
            trainer = running_trainer()
            trainer._save_checkpoint(trainer.model, None)
        raise NotLearning(f"{PROOFS[proof]}\n" + "\n".join(finding.as_text() for finding in findings))

    def _write(self) -> None:
        if self.out is None or rank():
            return
        self.out.mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("findings.json", [finding.as_json() for finding in self.findings]),
            ("verdict.json", self.verdict.as_json()),
        ):
            (self.out / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _patience(args: Any) -> int:
    """Steps without a change that prove something: with fp16 the scaler may leave out many while it looks for its
    scale."""
    return 10 * STILL if args.fp16 else STILL


def rank() -> int:
    """The number of this process among those that train together, 0 where it is alone."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def of_all_ranks(findings: list[Finding]) -> list[Finding]:
    """The findings of every process, each once: all of them stop together, and say which of them is at fault."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return findings
    ranks = torch.distributed.get_world_size()
    gathered: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(gathered, [finding.as_json() for finding in findings])
    by_check: dict[str, list[int]] = {}
    first: dict[str, dict[str, Any]] = {}
    for number, each in enumerate(gathered):
        for finding in each:
            by_check.setdefault(finding["check"], []).append(number)
            first.setdefault(finding["check"], finding)
    for check, numbers in by_check.items():
        if len(set(numbers)) < ranks:
            named = ", ".join(str(number) for number in sorted(set(numbers)))
            first[check]["seen"] = f"on rank {named} of {ranks}: {first[check]['seen']}"
    return [Finding(**finding) for finding in first.values()]


def running_trainer() -> Any:
    """The Trainer whose method called us: callbacks are not handed it."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    raise RuntimeError("no transformers Trainer is running: LearningCallback works inside trainer.train()")
