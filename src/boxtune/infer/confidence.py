"""What a model's own probabilities say of each box that it wrote: the choices that made it, and nothing asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from boxtune.boxes import Boxes, iou_matrix
from boxtune.families import Frame
from boxtune.infer.decode import Choice
from boxtune.infer.guide import Guide

SAMPLES = 128
"""Boxes that are drawn of the coordinates' spread to expect an IoU; its standard error is then below 0.05."""
UNIFORM = np.random.default_rng(0).permuted(np.tile((np.arange(SAMPLES) + 0.5) / SAMPLES, (4, 1)), axis=1)
"""What they are drawn by: evenly from 0 to 1 for each corner, and the same for every box, so that equal choices have
equal signals."""
TINY = 1e-6
"""Added before a logarithm."""
LEAST = 1e-4
"""Alternatives of less than this are left out of a spread."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Of one box, all from 0 to 1.

    `presence`: that there is one more box rather than the end; `label`: its name among the names asked for;
    `corners`: its four coordinates as written, each the probability of the whole number; `expected_iou`: the IoU with
    a box drawn from the coordinates' spread. `soft_px` is the box at the mean of that spread, x1, y1, x2, y2 in pixels
    of the upright original.
    """

    presence: float
    label: float
    corners: tuple[float, float, float, float]
    expected_iou: float
    soft_px: tuple[float, ...]

    @property
    def geometric(self) -> float:
        """The geometric mean of the coordinates."""
        return float(np.prod(self.corners) ** 0.25)

    @property
    def least(self) -> float:
        """The least certain coordinate."""
        return min(self.corners)

    @property
    def logs(self) -> tuple[float, float, float, float]:
        """What `Calibration.weights` weigh."""
        label, presence = np.log(self.label + TINY), np.log(self.presence + TINY)
        return float(label), float(presence), float(np.log(self.expected_iou + 0.01)), 1.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How likely a box is right (IoU of at least 0.5 with one of its name, one to one), by its signals: a logistic
    function of their logarithms.

    The weights as they stand (`POOLED`) were fitted on 1,302 boxes in training images that were held out from five
    tuned embedded models (scanned pages, blood cells, boards, chess pieces twice), a model weighing as the root of its
    boxes. docs/scores.md compares them with what else could be a score.
    """

    label: float = 2.7
    presence: float = 1.4
    expected_iou: float = 2.6
    bias: float = 2.6

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Calibration:
        """That of a run card; the pooled one where the card holds none."""
        known = card.get("calibration") or {}
        return cls(**{field.name: known[field.name] for field in fields(cls) if field.name in known})

    @property
    def weights(self) -> Float[np.ndarray, " 4"]:
        """Of the logarithms of `Signals.logs`, in their order."""
        return np.array([self.label, self.presence, self.expected_iou, self.bias])

    def score(self, signals: Signals) -> float:
        """The probability, from 0 to 1, that the box is right."""
        return float(1 / (1 + np.exp(-(self.weights @ np.array(signals.logs)))))


POOLED = Calibration()


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The numbers of one piece of a box, one row for each set of them, with what the model gave to it.

    `places` says which of x1, y1, x2, y2 the columns are. The last row is what was written. `presence` is that there is
    a number at all: in some grammars a box begins with one, and the choice is also between a box and none.
    """

    places: tuple[int, ...]
    values: Float[np.ndarray, "n k"]
    shares: Float[np.ndarray, " n"]
    presence: float = 1.0

    def draw(self, uniform: Float[np.ndarray, " m"]) -> Float[np.ndarray, "m k"]:
        """The rows that numbers from 0 to 1 fall on, as likely as the shares are."""
        ends = np.cumsum(self.shares)
        return self.values[np.minimum(np.searchsorted(ends, uniform * ends[-1]), len(ends) - 1)]

    @property
    def mean(self) -> Float[np.ndarray, " k"]:
        """What is expected at each place."""
        return self.shares @ self.values / self.shares.sum()


