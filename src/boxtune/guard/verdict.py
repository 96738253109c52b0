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
    """A copy of every trainable parameter in the machine's memory, to compare with later."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


def share_moved(before: Mapping[str, torch.Tensor], model: Any) -> float | None:
    """Share of the elements of those parameters that are no longer what they were, None where none of them is left
    (an adapter that was merged)."""
    moved = total = 0
    for name, parameter in model.named_parameters():
        if name in before:
            now = parameter.detach()
            # Sharded by FSDP2, it is gathered: every process comes here.
            now = now.full_tensor() if hasattr(now, "full_tensor") else now
            moved += int((now != before[name].to(now.device)).sum())
            total += before[name].numel()
    return moved / total if total else None


Pair = tuple[float, float]
SURE = 0.01
"""Chance at which a change of the samples' losses is taken to be none of chance's: seven that all agree reach it."""


def chance_of(changes: Sequence[float]) -> float:
    """One-sided p value that changes have a mean below 0 by chance: Fisher's test, each sign as likely as the other.

    It takes the samples for independent: that all of them fall because one change suited them all is not excluded.
    Exact for up to 16 changes; of more, 65,536 random choices of signs, always the same ones.
    """
    if not changes or not any(changes):
        return 1.0
    values = torch.tensor(changes, dtype=torch.float64)
    if len(changes) <= 16:
        signs = torch.arange(2 ** len(changes))[:, None] >> torch.arange(len(changes)) & 1
    else:
        signs = torch.randint(0, 2, (1 << 16, len(changes)), generator=torch.Generator().manual_seed(0))
    sums = (2.0 * signs.double() - 1) @ values.abs()
    return float((sums <= values.sum() + 1e-12 * values.abs().sum()).double().mean())


def judge(
    eval_losses: Sequence[float],
    moved: float | None,
    peak_rate: float,
    pairs: Sequence[Pair] = (),
    what: str = "validation",
) -> Verdict:
    """The verdict of a finished run.

    `eval_losses` are the validation losses in order; `moved` the share of trainable elements that changed, None where
    that is not known; `peak_rate` the highest learning rate of any step; `pairs` the losses of single samples before
    and after, of a `what` split, which decide between learning and noise where they are known. *Not learning* is said
    on proof only: no weight moved, a loss that is not finite, or one that is the same to six digits at every
    evaluation. A loss that moved without falling is *cannot tell*, and so is a run that ended within its warm-up.
    """
    weights = "what moved is not known" if moved is None else f"{100 * moved:.1f} % of the trainable elements moved"
    if peak_rate == 0:
        return Verdict(word="cannot tell", evidence=("the learning rate was 0 at every step so far (warm-up)", weights))
    if moved == 0:
        return Verdict(word="not learning", evidence=("not one trainable element moved",))
    broken = [place for place, loss in enumerate(eval_losses) if not math.isfinite(loss)]
    if broken:
        seen = f"validation loss is {eval_losses[broken[0]]} at evaluation {broken[0]} and after {len(broken)} in all"
        return Verdict(word="not learning", evidence=(seen, weights))
    losses: tuple[str, ...] = ()
    if len(eval_losses) > 1:
        first, last, best = eval_losses[0], eval_losses[-1], min(eval_losses[1:])
        losses = (f"validation loss {first:.6f} at first, {last:.6f} at the end, {best:.6f} at best",)
        if len({f"{loss:.7g}" for loss in eval_losses}) == 1:
            return Verdict(word="not learning", evidence=(f"validation loss {first:.7g} at every evaluation", weights))
    if spoiled := sum(not math.isfinite(after) for _, after in pairs):
        seen = f"the loss of {spoiled} of {len(pairs)} {what} samples is not finite at the end"
        return Verdict(word="not learning", evidence=(seen, weights))
    if pairs:
        return _by_pairs(pairs, what, (*losses, weights))
    if not losses:
        return Verdict(
            word="cannot tell", evidence=(weights, f"{len(eval_losses)} evaluations say nothing of a change")
        )
    if min(eval_losses[1:]) < eval_losses[0]:
        return Verdict(word="learning", evidence=(*losses, weights))
    return Verdict(word="cannot tell", evidence=(f"{losses[0]}: it moved but did not fall", weights))


def _by_pairs(pairs: Sequence[Pair], what: str, more: tuple[str, ...]) -> Verdict:
    changes = [after - before for before, after in pairs]
    fell = sum(change < 0 for change in changes)
    mean = sum(changes) / len(changes)
    chance = chance_of(changes)
    told = f"the loss of {fell} of {len(pairs)} {what} samples fell, by {-mean:.4g} in the mean (p = {chance:.2g})"
    if chance < SURE:
        return Verdict(word="learning", evidence=(told, *more))
    if chance_of([-change for change in changes]) < SURE:
        told = f"the loss of {len(pairs) - fell} of {len(pairs)} {what} samples rose, by {mean:.4g} in the mean"
        return Verdict(word="cannot tell", evidence=(f"{told}: it learned something else, or too much", *more))
    return Verdict(word="cannot tell", evidence=(f"{told}: no more than chance may do", *more))
