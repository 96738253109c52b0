"""What the embedded model finds, untuned, on scenes that it was never trained on.

    python bench/tiny_scenes.py [num=200] [quantization=none] [folder=DIR]
    python bench/tiny_scenes.py logs=LOG[,LOG] hardware=TEXT     writes the card of the shipped weights

LOG is the log.json of a pre-training, of all in order where one went on from another (from its weights before the
rate fell, so what it did after that is counted but not in the next). The last row of a log counts:
up to a hundred steps that came after it are not in the card.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from boxtune.config import parse_pairs
from boxtune.data import Sample
from boxtune.finetune import build_encoder, choose_placement, find_model, load_base
from boxtune.infer import LocalEngine, answer_images
from boxtune.measure import Prediction, score_predictions
from boxtune.tiny.card import write_card
from boxtune.tiny.exam import draw_questions
from boxtune.tiny.model import DEFAULTS, model_folder
from boxtune.tiny.scenes import NAMES


def score_scenes(
    num: int = 200, *, quantization: str = "none", max_objects: int = 4, folder: Path | None = None
) -> dict[str, Any]:
    """The scores of the weights in `folder` (the shipped ones by default) on the first `num` questions, asked in
    batches of 16."""
    questions = draw_questions(num, max_objects=max_objects)
    placement = choose_placement(quantization, "auto")
    loaded = load_base(
        find_model(model_folder() if folder is None else folder),
        placement,
        min_pixels=DEFAULTS.min_pixels,
        max_pixels=DEFAULTS.max_pixels,
    )
    answers = answer_images(
        LocalEngine(loaded=loaded, encoder=build_encoder(loaded, NAMES), max_new_tokens=64 * max_objects, at_once=16),
        [partial(lambda image: image, question.image) for question in questions],
        sizes=[question.image.size for question in questions],
        classes=[question.asked for question in questions],
    )
    samples, predictions = [], []
    for number, (question, said) in enumerate(zip(questions, answers, strict=True)):
        none = np.zeros(len(question.boxes), dtype=bool)
        samples.append(
            Sample(
                image=Path(f"scene {number}"),
                image_id=number,
                size_wh=question.image.size,
                boxes=question.boxes,
                crowd=none,
                ignore=none,
            )
        )
        predictions.append(
            Prediction(
                image_id=number, boxes=said.boxes, text=said.text, problems=said.problems, truncated=said.truncated
            )
        )
    return score_predictions(samples, predictions, NAMES)


def make_card(logs: list[Path], hardware: str) -> None:
    """Score the shipped weights and write their card."""
    parts = []
    for path in logs:
        log = json.loads(path.read_text(encoding="utf-8"))
        last = log["log"][-1]
        told = {key: value for key, value in log["plan"].items() if key not in PLANNED}
        parts.append({"steps": last["step"], "minutes": round(last["seconds"] / 60, 1), "loss": last["loss"], **told})
    scores = {}
    for name, asked in CARD_SCORES.items():
        found = score_scenes(**asked)
        scores[name] = {key: found[key] for key in ("mean_iou", "recall", "precision", "parse_failure_rate")}
    made = {
        "what": "Qwen2-VL of 8.7 million parameters, trained from scratch on drawn scenes (boxtune.tiny.pretrain)",
        "data": (
            f"drawn scenes alone, {len(NAMES)} names and made-up ones for single drawings; no photograph, no data set, "
            "no other model"
        ),
        "license": "Apache-2.0",
        "hardware": hardware,
        "images": sum(part["steps"] * part["batch"] for part in parts),
        "parts": parts,
    }
    write_card(model_folder(), made, scores)


PLANNED = ("out", "start", "device", "compiled", "steps", "minutes")
"""What a plan says of the machine, and bounds that were not reached."""
CARD_SCORES: dict[str, dict[str, Any]] = {
    "200 scenes": {"num": 200},
    "200 scenes, NF4": {"num": 200, "quantization": "nf4"},
    "first 40 scenes": {"num": 40},
}


if __name__ == "__main__":
    _, options = parse_pairs(sys.argv[1:])
    if "logs" in options:
        make_card([Path(log) for log in options["logs"].split(",")], options["hardware"])
        sys.exit()
    if "folder" in options:
        options["folder"] = Path(options["folder"])
    started = time.perf_counter()
    found = score_scenes(**options)
    print(
        f"{found['num_images']} scenes, {found['num_truth']} boxes: mean IoU {found['mean_iou']:.3f}, "
        f"recall at 0.5 {found['recall']:.3f}, precision {found['precision']:.3f}, "
        f"answers that do not parse {found['parse_failure_rate']:.3f} ({time.perf_counter() - started:.0f} s)"
    )
