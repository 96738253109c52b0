"""The guard inside a run: preflight before the first step, a watch over every step, the verdict at the end.

It stops a run only on `PROOFS`; everything else warns.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import Trainer, TrainerCallback

from boxtune.guard.checks_setup import is_sharded
from boxtune.guard.finding import Finding, name_some
from boxtune.guard.gradients import Gradients
from boxtune.guard.monitor import Sample, all_sums, rising, same
from boxtune.guard.paired import Paired
from boxtune.guard.preflight import Preflight, generates, run_preflight
from boxtune.guard.proofs import PROOFS, NotLearning
from boxtune.guard.ranks import num_ranks, of_all_ranks, rank
from boxtune.guard.stages import Stages
from boxtune.guard.towers import Towers
from boxtune.guard.verdict import Verdict, judge, share_moved, snapshot

REPLAY = "`boxtune doctor --trace` names the line"
NO_GRADIENT, STILL, UNDONE, NOT_FINITE = 3, 5, 5, 20
CLOSELY = 20
"""The first steps, each of which is read back; later ones are where the trainer logs."""
APART = 10
"""Least distance of those later steps."""
MOST_KEPT = 20
"""Findings of one check that are kept: what is wrong at every step need not be told a million times."""
RISES = 0.01
"""Share of runs without any trend that are said to rise."""


def guarded(event: Callable[..., None]) -> Callable[..., None]:
    """An event of the callback that no fault of ours turns into the end of somebody's run: the guard goes off, and says
    so. Of several processes all must end together, so there the fault is raised."""

    @functools.wraps(event)
    def call(self: LearningCallback, *args: Any, **kwargs: Any) -> None:
        begins = event.__name__ == "on_train_begin"
        if self.mode == "off" or not (begins or (self.running and not self.broken)):
            return
        try:
            event(self, *args, **kwargs)
        except NotLearning:
            raise
        except Exception as error:
            if num_ranks() > 1:
                raise
            self.broken = True
            self.gradients.stepped()
            where = "".join(traceback.format_exception(error)[-2:])
            seen = f"the guard itself failed in {event.__name__}, and is off from here: {type(error).__name__}: {error}"
            fix = "the run goes on unwatched; please report this"
            self._note(Finding(check="guard.broken", level="warn", seen=seen, where=where, fix=fix))
            self.verdict = Verdict(word="cannot tell", evidence=("the guard itself failed: see guard.broken",))
            self._write()

    return call


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
        self._forget()

    def _forget(self) -> None:
        """As if nothing had been trained yet: the same callback may see one run after another."""
        self.findings: list[Finding] = []
        self.first_seen: dict[str, int] = {}
        """Optimizer steps done when a check first warned or failed, by its id."""
        self.preflight: Preflight | None = None
        self.verdict = Verdict(word="cannot tell", evidence=("the run has not finished",))
        self.running = self.broken = False
        self.bad_steps = self.step = 0
        self.pairs: list[tuple[float, float]] = []
        """Losses of single samples of the split `what`, before and after; none until the end of the run."""
        self.what = ""
        self.eval_losses: list[float] = []
        self.losses: list[float] = []
        self.peak_rate = self.rate = self.norm = 0.0
        self.evaluated: tuple[int, float, dict[str, int]] | None = None
        self.not_finite = self.undone = self.good_steps = 0
        self.steps_within = self.sharded = self.generates = False
        self.paired: Paired | None = None
        self.gradients = Gradients()

    @guarded
    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._forget()
        trainer = running_trainer()
        try:
            self._before_the_run(trainer)
        finally:
            # Every process comes here, whatever it met: none waits for another that has gone.
            failed = of_all_ranks([finding for finding in self.findings if finding.level == "fail"])
        self._note(*(finding for finding in failed if finding not in self.findings))
        if failed:
            self._stop("preflight", failed)
        self.names = Towers(self.towers)
        self.sharded, self.generates = is_sharded(trainer), generates(trainer)
        if self.sharded:
            seen = "weights and gradients are sharded: of the steps only losses and what is frozen are watched"
            self._note(Finding(check="run.sharded", level="cannot_tell", seen=seen))
        self._look_at(model)
        self.before = snapshot(model)
        if self.preflight is not None and self.preflight.probed is not None:
            self.paired = Paired(trainer)
        self.running = True

    def _before_the_run(self, trainer: Any) -> None:
        if self.stages is not None:
            self._note(*self.stages.at_begin(trainer), *self.stages.heard)
        if self.with_preflight:
            self.preflight = run_preflight(trainer, towers=self.towers, skip=self.skip)
            frozen = any(finding.check == "ledger.frozen" for finding in self.findings)
            # The ledger has said so already, with the cause.
            self._note(*(f for f in self.preflight.findings if not (frozen and f.check == "trainable.none")))

    def _look_at(self, model: Any) -> None:
        """Watch what is trainable now, from the beginning."""
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.sample = Sample(self.trainable, self.names)
        self.no_gradient = self.still = 0
        self.sums: dict[str, int] | None = None
        self.without: dict[str, int] = {}
        # Of the step that is looked at closely: the sample when it began and when the optimizer had stepped.
        self.begun: list[torch.Tensor] | None = None
        self.stepped: list[torch.Tensor] | None = None

    @guarded
    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.step = int(state.global_step)
        if not self._closely(args, state):
            self.begun = self.stepped = None
            return
        frozen = [name for name, parameter in self.trainable.items() if not parameter.requires_grad]
        if frozen:
            seen = f"{len(frozen)} of {len(self.trainable)} tensors were frozen before step {state.global_step + 1}"
            seen, where = self._who_froze(seen, frozen)
            if not any(parameter.requires_grad for parameter in model.parameters()):
                self._prove("run.frozen", seen, where)
            self._note(Finding(check="run.partly_frozen", level="warn", seen=seen, where=where, fix=REPLAY))
            # Some methods train other layers every so often: what is trainable now is what is to move.
            self._look_at(model)
        if self.sharded:
            return
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

    @guarded
    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        self._hear()
        if self.sharded:
            return
        # What is known to train comes first: a walk through a large model takes its time.
        if self.steps_within or any(p.grad is not None for p in chain(self.trainable.values(), model.parameters())):
            self.no_gradient = 0
        elif not self.no_gradient:
            self.no_gradient, self.without = 1, all_sums(self.trainable)
        else:
            self.no_gradient += 1
            # Some optimizers step within the backward pass, and leave no gradient behind.
            self.steps_within = all_sums(self.trainable) != self.without
            if not self.steps_within and self.no_gradient >= NO_GRADIENT:
                steps = f"{self.no_gradient} steps up to {state.global_step + 1}"
                self._prove("run.no_gradient", f"{steps} had no gradient at all, and moved nothing")
        self.norm = 0.0
        if self.no_gradient or self.steps_within:
            return
        step = state.global_step + 1
        # A scaler has its own way with steps that are not finite; where weights are read back, all waits anyway.
        late = self.begun is None and not args.fp16
        self.norm = self.gradients.measure(self.trainable, optimizer, step, late)
        if self.gradients.late is None and not args.fp16 and not self._finite(step):
            for parameter in self.trainable.values():
                parameter.grad = None

    def _hear(self) -> None:
        """What became of the step before, where it was not known then."""
        if self.gradients.late is None:
            return
        self.norm, step = self.gradients.late.read(), self.gradients.late.step
        self.gradients.late = None
        self.good_steps += self._finite(step) and self.rate > 0 and self.norm > 0

    def _finite(self, step: int) -> bool:
        """Whether the gradient of a step was finite; one that was not is left out, and counted."""
        if math.isfinite(self.norm):
            self.not_finite = 0
            return True
        self.bad_steps += 1
        self.not_finite += 1
        seen = f"step {step} had a gradient that is not finite and was left out ({self.bad_steps} so far)"
        fix = "look at the batch, and at the precision"
        self._note(Finding(check="run.bad_step", level="warn", seen=seen, fix=fix))
        if self.not_finite >= NOT_FINITE:
            self._prove("run.not_finite", f"{self.not_finite} steps in a row up to {step}")
        return False

    @guarded
    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self.gradients.stepped()
        if optimizer is None:
            return
        self.rate = max((float(group["lr"]) for group in optimizer.param_groups), default=0.0)
        self.peak_rate = max(self.peak_rate, self.rate)
        self.stepped = None if self.begun is None else self.sample.now()

    @guarded
    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        self.gradients.stepped()
        # A step that could have moved something: others prove nothing. (One that is heard of later counts then.)
        good = self.rate > 0 and math.isfinite(self.norm) and (self.norm > 0 or self.steps_within)
        self.good_steps += good
        if self.begun is None:
            return
        if self.stepped is None:
            # Trainers older than that event.
            self.on_optimizer_step(args, state, control, optimizer)
        if self.stepped is None or not good or not same(self.begun, self.stepped):
            self.still, self.sums = 0, None
        elif self.sums is None:
            # Only now all the weights are looked at: the sample may lie where nothing moves.
            self.still, self.sums = 1, all_sums(self.trainable)
        else:
            self.still += 1
            if self.still > STILL:
                if all_sums(self.trainable) == self.sums:
                    self._prove("run.still", f"no trainable weight has changed up to step {state.global_step}")
                self.still, self.sums = 1, all_sums(self.trainable)

    @guarded
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and isinstance(logs.get("loss"), (int, float)):
            self.losses.append(float(logs["loss"]))

    @guarded
    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, metrics: Any = None, **_: Any
    ) -> None:
        self._hear()
        loss = (metrics or {}).get("eval_loss")
        if loss is None:
            return
        self.eval_losses.append(float(loss))
        sums = {} if self.sharded else all_sums(self.trainable)
        previous, steps = self.evaluated, self.good_steps
        self.evaluated, self.good_steps = (state.global_step, float(loss), sums), 0
        if previous is None or self.sharded or steps < STILL or f"{previous[1]:.7g}" != f"{float(loss):.7g}":
            return
        seen = f"evaluation loss {loss:.7g} at steps {previous[0]} and {state.global_step}"
        if previous[2] == sums:
            self._prove("run.still", f"{seen}, and every weight is the same")
        else:
            fix = "evaluation runs without the adapter, or on another model"
            self._note(Finding(check="run.eval_blind", level="warn", seen=f"{seen}, though weights moved", fix=fix))

    @guarded
    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self._hear()
        self.running = False
        if not self.generates and (chance := rising(self.losses)) < RISES:
            test = f"Mann-Kendall, p = {chance:.2g}; one run in a hundred without any trend does"
            seen = f"the training loss rises ({test})"
            self._note(Finding(check="run.rising", level="warn", seen=seen, fix="lower the learning rate"))
        if self.stages is not None:
            told = {finding.check for finding in self.findings}
            self._note(*(finding for finding in self.stages.heard if finding.check not in told))
        if self.paired is not None:
            self.pairs, self.what = self.paired.pairs(running_trainer()), self.paired.what
        moved = None if self.sharded else share_moved(self.before, model)
        self.verdict = judge(self.eval_losses, moved, self.peak_rate, self.pairs, self.what)
        if self.paired is not None and not self.pairs and self.paired.why:
            why = f"single samples were not compared: {self.paired.why}"
            self.verdict = replace(self.verdict, evidence=(*self.verdict.evidence, why))
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
            if len(told) >= MOST_KEPT:
                continue
            self.findings.append(finding)
            if finding.level in ("warn", "fail"):
                self.first_seen.setdefault(finding.check, self.step)
            # The same thing again and again is told once, and kept.
            if self.tell is not None:
                if not told or finding.level in ("ok", "fail"):
                    self.tell(finding)
            elif finding.level != "ok" and not told and (rank() == 0 or self.running):
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
        if proof != "preflight" and rank() == 0:
            trainer = running_trainer()
            try:
                trainer._save_checkpoint(trainer.model, None)
            except OSError as error:
                seen = f"no checkpoint could be written: {error}"
                self._note(Finding(check="run.no_checkpoint", level="warn", seen=seen, fix="look at the disk"))
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


def running_trainer() -> Any:
    """The Trainer whose method called us: callbacks are not handed it."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    raise RuntimeError("no transformers Trainer is running: LearningCallback works inside trainer.train()")
