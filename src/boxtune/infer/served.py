"""A tuned model behind a server, ready to use: prompt, grammar and image budget are taken from the run card."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from boxtune.artifacts import RUN_CARD
from boxtune.data.tiles import Tiling
from boxtune.errors import ModelError
from boxtune.families import FAMILIES
from boxtune.finetune.chat import fit_family
from boxtune.finetune.encode import Encoder
from boxtune.finetune.pixels import load_image_processor
from boxtune.finetune.processors import FILES, build_processor
from boxtune.finetune.source import ModelSource
from boxtune.infer.confidence import Calibration
from boxtune.infer.http import HttpEngine
from boxtune.infer.http_turn import find_turn
from boxtune.infer.predictor import Predictor, best_of, read_card, require_prompt
from boxtune.infer.selection import Selection

KEY = "BOXTUNE_API_KEY"
"""The environment variable that a server's key is taken from. Not OPENAI_API_KEY: that is no key for any server."""


def load_served(
    run: str | Path,
    find_source: Callable[[str, str], ModelSource],
    *,
    urls: str | Sequence[str],
    served: str | None = None,
    api_key: str | None = None,
    at_once: int = 16,
) -> Predictor:
    """The tuned model of a run folder or of an adapter folder, as servers at `urls` serve it.

    `urls` is a list, or a text with commas between; `served` the name that the model has there; `api_key` is taken from
    BOXTUNE_API_KEY where it is not given; `at_once` requests go to each server at a time. Weights are not needed here:
    tokenizer and processor are those beside the adapter. `find_source` finds the base of a model whose files are not
    there, by name and family of the card. What a server cannot do is printed.

    Raises DataError where there is no adapter, ModelError where the model's chat template does not write the trained
    prompt, and what `HttpEngine.require_served` raises.
    """
    folder, card = read_card(run)
    encoder, source = build_reader(folder, card, find_source)
    require_prompt(encoder, folder, card)
    engine = HttpEngine(
        turn=find_turn(encoder, str(source)),
        urls=urls.split(",") if isinstance(urls, str) else urls,
        served=served,
        key=api_key or os.environ.get(KEY) or None,
        each=at_once,
        max_new_tokens=card["max_new_tokens"],
        calibration=Calibration.from_card(card),
        selection=Selection.from_card(card),
    )
    engine.require_served()
    for finding in engine.findings:
        print(finding, flush=True)
    return Predictor(engine=engine, best=best_of(card))


def build_reader(
    folder: Path, card: dict[str, Any], find_source: Callable[[str, str], ModelSource]
) -> tuple[Encoder, Path]:
    """The encoder of an adapter's model, without weights, and the folder that its tokenizer and processor are from."""
    from transformers import AutoConfig, AutoTokenizer

    family = FAMILIES.get(card["family"])
    if family is None:
        raise ModelError(
            f"there is no family {card['family']!r}",
            where=str(folder / RUN_CARD),
            fix=f"use boxtune {card['versions']['boxtune']}",
        )
    whole = all((folder / file).is_file() for file in ("tokenizer.json", FILES["image"]))
    if whole and family.knows_processor:
        # The files name their classes; nothing else of a config is asked for.
        source = ModelSource(ref=card["model"], folder=folder, family=family, config={"model_type": None})
    else:
        source = find_source(card["model"], card["family"])
    budget = card["min_pixels"], card["max_pixels"]
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, padding_side="right")
    except (OSError, ValueError) as error:
        what = f"the model's tokenizer cannot be used: {error}"
        raise ModelError(what, where=str(source.folder), fix="take another copy of the adapter folder") from error
    processor = build_processor(source, tokenizer, load_image_processor(source, *budget))
    if not family.knows_processor:
        config = AutoConfig.from_pretrained(source.folder)
        family = fit_family(source, processor, getattr(config, "image_token_id", None))
    tiling = None if card.get("tiling") is None else Tiling(**card["tiling"])
    encoder = Encoder(
        family=family,
        tokenizer=tokenizer,
        processor=processor,
        classes=card["classes"],
        min_pixels=budget[0],
        max_pixels=budget[1],
        descriptions=card.get("descriptions"),
        tiling=tiling,
    )
    return encoder, source.folder
