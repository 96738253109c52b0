"""From two stages of the ledger and the recorded changes to the sentence a person needs, with lines and edit."""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from boxtune.guard.edits import suggest_edit
from boxtune.guard.finding import Finding, name_some
from boxtune.guard.ledger import Seen, Stage
from boxtune.guard.trace import Change, Frame, Kind, Tracer, short_chain

_VERB = {"frozen": "frozen", "unfrozen": "made trainable", "cast": "cast", "gone": "taken away", "new": "added"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """How one tensor differs between two stages; `before` or `after` is None where it was not there."""

    kind: str
    before: Seen | None
    after: Seen | None

    @property
    def name(self) -> str:
        """The tensor's name at the later stage that has it."""
        seen = self.after or self.before
        assert seen is not None
        return seen.name

    @property
    def num(self) -> int:
        """Its number of parameters."""
        seen = self.after or self.before
        assert seen is not None
        return seen.num


def compare_stages(before: Stage, after: Stage) -> list[Step]:
    """Every tensor that was frozen, made trainable, cast, taken away or added from one stage to the other.

    A tensor is the same when it is the same object, or when it bears the same name but for what PEFT puts round it.
    """
    by_tensor = {id(t): seen for seen in before.seen.values() if (t := seen.tensor()) is not None}
    by_name = {plain_name(name): seen for name, seen in before.seen.items()}
    steps, matched = [], set()
    for seen in after.seen.values():
        old = by_tensor.get(id(seen.tensor())) or by_name.get(plain_name(seen.name))
        if old is None:
            steps.append(Step(kind="new", before=None, after=seen))
            continue
        matched.add(old.name)
        if old.trainable != seen.trainable:
            steps.append(Step(kind="unfrozen" if seen.trainable else "frozen", before=old, after=seen))
        if old.dtype != seen.dtype:
            steps.append(Step(kind="cast", before=old, after=seen))
    gone = [seen for name, seen in before.seen.items() if name not in matched]
    return [*steps, *(Step(kind="gone", before=seen, after=None) for seen in gone)]


def plain_name(name: str) -> str:
    """A parameter's name without what PEFT, torch.compile and DDP put into it."""
    for part in ("base_model.model.", ".base_layer", ".default", "_orig_mod.", "module."):
        name = name.replace(part, "." if part.startswith(".") and part.endswith(".") else "")
    return name


def explain(
    steps: Sequence[Step],
    before: Stage,
    after: Stage,
    tracer: Tracer | None,
    *,
    check: str,
    level: str = "fail",
    own_level: str | None = None,
    built: Sequence[Frame] = (),
) -> list[Finding]:
    """One finding for each cause of the steps (all of one kind): how many tensors, between which stages, by which
    line called from where, and what to do. `built` are lines of the user's that took part earlier;
    `own_level` is the level where the user's own line did it, no library's."""
    groups: dict[tuple[object, ...], list[Step]] = {}
    changes: dict[tuple[object, ...], Change | None] = {}
    for step in steps:
        change = _change_of(step, tracer)
        key: tuple[object, ...] = (step.kind, change.where if change else None)
        groups.setdefault(key, []).append(step)
        changes[key] = change
    findings = []
    for cause, mine in groups.items():
        change = changes[cause]
        kind = mine[0].kind
        where = name_some([step.name for step in mine])
        seen = f"{count_tensors(mine)} {'was' if len(mine) == 1 else 'were'} {_VERB[kind]}"
        if kind == "cast":
            first = mine[0]
            assert first.before and first.after
            seen += f" from {first.before.dtype} to {first.after.dtype}"
        seen += f' between "{before.name}" and "{after.name}"'
        if change is None:
            why = "" if tracer is None else " by something that leaves no trace (another thread, or a module's table)"
            fix = "run the script under `boxtune doctor`, or build the trainer within `guard.watch()`, for the line"
            findings.append(
                Finding(check=check, level=level, seen=seen + why, where=where, fix=fix)  # type: ignore[arg-type]
            )
            continue
        chain = short_chain(change.chain)
        advice = advise(kind, change.chain)
        edit = suggest_edit(change.chain)
        mine_own = bool(chain) and not chain[0].package
        findings.append(
            Finding(
                check=check,
                level=own_level if own_level and mine_own else level,  # type: ignore[arg-type]
                seen=f"{seen} by {tell_chain(chain)}",
                where="\n".join([where, *dict.fromkeys([*user_lines(built), *user_lines(chain)])]),
                fix="\n".join(part for part in (advice, edit) if part),
            )
        )
    return findings


def _change_of(step: Step, tracer: Tracer | None) -> Change | None:
    seen = step.after or step.before
    tensor = None if seen is None else seen.tensor()
    if tracer is None or tensor is None:
        return None
    kinds: dict[str, tuple[Kind, ...]] = {
        "frozen": ("frozen", "detached", "replaced"),
        "unfrozen": ("unfrozen", "replaced"),
        "cast": ("cast", "replaced"),
        "new": ("unfrozen", "frozen"),
    }
    return tracer.last(tensor, *kinds.get(step.kind, ()))


def tell_chain(chain: Sequence[Frame]) -> str:
    """The calls as one sentence, innermost first."""
    if not chain:
        return "an unknown line"
    first, *rest = chain
    told = str(first)
    for frame in rest:
        told += f", called {'from' if not frame.package else 'by'} {frame}"
    return told


def user_lines(chain: Iterable[Frame]) -> list[str]:
    """The user's own lines that took part, as `file:line: text`."""
    lines = []
    for frame in chain:
        if not frame.package and (text := linecache.getline(frame.file, frame.line).strip()):
            lines.append(f"{str(frame).split(' ')[0]}: {text}")
    return lines


def count_tensors(steps: Sequence[Step]) -> str:
    """`392 LoRA tensors (161,480,704 parameters)`."""
    lora = all("lora_" in step.name for step in steps)
    what = ("LoRA tensor" if lora else "tensor") + ("" if len(steps) == 1 else "s")
    return f"{len(steps)} {what} ({sum(step.num for step in steps):,} parameters)"


def advise(kind: str, chain: Sequence[Frame]) -> str:
    """What to do about a change that was made along this chain."""
    functions = [frame.function for frame in chain]
    packages = {frame.package for frame in chain}
    own = next((frame for frame in chain if not frame.package), None)
    if kind == "frozen" and "prepare_model_for_kbit_training" in functions:
        if "trl" in packages:
            return "Pass peft_config to the trainer, and the unwrapped model."
        return "Prepare the model once, before the adapter is attached."
    if kind == "frozen" and "peft" in packages and "from_pretrained" in functions:
        return "Load the adapter with PeftModel.from_pretrained(..., is_trainable=True)."
    if kind == "cast" and "trl" in packages:
        return (
            "Once the trainer is built: for p in trainer.model.parameters(): "
            "p.data = p.data.float() if p.requires_grad else p.data"
        )
    if own is not None and not any(frame.package for frame in chain[: chain.index(own)] if not frame.is_torch):
        return f"Take out the line {str(own).split(' ')[0]}, or do it before the adapter is attached."
    return "Nothing after the adapter is attached may change what is trainable; take out that call."
