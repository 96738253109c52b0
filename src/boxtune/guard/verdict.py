"""Did the run learn? From the evaluation losses and from the adapter's own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`word` is learning, not learning or cannot tell; `evidence` the sentences it rests on."""

    word: Literal["learning", "not learning", "cannot tell"]
    evidence: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The verdict as it stands in verdict.json."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.word}: {'; '.join(self.evidence)}"


def snapshot(model: Any) -> dict[str, torch.Tensor]:
    """A copy of every trainable parameter, to compare with later."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def share_moved(before: Mapping[str, torch.Tensor], model: Any) -> float:
    """Share of the elements of those parameters that are no longer what they were."""
    moved = total = 0
    for name, parameter in model.named_parameters():
        if name in before:
            moved += int((parameter.detach() != before[name]).sum())
            total += before[name].numel()
    return moved / max(1, total)


def judge(eval_losses: Sequence[float], moved: float, peak_rate: float) -> Verdict:
    """The verdict of a finished run.

    `eval_losses` are the validation losses in order, the first from before the first step; `moved` the share of
    adapter elements that changed; `peak_rate` the highest learning rate of any step. *Not learning* is said on proof
    only: no weight moved, a loss that is not finite, or one that is the same to six digits
    at every evaluation. A loss that moved without
    falling is *cannot tell*, and so is a run that ended within its warm-up.
    """
    weights = f"{100 * moved:.1f} % of the adapter's elements moved"
    if peak_rate == 0:
        return Verdict(word="cannot tell", evidence=("the learning rate was 0 at every step so far (warm-up)", weights))
    if moved == 0:
        return Verdict(word="not learning", evidence=("not one element of the adapter moved",))
    broken = [place for place, loss in enumerate(eval_losses) if not math.isfinite(loss)]
    if broken:
        seen = f"validation loss is {eval_losses[broken[0]]} at evaluation {broken[0]} and after {len(broken)} in all"
        return Verdict(word="not learning", evidence=(seen, weights))
    if len(eval_losses) < 2:
        return Verdict(word="cannot tell", evidence=(weights, f"only {len(eval_losses)} evaluation"))
    first, last, best = eval_losses[0], eval_losses[-1], min(eval_losses[1:])
    losses = f"validation loss {first:.6f} before training, {last:.6f} at the end, {best:.6f} at best"
    if len({f"{loss:.6f}" for loss in eval_losses}) == 1:
        return Verdict(word="not learning", evidence=(f"validation loss {first:.6f} at every evaluation", weights))
    if best < first:
        return Verdict(word="learning", evidence=(losses, weights))
    return Verdict(word="cannot tell", evidence=(f"{losses}: it moved but did not fall", weights))
