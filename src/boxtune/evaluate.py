"""Tuned models and other systems on the same images -> one table, `scores.json` and their predictions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from boxtune import answers
from boxtune.artifacts import RunFolder, build_run_folder, read_json, require_folder, slugify, write_json
from boxtune.config import read_settings
from boxtune.data import MAX_LEFT_OUT, Dataset, Sample, find_by_name, leave_out_broken, read_dataset
from boxtune.data.ask import has_targets
from boxtune.data.classes import select_classes
from boxtune.data.draft import Options
from boxtune.data.frames import AskedFrame
from boxtune.data.places import SPLITS
from boxtune.errors import ConfigError, DataError, Finding, name_some
from boxtune.measure import Prediction, coco_results, read_predictions, score_run
from boxtune.measure.foreign import fit_foreign
from boxtune.measure.foreign_classes import CATEGORIES
from boxtune.measure.foreign_files import read_foreign
from boxtune.measure.foreign_images import IDS, Known, read_known
from boxtune.measure.systems import check_system, found_from, of_classes, score_systems
from boxtune.report import score_table
from boxtune.report.systems import systems_sentences, systems_table
from boxtune.run import load
from boxtune.settings import Settings


def evaluate(
    *what: str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    out: str | Path | None = None,
    threshold: float | None = None,
    format: str | None = None,
    images: str | Path | None = None,
    boxes: str | None = None,
    frame: AskedFrame | None = None,
    ids: str = "auto",
    categories: str = "auto",
    predicted_boxes: str | None = None,
) -> dict[str, Any]:
    """The scores of runs and of other systems' predictions files on the images of one split, as in `scores.json`.

    `what` are folders of runs (or of adapters) and files that `measure.foreign_files` reads. Without `data` they are
    scored on the very images that the first run has scored, or, with `split`, on others of its data; `format`,
    `images`, `boxes` and `frame` say how `data` is to be read, as for `inspect`. `ids`, `categories` and
    `predicted_boxes` say what files of other systems leave open. With a `threshold` the boxes of at least that score
    are what was found, and the others count for average precision alone.

    One run alone gives the scores of a run, with its base beside it where that was asked about the same images.
    Otherwise `systems` holds the scores by name, and `paired` compares each with the first. Prints what was found and
    a table; writes scores, findings and predictions to `out`, which must be new or empty; by default a fresh folder
    inside the first run's `eval/`, or in `eval/`. Raises UserError where the input is wrong: nothing is scored that
    can be read in two ways.
    """
    from boxtune.finetune import forget

    paths = [Path(one).expanduser() for one in what]
    _require_words(paths, ids, categories)
    runs = {path: _Tuned.read(path) for path in paths if path.is_dir()}
    first = next(iter(runs.values()), None)
    ground = _open_ground(first, data, _split(split), Options(images=_path(images), boxes=boxes), format, frame)
    for run in runs.values():
        run.require_classes(ground)
    files, named = [path for path in paths if path not in runs], _names(paths)
    how = {"ids": ids, "categories": categories, "boxes": predicted_boxes}
    known = read_known(ground.read, ground.split, ground.options) if files else None
    columns = {path: _read_column(named[path], path, ground, known, how) for path in files if known is not None}
    told = [*ground.findings, *(finding for column in columns.values() for finding in column.findings)]
    print(*(str(one) for one in told if one.level != "ok" or one.check.startswith("eval.")), sep="\n", flush=True)
    folder = _open_out(out, first, named[paths[0]], ground)
    for path, run in runs.items():
        predictor = load(path)
        columns[path] = run.ask(named[path], predictor, ground)
        del predictor
        forget()  # before the next is loaded
    ordered = [columns[path] if threshold is None else columns[path].at(threshold) for path in paths]
    scores, rest = _score(ordered, ground)
    rest = [*(finding for path in runs for finding in columns[path].findings), *rest]
    _write(folder, scores, ordered, ground, [*told, *rest])
    print(*(str(one) for one in rest), "", _as_text(scores), f"written to {folder.path}", sep="\n", flush=True)
    return scores


def _require_words(paths: Sequence[Path], ids: str, categories: str) -> None:
    if not paths:
        raise ConfigError("there is nothing to score", where="eval", fix="give a run, or a file of predictions")
    for path in paths:
        if not path.exists():
            fix = "give the folder of a run, or a JSON file of predictions"
            raise DataError(f"{path} does not exist", where=str(path), fix=fix)
    if len(set(paths)) < len(paths):
        raise ConfigError("one of them is given twice", where=name_some(paths), fix="name each once")
    for key, value, known in (("ids", ids, IDS), ("categories", categories, CATEGORIES)):
        if value not in known:
            raise ConfigError(f"{key} cannot be {value!r}", where=key, fix=f"one of: {', '.join(known)}")


def _split(asked: str | None) -> str | None:
    found = next((split for split, words in SPLITS.items() if asked in words), None)
    if asked is not None and found is None:
        raise ConfigError(f"there is no split called {asked!r}", where="split", fix=f"one of: {', '.join(SPLITS)}")
    return found


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What is scored on: the data as it was read, the images of one split with their truth, and the classes.

    `chosen` maps the data's class names to those that are scored, None where all are, as they are called. `is_own` if
    these are the very images that a run has scored.
    """

    read: Dataset
    split: str
    samples: Sequence[Sample]
    classes: tuple[str, ...]
    chosen: Mapping[str, str] | None
    options: Options
    seed: int
    is_own: bool
    findings: Sequence[Finding]


