"""What stops a run: facts that no amount of waiting can undo."""

from __future__ import annotations

PROOFS = {
    "preflight": "a check before the first step failed",
    "run.frozen": "no parameter is trainable any more; `boxtune doctor --trace` names the line",
    "run.no_gradient": "no tensor has had a gradient for three optimizer steps, and nothing has moved",
    "run.still": "no bit of the trainable weights has changed in five steps, at a learning rate and a gradient above 0",
    "run.undone": "five updates in a row were taken back before the next step began",
    "run.not_finite": "twenty optimizer steps in a row had a gradient that is not finite",
}
"""Everything that stops a run, by id."""


class NotLearning(RuntimeError):
    """The guard stopped the run, or did not let it begin."""

    exit_code = 3
