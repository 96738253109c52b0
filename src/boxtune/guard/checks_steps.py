"""What the probe steps prove: gradients reach every part, weights move, nothing else does, and it shows in the loss."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from boxtune.guard.checks_setup import evaluates
from boxtune.guard.finding import Finding, name_some
from boxtune.guard.probe import Moved, Probed
from boxtune.guard.towers import layer_of
from boxtune.guard.untouched import bare_optimizer

LOW_PRECISION = ("bfloat16", "float16")
MOST_LOST, SOME_LOST = 0.5, 0.9
"""Share of the elements with a gradient that must change in the steps: below the first it fails, below the second it
warns. In fp32 all of them do; in bf16 an update below a 256th of the weight is rounded to nothing."""
ADAPTIVE = ("adam", "lion", "adafactor", "lamb", "rmsprop", "ademamix")
"""Optimizers whose first steps are as large as the learning rate, whatever the gradient."""


def check_steps(trainer: Any, probed: Probed, others_moved: Sequence[str]) -> list[Finding]:
    """All findings of the probe."""
    findings = _check_losses(probed)
    findings += _check_gradients(trainer, probed)
    findings += _check_moves(trainer, probed)
    if others_moved:
        seen = f"{len(others_moved)} frozen tensors moved in {probed.num_steps} steps"
        findings.append(_fail("move.frozen", seen, name_some(others_moved), "a hook or the optimizer writes to them"))
    else:
        findings.append(Finding(check="move.frozen", level="ok", seen="no frozen weight moved"))
    return findings


def nothing_trainable() -> Finding:
    """What there is to say of a model that is frozen throughout."""
    seen = "not one parameter of the model is trainable"
    return _fail("trainable.none", seen, fix="attach an adapter, or unfreeze what is to be trained")


def _fail(check: str, seen: str, where: str = "", fix: str = "") -> Finding:
    return Finding(check=check, level="fail", seen=seen, where=where, fix=fix)


def _warn(check: str, seen: str, where: str = "", fix: str = "") -> Finding:
    return Finding(check=check, level="warn", seen=seen, where=where, fix=fix)


def _check_losses(probed: Probed) -> list[Finding]:
    losses = [*probed.losses_before, *probed.train_losses, *probed.losses_after]
    if all(math.isfinite(loss) for loss in losses):
        return [Finding(check="loss.finite", level="ok", seen=f"losses {_list(losses)}")]
    fix = "look at these samples and at the precision; fp16 overflows above 65,504"
    return [_fail("loss.finite", f"losses of the first batches: {_list(losses)}", fix=fix)]


def _list(losses: Sequence[float]) -> str:
    return ", ".join(f"{loss:.4f}" for loss in losses[:6])


def _check_gradients(trainer: Any, probed: Probed) -> list[Finding]:
    tensors = probed.tensors
    without = [tensor for tensor in tensors if all(norm is None for norm in tensor.grad_norms)]
    if len(without) == len(tensors):
        seen = f"none of the {len(tensors)} trainable tensors gets a gradient"
        fix = (
            "the loss does not depend on them: look for torch.no_grad() or detach() round the forward pass, or for "
            "gradient checkpointing with use_reentrant=True over inputs that need no gradient"
        )
        return [_fail("grad.none", seen, name_some([t.name for t in without]), fix)]
    broken = [t for t in tensors if any(n is not None and not math.isfinite(n) for n in t.grad_norms)]
    findings = []
    if broken:
        seen = f"{len(broken)} tensors get a gradient that is not finite"
        findings.append(_fail("grad.finite", seen, name_some([t.name for t in broken]), "lower the rate; use bf16"))
    dead = [tensor for tensor in tensors if not tensor.has_grad]
    if len(dead) == len(tensors):
        zero = _zero_scaling(trainer)
        seen = f"the gradients of all {len(tensors)} trainable tensors are zero"
        fix = zero or "the loss does not change with them: labels, scaling or a constant loss"
        return [*findings, _fail("grad.zero", seen, name_some([t.name for t in dead]), fix)]
    by_tower: dict[str, list[Moved]] = defaultdict(list)
    for tensor in tensors:
        by_tower[tensor.tower].append(tensor)
    told = False
    for tower, mine in by_tower.items():
        if not any(tensor.has_grad for tensor in mine):
            told = True
            seen = f"nothing in the {tower} gets a gradient: {len(mine)} trainable tensors"
            fix = (
                "what comes out of it is detached, or it runs under no_grad, or re-entrant checkpointing cuts it off "
                'there: gradient_checkpointing_kwargs={"use_reentrant": False}'
            )
            findings.append(_fail("grad.tower", seen, name_some([t.name for t in mine]), fix))
    if not told:
        findings += _check_layers(tensors, dead)
    if not findings:
        norm = math.sqrt(sum((t.grad_norms[-1] or 0.0) ** 2 for t in tensors))
        seen = f"{len(tensors) - len(dead)} of {len(tensors)} trainable tensors have gradients (norm {norm:.3g})"
        findings.append(Finding(check="grad.none", level="ok", seen=seen))
    return findings


def _zero_scaling(trainer: Any) -> str:
    """What PEFT says where its adapters are multiplied by nothing."""
    zero = [
        name
        for name, module in trainer.model.named_modules()
        if isinstance(getattr(module, "scaling", None), dict) and module.scaling and not any(module.scaling.values())
    ]
    return f"lora_alpha is 0: {len(zero)} adapters are multiplied by 0" if zero else ""


def _check_layers(tensors: Sequence[Moved], dead: Sequence[Moved]) -> list[Finding]:
    """Whole layers without a gradient, while others of the same stack have one; and single tensors without."""
    alive: dict[str, dict[int, bool]] = defaultdict(dict)
    for tensor in tensors:
        if (place := layer_of(tensor.name)) is not None:
            stack, number = place
            alive[stack][number] = alive[stack].get(number, False) or tensor.has_grad
    findings = []
    for stack, layers in alive.items():
        cut = sorted(number for number, has in layers.items() if not has)
        if cut and any(layers.values()):
            # The last ones may be left out on purpose: a vision tower's output is often taken before its end.
            at_the_end = cut == sorted(layers)[-len(cut) :]
            seen = f"layers {', '.join(map(str, cut[:6]))} of {len(layers)} get no gradient, others of the stack do"
            fix = "a hook or a detach() between these layers and the loss stops it"
            findings.append((_warn if at_the_end else _fail)("grad.layers", seen, stack, fix))
    still = {tensor.name for tensor in tensors if not tensor.moved}
    # LoRA's A has no gradient while its B is zero: where B does not move, that is what there is to say.
    dead = [tensor for tensor in dead if tensor.name.replace(".lora_A.", ".lora_B.") not in still - {tensor.name}]
    if findings or not dead:
        return findings
    few = len(dead) * 10 < len(tensors) or all("expert" in tensor.name for tensor in dead)
    level = "warn" if few else "fail"
    seen = f"{len(dead)} of {len(tensors)} trainable tensors get no gradient"
    fix = "fine for parts that these samples do not use (experts, a second image); else something detaches them"
    names = name_some([tensor.name for tensor in dead])
    return [Finding(check="grad.tensors", level=level, seen=seen, where=names, fix=fix)]  # type: ignore[arg-type]


def _check_moves(trainer: Any, probed: Probed) -> list[Finding]:
    rate = max(probed.peak_rates, default=0.0)
    if rate == 0 or not any(tensor.has_grad for tensor in probed.tensors):
        return []
    live = [tensor for tensor in probed.tensors if tensor.has_grad]
    findings = []
    still = [tensor for tensor in live if tensor.moved == 0]
    if len(still) == len(live):
        seen = f"not one element moved in {probed.num_steps} steps at the peak learning rate {rate:g}"
        fix = _why_still(trainer, live)
        return [_fail("move.none", seen, name_some([t.name for t in still]), fix)]
    groups: dict[tuple[str, str], list[Moved]] = defaultdict(list)
    for tensor in live:
        # LoRA's B begins at zero, where every number format holds any update, so it would hide what A loses.
        part = "LoRA A" if ".lora_A." in tensor.name else "LoRA B" if ".lora_B." in tensor.name else "weights"
        groups[tensor.tower, part].append(tensor)
    for (tower, part), mine in groups.items():
        count = sum(tensor.num * tensor.with_grad for tensor in mine)
        share = sum(tensor.num * tensor.with_grad * tensor.moved for tensor in mine) / max(1.0, count)
        dtypes = sorted({tensor.dtype for tensor in mine})
        if share < SOME_LOST:
            seen = (
                f"{100 * (1 - share):.0f} % of the elements of {part} in the {tower} did not change in "
                f"{probed.num_steps} steps at the peak learning rate {rate:g}: they are {'+'.join(dtypes)}"
            )
            low = any(dtype in LOW_PRECISION for dtype in dtypes)
            fix = "keep the trainable weights in fp32 (autocast does the rest)" if low else "raise the learning rate"
            # Full training in pure bf16 loses as much and is common; an adapter in fp32 costs nothing.
            level = "fail" if share < MOST_LOST and part != "weights" else "warn"
            where = name_some([t.name for t in mine])
            findings.append(Finding(check="move.lost", level=level, seen=seen, where=where, fix=fix))  # type: ignore[arg-type]
    findings += _check_size(trainer, live, rate)
    if not findings:
        total = sum(tensor.num for tensor in live)
        share = sum(tensor.num * tensor.moved for tensor in live) / max(1, total)
        seen = f"{100 * share:.1f} % of {total:,} trainable elements moved in {probed.num_steps} steps at {rate:g}"
        findings.append(Finding(check="move.none", level="ok", seen=seen))
    return findings


def _why_still(trainer: Any, live: Sequence[Moved]) -> str:
    if 0 < trainer.args.max_grad_norm < 1e-4:
        return f"max_grad_norm={trainer.args.max_grad_norm:g} clips every gradient to nothing"
    if any(tensor.dtype in LOW_PRECISION for tensor in live):
        return "the trainable weights round every update to nothing: keep them in fp32"
    return "the optimizer does not hold these tensors, or does not step"


def _check_size(trainer: Any, live: Sequence[Moved], rate: float) -> list[Finding]:
    """Whether the update is of the size that the learning rate asks for, where the optimizer makes that known."""
    name = type(bare_optimizer(trainer.optimizer)).__name__.lower()
    # D-Adaptation and Prodigy find their own, far smaller, first rate.
    if not any(kind in name for kind in ADAPTIVE) or "dadapt" in name:
        return []
    count = sum(tensor.num for tensor in live)
    update = math.sqrt(sum(tensor.num * tensor.update**2 for tensor in live) / max(1, count))
    if update >= 1e-3 * rate:
        return []
    seen = f"the update is {update:.2g} an element, the learning rate {rate:g}: less than a thousandth of it"
    return [_fail("move.size", seen, fix=_why_still(trainer, live))]


def check_evaluation(trainer: Any, probed: Probed) -> list[Finding]:
    """Whether an evaluation step runs at all: the first real one may be hours away."""
    if not probed.evaluation_raises or not evaluates(trainer):
        return []
    seen = f"an evaluation step raises {probed.evaluation_raises.splitlines()[0]}"
    fix = "an own compute_loss takes return_outputs, and returns (loss, outputs) where that is true"
    return [_fail("eval.raises", seen, fix=fix)]


def check_response(probed: Probed, peft: bool) -> list[Finding]:
    """Whether the loss of the same batches, dropout off, answers to the steps; and the trainer's evaluation with it."""
    if not any(tensor.moved for tensor in probed.tensors):
        return []
    pairs = list(zip(probed.losses_before, probed.losses_after, strict=True))
    change = max(abs(after - before) for before, after in pairs)
    told = f"loss of the same batches, dropout off: {_list(probed.losses_before)} before, {_list(probed.losses_after)}"
    told += f" after {probed.num_steps} steps"
    findings = []
    if change <= probed.noise or change == 0:
        level = "fail" if change == 0 and max(probed.peak_rates, default=0.0) >= 1e-6 else "cannot_tell"
        fix = "the weights that moved are not those that the loss sees" + (" (a disabled adapter?)" if peft else "")
        return [Finding(check="loss.answers", level=level, seen=told, fix=fix)]  # type: ignore[arg-type]
    findings.append(Finding(check="loss.answers", level="ok", seen=told))
    blind = probed.evaluated_before is not None and probed.evaluated_before == probed.evaluated_after
    if blind and abs(probed.direct_after - probed.direct_before) > probed.noise:
        seen = f"the trainer's evaluation says {probed.evaluated_after:.6f} before and after, the batch's loss changed"
        fix = "evaluation runs without the adapter, or on another model"
        findings.append(_fail("eval.blind", seen, fix=fix))
    return findings
