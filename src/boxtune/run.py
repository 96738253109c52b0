"""THE MAIN PATH: every stage called once, in order.

    settings -> data -> base model -> base scores -> adapter and trainer -> training -> saved -> reloaded -> scores

`train` is the whole of it. What a stage does stands in the stage's own folder; here is only the order, what is
checked between two stages, and what is written to the run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxtune.artifacts import RunFolder, cache_folder, read_json, write_json
from boxtune.config import Settings, read_settings
from boxtune.data import Dataset, Sample, leave_out_broken, limit_split, read_dataset, require_validation, write_split
from boxtune.errors import DataError, Finding, NotLearningError
from boxtune.journal import Journal, open_folder, read_environment
from boxtune.measure import Prediction, cache_key, cached_predictions, coco_results, compare, score_predictions
from boxtune.report import score_table, write_gallery

if TYPE_CHECKING:
    from boxtune.boxes import Boxes
    from boxtune.finetune import Encoder, Loaded, ModelSource

TINY = "tiny"
"""The name under which the embedded model is asked for."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its folder, its scores (DESIGN's `scores.json`) and its verdict."""

    folder: RunFolder
    scores: dict[str, Any]
    verdict: dict[str, Any]

    @property
    def adapter(self) -> Path:
        """The best adapter by validation loss."""
        return self.folder.adapter

    def predict(self, source: Any, threshold: float | None = None) -> Boxes | list[Boxes]:
        """Boxes of one image or of several; see `boxtune.infer.Predictor.predict`."""
        return load(self.folder.path).predict(source, threshold)


def train(recipe: str | Path | None = None, /, **settings: Any) -> Run:
    """Tune a model on a data set, and prove it: the run, with its adapter, scores, pictures and ledger on disk.

    `settings` are leaf names (`epochs=1`), full paths (`**{"train.epochs": 1}`) or groups (`train={"epochs": 1}`);
    `model` and `data` are needed, here or in the recipe. Raises UserError where the input is wrong and
    NotLearningError where the run does not learn what it should.
    """
    asked = read_settings(None if recipe is None else Path(recipe), settings)
    dataset = prepare_data(asked.settings)
    source = find_source(asked.settings.model)
    resolved = asked.with_values(*_model_defaults(source))
    folder, checkpoint = open_folder(resolved)
    journal = Journal(folder, source.family.towers)
    journal.begin(resolved, dataset, read_environment(), resumed_from=checkpoint)
    write_split(dataset, folder.split)

    loaded, encoder, dataset, max_new_tokens = load_model(source, resolved.settings, dataset, journal)
    valid = limit_split(dataset.splits["valid"], resolved.settings.eval.images)
    card = build_card(resolved.settings, loaded, encoder, max_new_tokens)

    base = predict_base(loaded, encoder, valid, card, resolved.settings, journal)
    train_adapter(loaded, encoder, dataset, valid, card, resolved.settings, folder, checkpoint, journal)
    del loaded
    tuned = predict_tuned(source, encoder, valid, card, resolved.settings, folder, journal)

    return write_scores(dataset, valid, base, tuned, resolved.settings, folder, journal)


def prepare_data(settings: Settings) -> Dataset:
    """The data set with sound `train` and `valid` splits: read, checked for broken images, split, limited.

    `valid` is the split that `data.split` names.
    """
    data = settings.data
    images = None if data.images is None else Path(data.images)
    dataset = leave_out_broken(read_dataset(data.path, format=data.format, images=images))
    if data.split == "valid":
        dataset = require_validation(dataset, seed=settings.seed)
    elif not dataset.splits.get(data.split):
        raise DataError(f"there is no split {data.split!r}", where=str(dataset.path), fix="leave data.split away")
    splits = {"train": dataset.splits["train"], "valid": dataset.splits[data.split]}
    dataset = dataset.with_splits({name: limit_split(samples, data.limit) for name, samples in splits.items()})
    for name, samples in dataset.splits.items():
        if not any(len(sample.targets) for sample in samples):
            raise DataError(
                f"not one image of the split {name!r} has a box",
                where=str(dataset.path),
                fix="there is nothing to learn or to measure; check the annotations with: boxtune inspect DATA",
            )
    return dataset


