"""The embedded model's whole table: scenes, the demo, and three sets of real pictures, base beside tuned.

    python bench/tiny_table.py data=DIR [out=DIR] [rows=scenes,demo,doc_tables,microcontrollers,bccd] [keep=true]

DIR holds the folders doc_tables, microcontrollers and bccd, each with COCO splits; what is not there is left out by
name. Microcontrollers have seven validation images only, so their training split is cut into five folds: each is
scored by a run that trained on the others, a tenth of which chose the best adapter; `folds=2` measures the first two,
and folds that are finished in `out` are not run again. `keep=true` puts the rows measured into docs/embedded.json and
writes the whole table, with the rows measured before, to docs/embedded.md.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tiny_scenes import score_scenes

import boxtune
from boxtune.artifacts import write_text
from boxtune.config import parse_pairs
from boxtune.finetune import choose_placement

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
ANNOTATIONS = "_annotations.coco.json"
KEPT = RECIPES.parent / "docs" / "embedded.json"
NUM_FOLDS = 5
Line = tuple[str, float | None, float | None, str]
"""What was measured, base, tuned, and the aim."""


def scenes(data: Path, out: Path) -> list[Line]:
    """Recall and mean IoU of the base on unseen scenes, as shipped and in NF4."""
    lines = []
    for quantization, aims in (("none", (">= 0.75", ">= 0.90")), ("nf4", ("", ""))):
        found = score_scenes(quantization=quantization)
        for key, name, aim in zip(("mean_iou", "recall"), ("mean IoU", "recall at 0.5"), aims, strict=True):
            lines.append((f"scenes, up to 4 objects, {quantization}: {name}", found[key], None, aim))
    return lines


def demo(data: Path, out: Path) -> list[Line]:
    """Nutrition tables on 100 drawn packages."""
    scores = boxtune.demo(out=out).scores
    return [
        _line("demo: mean IoU", scores, "mean_iou", "<= 0.25, >= 0.80"),
        _line("demo: detection rate", scores, "detection_rate", ">= 0.95"),
        _line("demo: AP50", scores, "map50", ">= 0.85"),
        _line("demo: empty packages answered with nothing", scores, "empty_correct_rate", ">= 0.90"),
    ]


def doc_tables(data: Path, out: Path) -> list[Line]:
    """Tables on 40 scanned pages."""
    scores = _train("doc_tables", data / "doc_tables", out).scores
    return [_line("doc_tables valid: mean IoU", scores, "mean_iou", ">= 0.70")]


def bccd(data: Path, out: Path) -> list[Line]:
    """Blood cells of three kinds on 87 photographs."""
    scores = _train("bccd", data / "bccd", out).scores
    return [_line("bccd valid: AP50", scores, "map50", ">= 0.45")]


def microcontrollers(data: Path, out: Path, num_folds: int = NUM_FOLDS) -> list[Line]:
    """Four boards on desks, five folds of the training split, or the first of them."""
    folds = write_folds(data / "microcontrollers" / "train", out / "folds")[:num_folds]
    # Two cores a fold, as many at once as there are cores for: what is reached does not depend on it.
    at_once = max(1, min(NUM_FOLDS, (os.cpu_count() or 1) // 2))
    with ProcessPoolExecutor(at_once, get_context("spawn"), torch.set_num_threads, (2,)) as pool:
        found = list(pool.map(score_fold, folds, [out] * len(folds)))
    of = "" if num_folds == NUM_FOLDS else f"{num_folds} of "
    mean: Line = (f"microcontrollers, {of}{NUM_FOLDS} folds: AP50", None, statistics.mean(found), ">= 0.70")
    return [mean, *((f"    fold {place}", None, value, "") for place, value in enumerate(found))]


def score_fold(fold: Path, out: Path) -> float:
    """AP50 of a fold by a run on the others; a run that is finished in `out` is taken as it is."""
    finished = out / f"microcontrollers-{fold.name}" / "scores.json"
    if finished.is_file():
        scores = json.loads(finished.read_text(encoding="utf-8"))
    else:
        scores = _train("microcontrollers", fold, out, split="test", base=False).scores
    return float(scores["tuned"]["map50"])


def minutes_of_folds(out: Path) -> float:
    """What the folds' runs took in all, by when their recipes and their scores were written."""
    runs = [path for path in out.glob("microcontrollers-fold*") if (path / "scores.json").is_file()]
    return sum((run / "scores.json").stat().st_mtime - (run / "recipe.yaml").stat().st_mtime for run in runs) / 60