@dataclass(frozen=True, kw_only=True)
class _Column:
    """What one system said of each image, and of a run its `base`, `best` threshold and `leakage`."""

    name: str
    predictions: Sequence[Prediction]
    classes: tuple[str, ...]
    base: Sequence[Prediction] | None = None
    is_run: bool = False
    best: float | None = None
    leakage: str = ""
    findings: Sequence[Finding] = field(default=())

    def at(self, threshold: float) -> _Column:
        """The boxes of at least that score as what was found; without scores all of them."""
        base = None if self.base is None else [found_from(said, threshold) for said in self.base]
        return replace(self, predictions=[found_from(said, threshold) for said in self.predictions], base=base)


@dataclass(frozen=True, kw_only=True)
class _Tuned:
    """A run, or an adapter of one: `home` is the run's folder and `settings` its own, None of a lone adapter."""

    path: Path
    home: RunFolder | None
    settings: Settings | None
    card: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> _Tuned:
        """What its files say; DataError where there is no adapter of boxtune's."""
        from boxtune.infer import read_card

        _, card = read_card(path)
        homes = [RunFolder(path=folder) for folder in (path, path.parent) if RunFolder(path=folder).recipe.is_file()]
        home = homes[0] if homes else None
        settings = None if home is None else read_settings(home.recipe, {}).settings
        return cls(path=path, home=home, settings=settings, card=card)

    def require_classes(self, ground: _Ground) -> None:
        """DataError where the data has classes that the model was not trained to find."""
        strange = [name for name in ground.classes if name not in self.card["classes"]]
        if strange:
            raise DataError(
                f"classes of the data that {self.path.name} was not trained to find: {name_some(strange, limit=10)}",
                where=str(ground.read.path),
                fix=f"it finds {name_some(self.card['classes'], limit=20)}: score it on data that has no others",
            )

    def ask(self, name: str, predictor: Any, ground: _Ground) -> _Column:
        """What the model says, in batches as in its run; boxes of classes that the data does not have are left out."""
        engine = predictor.engine
        if self.settings is not None:
            engine = replace(engine, at_once=self.settings.generate.at_once)
        said = answers.predict_all(engine, ground.samples, name)
        kept = [of_classes(one, ground.classes) for one in said]
        findings = []
        if num := sum(len(one.ranked) for one in said) - sum(len(one.ranked) for one in kept):
            seen = f"{num:,} boxes of classes that the data does not have are left out"
            findings.append(Finding(check="eval.classes_dropped", level="ok", seen=seen, where=str(self.path)))
        base, best = self.base(ground), predictor.best
        return _Column(
            name=name,
            predictions=kept,
            classes=ground.classes,
            base=base,
            is_run=True,
            best=best,
            leakage=(self.scored.get("paired") or {}).get("leakage", "") if base is not None else "",
            findings=tuple(findings),
        )

    @property
    def scored(self) -> Mapping[str, Any]:
        """The scores that the run has written."""
        return read_json(self.home.scores) if self.home is not None and self.home.scores.is_file() else {}

    def base(self, ground: _Ground) -> list[Prediction] | None:
        """What the untuned model said in the run, if it was asked about these images."""
        if self.home is None or self.settings is None or not ground.is_own or ground.split != self.settings.data.split:
            return None
        path = self.home.predictions / "base.json"
        said = read_predictions(path) if path.is_file() else []
        same = {one.image_id for one in said} == {sample.image_id for sample in ground.samples}
        return said if same else None


