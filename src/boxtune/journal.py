"""What a run tells and keeps: lines on the terminal, findings, the stage ledger, the verdict; and where it goes on."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from boxtune import __version__
from boxtune.artifacts import RunFolder, build_run_folder, find_runs, write_json, write_text
from boxtune.config import Resolved
from boxtune.data import Dataset, Sample, inspect_dataset
from boxtune.errors import ConfigError, DataError, Finding, NotLearningError

if TYPE_CHECKING:
    from boxtune.finetune import Plan
    from boxtune.guard import Verdict

MAY_CHANGE = ("train.epochs", "train.hours", "train.resume", "train.keep_checkpoints", "track.report_to", "runs")
"""Settings that a resumed run may have otherwise than the run it goes on with."""

MAX_BROKEN_SHARE = 0.01
"""Share of the training images that may turn out to be broken (DESIGN section 4)."""


class Journal:
    """One run's record. Everything it is told is on disk at once, so that a killed run leaves its story."""

    def __init__(self, folder: RunFolder, towers: Mapping[str, str]) -> None:
        from boxtune.guard import Ledger

        self.folder = folder
        self.findings: list[Finding] = []
        self.ledger = Ledger(towers)
        self.verdict: dict[str, Any] = {"word": "cannot tell", "evidence": ["the run has not finished"]}
        self.digest = ""
        self.num_train = 0

    def begin(
        self, resolved: Resolved, dataset: Dataset, environment: Mapping[str, Any], *, resumed_from: Path | None
    ) -> None:
        """Open the record: settings with their sources, environment, data."""
        write_text(self.folder.recipe, resolved.as_yaml())
        write_json(self.folder.environment, environment)
        write_json(self.folder.verdict, self.verdict)
        self.num_train = len(dataset.splits["train"])
        self.say(f"run folder: {self.folder.path}", "", resolved.as_yaml(), inspect_dataset(dataset).as_text(), "")
        if resumed_from is not None:
            self.say(f"going on from {resumed_from.name}")

    def say(self, *lines: str) -> None:
        """Print, at once."""
        print(*lines, sep="\n", flush=True)

    def note(self, *findings: Finding) -> None:
        """Keep findings, and print those that are not simply well."""
        known = {str(finding) for finding in self.findings}
        for finding in findings:
            if str(finding) in known:
                continue
            self.findings.append(finding)
            if finding.level != "ok":
                self.say(str(finding))
        write_json(self.folder.findings, [finding.as_json() for finding in self.findings])

    def stage(self, name: str, model: Any, plan: Plan | None = None) -> None:
        """Count the model's parameters at a stage; with a plan, exactly its tensors must be trainable.

        Raises NotLearningError, the ledger printed and written, where they are not.
        """
        from boxtune.guard import check_trainable

        stage = self.ledger.take(name, model)
        write_json(self.folder.ledger, self.ledger.as_json())
        if plan is None:
            return
        found = check_trainable(stage, plan.tensor_names, plan.num_parameters)
        self.note(*(Finding(**finding.as_json()) for finding in found))
        failed = [finding for finding in found if finding.level == "fail"]
        if failed:
            self.say("", self.ledger.as_text(), "")
            raise NotLearningError("\n".join(f"{f.seen}\n  where: {f.where}\n  do:    {f.fix}" for f in failed))

    def judged(self, verdict: Verdict) -> None:
        """Keep the guard's verdict and show the ledger."""
        self.verdict = verdict.as_json()
        write_json(self.folder.verdict, self.verdict)
        self.say("", self.ledger.as_text(), "", f"verdict: {verdict}")

    def end(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Close the record: the verdict with the comparison of base and tuned beside it."""
        better = scores["paired"]["verdict"] if "paired" in scores else None
        self.verdict = {**self.verdict, "better_than_base": better, "logits_digest": self.digest}
        write_json(self.folder.verdict, self.verdict)
        write_json(self.folder.findings, [finding.as_json() for finding in self.findings])
        return self.verdict

    def leave_out_while_training(self, sample: Sample, error: DataError) -> None:
        """Note a training image that could not be opened; DataError once more than 1 % of them are like that.

        Goes through a file, since images are opened in worker processes.
        """
        path = self.folder.left_out
        known = _left_out(path)
        if str(sample.image) in known:
            return
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"image": str(sample.image), "why": error.what}) + "\n")
        self.say(f"left out: {sample.image}: {error.what}")
        if len(known) + 1 > MAX_BROKEN_SHARE * self.num_train:
            raise DataError(
                f"{len(known) + 1} of {self.num_train} training images cannot be opened, more than 1 %",
                where=str(path),
                fix="mend or remove the images listed there",
            ) from error


def _left_out(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {json.loads(line)["image"] for line in path.read_text(encoding="utf-8").splitlines()}


def open_folder(resolved: Resolved) -> tuple[RunFolder, Path | None]:
    """A fresh run folder; or with `resume=true` the newest of this name, and its last complete checkpoint.

    Raises ConfigError where there is no such run, or where it was made with other settings.
    """
    from boxtune.finetune.checkpoints import last_complete

    settings = resolved.settings
    parent = Path(settings.runs)
    name = settings.name or f"{Path(settings.data.path).name}-{Path(settings.model).name}"
    if not settings.train.resume:
        return build_run_folder(parent, name), None
    runs = find_runs(parent, name)
    if not runs:
        raise ConfigError(
            f"there is no run named {name!r} to resume", where=str(parent), fix="leave resume away, or give name="
        )
    folder = runs[-1]
    _require_same(resolved, folder)
    checkpoint, findings = last_complete(folder.checkpoints)
    for finding in findings:
        print(finding, flush=True)
    if checkpoint is None:
        print(f"{folder.path} has no complete checkpoint: training begins at its first step", flush=True)
    return folder, checkpoint


def _require_same(resolved: Resolved, folder: RunFolder) -> None:
    if not folder.recipe.is_file():
        return
    before = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
    changed = []
    for path, value in resolved.values():
        head, _, leaf = path.rpartition(".")
        was = before.get(head, {}).get(leaf) if head else before.get(leaf)
        value = list(value) if isinstance(value, tuple) else value
        if path not in MAY_CHANGE and was != value:
            changed.append(f"{path} was {was!r}, now {value!r}")
    if changed:
        raise ConfigError(
            f"the run to resume had other settings: {'; '.join(changed)}",
            where=str(folder.recipe),
            fix=f"give the settings of {folder.name}, or leave resume away to begin a new run",
        )


def read_environment() -> dict[str, Any]:
    """Versions, machine and command line: what is needed to repeat the run."""
    import os

    import torch

    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"boxtune": __version__, **{name: metadata.version(name) for name in packages}},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "command": sys.argv,
    }