ROWS: dict[str, Callable[[Path, Path], list[Line]]] = {
    "scenes": scenes,
    "demo": demo,
    "doc_tables": doc_tables,
    "microcontrollers": microcontrollers,
    "bccd": bccd,
}


def write_folds(split: Path, out: Path) -> list[Path]:
    """One data set a fold: `test` is the fold, `valid` a tenth of the rest, `train` what remains; images by link."""
    document = json.loads((split / ANNOTATIONS).read_text(encoding="utf-8"))
    images = sorted(document["images"], key=lambda image: image["file_name"])
    random.Random(0).shuffle(images)
    folders = []
    for number in range(NUM_FOLDS):
        rest = [image for place, image in enumerate(images) if place % NUM_FOLDS != number]
        parts = {"test": images[number::NUM_FOLDS], "valid": rest[::10]}
        parts["train"] = [image for image in rest if image not in parts["valid"]]
        for name, chosen in parts.items():
            folder = out / f"fold{number}" / name
            folder.mkdir(parents=True, exist_ok=True)
            ids = {image["id"] for image in chosen}
            boxes = [box for box in document["annotations"] if box["image_id"] in ids]
            (folder / ANNOTATIONS).write_text(json.dumps({**document, "images": chosen, "annotations": boxes}))
            for image in chosen:
                link = folder / image["file_name"]
                if not link.exists():
                    os.symlink((split / image["file_name"]).resolve(), link)
        folders.append(out / f"fold{number}")
    return folders


def _train(recipe: str, data: Path, out: Path, **settings: Any) -> Any:
    return boxtune.train(
        RECIPES / f"{recipe}.yaml", data=str(data), runs=str(out), name=f"{recipe}-{data.name}", **settings
    )


def _line(what: str, scores: dict[str, Any], key: str, aim: str) -> Line:
    return what, scores.get("base", {}).get(key), scores["tuned"][key], aim


def main() -> None:
    """Measure the rows that are asked for, and print them."""
    _, options = parse_pairs(sys.argv[1:])
    data, out = Path(options.get("data", ".")), Path(options.get("out", "runs/table"))
    asked = str(options.get("rows", ",".join(ROWS))).split(",")
    found: dict[str, Any] = {}
    for row in asked:
        if row not in ("scenes", "demo") and not (data / row).is_dir():
            print(f"left out: {row}, {data / row} is no folder")
            continue
        started = time.perf_counter()
        if row == "microcontrollers":
            lines = microcontrollers(data, out, int(options.get("folds", NUM_FOLDS)))
            minutes = minutes_of_folds(out)
        else:
            lines, minutes = ROWS[row](data, out), (time.perf_counter() - started) / 60
        found[row] = {"lines": lines, "minutes": minutes, "machine": machine()}
    print("", as_table(found), sep="\n")
    if options.get("keep"):
        known = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
        known.update(found)
        write_text(KEPT, json.dumps({row: known[row] for row in ROWS if row in known}, indent=1) + "\n")
        write_text(KEPT.with_suffix(".md"), as_page(json.loads(KEPT.read_text(encoding="utf-8"))))


def machine() -> str:
    """What a row was measured on."""
    return f"{os.cpu_count()} cores, torch {torch.__version__}, {choose_placement('nf4', 'auto').notes[0]}"


PAGE = """# What the embedded model reaches

Written by `python bench/tiny_table.py data=DIR keep=true`. How each number comes about stands there, and in the
recipes. `scenes` are drawn scenes from a seed that pre-training never used; the packages of the demo are drawn too, of
a kind that no scene holds; the last three sets are real pictures. AP counts every box with the same score.

```text
{table}
```
"""


def as_page(found: dict[str, Any]) -> str:
    """docs/embedded.md of the rows in docs/embedded.json."""
    return PAGE.format(table=as_table(found))


def as_table(found: dict[str, Any]) -> str:
    """The lines under each other, then what they took and on what."""
    rows = [f"{'':<48} {'base':>6} {'tuned':>6}   aim"]
    for what, base, tuned, aim in (line for row in found.values() for line in row["lines"]):
        shown = [f"{value:6.3f}" if value is not None else f"{'':>6}" for value in (base, tuned)]
        rows.append(f"{what:<48} {shown[0]} {shown[1]}   {aim}".rstrip())
    rows.append("")
    for machine in dict.fromkeys(each["machine"] for each in found.values()):
        spent = ", ".join(f"{row} {each['minutes']:.1f}" for row, each in found.items() if each["machine"] == machine)
        rows += [f"minutes: {spent}", machine]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
