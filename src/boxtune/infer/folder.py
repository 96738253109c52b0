"""Images on disk, by the million -> their boxes as JSON, COCO, YOLO, Label Studio, and as drawn images.

SOURCE -> the images of a part -> answers/part-1-of-1.jsonl, a line as soon as an image is answered
       -> once every image has a line: predictions.json, coco/, yolo/, labelstudio/
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int
from PIL.Image import Image
from tqdm import tqdm

from boxtune.artifacts import require_folder
from boxtune.boxes import Boxes
from boxtune.data import open_image
from boxtune.data.images import read_header
from boxtune.errors import ConfigError, DataError, name_some
from boxtune.infer.answer import Answer
from boxtune.infer.engine import Engine, Opener, require_shape
from boxtune.infer.predictor import Predictor, at_least, read_card
from boxtune.infer.shards import Answered, Part, PartFile, find_answers, share_out, stamp_of
from boxtune.infer.sources import Listing, OpenAhead, find_images, list_images
from boxtune.infer.tiled import iter_images
from boxtune.infer.writers import FORMATS, About
from boxtune.infer.written import Drawings, write_all

__all__ = ["find_images", "predict_folder"]

SLICE = 16
"""Batches that are looked at together; images of like length are answered together within them."""
MOST_DRAWN = 1000
"""Images up to which all are drawn without being asked to."""


def predict_folder(
    predictor: Predictor,
    source: str | Path,
    out: Path,
    *,
    run: str | Path | None = None,
    threshold: float | Literal["best"] | None = None,
    split: str | None = None,
    format: str | Sequence[str] = "json",
    part: tuple[int, int] = (1, 1),
    draw: bool | None = None,
    confidence: bool = False,
) -> Path:
    """The first file or folder that was written: `out/predictions.json`, or what `format` asks for.

    `source` is what `list_images` knows, with `split` a data set. Each image becomes a line of `out/answers/` as soon
    as it is answered. The same call again goes on where another one ended or was killed: no image is lost or has two
    answers, an image that has changed and one that could not be opened are asked again. Answers are bound to the
    adapter of `run`, classes, tiles, image budget and threshold: ConfigError if those in `out` are of others.

    `part` (number from 1, of how many) answers one share of the images, told by their paths; processes on one or
    several machines that see the same paths answer the others. Whoever finds every image answered writes the files;
    before that the lines of its part are what is given back, and what is missing is said.

    `format` is one or several of json, coco, yolo and labelstudio (see `writers`); a row of predictions.json holds
    file, width, height, boxes (label, xyxy_px in pixels of the upright original, score or null), the raw answer, its
    problems, and whether it was cut. `draw` writes a drawn image for each; by itself only up to 1,000 images.
    `threshold="best"` is that of the run card, chosen on validation images. An image that cannot be opened, or is too
    long for the model, gets a row with `error`; DataError names them once all is written.
    """
    formats = _require_formats(format)
    share = Part(number=part[0], of=part[1])
    least = predictor.least(threshold)
    listing = list_images(source, split=split, leave_out=out)
    if listing.num_repeated:
        print(f"{listing.num_repeated:,} images are listed more than once; each is answered once")
    folder = out / "answers"
    for needed in (out, folder):
        require_folder(needed, fix="give another folder as out=")
    made_by = _made_by(predictor.engine, run, least)
    drawings = Drawings(folder=out / "drawn", listing=listing) if _shall_draw(draw, len(listing.files)) else None
    own = share_out(listing.files, share.of) == share.number
    with PartFile(folder, share, made_by) as file:
        left = _places_left(find_answers(folder, listing.files, made_by), listing.files, own)
        total, how = int(own.sum()), {"unit": "image", "desc": "predict", "dynamic_ncols": True}
        with tqdm(total=total, initial=total - len(left), **how) as bar:
            _answer_places(predictor.engine, listing, left, file, least, drawings, bar)
    # Own lines are closed by now, so that whoever closes last sees the lines of all, on a network's file system too.
    found = find_answers(folder, listing.files, made_by)
    if found.others[0]:
        print(f"{found.others[0]:,} answers in {folder} are for other images, such as {found.others[1]}")
    missing = _name_missing(found, listing.files, share)
    if missing:
        print(f"part {share} is done: {file.path}\nstill to be answered: {missing}")
        written, mine = [file.path], own
    else:
        split = listing.split or "train"
        about = About(split=split, classes=predictor.classes, model=_name_model(run, made_by), confidence=confidence)
        written, mine = write_all(out, formats, listing, found, about, drawings), np.ones_like(own)
    _require_answered(found, mine, written[0])
    return written[0]


def _require_formats(format: str | Sequence[str]) -> list[str]:
    asked = list(dict.fromkeys(format.split(",") if isinstance(format, str) else format))
    if not asked or not set(asked) <= set(FORMATS):
        what = f"cannot write {', '.join(asked) or 'nothing'}"
        raise ConfigError(what, where="format", fix=f"one or several of {', '.join(FORMATS)}, such as coco,yolo")
    return asked


def _made_by(engine: Engine, run: str | Path | None, threshold: float | None) -> dict[str, Any]:
    """All that answers depend on, as plain JSON."""
    tiling = engine.tiling
    bound = {
        "adapter": None if run is None else _digest(*read_card(run)),
        # A server's precision and guide are not those of the model in memory.
        "engine": type(engine).__name__,
        "family": engine.family.name,
        "classes": engine.classes,
        "pixels": engine.budget,
        "tiling": None if tiling is None else asdict(tiling),
        "selection": asdict(engine.selection),
        "threshold": threshold,
    }
    plain: dict[str, Any] = json.loads(json.dumps(bound))
    return plain


def _digest(adapter: Path, card: dict[str, Any]) -> str:
    """A digest of the weights and the card of an adapter, but for the threshold: that is bound by itself."""
    card = {key: value for key, value in card.items() if key != "threshold"}
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for path in sorted(adapter.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:24]


def _name_model(run: str | Path | None, made_by: dict[str, Any]) -> str:
    if run is None:
        return "boxtune"
    path = Path(run).absolute()
    name = path.parent.name if read_card(run)[0] == Path(run) else path.name
    return f"{name}-{made_by['adapter'][:8]}"


def _shall_draw(draw: bool | None, num_images: int) -> bool:
    if draw is None and num_images > MOST_DRAWN:
        print(f"none of {num_images:,} images is drawn, as they are more than {MOST_DRAWN:,}; draw=true draws all")
    return num_images <= MOST_DRAWN if draw is None else draw


def _places_left(found: Answered, files: Sequence[str], own: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """The places of the own images that are still to be asked, or again: they failed, or their file has changed."""
    done = (found.which >= 0) & ~found.failed & own
    for place in np.flatnonzero(done).tolist():
        done[place] = found.stamps[place] == stamp_of(files[place])
    return np.flatnonzero(own & ~done)


def _answer_places(
    engine: Engine,
    listing: Listing,
    places: Int[np.ndarray, " k"],
    file: PartFile,
    threshold: float | None,
    drawings: Drawings | None,
    bar: Any,
) -> None:
    """Write a line for each of these images, and draw it."""
    told, size = False, SLICE * engine.at_once
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        for start in range(0, len(places), size):
            some = places[start : start + size].tolist()
            for place, row, shown in _answer_slice(engine, listing.files, some, pool, keep=drawings is not None):
                if shown is not None:
                    image, answer = shown
                    if threshold is not None and len(answer.boxes) and answer.boxes.scores is None and not told:
                        bar.write(f"threshold={threshold}: these boxes carry no scores yet, so all of them are kept")
                        told = True
                    boxes = at_least(answer, threshold)
                    row = {**row, **_say(boxes, answer)}
                    if drawings is not None and image is not None:
                        drawings.draw(place, image, boxes)
                file.add(row)
                bar.update(1)
    finally:
        pool.shutdown(cancel_futures=True)


def _answer_slice(
    engine: Engine, files: Sequence[str], places: Sequence[int], pool: ThreadPoolExecutor, *, keep: bool
) -> Iterator[tuple[int, dict[str, Any], tuple[Image | None, Answer] | None]]:
    """(place, row, (image, answer)) as batches are done, None for what cannot be answered; the image if to `keep`."""
    rows: dict[int, dict[str, Any]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for place in places:
        name, stamp = files[place], stamp_of(files[place])
        try:
            size, turn = read_header(name)
            require_shape(engine, size, name)
        except DataError as error:
            yield place, {"file": name, "error": error.what, "stamp": stamp}, None
            continue
        sizes[place] = size
        rows[place] = {"file": name, "width": size[0], "height": size[1], "stamp": stamp}
        rows[place] |= {"turn": turn} if turn != 1 else {}
    sound = list(sizes)
    if engine.tiling is None:  # in the order in which they will be asked for, so that the right ones are opened ahead
        sound.sort(key=lambda place: engine.family.num_image_tokens(sizes[place], *engine.budget))
    ahead = OpenAhead([files[place] for place in sound], open_image, pool=pool, ahead=engine.at_once)
    opened: dict[int, Image] = {}

    def opener(i: int) -> Opener:
        def open_kept() -> Image:
            image = ahead.take(i)
            rows[sound[i]] |= {"width": image.width, "height": image.height}
            if keep:
                opened[i] = image
            return image

        return open_kept

    openers = [opener(i) for i in range(len(sound))]
    for i, answer in iter_images(engine, openers, sizes=[sizes[place] for place in sound]):
        row, image = rows.pop(sound[i]), opened.pop(i, None)
        if isinstance(answer, DataError):
            yield sound[i], {"file": row["file"], "error": answer.what, "stamp": row["stamp"]}, None
        else:
            yield sound[i], row, (image, answer)


def _say(boxes: Boxes, answer: Answer) -> dict[str, Any]:
    scores = [None] * len(boxes) if boxes.scores is None else boxes.scores.tolist()
    return {
        "boxes": [
            {"label": label, "xyxy_px": xyxy.tolist(), "score": score}
            for label, xyxy, score in zip(boxes.labels, boxes.xyxy_px, scores, strict=True)
        ],
        "answer": answer.text,
        "problems": [{"kind": problem.kind, "text": problem.text} for problem in answer.problems],
        "truncated": answer.truncated,
    }


def _name_missing(found: Answered, files: Sequence[str], share: Part) -> str:
    """The parts with images that nobody has answered, and how many of them; "" where there are none."""
    lacking = [files[place] for place in np.flatnonzero(found.which < 0).tolist()]
    counts = Counter(share_out(lacking, share.of).tolist())
    return name_some((f"part {n}/{share.of} ({counts[n]:,} images)" for n in sorted(counts)), limit=20)


def _require_answered(found: Answered, own: Bool[np.ndarray, " n"], written: Path) -> None:
    """Raises DataError that names the images that could not be answered."""
    failed = np.flatnonzero(found.failed & own)
    if len(failed):
        named = [f"{row['file']}: {row['error']}" for row in found.rows(failed[:3])]
        more = f" and {len(failed) - 3:,} more" if len(failed) > 3 else ""
        raise DataError(
            f"{len(failed):,} of {int(own.sum()):,} images have no answer; the others are in {written}",
            where=", ".join(named) + more,
            fix="mend or remove those that cannot be opened; all are asked again by the same command",
        )