def read_signals(guide: Guide, choices: Sequence[Choice], boxes: Boxes, frame: Frame) -> list[Signals]:
    """The signals of each box of an answer that was written under `guide`, and what it was read as.

    Where several boxes stand in a group, its name counts for all of them.
    """
    scale, found, label = guide.spelling.scale, [], 0.0
    for box, bins in enumerate(scale.to_bins(boxes, frame)):
        presence = sum(_log(c) for c in choices if c.box == box and _about(c) == "structure")
        # Where nothing stands between two boxes, the first token of a name also says that there is one.
        presence += sum(_log_going_on(guide, c) for c in choices if c.box == box and _about(c) == "name")
        ends = box if guide.spelling.name_first else box + 1
        names = [_log(c) - _log_going_on(guide, c) for c in choices if c.box == ends and _about(c) == "name"]
        label = sum(names) if names else label
        own = [c for c in choices if _about(c) == "number" and _owner(c) == box]
        spreads = read_spreads(guide, own, tuple(int(number) for number in bins))
        corners, soft, drawn = np.ones(4), bins.astype(float), np.repeat(bins[None].astype(float), SAMPLES, axis=0)
        for spread in spreads:
            places = list(spread.places)
            presence += float(np.log(spread.presence))
            corners[places] = spread.shares[-1] ** (1 / len(places))
            soft[places] = spread.mean
            drawn[:, places] = spread.draw(UNIFORM[places[0]])
        written, expected, others = (
            scale.to_px([(a, b, c, d) for a, b, c, d in rows.tolist()], frame)
            for rows in (bins[None].astype(float), soft[None], drawn)
        )
        x1, y1, x2, y2 = corners.tolist()
        found.append(
            Signals(
                presence=float(np.exp(presence)),
                label=float(np.exp(label)),
                corners=(x1, y1, x2, y2),
                expected_iou=float(iou_matrix(written, others).mean()),
                soft_px=tuple(expected[0].tolist()),
            )
        )
    return found


def read_spreads(guide: Guide, choices: Sequence[Choice], written: tuple[int, ...]) -> list[Spread]:
    """The spread of each number of a box that the model had a choice about; `written` are its x1, y1, x2, y2.

    Of a number that was not written the model has told its first digits alone. It is taken to have as many as the one
    that was, and any of those with the same likelihood.
    """
    by_step: dict[int, list[Choice]] = {}
    for choice in choices:
        if choice.step is not None and choice.step.number is not None:
            by_step.setdefault(choice.step.number.step, []).append(choice)
    return [_spread(guide, own, written) for own in by_step.values()]


def _spread(guide: Guide, choices: Sequence[Choice], written: tuple[int, ...]) -> Spread:
    spelling, spelt = guide.spelling, guide.vocabulary.spelt
    first = choices[0].step
    assert first is not None and first.number is not None
    places = spelling.places_of(first.number)
    own = tuple(written[place] for place in places)
    length = len(spelling.text_of(first.number, own))
    values: list[tuple[int, ...]] = []
    shares: list[float] = []
    path, presence = 1.0, 1.0
    for choice in choices:
        assert choice.step is not None and choice.step.number is not None
        at, offset = choice.step.number, choice.step.offset
        probabilities = np.exp(choice.log_probs)
        likes = {}
        for place in np.flatnonzero(probabilities >= LEAST):
            token = choice.ids[place]
            if place != choice.taken:
                text = at.written + spelt[token][offset:] if token in spelt else None
                likes[place] = [] if text is None else spelling.numbers_like(at, text)
        # The others are no numbers: the end, or a name.
        number = 1 - sum(float(probabilities[place]) for place, texts in likes.items() if not texts)
        presence *= number
        for place, texts in likes.items():
            alike = [text for text in texts if len(text) == length] or texts
            values += [spelling.values_of(at, text) for text in alike]
            shares += [float(probabilities[place]) / number * path / len(alike) for _ in alike]
        path *= float(probabilities[choice.taken]) / number
    rows = np.array([*values, own], dtype=np.float64).reshape(-1, len(places))
    return Spread(places=places, values=rows, shares=np.array([*shares, path]), presence=presence)


def _about(choice: Choice) -> str:
    return "structure" if choice.step is None else choice.step.about


def _owner(choice: Choice) -> int:
    """The box that a number belongs to: that which it begins, or the last that had begun."""
    return choice.box + (choice.step.begins if choice.step else 0) - 1


def _log_going_on(guide: Guide, choice: Choice) -> float:
    """That the answer does not end with this choice; 0, for certain, where it could not."""
    if guide.end_id not in choice.ids:
        return 0.0
    return float(np.log1p(-min(np.exp(choice.log_probs[choice.ids.index(guide.end_id)]), 1 - TINY)))


def _log(choice: Choice) -> float:
    return float(choice.log_probs[choice.taken])
