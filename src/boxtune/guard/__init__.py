"""The guard: proof that a run learns. Imports torch and transformers only; usable in anybody's script.

with boxtune.guard.watch():              round the whole script, or
boxtune.guard.check(trainer)             on a trainer that has been built, or
callbacks=[boxtune.guard.LearningCallback()]
"""

from boxtune.guard.callback import LearningCallback
from boxtune.guard.finding import Finding
from boxtune.guard.ledger import Ledger, Stage, check_trainable, watch_adapter
from boxtune.guard.preflight import Preflight, run_preflight
from boxtune.guard.proofs import PROOFS, NotLearning
from boxtune.guard.stages import Stages
from boxtune.guard.trace import Tracer
from boxtune.guard.verdict import Verdict, judge, share_moved, snapshot
from boxtune.guard.watch import check, watch

__all__ = [
    "PROOFS",
    "Finding",
    "LearningCallback",
    "Ledger",
    "NotLearning",
    "Preflight",
    "Stage",
    "Stages",
    "Tracer",
    "Verdict",
    "check",
    "check_trainable",
    "judge",
    "run_preflight",
    "share_moved",
    "snapshot",
    "watch",
    "watch_adapter",
]
