"""What a run would be, without the run: the data, the plan of a step with its memory and speed, and the preflight."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from boxtune import run
from boxtune.config import read_settings
from boxtune.data import build_epochs, build_samples, choose_valid
from boxtune.errors import DataError, Finding, NotLearningError, UndecidedError


def check(recipe: str | Path | None = None, /, **settings: Any) -> list[Finding]:
    """What the checks before the first step find of a run with these settings; the same arguments as `train`.

    Prints the settings, the data, the plan and every finding; writes nothing, trains nothing and scores nothing. Raises
    UserError where the input is wrong, NotLearningError where a check fails, and with `guard.strict` UndecidedError
    where one cannot tell. In one process, whatever `devices` says.
    """
    from boxtune import guard
    from boxtune.finetune import TrainingCollator, build_trainer
    from boxtune.finetune.adapters import free_weights

    asked = read_settings(None if recipe is None else Path(recipe), settings)
    whole, source, resolved, _ = run.open_input(asked)
    chosen = resolved.settings
    base, dataset = run.load_model(source, chosen, build_samples(whole, chosen.data))

    def refuse(sample: Any, error: DataError) -> None:
        raise error

    train, valid = dataset.splits["train"], choose_valid(dataset.splits["valid"], chosen.eval.images)
    collator = TrainingCollator(
        base.encoder,
        {"train": train, "valid": valid},
        refuse,
        chosen.data,
        epochs=build_epochs(train, chosen.data, base.talk.learned, seed=chosen.seed),
        max_tokens=source.max_positions,
        seed=chosen.seed,
    )
    with tempfile.TemporaryDirectory() as checkpoints, guard.watch_adapter(lambda m: free_weights(m, base.plan)):
        trainer = build_trainer(
            base.loaded, base.plan, chosen, collator, [], checkpoints=Path(checkpoints), resuming=True, step=base.step
        )
        found = guard.check(trainer, skip=chosen.guard.skip, towers=source.family.towers)
    findings = [Finding(**finding.as_json()) for finding in found]
    print("", *(str(finding) for finding in findings), sep="\n", flush=True)
    if failed := [str(finding) for finding in findings if finding.level == "fail"]:
        raise NotLearningError("\n".join(failed))
    if chosen.guard.strict and (open_ones := [str(f) for f in findings if f.level == "cannot_tell"]):
        raise UndecidedError("\n".join(open_ones))
    print(f"\npreflight passed: {len(findings)} findings, none of them a fault", flush=True)
    return findings
