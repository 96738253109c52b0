"""Another system's predictions -> a `Prediction` for each image of a split, and findings for all that was made of them.

The truth is not looked at before every id, class and box has its meaning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from boxtune.boxes import Boxes
from boxtune.data.sample import Dataset, Sample
from boxtune.errors import DataError, Finding, Level, name_some
from boxtune.measure.foreign_boxes import read_boxes
from boxtune.measure.foreign_classes import match_categories, match_names
from boxtune.measure.foreign_files import Foreign
from boxtune.measure.foreign_images import Known, match_images
from boxtune.measure.predictions import Prediction


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """One prediction for each sample, the classes they are scored with, and what was found on the way."""

    predictions: Sequence[Prediction]
    classes: tuple[str, ...]
    findings: Sequence[Finding]


def fit_foreign(
    foreign: Foreign,
    dataset: Dataset,
    split: str,
    samples: Sequence[Sample],
    known: Known,
    *,
    classes: Sequence[str] = (),
    chosen: Mapping[str, str] | None = None,
    ids: str = "auto",
    categories: str = "auto",
    boxes: str | None = None,
) -> Fitted:
    """One prediction for each of the samples, which are those of `split`, and everything that is to be said of it.

    `classes` are those that are scored, by default all of `dataset`, and `chosen` maps the data's own names to them;
    others are left out. `ids`, `categories` and `boxes` say what cannot be told (`foreign_images.IDS`,
    `foreign_classes.CATEGORIES`, `reading.READINGS`). An image that the file does not speak of was answered with
    nothing. Raises DataError where an id, a class or a box can be read in several ways or in none, and where nothing of
    the file is left.
    """
    where, samples = str(foreign.path), list(samples)
    if not foreign.refs:
        raise DataError("the predictions are of no image", where=where, fix="predict on the data first")
    places = _by_own_ids(foreign, samples)
    findings: list[Finding] = []
    if places is None:
        splits = {**dataset.splits, split: samples}
        ids = "name" if foreign.own and not foreign.answers else ids
        places, findings = match_images(foreign.refs, foreign.names, splits, split, known, asked=ids, where=where)
    _require_sizes(foreign, places, samples)
    used = list(dict.fromkeys(foreign.categories))
    classes = tuple(classes or dataset.classes)
    if foreign.named:
        names = [*dict.fromkeys([*known.categories.values(), *known.ordered, *dataset.classes, *classes])]
        meant, told = match_names([str(one) for one in used], names, asked=categories, where=where)
    else:
        meant, told = match_categories(used, known, dataset.classes, asked=categories, where=where)
    labels = {one: _final(name, classes, chosen, own=foreign.own) for one, name in meant.items()}
    owners = np.array([*places, -1], dtype=np.int64)[foreign.owners]
    kept = np.array(
        [place >= 0 and labels[one] is not None for place, one in zip(owners, foreign.categories, strict=True)]
    )
    kept = kept.reshape(-1).astype(bool)
    if len(kept) and not kept.any():
        what = f"not one of {len(kept):,} boxes is of a class and an image that are scored"
        raise DataError(what, where=where, fix=f"classes that are scored: {name_some(classes, limit=10)}")
    sizes = np.array([sample.size_wh for sample in samples], dtype=np.int64)[owners[kept]]
    xyxy, boxed = read_boxes(
        foreign.numbers[kept], sizes, foreign.rows[kept], known=foreign.reading, asked=boxes, where=where
    )
    kept_labels = [str(labels[one]) for one, keep in zip(foreign.categories, kept, strict=True) if keep]
    predictions = _build(foreign, places, samples, owners[kept], kept, xyxy, kept_labels)
    rest = _tell(foreign, places, samples, foreign.scores[kept], Counter(kept_labels), classes)
    dropped = [one for one, name in meant.items() if name is not None and labels[one] is None]
    if dropped:
        seen = f"boxes of classes that are not scored, left out: {name_some(str(meant[one]) for one in dropped)}"
        rest.append(Finding(check="eval.classes_dropped", level="ok", seen=seen, where=where))
    return Fitted(
        predictions=predictions,
        classes=(*dict.fromkeys([*classes, *kept_labels]),),
        findings=(*findings, *told, *boxed, *rest),
    )


def _by_own_ids(foreign: Foreign, samples: Sequence[Sample]) -> list[int] | None:
    """The places of the images where boxtune's own file has their very ids and names; None where it has not."""
    place_of = {sample.image_id: place for place, sample in enumerate(samples)}
    known = [foreign.names.get(ref) for ref in foreign.refs]
    places = [place_of.get(ref, -1) if isinstance(ref, int) else -1 for ref in foreign.refs]
    same = (p >= 0 and samples[p].image.name == name for p, name in zip(places, known, strict=True))
    return places if foreign.answers and all(same) else None


