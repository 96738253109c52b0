"""What a box's score could be, compared on tuned runs: average precision and calibration error of each candidate.

    python bench/box_scores.py RUN [RUN ...]

Each RUN was made with `data.held_out`; its model answers the held-out and the validation images again. Weights of the
logistic score are fitted on held-out images alone, and every number is of validation images. Prints a table for each
run; `of others` takes the weights from the other runs' held-out images, `of all` from those of all runs, `own` those
of the run itself with `of others` as what is expected (`infer.fit_calibration`). `constant` is the mean of five
shuffles of the image ids; how far AP with scores moves under them is printed too. `floor` is the ECE that right
probabilities would have by chance, with so many boxes. Of runs with 40 held-out images or more it is also told what
fewer of them bring: the mean and the highest ECE of 20 drawings.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import boxtune
from boxtune.boxes import Boxes
from boxtune.config import read_settings
from boxtune.data import HELD_OUT, Sample, prepare_data
from boxtune.data.tiles import open_sample
from boxtune.infer import POOLED, Answer, Calibration, Selection, fit_calibration
from boxtune.infer.confidence import Signals
from boxtune.measure import average_precision, expected_calibration_error
from boxtune.measure.judge import judge_image

Score = Callable[[Signals], float]
CANDIDATES: dict[str, Score] = {
    "geometric mean of the coordinates": lambda s: s.geometric,
    "least certain coordinate": lambda s: s.least,
    "label times geometric mean": lambda s: s.label * s.geometric,
    "expected IoU": lambda s: s.expected_iou,
    "label times expected IoU": lambda s: s.label * s.expected_iou,
    "presence, label, expected IoU multiplied": lambda s: s.presence * s.label * s.expected_iou,
}


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A run's images with the answers to them."""

    name: str
    classes: tuple[str, ...]
    held_out: list[tuple[Sample, Answer]]
    valid: list[tuple[Sample, Answer]]


def ask(run: Path) -> Answered:
    """The answers of a run's model to its held-out and validation images."""
    settings = read_settings(run / "recipe.yaml", {}).settings
    dataset = prepare_data(settings.data, seed=settings.seed)
    engine = boxtune.load(run).engine

    def answer(samples: Sequence[Sample]) -> list[tuple[Sample, Answer]]:
        openers = [partial(open_sample, sample) for sample in samples]
        said: dict[int, Any] = dict(engine.iter_answers(openers, sizes=[sample.size_wh for sample in samples]))
        return [(sample, said[place]) for place, sample in enumerate(samples)]

    return Answered(
        name=run.name,
        classes=tuple(dataset.classes),
        held_out=answer(dataset.splits[HELD_OUT]),
        valid=answer(dataset.splits["valid"]),
    )


def judged(rows: Sequence[tuple[Sample, Answer]], score: Score) -> tuple[list[Signals], np.ndarray]:
    """The signals of all boxes, further ones too, and which of them are right."""
    signals: list[Signals] = []
    right = [np.zeros(0, dtype=bool)]
    for sample, answer in rows:
        hits, aside = (side[0] for side in judge_image(sample, scored(answer, score), np.array([0.5])))
        assert answer.signals is not None
        signals += [one for one, left in zip(answer.signals, aside, strict=True) if not left]
        right.append(hits[~aside])
    return signals, np.concatenate(right)


def scored(answer: Answer, score: Score, *, further: bool = True, soft: bool = False) -> Boxes:
    found = answer.everything if further else answer.boxes
    signals = (answer.signals or ())[: len(found)]
    if soft and signals:
        corners = np.array([one.soft_px for one in signals])
        low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
        found = Boxes(xyxy_px=np.concatenate([low, high], axis=1), labels=found.labels)
    return replace(found, scores=np.array([score(one) for one in signals], dtype=np.float64))


def measure(run: Answered, score: Score, **how: Any) -> list[float]:
    """AP50, AP75 and the ECE over the boxes that count."""
    said = {sample.image_id: scored(answer, score, **how) for sample, answer in run.valid}
    ap = average_precision([sample for sample, _ in run.valid], said, run.classes)
    rows = [
        (
            s,
            a
            if how.get("further", True)
            else replace(a, further=Boxes.none(), signals=(a.signals or ())[: len(a.boxes)]),
        )
        for s, a in run.valid
    ]
    signals, right = judged(rows, score)
    ece = expected_calibration_error(np.array([score(one) for one in signals]), right)
    return [ap["map50"], ap["map75"], np.nan if ece is None else ece]


def constant(run: Answered) -> list[float]:
    """AP50 and AP75 of the said boxes without scores, mean over five shuffles of the image ids."""
    rows = []
    for seed in range(5):
        ids = list(range(len(run.valid)))
        random.Random(seed).shuffle(ids)
        samples = [replace(sample, image_id=number) for (sample, _), number in zip(run.valid, ids, strict=True)]
        said = {n: replace(answer.boxes, scores=None) for (_, answer), n in zip(run.valid, ids, strict=True)}
        ap = average_precision(samples, said, run.classes)
        rows.append((ap["map50"], ap["map75"]))
    return [*np.mean(rows, axis=0).tolist(), np.nan]


