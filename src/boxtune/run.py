"""THE MAIN PATH: every stage called once, in order.

    settings -> data -> base model -> base scores -> adapter and trainer -> training -> saved -> reloaded -> scores

`train` is the whole of it. What a stage does stands in the stage's own folder; here is only the order, what is
checked between two stages, and what is written to the run folder. On several GPUs each rank goes all the way: they
decide alike, `ranks.first_does` what only one can do, and rank 0 alone prints and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from boxtune import answers, launch
from boxtune.artifacts import RunFolder, read_json
from boxtune.config import Resolved, read_settings
from boxtune.data import (
    Dataset,
    Inspection,
    build_epochs,
    build_samples,
    build_tiling,
    choose_valid,
    inspect_dataset,
    prepare_data,
)
from boxtune.errors import DataError, NotLearningError
from boxtune.journal import Journal
from boxtune.measure import leakage_of
from boxtune.report import write_changed
from boxtune.settings import Settings

if TYPE_CHECKING:
    from boxtune.boxes import Boxes
    from boxtune.finetune import Encoder, Loaded, ModelSource, Plan, StepPlan, Talk
    from boxtune.finetune.callbacks import StopInTime

TINY = "tiny"
"""The name under which the embedded model is asked for."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its folder, its scores (DESIGN's `scores.json`) and its verdict."""

    folder: RunFolder
    scores: dict[str, Any]
    verdict: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Run:
        """The finished run of a folder."""
        folder = RunFolder(path=path)
        return cls(folder=folder, scores=read_json(folder.scores), verdict=read_json(folder.verdict))

    @property
    def adapter(self) -> Path:
        """The best adapter."""
        return self.folder.adapter

    def predict(self, source: Any, threshold: float | Literal["best"] | None = None) -> Boxes | list[Boxes]:
        """Boxes of one image or of several; see `boxtune.infer.Predictor.predict`."""
        return load(self.folder.path).predict(source, threshold)


def train(recipe: str | Path | None = None, /, **settings: Any) -> Run:
    """Tune a model on a data set, and prove it: the run, with its adapter, scores, pictures and ledger on disk.

    `settings` are leaf names (`epochs=1`), full paths (`**{"train.epochs": 1}`) or groups (`train={"epochs": 1}`);
    `model` and `data` are needed, here or in the recipe. On several GPUs (`devices`) it starts the processes itself.
    Raises UserError where the input is wrong and NotLearningError where the run does not learn what it should.
    """
    if not launch.is_rank():
        return _train(recipe, settings)
    from boxtune.finetune.ranks import joined

    with joined():
        return _train(recipe, settings)


def _train(recipe: str | Path | None, settings: Mapping[str, Any]) -> Run:
    asked = launch.with_sources(read_settings(None if recipe is None else Path(recipe), settings))
    launch.require_size(asked.settings.train.devices)
    if (num_ranks := launch.ranks_to_start(asked.settings.train.devices)) > 1:
        return Run.read(launch.start(asked, num_ranks))
    from boxtune.finetune import bind, build_card, open_folder, ranks, read_environment
    from boxtune.finetune.callbacks import StopInTime

    whole, source, resolved, seen = open_input(asked)
    base, dataset = load_model(source, resolved.settings, build_samples(whole, asked.settings.data))
    card = build_card(base.loaded, base.encoder, base.max_new_tokens, asked.settings)
    bound = bind(dataset, base.talk, card["base_fingerprint"])
    ranks.require_same({"settings": dict(resolved.values()), "data or base": bound, "versions or prompt": card})
    # Nothing is written before all input has been found sound.
    folder, checkpoint = ranks.first_does(lambda: open_folder(resolved, bound))
    journal = Journal(folder, source.family.towers)
    journal.begin(resolved, dataset, whole, {**read_environment(), "ranks": ranks.num_ranks()})
    data, rows = resolved.settings.data, dataset.splits["train"]
    show = partial(write_changed, folder.pictures, rows, dataset.classes, data, seed=asked.settings.seed)
    if sheet := ranks.first_does(show):
        journal.say(f"training images as they are shown: {sheet}")
    scored = whole.splits[data.split]
    with StopInTime(resolved.settings.train.hours) as stop:
        untuned = answers.predict_base(base.loaded, base.encoder, scored, card, resolved.settings, journal, stop)
        train_adapter(base, whole, dataset, card, resolved.settings, checkpoint, journal, stop)
        encoder, talk = base.encoder, base.talk
        del base
        tuned = answers.predict_tuned(source, encoder, talk, whole, dataset, card, resolved.settings, journal)
        leakage = leakage_of(seen.findings, split=data.split)
        close = partial(answers.write_scores, whole, untuned, tuned, resolved.settings, journal, leakage)
        scores, verdict = ranks.first_does(close)
    if ranks.is_first():
        launch.leave_word(folder=folder.path.absolute())
    return Run(folder=folder, scores=scores, verdict=verdict)


