"""Whether one model is better than another on the same images, in numbers and in a plain sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxtune.data.sample import Sample
from boxtune.measure.bootstrap import Interval, bootstrap_ap, bootstrap_mean
from boxtune.measure.match import match_ious
from boxtune.measure.predictions import Prediction, require_pairs
from boxtune.measure.reward import iou_reward
from boxtune.measure.swapped import compare_swapped

MIN_IMAGES_TO_COMPARE = 5


def compare(
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    samples: Sequence[Sample],
    *,
    seed: int,
    num_resamples: int = 1000,
    leakage: str = "",
) -> dict[str, Any]:
    """Whether `tuned` is better than `base` on the same images: the `paired` part of `scores.json`.

    The measure is the mean IoU of an image over its truth boxes, so that images without truth are left out;
    `mean_difference` is tuned minus base, `low` and `high` bound its 95 % interval (see `bootstrap.py`). Beside it
    stand the same three for `quality` (`iou_reward`), `ap` and `ap50`, over all images, and `swapped`: the tuned
    answers against other images' truth (see `compare_swapped`).
    `verdict` is "better", "worse" or "cannot tell": the last where the interval holds 0; where fewer than 5 images
    have truth; where AP50 moves the other way beyond chance; where the boxes fit better but `quality` is lower beyond
    chance, because then the gain is paid for with invented boxes; and where the boxes fit other images as well, because
    then the model may not look. `sentence` says it in words, and "better" with `leakage` behind it (`leakage_of`).
    Raises ValueError where either side does not cover exactly the samples.
    """
    sides = [require_pairs(samples, predictions) for predictions in (base, tuned)]
    before, after = (
        np.array([match_ious(sample.targets, said.boxes).mean() for sample, said in pairs if len(sample.targets)])
        for pairs in sides
    )
    quality_before, quality_after = (
        np.array([iou_reward(sample, said.boxes, sound=not said.problems) for sample, said in pairs]) for pairs in sides
    )
    told = [(sample, said.boxes) for sample, said in sides[1] if len(sample.targets)]
    bounds = {"seed": seed, "num_resamples": num_resamples}
    ranked = [[said.ranked for _, said in pairs] for pairs in sides]
    compared = _Compared(
        iou=bootstrap_mean(after - before, **bounds),
        quality=bootstrap_mean(quality_after - quality_before, **bounds),
        **bootstrap_ap(samples, ranked[0], ranked[1], **bounds),
        swapped=compare_swapped([sample for sample, _ in told], [boxes for _, boxes in told], after, **bounds),
        num_images=len(before),
    )
    verdict, sentence = compared.judge()
    return {
        "measure": "mean IoU of an image",
        "num_images": len(before),
        "num_better": int((after > before).sum()),
        "num_worse": int((after < before).sum()),
        **compared.iou,
        "quality": compared.quality,
        "ap": compared.ap,
        "ap50": compared.ap50,
        "swapped": dict(compared.swapped),
        "confidence": 0.95,
        "num_resamples": num_resamples,
        "seed": seed,
        "leakage": leakage,
        "verdict": verdict,
        "sentence": f"{sentence} {leakage}" if leakage and verdict == "better" else sentence,
    }


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """All that the verdict of `compare` rests on."""

    iou: Interval
    quality: Interval
    ap: Interval
    ap50: Interval
    swapped: Mapping[str, Any]
    num_images: int

    def judge(self) -> tuple[str, str]:
        """The verdict and a sentence that says why."""
        low, high = self.iou["low"], self.iou["high"]
        if low is None or high is None or self.num_images < MIN_IMAGES_TO_COMPARE:
            return (
                "cannot tell",
                f"Cannot tell: {self.num_images} images with truth, {MIN_IMAGES_TO_COMPARE} are needed.",
            )
        change = f"the mean IoU of an image changes by {_said(self.iou)} over {self.num_images} images"
        if self.ap50["mean_difference"] is not None:
            change += f", AP50 by {_said(self.ap50)}"
        if low <= 0 <= high:
            return "cannot tell", f"Cannot tell: {change}; the interval of the mean IoU holds 0."
        if high < 0:
            if _above(self.ap50):
                return "cannot tell", f"Cannot tell: {change}; the two contradict each other."
            return "worse", f"Worse: {change}."
        if _below(self.ap50):
            return "cannot tell", f"Cannot tell: {change}; the two contradict each other."
        if _below(self.quality):
            return "cannot tell", f"Cannot tell: {change}, but at the price of more invented boxes."
        if not _above(self.swapped):
            others = f"the boxes fit other images as well (mean IoU {self.swapped['mean_iou']:.3f} there, higher by"
            others += f" {_said(self.swapped)} on their own), so that they may not depend on the image"
            return "cannot tell", f"Cannot tell: {change}, but {others}."
        return "better", f"Better: {change}."


def _said(interval: Mapping[str, Any]) -> str:
    """A change with its interval, in words."""
    return f"{interval['mean_difference']:+.3f} (95 % interval {interval['low']:+.3f} to {interval['high']:+.3f})"


def _above(interval: Mapping[str, Any]) -> bool:
    return interval["low"] is not None and interval["low"] > 0


def _below(interval: Mapping[str, Any]) -> bool:
    return interval["high"] is not None and interval["high"] < 0
