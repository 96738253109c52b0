"""What a run tells and keeps: lines on the terminal, findings, the stage ledger, the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxtune.artifacts import RunFolder, write_json, write_text
from boxtune.config import Resolved
from boxtune.data import MAX_LEFT_OUT, Dataset, Sample, write_split
from boxtune.errors import DataError, Finding, Level, NotLearningError, UndecidedError, name_some
from boxtune.settings import GuardSettings

if TYPE_CHECKING:
    from boxtune import guard
    from boxtune.finetune import Plan
    from boxtune.guard import LearningCallback, Verdict


class Journal:
    """One run's record. Everything it is told is on disk at once, so that a killed run leaves its story.

    Of several ranks each keeps one, and looks at its own model; the first one alone writes.
    """

    def __init__(self, folder: RunFolder, towers: Mapping[str, str]) -> None:
        from boxtune.finetune.ranks import is_first
        from boxtune.guard import Stages

        self.folder, self.towers, self.writes = folder, towers, is_first()
        self.findings: list[Finding] = []
        self.stages = Stages(towers)
        self.ledger = self.stages.ledger
        self.verdict: dict[str, Any] = {"word": "cannot tell", "evidence": ["the run has not finished"]}
        self.digest = ""
        self.probe: Sequence[Sample] = ()
        self.num_train = 0

    def begin(self, resolved: Resolved, dataset: Dataset, whole: Dataset, environment: Mapping[str, Any]) -> None:
        """Open the record: settings with their sources, environment, what the data is.

        `dataset` holds what is trained on, which may be tiles; `whole` the images that they are of.
        """
        images = whole if resolved.settings.data.tile else dataset
        self.num_train = len(images.splits["train"])
        self._write(self.folder.environment, environment)
        self._write(self.folder.verdict, self.verdict)
        if self.writes:
            write_text(self.folder.recipe, resolved.as_yaml())
            write_split(images, self.folder.split)
        self.note(*dataset.findings)

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
        self._write(self.folder.findings, [finding.as_json() for finding in self.findings])

    def _write(self, path: Path, value: Any) -> None:
        if self.writes:
            write_json(path, value)

    def stage(self, name: str, model: Any, plan: Plan | None = None) -> None:
        """Count the model's parameters at a stage; with a plan, exactly its tensors must be trainable.

        Raises NotLearningError, the ledger printed and written, where they are not.
        """
        from boxtune.guard import check_trainable

        stage = self.ledger.take(name, model)
        self._write(self.folder.ledger, self.ledger.as_json())
        if plan is None:
            return
        found = check_trainable(stage, plan.tensor_names, plan.num_parameters)
        self.note(*(Finding(**finding.as_json()) for finding in found))
        failed = [finding for finding in found if finding.level == "fail"]
        if failed:
            self.say("", self.ledger.as_text(), "")
            raise NotLearningError("\n".join(f"{f.seen}\n  where: {f.where}\n  do:    {f.fix}" for f in failed))

    def guard(self, settings: GuardSettings) -> LearningCallback:
        """The guard's callback for this run: its findings are kept with the others."""
        from boxtune.guard import LearningCallback

        def tell(finding: guard.Finding) -> None:
            self.note(Finding(**finding.as_json()))

        return LearningCallback(settings.mode, skip=settings.skip, towers=self.towers, stages=self.stages, tell=tell)

    def judged(self, verdict: Verdict) -> None:
        """Keep the guard's verdict and show the ledger."""
        self.verdict = verdict.as_json()
        # Also what one rank alone was stopped for: the first may be waiting for it.
        if self.writes or verdict.word == "not learning":
            write_json(self.folder.verdict, self.verdict)
        self.say("", self.ledger.as_text(), "", f"verdict: {verdict}")

    def same_everywhere(self, model: Any) -> None:
        """Note whether every rank has trained the same adapter, to the bit; NotLearningError where not.

        Gradients that are not exchanged (a forward pass beside the wrapper that does it) show nowhere else: the losses
        are the mean of all ranks.
        """
        from boxtune.finetune.ranks import gather
        from boxtune.finetune.reload import trainable_digest
        from boxtune.guard import Verdict

        digests = gather(trainable_digest(model))
        if len(digests) == 1:
            return
        if len(set(digests)) == 1:
            seen = f"all {len(digests)} ranks have trained the same adapter, to the bit"
            self.note(Finding(check="ranks.same", level="ok", seen=seen))
            return
        others = [number for number, digest in enumerate(digests) if digest != digests[0]]
        seen = f"the ranks have trained different adapters: {name_some(others)} of {len(digests)} other than rank 0"
        fix = "the loss is computed beside the wrapped model, so that gradients are not exchanged"
        self.note(Finding(check="ranks.same", level="fail", seen=seen, fix=fix))
        self.judged(Verdict(word="not learning", evidence=(seen,)))
        raise NotLearningError(f"{seen}\n  do:    {fix}")

    def judge(self, watcher: LearningCallback, moved: float | None, *, resumed: bool) -> None:
        """The verdict of the finished training, from the rows of all its steps and the guard's samples."""
        from boxtune.finetune.checkpoints import read_metrics
        from boxtune.finetune.ranks import first_does
        from boxtune.guard import judge

        def look() -> Verdict:
            rows = read_metrics(self.folder.metrics)
            losses = [float(row["eval_loss"]) for row in rows if row["kind"] == "eval"]
            rates = [row["learning_rate"] for row in rows if row["kind"] == "train"]
            # Of a run that goes on from a checkpoint, the guard's samples know the last part only.
            return judge(losses, moved, max(rates, default=0.0), [] if resumed else watcher.pairs, watcher.what)

        self.judged(first_does(look))

    def compared(self, same: bool) -> None:
        """Note whether the saved adapter, loaded afresh, gives the trained model's logits."""
        seen = "the saved adapter, loaded afresh, gives " + (
            "the trained model's logits bit for bit" if same else "other logits than the trained model"
        )
        fix = "" if same else "do not use this adapter; the scores below are those of what was saved"
        level: Level = "ok" if same else "fail"
        self.note(Finding(check="reload.logits", level=level, seen=seen, where=str(self.folder.adapter), fix=fix))

    def end(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """Close the record: the verdict with the comparison of base and tuned beside it."""
        if left_out := _left_out(self.folder.left_out):
            seen = f"{len(left_out)} of {self.num_train} training images could not be opened and were left out"
            where = name_some(sorted(left_out))
            self.note(Finding(check="image.left_out_while_training", level="warn", seen=seen, where=where))
        better = scores["paired"]["verdict"] if "paired" in scores else None
        self.verdict = {**self.verdict, "better_than_base": better, "logits_digest": self.digest}
        self._write(self.folder.verdict, self.verdict)
        self._write(self.folder.findings, [finding.as_json() for finding in self.findings])
        return self.verdict

    def require_learned(self, *, strict: bool) -> None:
        """Raise NotLearningError where the run is proved not to have learned, or where what was saved is not what was
        trained; if `strict`, UndecidedError where it cannot be told."""
        evidence = "; ".join(self.verdict["evidence"])
        if self.verdict["word"] == "not learning":
            raise NotLearningError(f"the run did not learn: {evidence}")
        for finding in self.findings:
            if finding.check == "reload.logits" and finding.level == "fail":
                raise NotLearningError(f"{finding.seen}\n  where: {finding.where}\n  do:    {finding.fix}")
        if strict and self.verdict["word"] == "cannot tell":
            raise UndecidedError(f"it cannot be told whether the run learned: {evidence}")

    def leave_out_while_training(self, sample: Sample, error: DataError) -> None:
        """Note a training image that could not be opened; DataError once more than 1 % of them are like that.

        Goes through a file, since images are opened in worker processes.
        """
        path = self.folder.left_out
        known = _left_out(path)
        if str(sample.image) not in known:
            known.add(str(sample.image))
            with path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"image": str(sample.image), "why": error.what}) + "\n")
            self.say(f"left out: {sample.image}: {error.what}")
        if len(known) > MAX_LEFT_OUT * self.num_train:
            raise DataError(
                f"{len(known)} of {self.num_train} training images cannot be opened, more than 1 %",
                where=name_some(sorted(known)),
                fix=f"mend or remove them; {path} lists them all",
            ) from error


def _left_out(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    return {json.loads(line)["image"] for line in path.read_text(encoding="utf-8").splitlines()}