def find_source(model: str) -> ModelSource:
    """Where the model lies and what family it is of."""
    from boxtune.finetune import find_model
    from boxtune.tiny.model import model_folder

    return find_model(model_folder(), ref_as=TINY) if model == TINY else find_model(model)


def _model_defaults(source: ModelSource) -> tuple[dict[str, Any], str]:
    from boxtune.tiny.model import DEFAULTS

    defaults = DEFAULTS if source.ref == TINY else source.family.defaults
    values = {
        "adapter.recipe": defaults.recipe,
        "adapter.r": defaults.r,
        "adapter.alpha": defaults.alpha,
        "adapter.dropout": defaults.dropout,
        "train.learning_rate": defaults.learning_rate,
        "train.epochs": defaults.epochs,
        "train.effective_batch": defaults.effective_batch,
        "train.micro_batch": defaults.micro_batch,
        "image.min_pixels": defaults.min_pixels,
        "image.max_pixels": defaults.max_pixels,
    }
    return values, f"{'model' if source.ref == TINY else 'family'}: {defaults.source}"


def load_model(
    source: ModelSource, settings: Settings, dataset: Dataset, journal: Journal
) -> tuple[Loaded, Encoder, Dataset, int]:
    """The base model, the encoder for these classes, the samples that fit, and the bound on new tokens."""
    from boxtune.finetune import build_encoder, choose_placement, fit_samples, load_base

    if faults := source.family.check_classes(dataset.classes):
        raise DataError("; ".join(faults), where=str(dataset.path), fix="rename the class in the annotations")
    placement = choose_placement(settings.quantization, settings.train.precision)
    journal.say(*placement.notes)
    assert settings.image.min_pixels and settings.image.max_pixels
    loaded = load_base(source, placement, min_pixels=settings.image.min_pixels, max_pixels=settings.image.max_pixels)
    encoder = build_encoder(loaded, dataset.classes)
    dataset, longest = fit_samples(dataset, encoder, source.max_positions)
    journal.note(*loaded.findings, *dataset.findings)
    journal.say(f"longest sample: {longest.prompt} tokens of prompt and image, {longest.answer} of answer")
    return loaded, encoder, dataset, settings.generate.max_new_tokens or longest.max_new_tokens


def build_card(settings: Settings, loaded: Loaded, encoder: Encoder, max_new_tokens: int) -> dict[str, Any]:
    """The run card: what prediction must repeat, bound to the weights it was trained on."""
    from boxtune.finetune import fingerprint

    source = loaded.source
    return {
        "model": source.ref if source.ref == TINY or not Path(source.ref).exists() else str(source.folder.absolute()),
        "base_fingerprint": fingerprint(source.folder),
        "family": source.family.name,
        "prompt": source.family.prompt(encoder.classes, 0),
        "classes": list(encoder.classes),
        "quantization": loaded.placement.quantization,
        "precision": loaded.placement.precision,
        "min_pixels": settings.image.min_pixels,
        "max_pixels": settings.image.max_pixels,
        "max_new_tokens": max_new_tokens,
        "versions": read_environment()["versions"],
    }


def predict_base(
    loaded: Loaded,
    encoder: Encoder,
    valid: Sequence[Sample],
    card: dict[str, Any],
    settings: Settings,
    journal: Journal,
) -> list[Prediction] | None:
    """What the untuned model says, in the precision it is trained in; kept from a run before where nothing changed."""
    if not settings.eval.base:
        return None
    bound = {**card, "device": str(loaded.placement.device), "at_once": settings.generate.at_once}
    key = cache_key(valid, **bound)
    base, kept = cached_predictions(
        cache_folder() / "base", key, lambda: predict_all(loaded, encoder, valid, card, settings, "base model")
    )
    if kept:
        journal.say(f"base model: {len(base)} answers kept from an earlier run (same weights, data, prompt, budget)")
    return base


