"""The ledger of anybody's script: stages taken where models are loaded, wrapped and handed to a trainer, and what they
say about each other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer

from boxtune.guard.explain import Step, compare_stages, explain, tell_chain, user_lines
from boxtune.guard.finding import Finding
from boxtune.guard.heard import listening
from boxtune.guard.ledger import Ledger, Stage
from boxtune.guard.trace import Frame, Tracer, short_chain, user_frames
from boxtune.guard.untouched import bare_optimizer

BEGIN = "training begins"
ADAPTED = "adapted"
PREPARE = "prepare_model_for_kbit_training"


class Stages:
    """Takes stages while it is watching; `at_begin` judges them once training is about to begin."""

    def __init__(
        self,
        towers: Mapping[str, str] | None = None,
        make_callback: Callable[[Stages], Any] | None = None,
        *,
        trace_training: bool = False,
    ) -> None:
        """`make_callback` gives the guard of a trainer that is built while `watching` and has none; `trace_training`
        goes on tracing in the steps, which makes them slow and names the line of a change in them."""
        self.make_callback = make_callback
        self.trace_training = trace_training
        self.attached_at: list[Frame] = []
        self.heard: list[Finding] = []
        self.ledger = Ledger(towers)
        self.tracer = Tracer()
        self.is_tracing = False
        self.callbacks: list[Any] = []

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While open, changes are traced and stages taken."""
        with listening(self.heard), self.tracing(), _after_loading(self), _round_adapters(self), _round_trainers(self):
            yield

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """While open, or until training begins, changes are traced."""
        self.tracer.__enter__()
        self.is_tracing = True
        try:
            yield
        finally:
            self.stop_tracing()

    def stop_tracing(self) -> None:
        """End the trace, if torch's stack of modes allows it here: a mode of someone else may lie on top."""
        if self.is_tracing and torch.overrides._get_current_function_mode() is self.tracer:
            self.tracer.__exit__(None, None, None)
            self.is_tracing = False

    def at_begin(self, trainer: Any) -> list[Finding]:
        """What the stages so far say about the model that is now going to be trained."""
        if not self.trace_training:
            self.stop_tracing()
        now = self.ledger.take(BEGIN, trainer.model, bare_optimizer(trainer.optimizer))
        reference = self._reference(now)
        if reference is None:
            return []
        findings = self._adapter_frozen_from_the_start(reference, now)
        steps = compare_stages(reference, now)
        for kind, check, level in (
            ("frozen", "ledger.frozen", "fail"),
            ("unfrozen", "ledger.unfrozen", "warn"),
            ("cast", "ledger.cast", "warn"),
        ):
            mine = [step for step in steps if step.kind == kind and self._matters(step)]
            if mine:
                before, after = self._stages_round(mine, reference)
                built = self._built_at() if kind == "frozen" else ()
                # A part that the user froze may be meant to stay as it is.
                own = "warn" if kind == "frozen" and now.trainable else None
                findings += explain(
                    mine, before, after, self.tracer, check=check, level=level, own_level=own, built=built
                )
        if not findings:
            seen = f"{now.trainable:,} parameters are trainable, as at {reference.name!r}"
            findings.append(Finding(check="ledger.trainable", level="ok", seen=seen))
        return findings

    def _built_at(self) -> list[Frame]:
        """The user's lines that prepared the model first and attached the adapter."""
        prepared = next((c for c in self.tracer.changes if any(f.function == PREPARE for f in c.chain)), None)
        frames = [] if prepared is None else [f for f in prepared.chain if not f.package][:1]
        return [*frames, *self.attached_at]

    def who_froze(self, parameter: Any) -> tuple[str, str]:
        """The calls that froze a parameter in training, and the user's lines; what to do instead where not traced."""
        change = self.tracer.last(parameter, "frozen")
        if not self.is_tracing or change is None:
            return "", ""
        chain = short_chain(change.chain)
        return f" by {tell_chain(chain)}", "\n".join(user_lines(chain))

    def _matters(self, step: Step) -> bool:
        if step.kind == "cast":
            return step.after is not None and step.after.trainable and step.after.dtype in ("bfloat16", "float16")
        return True

    def _stages_round(self, steps: list[Step], reference: Stage) -> tuple[Stage, Stage]:
        """The last stage at which the first of the tensors was still as at the reference, and the one after it."""
        step = steps[0]
        assert step.before is not None
        last = reference
        for stage in self.ledger.stages[self.ledger.stages.index(reference) + 1 :]:
            seen = next((s for s in stage.seen.values() if s.tensor() is step.before.tensor()), None)
            if seen is None or (seen.trainable, seen.dtype) != (step.before.trainable, step.before.dtype):
                return last, stage
            last = stage
        return last, self.ledger.stages[-1]

    def _reference(self, now: Stage) -> Stage | None:
        """The stage that says what is to be trained: where the adapter was attached, else what the trainer got."""
        mine = {id(seen.tensor()) for seen in now.seen.values()}
        for name in (ADAPTED, "given to the trainer"):
            for stage in reversed(self.ledger.stages[:-1]):
                if stage.name == name and any(id(seen.tensor()) in mine for seen in stage.seen.values()):
                    return stage
        return None

    def _adapter_frozen_from_the_start(self, reference: Stage, now: Stage) -> list[Finding]:
        lora = [seen for seen in reference.seen.values() if "lora_" in seen.name]
        frozen = [seen for seen in lora if not seen.trainable and not _is_trainable(now, seen.tensor())]
        if reference.name != ADAPTED or not lora or len(frozen) < len(lora):
            return []
        steps = [Step(kind="frozen", before=seen, after=seen) for seen in frozen]
        return explain(steps, self._before(reference), reference, self.tracer, check="ledger.frozen")

    def _before(self, stage: Stage) -> Stage:
        place = self.ledger.stages.index(stage)
        return self.ledger.stages[max(0, place - 1)]


