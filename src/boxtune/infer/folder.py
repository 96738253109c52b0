"""Images on disk -> boxes as JSON and as drawn images."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image
from tqdm import tqdm

from boxtune.artifacts import require_folder, write_json
from boxtune.boxes import Boxes
from boxtune.data import open_image, read_size
from boxtune.errors import DataError, name_some
from boxtune.infer.engine import Answer, require_shape
from boxtune.infer.predictor import Predictor, at_least
from boxtune.infer.tiled import iter_images
from boxtune.pictures import draw_boxes

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SLICE = 16
"""Batches between two writings of the predictions; images of like length are answered together within them."""


def find_images(source: str | Path) -> list[Path]:
    """The images of a file, a folder (sub-folders too) or a pattern such as `photos/*.jpg`, sorted by name."""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
    else:
        found = [Path(p) for p in glob.glob(str(source), recursive=True) if Path(p).is_file()]
    if not found:
        raise DataError(
            "there is no image to predict",
            where=str(source),
            fix=f"give an image, a folder or a pattern; known suffixes: {', '.join(sorted(SUFFIXES))}",
        )
    return sorted(found)


def predict_folder(predictor: Predictor, source: str | Path, out: Path, *, threshold: float | None = None) -> Path:
    """Write `out/predictions.json` and a drawn image for each image of `source`; returns the JSON's path.

    A row holds file, width, height, boxes (label, xyxy_px in pixels of the upright original, score or null), the raw
    answer, its problems, and whether it was cut. An image that cannot be opened, or is too long for the model, gets
    a row with `error`; DataError names them all once the others are written. The JSON is written again as the work
    goes on and whenever it ends, so what was answered before a crash is there. ConfigError if `out` is no folder.
    """
    paths = find_images(source)
    require_folder(out, fix="give another folder as out=")
    written, drawn = out / "predictions.json", out / "drawn"
    names = _drawn_names(paths, Path(source))
    rows: dict[Path, dict[str, Any]] = {}
    told = False
    size = SLICE * predictor.engine.at_once
    with tqdm(total=len(paths), unit="image", desc="predict", dynamic_ncols=True) as bar:
        for start in range(0, len(paths), size):
            try:
                for path, image, answer in _answer_slice(predictor, paths[start : start + size], rows):
                    if threshold is not None and len(answer.boxes) and answer.boxes.scores is None and not told:
                        bar.write(f"threshold={threshold}: these boxes carry no scores yet, so all of them are kept")
                        told = True
                    boxes = at_least(answer, threshold)
                    picture = drawn / names[path]
                    picture.parent.mkdir(parents=True, exist_ok=True)
                    draw_boxes(image, None, boxes, caption=path.name).save(picture, quality=90)
                    rows[path] = _row(path, image.size, boxes, answer)
                    bar.update(len(rows) - bar.n)
            finally:
                write_json(written, [rows[path] for path in paths if path in rows])
            bar.update(len(rows) - bar.n)
    errors = [f"{path}: {row['error']}" for path, row in rows.items() if "error" in row]
    if errors:
        raise DataError(
            f"{len(errors)} of {len(paths)} images cannot be opened or shown to the model; the others are in {written}",
            where=name_some(errors),
            fix="mend or remove them",
        )
    return written


def _answer_slice(
    predictor: Predictor, paths: Sequence[Path], rows: dict[Path, dict[str, Any]]
) -> Iterator[tuple[Path, Image, Answer]]:
    """(path, image, answer) as batches are done; a row with `error` goes into `rows` for what has no answer."""
    sizes: dict[Path, tuple[int, int]] = {}
    for path in paths:
        try:
            size = read_size(path)
            require_shape(predictor.engine, size, str(path))
            sizes[path] = size
        except DataError as error:
            rows[path] = {"file": str(path), "error": error.what}
    # Kept from the moment the model is shown an image until it is drawn, so that it is decoded once.
    opened: dict[Path, Image] = {}

    def opener(path: Path) -> Callable[[], Image]:
        def open_once() -> Image:
            opened[path] = open_image(path)
            return opened[path]

        return open_once

    sound = list(sizes)
    for i, answer in iter_images(predictor.engine, [opener(path) for path in sound], sizes=list(sizes.values())):
        if isinstance(answer, DataError):
            rows[sound[i]] = {"file": str(sound[i]), "error": answer.what}
        else:
            yield sound[i], opened.pop(sound[i]), answer


def _drawn_names(paths: Sequence[Path], source: Path) -> dict[Path, Path]:
    """Where each image's drawing lies under the folder of drawings: as the images lie under their common folder."""
    absolute = {path: Path(os.path.abspath(path)) for path in paths}
    parents = [path.parent for path in absolute.values()]
    root = os.path.abspath(source) if source.is_dir() else os.path.commonpath(parents)
    inside = {path: there.relative_to(root) for path, there in absolute.items()}
    return {path: name.with_suffix(f"{name.suffix}.jpg") for path, name in inside.items()}


def _row(path: Path, size_wh: tuple[int, int], boxes: Boxes, answer: Answer) -> dict[str, Any]:
    scores = [None] * len(boxes) if boxes.scores is None else boxes.scores.tolist()
    return {
        "file": str(path),
        "width": size_wh[0],
        "height": size_wh[1],
        "boxes": [
            {"label": label, "xyxy_px": xyxy.tolist(), "score": score}
            for label, xyxy, score in zip(boxes.labels, boxes.xyxy_px, scores, strict=True)
        ],
        "answer": answer.text,
        "problems": [{"kind": problem.kind, "text": problem.text} for problem in answer.problems],
        "truncated": answer.truncated,
    }