def _final(name: str | None, classes: Sequence[str], chosen: Mapping[str, str] | None, *, own: bool) -> str | None:
    """What a class is scored as; boxtune's own files call it so already."""
    if name is None or chosen is None or (own and name in classes):
        return name
    return chosen.get(name)


def _require_sizes(foreign: Foreign, places: Sequence[int], samples: Sequence[Sample]) -> None:
    """DataError where the file says that it speaks of pictures of another size."""
    rows = [
        (ref, foreign.sizes_wh[ref], samples[p])
        for ref, p in zip(foreign.refs, places, strict=True)
        if p >= 0 and ref in foreign.sizes_wh
    ]
    odd = [
        f"{s.image.name} is {s.size_wh[0]} x {s.size_wh[1]}, there {w} x {h}"
        for _, (w, h), s in rows
        if (w, h) != s.size_wh
    ]
    if odd:
        what = f"predictions were made on images of another size: {len(odd)} of {len(rows)} ({name_some(odd)})"
        fix = "predict on the images of the data, or bring the boxes to pixels of the upright originals"
        raise DataError(what, where=str(foreign.path), fix=fix)


def _build(
    foreign: Foreign,
    places: Sequence[int],
    samples: Sequence[Sample],
    owners: Int[np.ndarray, " k"],
    kept: Bool[np.ndarray, " m"],
    xyxy: Float[np.ndarray, "k 4"],
    labels: Sequence[str],
) -> list[Prediction]:
    scores = foreign.scores[kept]
    further = np.zeros(len(owners), dtype=bool) if foreign.further is None else foreign.further[kept]
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(len(samples) + 1))
    answer_of = {place: foreign.answers.get(ref) for ref, place in zip(foreign.refs, places, strict=True) if place >= 0}

    def take(rows: Int[np.ndarray, " n"]) -> Boxes:
        own = scores[rows]
        named = tuple(labels[row] for row in rows)
        return Boxes(xyxy_px=xyxy[rows], labels=named, scores=None if np.isnan(own).any() or not len(own) else own)

    predictions = []
    for place, sample in enumerate(samples):
        rows = order[bounds[place] : bounds[place + 1]]
        answer = answer_of.get(place)
        predictions.append(
            Prediction(
                image_id=sample.image_id,
                boxes=take(rows[~further[rows]]),
                further=take(rows[further[rows]]),
                text="" if answer is None else answer.text,
                problems=() if answer is None else answer.problems,
                truncated=answer is not None and answer.truncated,
                freely=None if answer is None else answer.freely,
            )
        )
    return predictions


def _tell(
    foreign: Foreign,
    places: Sequence[int],
    samples: Sequence[Sample],
    scores: Float[np.ndarray, " k"],
    found: Counter[str],
    classes: Sequence[str],
) -> list[Finding]:
    """What a reader of the scores must know: images without an answer, scores, classes that no box of the data has."""
    rows: list[tuple[str, Level, str, str]] = []
    spoken = {place for place in places if place >= 0}
    if silent := [sample.image.name for place, sample in enumerate(samples) if place not in spoken]:
        seen = f"images that are not spoken of, counted as answered with nothing: {len(silent)} of {len(samples)}"
        level: Level = "warn" if 2 * len(silent) > len(samples) else "ok"
        rows.append(("eval.images_silent", level, f"{seen} ({name_some(silent)})", ""))
    if not len(scores):
        rows.append(("eval.no_boxes", "warn", f"there is not one box on {len(spoken)} images", ""))
    elif np.isnan(scores).all():
        seen = "the boxes have no scores: all rank alike, and average precision depends on the order of images"
        rows.append(("eval.no_scores", "warn", seen, "write the confidence of each box as score"))
    elif np.nanmin(scores) < 0 or np.nanmax(scores) > 1:
        seen = f"scores from {np.nanmin(scores):g} to {np.nanmax(scores):g}, and not 0..1; boxes are ranked by them"
        rows.append(("eval.scores", "ok", seen, ""))
    strange = {name: num for name, num in found.items() if name not in classes}
    if strange:
        named = name_some(f"{name} ({num:,})" for name, num in strange.items())
        seen = (
            f"boxes of classes that no box of the data has: {named}; they count as false, and have no average precision"
        )
        rows.append(("eval.classes_without_truth", "warn", seen, "are category ids read as they are meant?"))
    return [Finding(check=c, level=lv, seen=s, where=str(foreign.path), fix=fix) for c, lv, s, fix in rows]