def _open_ground(
    run: _Tuned | None,
    data: str | Path | None,
    split: str | None,
    options: Options,
    format: str | None,
    frame: AskedFrame | None,
) -> _Ground:
    """The images to score on: those of the run's own data, or of `data`."""
    own = None if run is None or run.settings is None else run.settings.data
    # The run's own data, however it is said, is that which it has split itself.
    if own is not None and data is not None and own.path in (str(data), os.path.abspath(Path(data).expanduser())):
        data = None
    if data is None and own is None:
        what = "on which data?" if run is None else f"{run.path} lies in no run, so that its data is not known"
        raise ConfigError(what, where="data", fix="say data=DATA, the images with their true boxes")
    if own is not None and data is None:
        format, frame = format or own.format, frame or own.frame
        images = None if own.images is None else Path(own.images)
        options = Options(images=options.images or images, boxes=options.boxes or own.boxes)
    source = str(data) if data is not None else own.path if own is not None else ""
    read = read_dataset(source, format=format or "auto", images=options.images, boxes=options.boxes)
    default = None if own is None else own.split
    chosen_split = split or (default if data is None else None) or _default_split(read, default)
    # What is scored never changes silently.
    max_share = 0.0 if chosen_split == "train" and data is not None else MAX_LEFT_OUT
    dataset = leave_out_broken(read, frame=frame or "auto", max_share=max_share)
    chosen = _choose_classes(run, dataset, own.classes if own is not None else None, is_own=data is None)
    if chosen is not None:
        dataset = select_classes(dataset, chosen)
    if data is None and run is not None and run.home is not None:
        samples = _own_samples(run.home, dataset, chosen_split)
    elif chosen_split in dataset.splits:
        samples = list(dataset.splits[chosen_split])
    else:
        fix = f"there are: {', '.join(dataset.splits)}"
        fix += "; without data= a run scores the images that it has set apart itself" if own is not None else ""
        raise DataError(f"the data has no split {chosen_split!r}", where=str(read.path), fix=fix)
    if not len(samples) or not has_targets(samples).any():
        what = f"not one image of {chosen_split} has a box: there is nothing to measure"
        raise DataError(what, where=str(read.path), fix="give annotated images, or another split=")
    seen = f"{len(samples):,} images of {chosen_split} of {read.path} ({dataset.format})"
    findings = [*dataset.findings, Finding(check="eval.data", level="ok", seen=seen)]
    if data is None and chosen_split == "train":
        seen = "these are the images that the run was trained on: their scores do not say how it does on others"
        findings.append(Finding(check="eval.trained_on", level="warn", seen=seen))
    return _Ground(
        read=read,
        split=chosen_split,
        samples=samples,
        classes=dataset.classes,
        chosen=chosen,
        options=options,
        seed=0 if run is None or run.settings is None else run.settings.seed,
        is_own=data is None,
        findings=findings,
    )


def _default_split(dataset: Dataset, default: str | None) -> str:
    """The split that is scored where none is asked for: that of the run, else `valid`, `test`, or the only one."""
    wanted = [default] if default is not None else []
    return next(name for name in (*wanted, "valid", "test", *dataset.splits) if name in dataset.splits)


def _choose_classes(
    run: _Tuned | None, dataset: Dataset, classes: Sequence[str] | Mapping[str, str] | None, *, is_own: bool
) -> dict[str, str] | None:
    """The run's own choice of classes where it is to be made on this data; None where all are scored as they are."""
    if run is None or not classes:
        return None
    chosen = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes}
    if is_own:
        return chosen
    fits = set(dataset.classes) <= set(run.card["classes"])
    return None if fits or not set(chosen) <= set(dataset.classes) else chosen


