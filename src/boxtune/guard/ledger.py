"""The stage ledger: at each stage of a run, which parameters are trainable, in which tower, in which dtype.

Counts are of real parameters: a 4-bit weight is stored two to a byte, so its size is taken from its quantisation
state and not from `numel()`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boxtune.guard.finding import Finding, name_some
from boxtune.guard.towers import OTHER, Towers


@dataclass(frozen=True, kw_only=True)
class Tower:
    """Counts of one tower at one stage; `dtypes` of its trainable parameters, by number of parameters."""

    trainable: int
    all: int
    dtypes: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One tensor as it was at a stage; `optimized` is None where there was no optimizer yet."""

    name: str
    tower: str
    num: int
    dtype: str
    trainable: bool
    optimized: bool | None
    tensor: weakref.ref[Any]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of the ledger: the counts, and each tensor as it was."""

    name: str
    towers: Mapping[str, Tower]
    seen: Mapping[str, Seen]

    @property
    def trainable_names(self) -> frozenset[str]:
        """The tensors that require grad."""
        return frozenset(name for name, tensor in self.seen.items() if tensor.trainable)

    @property
    def trainable(self) -> int:
        """Trainable parameters of all towers."""
        return sum(tower.trainable for tower in self.towers.values())

    @property
    def all(self) -> int:
        """Parameters of all towers."""
        return sum(tower.all for tower in self.towers.values())

    @property
    def dtypes(self) -> Counter[str]:
        """Dtypes of the trainable parameters, by number of parameters."""
        total: Counter[str] = Counter()
        for tower in self.towers.values():
            total.update(tower.dtypes)
        return total


def num_parameters(parameter: Any, state: Any = None) -> int:
    """How many parameters a tensor stands for; a packed 4-bit weight counts with its real shape.

    `state` is the layer's own quantisation state: a weight that FSDP2 has cut up has lost its own.
    """
    state = getattr(parameter, "quant_state", None) or state
    shape = parameter.shape if state is None else state.shape
    count = 1
    for side in shape:
        count *= int(side)
    return count


class Ledger:
    """Stages in order; for `towers` see `Towers`."""

    def __init__(self, towers: Mapping[str, str] | None = None) -> None:
        self.towers = Towers(towers)
        self.stages: list[Stage] = []

    def take(self, name: str, model: Any, optimizer: Any = None) -> Stage:
        """Count a model now and remember it as stage `name`."""
        held = None
        if optimizer is not None:
            held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        states = {f"{name}.weight": getattr(module, "quant_state", None) for name, module in model.named_modules()}
        seen = {}
        for parameter_name, parameter in model.named_parameters():
            seen[parameter_name] = Seen(
                name=parameter_name,
                tower=self.towers.of(parameter_name),
                num=num_parameters(parameter, states.get(parameter_name)),
                dtype=str(parameter.dtype).removeprefix("torch."),
                trainable=parameter.requires_grad,
                optimized=None if held is None else id(parameter) in held,
                tensor=weakref.ref(parameter),
            )
        towers = {}
        for tower in [*self.towers.patterns, OTHER]:
            mine = [tensor for tensor in seen.values() if tensor.tower == tower]
            dtypes: Counter[str] = Counter()
            for tensor in mine:
                dtypes.update({tensor.dtype: tensor.num} if tensor.trainable else {})
            if mine:
                every = sum(tensor.num for tensor in mine)
                towers[tower] = Tower(trainable=dtypes.total(), all=every, dtypes=dict(dtypes))
        stage = Stage(name=name, towers=towers, seen=seen)
        self.stages.append(stage)
        return stage

    def as_json(self) -> list[dict[str, Any]]:
        """The ledger as it stands in ledger.json."""
        return [
            {
                "stage": stage.name,
                "trainable": stage.trainable,
                "all": stage.all,
                "towers": {
                    name: {"trainable": tower.trainable, "all": tower.all, "dtypes": dict(tower.dtypes)}
                    for name, tower in stage.towers.items()
                },
            }
            for stage in self.stages
        ]

    def as_text(self) -> str:
        """The ledger as a table: a row for each stage, trainable of all for the whole and for each tower."""
        towers = [t for t in [*self.towers.patterns, OTHER] if any(t in stage.towers for stage in self.stages)]
        rows = [["stage", "trainable", "of all", "share", *towers, "dtype"]]
        for stage in self.stages:
            share = f"{100 * stage.trainable / max(1, stage.all):.4f} %"
            counts = [f"{stage.towers[t].trainable:,}" if t in stage.towers else "-" for t in towers]
            dtype = "+".join(sorted(stage.dtypes)) or "-"
            rows.append([stage.name, f"{stage.trainable:,}", f"{stage.all:,}", share, *counts, dtype])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column in (0, len(row) - 1) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def check_trainable(stage: Stage, wanted: Collection[str], num_wanted: int) -> list[Finding]:
    """Whether exactly the wanted tensors are trainable: their names, and their number of parameters."""
    wanted = frozenset(wanted)
    frozen, extra = sorted(wanted - stage.trainable_names), sorted(stage.trainable_names - wanted)
    findings = []
    if frozen:
        findings.append(
            Finding(
                check="ledger.frozen",
                level="fail",
                seen=f"{len(frozen)} of {len(wanted)} adapter tensors are not trainable at stage {stage.name!r}",
                where=name_some(frozen),
                fix="something set requires_grad to False since the stage before; see the ledger",
            )
        )
    if extra:
        findings.append(
            Finding(
                check="ledger.unfrozen",
                level="fail",
                seen=f"{len(extra)} tensors that should be frozen are trainable at stage {stage.name!r}",
                where=name_some(extra),
                fix="something set requires_grad to True since the stage before; see the ledger",
            )
        )
    if not findings and stage.trainable != num_wanted:
        findings.append(
            Finding(
                check="ledger.count",
                level="fail",
                seen=f"{stage.trainable:,} parameters are trainable at stage {stage.name!r} instead of {num_wanted:,}",
                where=name_some(sorted(wanted)),
                fix="the adapter is not of the shape its config says; compare the installed peft with the tested",
            )
        )
    if not findings:
        findings.append(
            Finding(check="ledger.trainable", level="ok", seen=f"{stage.trainable:,} trainable at stage {stage.name!r}")
        )
    return findings


@contextlib.contextmanager
def watch_adapter(tell: Callable[[Any], None]) -> Iterator[None]:
    """While open, `tell(peft_model)` is called when PEFT has attached an adapter, before anyone else touches it.

    TRL attaches it inside its constructor and casts it right after, so no other moment shows the adapter as PEFT
    made it.
    """
    import peft

    original = peft.PeftModel.__init__

    def attach(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        tell(self)

    peft.PeftModel.__init__ = attach
    try:
        yield
    finally:
        peft.PeftModel.__init__ = original