def predict_all(
    loaded: Loaded, encoder: Encoder, samples: Sequence[Sample], card: dict[str, Any], settings: Settings, what: str
) -> list[Prediction]:
    """One prediction for each sample, with a bar over the images. The truth is never seen here."""
    from tqdm import tqdm

    from boxtune.data import open_image
    from boxtune.infer import answer_images

    with tqdm(total=len(samples), unit="image", desc=what, dynamic_ncols=True) as bar:
        answers = answer_images(
            loaded,
            encoder,
            [lambda path=sample.image: open_image(path) for sample in samples],  # type: ignore[misc]
            sizes=[sample.size_wh for sample in samples],
            max_new_tokens=card["max_new_tokens"],
            at_once=settings.generate.at_once,
            progress=bar.update,
        )
    return [
        Prediction(
            image_id=sample.image_id, boxes=said.boxes, text=said.text, problems=said.problems, truncated=said.truncated
        )
        for sample, said in zip(samples, answers, strict=True)
    ]


def train_adapter(
    loaded: Loaded,
    encoder: Encoder,
    dataset: Dataset,
    valid: Sequence[Sample],
    card: dict[str, Any],
    settings: Settings,
    folder: RunFolder,
    checkpoint: Path | None,
    journal: Journal,
) -> None:
    """Attach, check, train, save. Leaves `adapter/` (the best by validation loss), `adapter_last/` and the verdict.

    The ledger is read at every stage; the run ends before the first step unless exactly the planned parameters are
    trainable.
    """
    from boxtune.finetune import TrainingCollator, build_trainer, logits_digest, plan_adapter, put_back, save_adapter
    from boxtune.finetune import callbacks as on
    from boxtune.finetune.checkpoints import cut_metrics, read_metrics
    from boxtune.guard import judge, share_moved, snapshot, watch_adapter

    plan = plan_adapter(loaded.model, loaded.source.family, settings.adapter)
    journal.stage("loaded", loaded.model)
    step = 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    cut_metrics(folder.metrics, step)

    def save(to: Path) -> None:
        save_adapter(trainer.model, to, loaded, card)

    stop = on.StopInTime(settings.train.hours)
    splits = {"train": dataset.splits["train"], "valid": valid}
    with watch_adapter(lambda model: journal.stage("adapted", model, plan)):
        trainer = build_trainer(
            loaded,
            plan,
            settings,
            splits,
            TrainingCollator(encoder, splits, journal.leave_out_while_training),
            [
                on.WriteMetrics(folder.metrics),
                on.KeepBest(folder.adapter, folder.best, save, step),
                on.SealCheckpoints(),
                on.AtFirstEvaluation(lambda model: journal.stage("first evaluation", model, plan)),
                on.ShowProgress(),
                stop,
            ],
            checkpoints=folder.checkpoints,
            resuming=checkpoint is not None,
        )
    journal.stage("trainer built", trainer.model, plan)
    before = snapshot(trainer.model)
    with stop:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    journal.stage("trained", trainer.model, plan)
    if stop.reason:
        journal.say(f"stopped at step {trainer.state.global_step}: {stop.reason}; resume=true goes on from here")
    save(folder.adapter_last)
    rows = read_metrics(folder.metrics)
    losses = [row["eval_loss"] for row in rows if row["kind"] == "eval"]
    rates = [row["learning_rate"] for row in rows if row["kind"] == "train"]
    journal.judged(judge(losses, share_moved(before, trainer.model), max(rates, default=0.0)))
    if not folder.adapter.is_dir():
        save(folder.adapter)
    put_back(trainer.model, folder.adapter)
    journal.digest = logits_digest(loaded.with_model(trainer.model), encoder, valid[:2])


