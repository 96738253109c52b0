"""A tuned model ready to use: everything that prediction must repeat is taken from the run card beside the adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL.Image import Image

from boxtune.artifacts import RUN_CARD, RunFolder, read_json
from boxtune.boxes import Boxes
from boxtune.data import open_image
from boxtune.data.tiles import Tiling
from boxtune.errors import ConfigError, DataError, ModelError
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Placement, build_encoder, choose_placement, load_base
from boxtune.finetune.reload import load_adapter
from boxtune.finetune.source import ModelSource, fingerprint
from boxtune.infer.answer import Answer
from boxtune.infer.confidence import Calibration
from boxtune.infer.engine import Engine, Opener, require_shape
from boxtune.infer.generate import LocalEngine
from boxtune.infer.selection import Selection
from boxtune.infer.tiled import answer_images

Picture = str | Path | Image | np.ndarray
Threshold = float | Literal["best"] | None


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A model with its prompt, grammar and image budget bound. Made by `boxtune.load`."""

    engine: Engine
    best: float | None = None
    """The threshold of best F1 that was chosen on validation images, where one was."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names it was trained to find."""
        return self.engine.classes

    @overload
    def predict(self, source: Picture, threshold: Threshold = None) -> Boxes: ...
    @overload
    def predict(self, source: list[Picture], threshold: Threshold = None) -> list[Boxes]: ...
    def predict(self, source: Any, threshold: Threshold = None) -> Any:
        """Boxes of an image (path, PIL image or array of height x width x 3), or a list of them for a list.

        Pixels are those of the upright original. `threshold` gives all boxes of at least that score, also those
        that the model holds for possible and did not say; "best" is that of best F1 on validation images. DataError
        names an image that cannot be opened, ConfigError says that no threshold was chosen.
        """
        least = self.least(threshold)
        many = isinstance(source, list | tuple)
        answers = self.answer(source if many else [source])
        boxes = [at_least(answer, least) for answer in answers]
        return boxes if many else boxes[0]

    def least(self, threshold: Threshold) -> float | None:
        """The threshold as a number; ConfigError for "best" where none was chosen."""
        if threshold != "best":
            return threshold
        if self.best is None:
            fix = "give a number from 0 to 1, or none for the boxes that the model says"
            raise ConfigError("no threshold was chosen for this model", where="threshold=best", fix=fix)
        return self.best

    def answer(self, sources: Sequence[Picture]) -> list[Answer]:
        """The full answers: text, boxes, problems. DataError names an image that cannot be answered."""
        images = [open_image(Path(source) if isinstance(source, str) else source) for source in sources]
        for number, (source, image) in enumerate(zip(sources, images, strict=True), start=1):
            named = source if isinstance(source, str | Path) else getattr(source, "filename", "") or f"image {number}"
            require_shape(self.engine, image.size, str(named))
        openers: list[Opener] = [partial(_itself, image) for image in images]
        return answer_images(self.engine, openers, sizes=[image.size for image in images])


def _itself(image: Image) -> Image:
    return image


def at_least(answer: Answer, threshold: float | None) -> Boxes:
    """The boxes that the model said; with a threshold all that have at least that score, said or not."""
    if threshold is None:
        return answer.boxes
    found = answer.everything
    return found if found.scores is None else found.take(found.scores >= threshold)


def load_predictor(path: str | Path, find_source: Callable[[str, str], ModelSource]) -> Predictor:
    """The tuned model of a run folder or of an adapter folder; `find_source` finds the base by name and
    family of the card.

    Raises DataError where there is no adapter, ModelError where the base is another than it was trained on.
    """
    folder, card = read_card(path)
    source = find_source(card["model"], card["family"])
    if fingerprint(source.folder) != card["base_fingerprint"]:
        raise ModelError(
            "the base model's weights are not the ones the adapter was trained on",
            where=str(source.folder),
            fix=f"put back the weights of {card['model']} as they were, or train again",
        )
    placement = _place(card["quantization"], card["precision"])
    # Cards of older versions know neither towers trained in full, nor descriptions, nor tiles.
    full = card.get("full_towers", ())
    loaded = load_base(source, placement, min_pixels=card["min_pixels"], max_pixels=card["max_pixels"], full=full)
    tiling = None if card.get("tiling") is None else Tiling(**card["tiling"])
    encoder = build_encoder(loaded, card["classes"], card.get("descriptions"), tiling)
    require_prompt(encoder, folder, card)
    tuned = loaded.with_model(load_adapter(loaded.model, folder))
    engine = LocalEngine(
        loaded=tuned,
        encoder=encoder,
        max_new_tokens=card["max_new_tokens"],
        calibration=Calibration.from_card(card),
        selection=Selection.from_card(card),
    )
    return Predictor(engine=engine, best=best_of(card))


def read_card(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The adapter folder of a run folder, or the adapter folder that it is, and its run card; DataError if neither."""
    folder = RunFolder(path=Path(path)).adapter if RunFolder(path=Path(path)).adapter.is_dir() else Path(path)
    if not (folder / RUN_CARD).is_file():
        raise DataError(
            f"there is no adapter of boxtune's ({RUN_CARD} is missing)",
            where=str(folder),
            fix="give the folder of a finished run, or an adapter/ folder inside one",
        )
    return folder, read_json(folder / RUN_CARD)


def best_of(card: dict[str, Any]) -> float | None:
    """The threshold of best F1 that a run card holds."""
    value = (card.get("threshold") or {}).get("value")
    return None if value is None else float(value)


def require_prompt(encoder: Encoder, folder: Path, card: dict[str, Any]) -> None:
    """Raises ModelError where this version asks otherwise than the adapter of that folder was trained."""
    if encoder.prompt(encoder.classes, "") != card["prompt"]:
        raise ModelError(
            "this version of boxtune asks with another prompt than the adapter was trained with",
            where=str(folder / RUN_CARD),
            fix=f"use boxtune {card['versions']['boxtune']}",
        )


def _place(quantization: str, precision: str) -> Placement:
    """As it was trained; where this machine cannot compute so, as it can, and that is said."""
    try:
        return choose_placement(quantization, precision)
    except ModelError:
        placement = choose_placement(quantization, "auto")
        print(f"trained in {precision}, which this machine cannot do: predicting in {placement.precision}", flush=True)
        return placement