def open_input(asked: Resolved) -> tuple[Dataset, ModelSource, Resolved, Inspection]:
    """The data set, the model, all settings, those of the model too, and what was seen of the data; all is printed."""
    whole = prepare_data(asked.settings.data, seed=asked.settings.seed)
    source = find_source(asked.settings.model, asked.settings.family)
    resolved = asked.with_values(*_model_defaults(source))
    seen = inspect_dataset(whole, source.target(resolved.settings.image), alike=True, at_once=True)
    print(resolved.as_yaml(), seen.as_text(), "", sep="\n", flush=True)
    return whole, source, resolved, seen


def find_source(model: str, family: str | None = None) -> ModelSource:
    """Where the model lies and what family it is of, or is said to be of."""
    from boxtune.finetune import find_model
    from boxtune.tiny.model import model_folder

    return find_model(model_folder(), ref_as=TINY) if model == TINY else find_model(model, family=family)


def _model_defaults(source: ModelSource) -> tuple[dict[str, Any], str]:
    from boxtune.tiny.model import DEFAULTS

    defaults = DEFAULTS if source.ref == TINY else source.family.defaults_for(source.config)
    return defaults.as_settings(), f"{'model' if source.ref == TINY else 'family'}: {defaults.source}"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model in memory, how samples are put to it, and the adapter planned for it."""

    loaded: Loaded
    encoder: Encoder
    plan: Plan
    step: StepPlan
    max_new_tokens: int
    talk: Talk


def load_model(source: ModelSource, settings: Settings, dataset: Dataset) -> tuple[Base, Dataset]:
    """The base model with its encoder and adapter plan, and the data set without samples that do not fit it."""
    from boxtune import finetune
    from boxtune.infer.guide import require_guide

    data = settings.data
    if faults := source.family.check_classes(dataset.classes, data.descriptions):
        raise DataError("; ".join(faults), where=str(dataset.path), fix="rename the class in the annotations")
    placement = finetune.choose_placement(settings.quantization, settings.train.precision)
    print(*placement.notes, sep="\n", flush=True)
    loaded = finetune.load_to_train(source, settings, placement)
    encoder = finetune.build_encoder(loaded, dataset.classes, data.descriptions, build_tiling(data))
    require_guide(encoder)
    dataset, longest = finetune.fit_samples(dataset, encoder, source.max_positions)
    plan = finetune.plan_adapter(loaded.model, loaded.source.family, settings.adapter)
    finetune.require_rates(plan, settings.train.learning_rate)
    print(longest, "", finetune.targets_table(plan), "", sep="\n", flush=True)
    base = Base(
        loaded=loaded,
        encoder=encoder,
        plan=plan,
        step=finetune.plan_training(loaded, plan, longest, settings),
        max_new_tokens=settings.generate.max_new_tokens or longest.max_new_tokens,
        talk=finetune.read_talk(encoder, data.mix, source.max_positions),
    )
    return base, dataset.with_splits(dataset.splits, *loaded.findings)


def train_adapter(
    base: Base,
    whole: Dataset,
    dataset: Dataset,
    card: dict[str, Any],
    settings: Settings,
    checkpoint: Path | None,
    journal: Journal,
    stop: StopInTime,
) -> None:
    """Attach, check, train, save. Leaves `adapter/` (the best of the evaluations), `adapter_last/` and the verdict.

    `dataset` holds what is trained on, which may be tiles of the images in `whole`. The ledger is read at every stage;
    the run ends before the first step unless exactly the planned parameters are trainable.
    """
    from boxtune.finetune import TrainingCollator, build_trainer, logits_digest, ranks, save_adapter
    from boxtune.finetune import callbacks as on
    from boxtune.finetune.adapters import free_weights
    from boxtune.finetune.checkpoints import cut_metrics
    from boxtune.finetune.encode import without_traceback
    from boxtune.finetune.sharding import is_sharded
    from boxtune.guard import NotLearning, share_moved, snapshot, watch_adapter

    folder, plan, encoder = journal.folder, base.plan, base.encoder
    journal.stage("loaded", base.loaded.model)
    done = 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    ranks.first_does(lambda: cut_metrics(folder.metrics, done))

    def save(to: Path) -> None:
        save_adapter(trainer.model, to, base.loaded, card)

    train, valid = dataset.splits["train"], choose_valid(dataset.splits["valid"], settings.eval.images)
    data, watcher = settings.data, journal.guard(settings.guard)
    collator = TrainingCollator(
        encoder,
        {"train": train, "valid": valid},
        journal.leave_out_while_training,
        data,
        epochs=build_epochs(train, data, base.talk.learned, seed=settings.seed),
        max_tokens=base.loaded.source.max_positions,
        seed=settings.seed,
    )

    def adapted(model: Any) -> None:
        free_weights(model, plan)
        journal.stage("adapted", model, plan)

    with watch_adapter(adapted), journal.stages.tracing():
        trainer = build_trainer(
            base.loaded,
            plan,
            settings,
            collator,
            [
                on.TellEpoch(collator),
                on.WriteMetrics(folder.metrics),
                on.KeepBest(folder, save),
                *([] if settings.train.patience is None else [on.StopEarly(settings.train.patience, folder)]),
                on.SealCheckpoints(folder),
                on.AtFirstEvaluation(lambda model: journal.stage("first evaluation", model, plan)),
                on.ShowProgress(),
                stop,
                watcher,
            ],
            checkpoints=folder.checkpoints,
            resuming=checkpoint is not None,
            step=base.step,
        )
    journal.stage("trainer built", trainer.model, plan)
    trainer.ask = answers.build_ask(base.loaded, encoder, whole, card, settings, journal, stop)
    before = snapshot(trainer.model)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except DataError as error:
        raise without_traceback(error) from None
    except NotLearning as error:
        journal.judged(watcher.verdict)
        raise NotLearningError(str(error)) from None
    journal.stage("trained", trainer.model, plan)
    if stop.reason:
        journal.say(f"stopped at step {trainer.state.global_step}: {stop.reason}; resume=true goes on from here")
    journal.same_everywhere(trainer.model)
    save(folder.adapter_last)
    journal.judge(watcher, share_moved(before, trainer.model), resumed=checkpoint is not None)
    if not ranks.first_does(folder.adapter.is_dir):
        save(folder.adapter)
    if not is_sharded(trainer.model):
        trainer.put_back(folder.adapter)
        journal.digest = logits_digest(base.loaded.with_model(trainer.model), encoder, valid[:2])
    journal.probe = valid[:2]


def load(run: str | Path) -> Any:
    """The tuned model of a run folder or an adapter folder, ready to predict: a `boxtune.infer.Predictor`."""
    from boxtune.infer import load_predictor

    return load_predictor(run, find_source)


def predict(
    run: str | Path,
    source: str | Path,
    *,
    out: str | Path = "predictions",
    server: str | list[str] | None = None,
    served: str | None = None,
    at_once: int = 16,
    **options: Any,
) -> Path:
    """Boxes of images in the folder `out`, with the options of `boxtune.infer.predict_folder`; what was written.

    `server` are addresses of servers that answer instead of a model in memory, under the name `served`; `at_once`
    images are asked together, of each of them.
    """
    from boxtune.infer import load_served, predict_folder

    if server is None:
        predictor = load(run)
        predictor = replace(predictor, engine=replace(predictor.engine, at_once=at_once))
    else:
        predictor = load_served(run, find_source, urls=server, served=served, at_once=at_once)
    try:
        return predict_folder(predictor, source, Path(out), run=run, **options)
    finally:
        for line in predictor.engine.summary():
            print(line, flush=True)


def demo(out: str | Path = "runs", **settings: Any) -> Run:
    """The embedded model tuned on drawn food packages (find the nutrition table), from nothing to scores, on a CPU."""
    from boxtune.tiny.packages import write_packages

    data = write_packages(Path(out) / "packages")
    # Under five minutes on two cores: fewer evaluations than others get, on half of the images.
    quick = {"epochs": 5, "augment": ["turn", "colour"], "eval.per_epoch": 1, "eval.images": 50}
    return train(**{"model": TINY, "data": str(data), "name": "demo", "runs": str(out), **quick, **settings})