def _is_trainable(stage: Stage, tensor: Any) -> bool:
    return any(seen.trainable for seen in stage.seen.values() if seen.tensor() is tensor)


@contextlib.contextmanager
def _after_loading(stages: Stages) -> Iterator[None]:
    original = PreTrainedModel.__dict__["from_pretrained"]

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        model = original.__func__(cls, *args, **kwargs)
        stages.ledger.take("loaded", model[0] if isinstance(model, tuple) else model)
        return model

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = original


@contextlib.contextmanager
def _round_adapters(stages: Stages) -> Iterator[None]:
    """Before and after PEFT attaches an adapter, where PEFT is installed."""
    try:
        from peft import PeftModel
    except ImportError:
        yield
        return
    original = PeftModel.__init__

    def attach(self: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        stages.ledger.take("prepared", model)
        original(self, model, *args, **kwargs)
        stages.attached_at += user_frames()[:1]
        stages.ledger.take(ADAPTED, self)

    PeftModel.__init__ = attach
    try:
        yield
    finally:
        PeftModel.__init__ = original


@contextlib.contextmanager
def _round_trainers(stages: Stages) -> Iterator[None]:
    """Before and after transformers' own part of a trainer is built; a guard is added to each."""
    original = Trainer.__init__

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        model = kwargs.get("model", args[0] if args else None)
        if isinstance(model, torch.nn.Module):
            stages.ledger.take("given to the trainer", model)
        original(self, *args, **kwargs)
        stages.ledger.take("trainer built", self.model)
        held = [callback for callback in self.callback_handler.callbacks if hasattr(callback, "stages")]
        for callback in held:
            callback.stages = callback.stages or stages
        if not held and stages.make_callback is not None:
            held = [stages.make_callback(stages)]
            self.add_callback(held[0])
        stages.callbacks += held

    Trainer.__init__ = build
    try:
        yield
    finally:
        Trainer.__init__ = original
