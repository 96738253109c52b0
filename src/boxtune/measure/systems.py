"""Several systems on the same images -> the scores of each, and of each against the first."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from boxtune.boxes import Boxes
from boxtune.data.sample import Sample
from boxtune.errors import Finding
from boxtune.measure.compare import compare
from boxtune.measure.predictions import Prediction, has_scores
from boxtune.measure.scores import score_predictions

HARDLY = 0.01
"""AP50 below which a system that writes boxes is more likely misread than so bad."""
HARDLY_MEANT = 0.1
"""Boxes of lower scores are written to be ranked, and are hardly meant as found."""
OF_ANSWERS = ("parse_failure_rate", "unknown_name_rate", "truncated_rate")
"""What only a model has that answers in words."""


def score_systems(
    samples: Sequence[Sample],
    systems: Mapping[str, Sequence[Prediction]],
    classes: Sequence[str],
    *,
    split: str,
    seed: int,
    wordless: Collection[str],
) -> dict[str, Any]:
    """`scores.json` of several systems: `systems` with the scores of each, `paired` of each against the first.

    Both are by name, and what a system has that is `wordless` for answers in words is None. Raises ValueError as
    `score_predictions` does.
    """
    first, *others = systems
    return {
        "split": split,
        "num_images": len(samples),
        "num_truth": sum(len(sample.targets) for sample in samples),
        "systems": {
            name: score_predictions(samples, said, classes) | (dict.fromkeys(OF_ANSWERS) if name in wordless else {})
            for name, said in systems.items()
        },
        "paired": {name: compare(systems[first], systems[name], samples, seed=seed) for name in others},
    }


def found_from(said: Prediction, threshold: float) -> Prediction:
    """The answer whose found boxes are those of at least that score, said or not; all of them without scores."""
    ranked = said.ranked
    if ranked.scores is None:
        return said
    sure = ranked.scores >= threshold
    return replace(said, boxes=ranked.take(sure), further=Boxes.none() if sure.all() else ranked.take(~sure))


def of_classes(said: Prediction, classes: Sequence[str]) -> Prediction:
    """The answer with the boxes of these classes alone."""

    def keep(boxes: Boxes) -> Boxes:
        return boxes.take([place for place, label in enumerate(boxes.labels) if label in classes])

    return replace(said, boxes=keep(said.boxes), further=keep(said.further))


def check_system(name: str, scores: Mapping[str, Any], predictions: Sequence[Prediction]) -> list[Finding]:
    """Findings about scores of another system that look like a misreading, or that mean less than they seem to."""
    findings = []
    if scores["map50"] is not None and scores["map50"] < HARDLY and scores["num_predictions"]:
        seen = f"{name}: AP50 is {scores['map50']:.3f} with {scores['num_predictions']:,} boxes"
        fix = "before it is believed: are ids, classes and boxes read as they are meant (see above)? look at some boxes"
        findings.append(Finding(check="eval.hardly_any_right", level="warn", seen=seen, fix=fix))
    scored = [said.boxes.scores for said in predictions if said.boxes.scores is not None and len(said.boxes)]
    lowest = min((float(one.min()) for one in scored), default=1.0)
    if has_scores(predictions) and lowest < HARDLY_MEANT:
        seen = f"{name}: boxes with scores from {lowest:g} all count as found in every number but average precision"
        fix = "say threshold=T, such as 0.25, to count those above it"
        findings.append(Finding(check="eval.low_scores", level="warn", seen=seen, fix=fix))
    return findings
