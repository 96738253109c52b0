"""The guard: proof that weights move. Imports torch and transformers only; usable in anybody's script."""

from boxtune.guard.finding import Finding
from boxtune.guard.ledger import Ledger, Stage, check_trainable, watch_adapter
from boxtune.guard.verdict import Verdict, judge, share_moved, snapshot

__all__ = [
    "Finding",
    "Ledger",
    "Stage",
    "Verdict",
    "check_trainable",
    "judge",
    "share_moved",
    "snapshot",
    "watch_adapter",
]
