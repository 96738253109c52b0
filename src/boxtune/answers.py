"""What a run makes of a model's answers: before, during and after training, what scores they get and what is kept.

Answers are asked for in one way everywhere (`infer.answer_split`), so that the numbers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from boxtune.artifacts import RUN_CARD, cache_folder, read_json, write_json
from boxtune.data import HELD_OUT, Dataset, Sample, limit_split
from boxtune.data.ask import has_targets
from boxtune.data.tiles import open_sample
from boxtune.errors import DataError, Finding, name_some
from boxtune.journal import Journal
from boxtune.measure import (
    SCORED,
    Prediction,
    average_precision,
    best_threshold,
    cache_key,
    coco_results,
    keep_predictions,
    kept_predictions,
    score_run,
)
from boxtune.measure.judge import judge_image
from boxtune.report import choose_samples, score_table, write_gallery, write_samples
from boxtune.settings import Settings

if TYPE_CHECKING:
    from boxtune.finetune import Encoder, Loaded, ModelSource, Talk
    from boxtune.finetune.callbacks import StopInTime
    from boxtune.infer import Answer, Calibration, LocalEngine

Ask = Callable[[Any], dict[str, float]]
"""Asks the model of a trainer for answers: `ap` and `ap50` of a sample of the validation split."""

MOST_FOR_THRESHOLD = 200
"""Validation images that are answered to choose a threshold, where another split is scored."""


def build_engine(loaded: Loaded, encoder: Encoder, card: dict[str, Any], settings: Settings) -> LocalEngine:
    """The model in memory as it is asked everywhere in a run."""
    from boxtune.infer import LocalEngine, Selection

    return LocalEngine(
        loaded=loaded,
        encoder=encoder,
        max_new_tokens=card["max_new_tokens"],
        at_once=settings.generate.at_once,
        selection=Selection.from_card(card),
    )


def predict_base(
    loaded: Loaded,
    encoder: Encoder,
    scored: Sequence[Sample],
    card: dict[str, Any],
    settings: Settings,
    journal: Journal,
    stop: StopInTime,
) -> list[Prediction] | None:
    """What the untuned model says, in the precision it is trained in; kept from a run before where nothing changed."""
    from boxtune.finetune import ranks

    if not settings.eval.base:
        return None
    bound = {**card, "device": str(loaded.placement.device), "at_once": settings.generate.at_once}
    key = ranks.first_does(lambda: cache_key(scored, **bound))
    if (said := ranks.first_does(lambda: kept_predictions(cache_folder() / "base", key))) is not None:
        journal.say(f"base model: {len(said)} answers kept from an earlier run (same weights, data, prompt, budget)")
        return said
    watch = partial(stop.require_going_on, "the base model was being scored")
    said = predict_all(build_engine(loaded, encoder, card, settings), scored, "base model", watch)
    if ranks.is_first():
        keep_predictions(cache_folder() / "base", key, said)
    return said


def predict_all(
    engine: LocalEngine,
    samples: Sequence[Sample],
    what: str | None,
    watch: Callable[[], None] = lambda: None,
    **how: Any,
) -> list[Prediction]:
    """One prediction for each sample, on every rank; `infer.answer_split` says how."""
    from boxtune.infer import answer_split

    return [
        Prediction(image_id=sample.image_id, **{name: getattr(said, name) for name in SCORED})
        for sample, said in zip(samples, answer_split(engine, samples, what=what, watch=watch, **how), strict=True)
    ]


def build_ask(
    loaded: Loaded,
    encoder: Encoder,
    whole: Dataset,
    card: dict[str, Any],
    settings: Settings,
    journal: Journal,
    stop: StopInTime,
) -> Ask | None:
    """What asks `eval.answers` images of the validation split at each evaluation; None where none are wanted.

    Eight of them are drawn with truth and answer, for the run folder and every tracker. After SIGTERM there is no time,
    and nothing is asked; nor is it where the weights are spread over the ranks.
    """
    from boxtune.finetune import ranks
    from boxtune.finetune.sharding import is_sharded
    from boxtune.finetune.trackers import SendImages

    if not settings.eval.answers:
        return None
    samples = choose_evenly(limit_split(whole.splits["valid"], settings.eval.images), settings.eval.answers)
    shown = {sample.image_id for sample in choose_samples(samples)}
    send, told = SendImages(), set[str]()

    def show(trainer: Any, said: list[Prediction]) -> None:
        some, step = [sample for sample in samples if sample.image_id in shown], trainer.state.global_step
        drawn = write_samples(journal.folder.samples, step, some, said)
        for line in send(trainer, {path.stem: path for path in drawn}, step):
            journal.say(line)

    def ask(trainer: Any) -> dict[str, float]:
        # One rank may have heard of it before the others, and all must ask or none.
        if ranks.any_rank(stop.reason == "SIGTERM"):
            return {}
        if is_sharded(trainer.model):
            line = "weights are spread over the ranks: no answers while training, the best is by loss"
            if line not in told and ranks.is_first():
                journal.say(line)
            told.add(line)
            return {}
        engine = build_engine(loaded.with_model(trainer.model), encoder, card, settings)
        said = predict_all(engine, samples, None, num_freely=0)
        ranks.first_does(partial(show, trainer, [one for one in said if one.image_id in shown]))
        scores = average_precision(samples, {one.image_id: one.ranked for one in said}, whole.classes)
        return {"ap": scores["map"], "ap50": scores["map50"]}

    return ask


def choose_evenly(samples: Sequence[Sample], num: int) -> list[Sample]:
    """At most `num` of the samples, in equal steps of those that have boxes to find and of those that have none."""
    if num >= len(samples):
        return list(samples)
    full = has_targets(samples)
    with_truth, without = np.flatnonzero(full), np.flatnonzero(~full)
    num_with = min(len(with_truth), max(1, round(num * len(with_truth) / len(samples))))
    places = [
        part[step * len(part) // n]
        for part, n in ((with_truth, num_with), (without, num - num_with))
        for step in range(n)
    ]
    return [samples[int(place)] for place in sorted(places)]


def predict_tuned(
    source: ModelSource,
    encoder: Encoder,
    talk: Talk,
    whole: Dataset,
    dataset: Dataset,
    card: dict[str, Any],
    settings: Settings,
    journal: Journal,
) -> tuple[list[Prediction], list[Prediction]]:
    """What the tuned model says of the scored split, and of the images by which a threshold is chosen.

    It is the saved adapter on a base loaded afresh, once its logits are the trained ones, with scores calibrated on
    the held-out images (or their tiles, in `dataset`). The calibration goes into the run card.
    """
    from boxtune.finetune import choose_placement, forget, load_adapter, load_base, logits_digest, ranks
    from boxtune.infer.general import ask_generally, tell_generally

    forget()
    placement = choose_placement(settings.quantization, settings.train.precision)
    budget = {"min_pixels": card["min_pixels"], "max_pixels": card["max_pixels"]}
    loaded = load_base(source, placement, **budget, full=card["full_towers"])
    loaded = loaded.with_model(load_adapter(loaded.model, journal.folder.adapter))
    journal.stage("reloaded", loaded.model)
    if journal.digest:  # none where the trained weights were spread over the ranks
        journal.compared(not ranks.any_rank(logits_digest(loaded, encoder, journal.probe) != journal.digest))
    if talk.kept_back and ranks.is_first():
        rows = ask_generally(loaded, encoder, talk.kept_back)
        write_json(journal.folder.general, rows)
        journal.say(*tell_generally(rows))
    engine = build_engine(loaded, encoder, card, settings)
    engine = replace(engine, calibration=calibrate(engine, dataset.splits.get(HELD_OUT, ()), journal))
    said = predict_all(engine, whole.splits[settings.data.split], "tuned model")
    if settings.data.split == "valid":
        return said, said
    chosen = choose_evenly(whole.splits["valid"], MOST_FOR_THRESHOLD)
    return said, predict_all(engine, chosen, "tuned model on valid", num_freely=0)


def calibrate(engine: LocalEngine, samples: Sequence[Sample], journal: Journal) -> Calibration:
    """The calibration of the tuned model's scores by images that were held out; the pooled one where there are none.

    `samples` are images, or tiles of them, which are asked as they are. What cannot be opened is left out and named.
    """
    from boxtune.finetune import ranks
    from boxtune.infer import fit_calibration

    if not len(samples):
        return engine.calibration
    answers, broken = _ask_held_out(engine, samples)
    signals, right = [], [np.zeros(0, dtype=bool)]
    for sample, answer in answers:
        found = answer.everything
        hits, aside = (side[0] for side in judge_image(sample, found, np.array([0.5])))
        assert answer.signals is not None
        signals += [one for one, left in zip(answer.signals, aside, strict=True) if not left]
        right.append(hits[~aside])
    calibration = fit_calibration(signals, np.concatenate(right))
    seen = f"scores are calibrated by {len(signals)} boxes of {len(answers)} training images that were held out"
    if not signals:
        seen = f"{len(answers)} held-out training images hold no box: scores keep the weights of other data sets"
    if broken:
        seen += f"; {len(broken)} cannot be opened ({name_some(broken)})"
    journal.note(Finding(check="scores.calibrated", level="warn" if broken else "ok", seen=seen))
    if signals and ranks.is_first():
        change_card(journal, calibration={**asdict(calibration), "num_images": len(answers), "num_boxes": len(signals)})
    return calibration


def _ask_held_out(engine: LocalEngine, samples: Sequence[Sample]) -> tuple[list[tuple[Sample, Answer]], list[str]]:
    """Each sample with its answer, and the images that cannot be opened; on every rank the same."""
    from boxtune.finetune import ranks

    openers = [partial(open_sample, sample) for sample in samples]
    part = (ranks.rank(), ranks.num_ranks())
    asked = engine.iter_answers(openers, sizes=[sample.size_wh for sample in samples], part=part)
    found = {place: answer for each in ranks.gather(dict(asked)) for place, answer in each.items()}
    answers, broken = [], []
    for place, answer in sorted(found.items()):
        if isinstance(answer, DataError):
            broken.append(str(samples[place].image))
        else:
            answers.append((samples[place], engine.selection.of(answer)))
    return answers, broken


def change_card(journal: Journal, **values: Any) -> None:
    """Put values into the run card of the best adapter."""
    path = journal.folder.adapter / RUN_CARD
    write_json(path, {**read_json(path), **values})


def write_scores(
    whole: Dataset,
    untuned: list[Prediction] | None,
    tuned: tuple[list[Prediction], list[Prediction]],
    settings: Settings,
    journal: Journal,
    leakage: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Score both on the same images, draw the best and the worst, and close the run: its scores and its verdict.

    `tuned` are predictions for the scored split and those by which the threshold of best F1 is chosen, images of the
    validation split; it goes into the run card. `leakage` is what `measure.leakage_of` says of the data.
    Raises, after everything is written, what `Journal.require_learned` does.
    """
    folder, scored = journal.folder, whole.splits[settings.data.split]
    said, for_threshold = tuned
    for name, predictions in (("base", untuned), ("tuned", said)):
        if predictions is not None:
            write_json(folder.predictions / f"{name}.json", coco_results(predictions, scored, whole.classes))
    by_id = {sample.image_id: sample for sample in whole.splits["valid"]}
    chosen = best_threshold([by_id[one.image_id] for one in for_threshold], for_threshold)
    change_card(journal, threshold=None if chosen is None else {**asdict(chosen), "num_images": len(for_threshold)})
    scores = score_run(
        scored,
        untuned,
        said,
        whole.classes,
        split=settings.data.split,
        seed=settings.seed,
        threshold=None if chosen is None else chosen.value,
        leakage=leakage,
    )
    write_json(folder.scores, scores)
    sheets = write_gallery(folder.pictures, scored, said)
    journal.say("", score_table(scores), "", *([scores["paired"]["sentence"]] if "paired" in scores else []))
    verdict = journal.end(scores)
    journal.say(f"run folder: {folder.path}", f"pictures:   {', '.join(str(sheet) for sheet in sheets)}")
    journal.require_learned(strict=settings.guard.strict)
    return scores, verdict