def pool(runs: Sequence[Answered]) -> Calibration:
    """The weights for the held-out boxes of several runs, each weighing as the root of its boxes."""
    found = [judged(run.held_out, POOLED.score) for run in runs]
    x = np.array([one.logs for signals, _ in found for one in signals])
    y = np.concatenate([right for _, right in found]).astype(float)
    weighs = np.concatenate([np.full(len(right), len(right) ** -0.5) for _, right in found])
    weighs, weights = weighs / weighs.mean(), POOLED.weights
    for _ in range(200):
        p = 1 / (1 + np.exp(-x @ weights))
        curvature = (x * (weighs * p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(4)
        step = np.linalg.solve(curvature, x.T @ (weighs * (p - y)) + 1e-3 * weights)
        weights = weights - step / max(1.0, float(np.abs(step).max()))
    label, presence, expected_iou, bias = weights.tolist()
    return Calibration(label=label, presence=presence, expected_iou=expected_iou, bias=bias)


def suppressed(run: Answered, score: Score, nms: Any) -> Answered:
    """The run with the boxes that are left under non-maximum suppression at an IoU of 0.7."""
    rule, rows = Selection(nms=nms, iou=0.7), []
    for sample, answer in run.valid:
        found = scored(answer, score)
        own = np.arange(len(found)) < len(answer.boxes)
        rows.append((sample, rule.of(replace(answer, boxes=found.take(own), further=found.take(~own)))))
    return replace(run, valid=rows)


def moved(run: Answered, score: Score) -> float:
    """The largest less the smallest AP under five shuffles of the image ids."""
    found = []
    for seed in range(5):
        ids = list(range(len(run.valid)))
        random.Random(seed).shuffle(ids)
        samples = [replace(sample, image_id=number) for (sample, _), number in zip(run.valid, ids, strict=True)]
        said = {n: scored(answer, score) for (_, answer), n in zip(run.valid, ids, strict=True)}
        found.append(average_precision(samples, said, run.classes)["map"])
    return max(found) - min(found)


def told_by(run: Answered, prior: Calibration, num: int) -> str:
    """ECE on the validation images with weights fitted on `num` of the held-out ones, mean and highest."""
    random_, found = np.random.default_rng(0), []
    for _ in range(20):
        some = [run.held_out[place] for place in random_.permutation(len(run.held_out))[:num]]
        found.append(measure(run, fit_calibration(*judged(some, prior.score), prior=prior).score)[2])
    return f"{np.mean(found):.3f}, at most {max(found):.3f}"


def floor(run: Answered, calibration: Calibration) -> float:
    """The mean ECE of 200 drawings in which every box is right with its own probability."""
    signals, _ = judged(run.valid, calibration.score)
    p = np.array([calibration.score(one) for one in signals])
    drawn = np.random.default_rng(0).uniform(size=(200, len(p)))
    return float(np.mean([expected_calibration_error(p, row < p) or 0.0 for row in drawn]))


def main(folders: list[str]) -> None:
    """Ask all runs, fit, and print."""
    runs = [ask(Path(folder)) for folder in folders]
    of_all = pool(runs)
    print(f"weights of all: {of_all}\n")
    for run in runs:
        others = [other for other in runs if other.classes != run.classes]
        of_others = pool(others) if others else POOLED
        own = fit_calibration(*judged(run.held_out, of_others.score), prior=of_others)
        num = sum(len(answer.everything) for _, answer in run.valid)
        print(f"{run.name}: {len(run.valid)} images, {num} boxes, {len(run.held_out)} held out")
        print(f"{'':<52}{'AP50':>8}{'AP75':>8}{'ECE':>8}{'floor ' + format(floor(run, of_all), '.3f'):>14}")
        rows: dict[str, list[float]] = {"constant": constant(run)}
        rows |= {f"{name}, said boxes": measure(run, score, further=False) for name, score in CANDIDATES.items()}
        rows["logistic of all, said boxes"] = measure(run, of_all.score, further=False)
        rows |= {
            f"logistic {n}": measure(run, c.score)
            for n, c in (("of others", of_others), ("of all", of_all), ("own", own))
        }
        rows["logistic of all, soft coordinates"] = measure(run, of_all.score, soft=True)
        for nms in ("class", "all"):
            rows[f"logistic of all, nms={nms}"] = measure(suppressed(run, of_all.score, nms), of_all.score)
        for name, values in rows.items():
            print(f"{name:<52}" + "".join(f"{'-' if np.isnan(v) else format(v, '.3f'):>8}" for v in values))
        print(f"AP under five shuffles of the image ids moves by {moved(run, of_all.score):g}")
        if len(run.held_out) >= 40:
            print(f"of others alone: ECE {measure(run, of_others.score)[2]:.3f}")
            for num in (6, 12, 20, 40):
                print(f"and {num} held-out images: ECE {told_by(run, of_others, num)}")
        print(flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
