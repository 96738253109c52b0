"""The preflight: every check that can be made on the real trainer before its first step, and no trace left behind.

Called when training is about to begin (`on_train_begin`), so model, optimizer, schedule and mixed precision are what
the run will use. Afterwards weights, optimizer, random state and the order of the data are as if it had not run.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.guard import checks_labels, checks_parity, checks_setup, checks_steps
from boxtune.guard.batches import Batches, take_batches, take_eval_batch
from boxtune.guard.finding import Finding
from boxtune.guard.probe import Probed, StepRaised, run_probe
from boxtune.guard.ranks import any_rank, num_ranks
from boxtune.guard.towers import Towers
from boxtune.guard.untouched import Aside, Kept, unpacked

NUM_BATCHES, NUM_STEPS = 2, 2


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """Findings in the order of the checks, the seconds it took, and what the probe steps showed (None without)."""

    findings: tuple[Finding, ...]
    seconds: float
    probed: Probed | None


def run_preflight(
    trainer: Any, *, towers: Mapping[str, str] | None = None, skip: frozenset[str] = frozenset()
) -> Preflight:
    """Every check, on a trainer whose training is about to begin. `skip` names checks by id, or their first part."""
    began = time.monotonic()
    findings: list[Finding] = []
    probed = None
    touchable = not checks_setup.is_sharded(trainer) and not checks_setup.steps_elsewhere(trainer)
    # What DeepSpeed or a layer-wise optimizer holds cannot be copied and put back.
    kept = Kept(trainer, trainer.model) if touchable else Aside(trainer, trainer.model)
    try:
        with warnings.catch_warnings():
            # What the libraries warn of here they will warn of again in the run itself.
            warnings.simplefilter("ignore")
            findings += _tried("setup", lambda: checks_setup.check_setup(trainer, touchable))
            batches = take_batches(trainer, NUM_BATCHES)
            with unpacked(trainer.model):
                findings += _tried("labels", lambda: checks_labels.check_labels(trainer, batches))
                if not any(parameter.requires_grad for parameter in trainer.model.parameters()):
                    findings.append(checks_steps.nothing_trainable())
                elif not isinstance(kept, Kept) or not can_probe(trainer, batches):
                    findings.append(_not_probed(trainer, batches))
                else:
                    probed, found = _probe(trainer, batches, Towers(towers), kept)
                    findings += found
    finally:
        kept.put_back()
    chosen = [f for f in findings if f.check not in skip and f.check.split(".")[0] not in skip]
    return Preflight(findings=tuple(chosen), seconds=time.monotonic() - began, probed=probed)


def _probe(trainer: Any, batches: Batches, towers: Towers, kept: Kept) -> tuple[Probed | None, list[Finding]]:
    """The probe steps and all that is judged after them."""
    try:
        eval_batch = take_eval_batch(trainer) if checks_setup.evaluates(trainer) else None
        probed = run_probe(trainer, batches.train, towers, eval_batch=eval_batch, num_steps=NUM_STEPS)
    except StepRaised as raised:
        if num_ranks() > 1:
            # The others are in the middle of a step and wait: better that the job ends at once, as without the guard.
            raise raised.error from None
        return None, [_step_raises(raised.error)]
    found = checks_steps.check_steps(trainer, probed, kept.frozen_moved())
    broken = [f for f in found if f.check in ("loss.finite", "grad.finite") and f.level == "fail"]
    if any_rank(bool(broken)):
        # What comes after a step that is not finite says nothing.
        return probed, broken
    found += checks_steps.check_evaluation(trainer, probed)
    found += checks_steps.check_response(probed, hasattr(trainer.model, "peft_config"))
    return probed, found + _after_the_steps(trainer, batches, any(tensor.moved for tensor in probed.tensors))


def can_probe(trainer: Any, batches: Batches) -> bool:
    """Whether training steps can be tried: not where a step first generates (GRPO and its kin), nor without data."""
    return bool(batches.train) and isinstance(batches.train[0], Mapping) and not generates(trainer)


def generates(trainer: Any) -> bool:
    """Whether a step of the trainer first generates text: its loss need not fall, and may be exactly zero."""
    return any(name.startswith("_generate") for name in dir(type(trainer)))


def _not_probed(trainer: Any, batches: Batches) -> Finding:
    why = batches.why or f"{type(trainer).__name__} cannot be tried out without its real steps"
    return Finding(check="probe", level="cannot_tell", seen=f"no probe steps: {why}", fix="the run itself is watched")


def _step_raises(error: Exception) -> Finding:
    """The run's own steps would end the same way, later and with less said."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " <- ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames[-6:]))
    first = str(error).strip().splitlines() or [""]
    seen = f"a training step raises {type(error).__name__}: {first[0]}"
    fix = "see grad.none and the ledger" if "does not require grad" in first[0] else "mend the error before training"
    return Finding(check="step.raises", level="fail", seen=seen, where=where, fix=fix)


def _after_the_steps(trainer: Any, batches: Batches, moved: bool) -> list[Finding]:
    first = batches.train[0]
    shown, found = checks_parity.Shown(trainer, first), list[Finding]()
    try:
        shown = checks_parity.show_few(trainer, batches)
    except Exception as error:
        seen = f"two samples cannot be collated, so the first batch is looked at: {type(error).__name__}: {error}"
        found.append(Finding(check="batch.same", level="cannot_tell", seen=seen))
    checks: dict[str, Callable[[], list[Finding]]] = {
        "image.used": lambda: checks_parity.check_image(trainer, batches, shown),
        "image.tokens": lambda: checks_parity.check_image_tokens(trainer, first),
        "positions.3d": lambda: checks_parity.check_positions(trainer, shown),
        "labels.leak": lambda: checks_parity.check_causal(trainer, shown),
        "batch.same": lambda: checks_parity.check_batching(trainer, batches),
        "accumulation.same": lambda: checks_parity.check_accumulation(trainer, batches),
        # Of an adapter that did not move this has been said.
        "adapter.used": lambda: checks_parity.check_adapter(trainer, shown.batch) if moved else [],
        "save.same": lambda: checks_parity.check_saving(trainer, shown.batch),
    }
    return found + [finding for name, check in checks.items() for finding in _tried(name, check)]


def _tried(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """What a check finds; that it cannot cope with a trainer must not end a run that can."""
    try:
        return check()
    except Exception as error:
        seen = f"this check could not be made: {type(error).__name__}: {error}"
        return [Finding(check=name, level="cannot_tell", seen=seen)]