def _own_samples(home: RunFolder, dataset: Dataset, split: str) -> list[Sample]:
    """The images that the run has had in that split; DataError where they are not all there any more."""
    listed = read_json(home.split)
    if split not in listed:
        raise DataError(f"the run has no split {split!r}", where=str(home.split), fix=f"it has {', '.join(listed)}")
    pool = dataset.splits[split] if split in dataset.splits else dataset.splits["train"]
    by_name = find_by_name(dataset, pool)
    if gone := [name for name in listed[split] if name not in by_name]:
        what = f"{len(gone)} of {len(listed[split])} images of {split} are not in the data any more: {name_some(gone)}"
        raise DataError(what, where=str(dataset.path), fix="restore them, or say data=DATA to score what is there")
    return [by_name[name] for name in listed[split]]


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each is called in the table: the run's folder, the file's name, or its folder's where that says nothing."""
    names: dict[Path, str] = {}
    for path in paths:
        bare = path.absolute()
        name = bare.parent.name if path.is_file() and path.stem == "predictions" else bare.name.removesuffix(".json")
        names[path] = _numbered(name, names.values())
    return names


def _numbered(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it where it is taken."""
    known = {*taken}
    return next(one for number in count(1) if (one := name if number == 1 else f"{name}-{number}") not in known)


def _read_column(name: str, path: Path, ground: _Ground, known: Known, how: Mapping[str, str | None]) -> _Column:
    """What a file of predictions says of the images, in the classes that are scored."""
    fitted = fit_foreign(
        read_foreign(path),
        ground.read,
        ground.split,
        ground.samples,
        known,
        classes=ground.classes,
        chosen=ground.chosen,
        ids=how["ids"] or "auto",
        categories=how["categories"] or "auto",
        boxes=how["boxes"],
    )
    return _Column(name=name, predictions=fitted.predictions, classes=fitted.classes, findings=fitted.findings)


def _open_out(out: str | Path | None, run: _Tuned | None, name: str, ground: _Ground) -> RunFolder:
    """The folder that is written to: a new or empty one that was asked for, or a fresh one."""
    if out is None:
        called = ground.split if run is not None and ground.is_own else f"{ground.read.path.stem}-{ground.split}"
        home = None if run is None else run.home or RunFolder(path=run.path)
        if home is None:
            return build_run_folder(Path("eval"), f"{name}-{called}")
        return build_run_folder(home.path / "eval", called)
    folder = Path(out).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what, fix = f"{folder} is there already", "give a folder that is new or empty: nothing is overwritten"
        raise ConfigError(what, where="out", fix=fix)
    require_folder(folder, fix="give a folder that can be written as out=")
    return RunFolder(path=folder)


def _score(columns: Sequence[_Column], ground: _Ground) -> tuple[dict[str, Any], list[Finding]]:
    """The scores, as of a run where there is one alone, and what they give to say."""
    classes = tuple(dict.fromkeys(name for column in columns for name in (*ground.classes, *column.classes)))
    bound: dict[str, Any] = {"split": ground.split, "seed": ground.seed}
    if len(columns) == 1 and columns[0].is_run:
        only = columns[0]
        bound |= {"threshold": only.best, "leakage": only.leakage}
        return score_run(ground.samples, only.base, only.predictions, classes, **bound), []
    systems = {column.name: column.predictions for column in columns}
    others = [column.name for column in columns if not column.is_run]
    scores = score_systems(ground.samples, systems, classes, wordless=others, **bound)
    return scores, [one for name in others for one in check_system(name, scores["systems"][name], systems[name])]


def _as_text(scores: Mapping[str, Any]) -> str:
    if "systems" not in scores:
        told = [scores["paired"]["sentence"]] if "paired" in scores else []
        return "\n".join([score_table(scores), "", *told])
    return "\n".join([systems_table(scores), "", *systems_sentences(scores)])


def _write(
    folder: RunFolder,
    scores: Mapping[str, Any],
    columns: Sequence[_Column],
    ground: _Ground,
    findings: Sequence[Finding],
) -> None:
    alone = len(columns) == 1 and columns[0].is_run
    said = {"tuned" if alone else column.name: (column.predictions, column.classes) for column in columns}
    if alone and columns[0].base is not None:
        said["base"] = columns[0].base, ground.classes
    taken: list[str] = []
    for name, (predictions, classes) in said.items():
        taken.append(_numbered(slugify(name), taken))
        write_json(folder.predictions / f"{taken[-1]}.json", coco_results(predictions, ground.samples, classes))
    write_json(folder.findings, [finding.as_json() for finding in findings])
    write_json(folder.scores, scores)
