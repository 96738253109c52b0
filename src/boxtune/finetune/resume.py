"""Where a run is written, and whether what it goes on with is what it began with."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from boxtune.artifacts import RunFolder, build_run_folder, find_runs, read_json, write_json
from boxtune.config import Resolved
from boxtune.data import Dataset
from boxtune.errors import ConfigError, DataError
from boxtune.finetune import ranks
from boxtune.finetune.checkpoints import last_complete
from boxtune.finetune.talk import Talk

MAY_CHANGE = (
    "name",
    "runs",
    "train.epochs",
    "train.hours",
    "train.resume",
    "train.devices",
    "train.keep_checkpoints",
    "track.report_to",
)
"""Settings that a resumed run may have otherwise than the run it goes on with."""


def open_folder(resolved: Resolved, bound: Mapping[str, Any]) -> tuple[RunFolder, Path | None]:
    """A fresh run folder; or with `resume=true` the newest of this name, and its last complete checkpoint.

    `bound` is what must not change under a run: a digest of each split and of the base's weights. It is kept in the
    folder. Raises ConfigError where there is no run to resume, or where it was made of something else.
    """
    settings = resolved.settings
    parent = Path(settings.runs)
    name = settings.name or f"{Path(settings.data.path).name}-{Path(settings.model).name}"
    if not settings.train.resume:
        folder = build_run_folder(parent, name)
        write_json(folder.bound, bound)
        print(f"run folder: {folder.path}", flush=True)
        return folder, None
    runs = find_runs(parent, name)
    if not runs:
        raise ConfigError(
            f"there is no run named {name!r} to resume", where=str(parent), fix="leave resume away, or give name="
        )
    folder = runs[-1]
    _require_same_settings(resolved, folder)
    _require_same_bound(bound, folder)
    checkpoint, findings = last_complete(folder.checkpoints)
    for finding in findings:
        print(finding, flush=True)
    begin = "training begins at its first step" if checkpoint is None else f"going on from {checkpoint.name}"
    print(f"run folder: {folder.path}; {begin}", flush=True)
    if checkpoint is not None and (before := len([*checkpoint.glob("rng_state*.pth")])) != ranks.num_ranks():
        print(f"begun with {before} processes, going on with {ranks.num_ranks()}: dropout is drawn anew", flush=True)
    _clear(folder, checkpoint)
    return folder, checkpoint


def bind(dataset: Dataset, talk: Talk, base_fingerprint: str) -> dict[str, Any]:
    """What a run is made of: a digest of images, boxes and labels of each split, the classes in their order, a digest
    of other conversations, and the base's fingerprint."""
    digests = {}
    for split, samples in dataset.splits.items():
        digest = hashlib.sha256()
        for sample in samples:
            digest.update(f"{sample.image.name} {sample.size_wh} {sample.boxes.labels}".encode())
            for values in (sample.boxes.xyxy_px, sample.crowd, sample.ignore):
                digest.update(values.tobytes())
        digests[split] = {"images": len(samples), "digest": digest.hexdigest()}
    told = hashlib.sha256(repr((talk.learned, talk.kept_back)).encode()).hexdigest()
    return {"splits": digests, "classes": [*dataset.classes], "talk": told, "base_fingerprint": base_fingerprint}


def _require_same_settings(resolved: Resolved, folder: RunFolder) -> None:
    try:
        before = yaml.safe_load(folder.recipe.read_text(encoding="utf-8"))
        if "model" not in before:
            raise KeyError("model")
        groups = {head: dict(values) for head, values in before.items() if isinstance(values, Mapping)}
        was = {
            **before,
            **{f"{head}.{leaf}": value for head, values in groups.items() for leaf, value in values.items()},
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            "the run cannot be resumed: its recipe is missing or broken",
            where=str(folder.recipe),
            fix="begin a new run (leave resume away)",
        ) from error
    changed = []
    for path, value in resolved.values():
        value = list(value) if isinstance(value, tuple) else value
        # A setting that the run did not know yet is no other one; what it changes of the data stands in `bound`.
        if path not in MAY_CHANGE and path in was and was[path] != value:
            changed.append(f"{path} was {was.get(path)!r}, now {value!r}")
    if changed:
        raise ConfigError(
            f"the run to resume had other settings: {'; '.join(changed)}",
            where=str(folder.recipe),
            fix=f"give the settings of {folder.name}, or leave resume away to begin a new run",
        )


def _require_same_bound(bound: Mapping[str, Any], folder: RunFolder) -> None:
    before = read_json(folder.bound)
    if before == bound:
        return
    what = [
        f"the split {split} had {was['images']} images, now {now['images']}"
        if was["images"] != now["images"]
        else f"the images or boxes of the split {split} are not the same"
        for split, now in bound["splits"].items()
        if (was := before["splits"].get(split, {"images": 0})) != now
    ]
    if before.get("classes") != bound["classes"]:
        what.append(f"the classes were {before.get('classes')}, now {bound['classes']}")
    if before.get("talk") != bound["talk"]:
        what.append("the conversations of data.mix are not the same")
    if before["base_fingerprint"] != bound["base_fingerprint"]:
        what.append("the base model has other weights")
    raise DataError(
        f"the run to resume was made of something else: {'; '.join(what)}",
        where=str(folder.path),
        fix="put the data and the model back as they were, or leave resume away to begin a new run",
    )


def _clear(folder: RunFolder, checkpoint: Path | None) -> None:
    """Take away what the steps and scores that are done again will write again."""
    folder.scores.unlink(missing_ok=True)
    for path in (folder.predictions, folder.pictures, folder.adapter_last):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.path.glob(".*.part"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder.metrics, folder.left_out):
        if checkpoint is None:
            path.unlink(missing_ok=True)
    done = -1 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    for path in folder.samples.glob("step_*"):
        if int(path.stem.removeprefix("step_")) > done:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.best.unlink(missing_ok=True)
    shutil.rmtree(folder.adapter, ignore_errors=True)
    kept = None if checkpoint is None else checkpoint / KEPT
    if kept is not None and kept.is_dir():
        shutil.copytree(kept / folder.adapter.name, folder.adapter, copy_function=_link)
        shutil.copy2(kept / folder.best.name, folder.best)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # A file system without hard links.
        shutil.copy2(source, target)


KEPT = "kept"
"""Folder inside a checkpoint that holds the best adapter as of that step, hard-linked."""


def keep_best(folder: RunFolder, checkpoint: Path) -> None:
    """Hard-link the best adapter so far into a checkpoint that is about to be sealed.

    One level deeper than it seems to need: transformers takes a sub-folder with adapter weights for a second adapter.
    """
    if folder.best.is_file():
        shutil.copytree(folder.adapter, checkpoint / KEPT / folder.adapter.name, copy_function=_link)
        shutil.copy2(folder.best, checkpoint / KEPT / folder.best.name)
