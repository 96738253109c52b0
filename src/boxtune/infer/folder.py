"""Images on disk -> boxes as JSON and as drawn images."""

from __future__ import annotations

import glob
from pathlib import Path

from boxtune.artifacts import write_json
from boxtune.data import open_image, read_size
from boxtune.errors import DataError, name_some
from boxtune.infer.generate import answer_images
from boxtune.infer.predictor import Predictor, at_least
from boxtune.pictures import draw_boxes

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})


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
    answer, its problems, and whether it was cut. An image that cannot be opened gets a row with `error`; DataError
    names them all once the others are written.
    """
    paths = find_images(source)
    sizes: dict[Path, tuple[int, int]] = {}
    errors: dict[Path, str] = {}
    for path in paths:
        try:
            open_image(path)
            sizes[path] = read_size(path)
        except DataError as error:
            errors[path] = error.what
    answers = answer_images(
        predictor.loaded,
        predictor.encoder,
        [lambda path=path: open_image(path) for path in sizes],  # type: ignore[misc]
        sizes=list(sizes.values()),
        max_new_tokens=predictor.max_new_tokens,
        at_once=predictor.at_once,
    )
    rows: list[dict[str, object]] = [{"file": str(path), "error": what} for path, what in errors.items()]
    root = Path(source) if Path(source).is_dir() else None
    for (path, (width, height)), answer in zip(sizes.items(), answers, strict=True):
        boxes = at_least(answer.boxes, threshold)
        scores = [None] * len(boxes) if boxes.scores is None else boxes.scores.tolist()
        rows.append(
            {
                "file": str(path),
                "width": width,
                "height": height,
                "boxes": [
                    {"label": label, "xyxy_px": xyxy.tolist(), "score": score}
                    for label, xyxy, score in zip(boxes.labels, boxes.xyxy_px, scores, strict=True)
                ],
                "answer": answer.text,
                "problems": [{"kind": problem.kind, "text": problem.text} for problem in answer.problems],
                "truncated": answer.truncated,
            }
        )
        inside = path.relative_to(root) if root else Path(path.name)
        drawn = (out / "drawn" / inside).with_suffix(f"{path.suffix}.jpg")
        drawn.parent.mkdir(parents=True, exist_ok=True)
        draw_boxes(open_image(path), None, boxes, caption=path.name).save(drawn, quality=90)
    write_json(out / "predictions.json", rows)
    if errors:
        raise DataError(
            f"{len(errors)} of {len(paths)} images cannot be opened; the others are in {out / 'predictions.json'}",
            where=name_some(f"{path}: {what}" for path, what in errors.items()),
            fix="mend or remove them",
        )
    return out / "predictions.json"