def predict_tuned(
    source: ModelSource,
    encoder: Encoder,
    valid: Sequence[Sample],
    card: dict[str, Any],
    settings: Settings,
    folder: RunFolder,
    journal: Journal,
) -> list[Prediction]:
    """What the tuned model says: the saved adapter on a base loaded afresh, once its logits are the trained ones."""
    from boxtune.finetune import choose_placement, forget, load_adapter, load_base, logits_digest

    forget()
    placement = choose_placement(settings.quantization, settings.train.precision)
    loaded = load_base(source, placement, min_pixels=card["min_pixels"], max_pixels=card["max_pixels"])
    loaded = loaded.with_model(load_adapter(loaded.model, folder.adapter))
    journal.stage("reloaded", loaded.model)
    same = logits_digest(loaded, encoder, valid[:2]) == journal.digest
    journal.note(
        Finding(
            check="reload.logits",
            level="ok" if same else "fail",
            seen="the saved adapter, loaded afresh, gives "
            + ("the trained model's logits bit for bit" if same else "other logits than the trained model"),
            where=str(folder.adapter),
        )
    )
    return predict_all(loaded, encoder, valid, card, settings, "tuned model")


def write_scores(
    dataset: Dataset,
    valid: Sequence[Sample],
    base: list[Prediction] | None,
    tuned: list[Prediction],
    settings: Settings,
    folder: RunFolder,
    journal: Journal,
) -> Run:
    """Score both on the same images, draw the best and the worst, and close the run.

    Raises NotLearningError, after everything is written, where the run is proved not to have learned.
    """
    sides = {"base": base, "tuned": tuned}
    scores: dict[str, Any] = {
        "split": settings.data.split,
        "num_images": len(valid),
        "num_truth": sum(len(sample.targets) for sample in valid),
    }
    for name, predictions in sides.items():
        if predictions is not None:
            write_json(folder.predictions / f"{name}.json", coco_results(predictions, valid, dataset.classes))
            scores[name] = score_predictions(valid, predictions, dataset.classes)
    if base is not None:
        scores["paired"] = compare(base, tuned, valid, seed=settings.seed)
    write_json(folder.scores, scores)
    sheets = write_gallery(folder.pictures, valid, tuned)
    journal.say("", score_table(scores), "")
    if base is not None:
        journal.say(scores["paired"]["sentence"])
    verdict = journal.end(scores)
    journal.say(f"run folder: {folder.path}", f"pictures:   {', '.join(str(sheet) for sheet in sheets)}")
    if verdict["word"] == "not learning":
        raise NotLearningError(f"the run did not learn: {'; '.join(verdict['evidence'])}")
    return Run(folder=folder, scores=scores, verdict=verdict)


def load(run: str | Path) -> Any:
    """The tuned model of a run folder or an adapter folder, ready to predict: a `boxtune.infer.Predictor`."""
    from boxtune.infer import load_predictor

    return load_predictor(run, find_source)


def predict(
    run: str | Path, source: str | Path, *, out: str | Path = "predictions", threshold: float | None = None
) -> Path:
    """Boxes of an image, a folder or a pattern of images, as JSON and drawn, in the folder `out`."""
    from boxtune.infer import predict_folder

    written = predict_folder(load(run), source, Path(out), threshold=threshold)
    print(f"boxes:  {written}\ndrawn:  {written.parent / 'drawn'}")
    return written


def demo(out: str | Path = "runs", **settings: Any) -> Run:
    """The embedded model tuned on drawn food packages (find the nutrition table), from nothing to scores, on a CPU."""
    from boxtune.tiny.packages import write_packages

    data = write_packages(Path(out) / "packages")
    return train(**{"model": TINY, "data": str(data), "name": "demo", "runs": str(out), **settings})


def open_finished(path: str | Path) -> Run:
    """A finished run read back from its folder. DataError if it has no scores."""
    folder = RunFolder(path=Path(path))
    return Run(folder=folder, scores=read_json(folder.scores), verdict=read_json(folder.verdict))
