"""Scenes that the embedded model was never trained on, each with the names to ask for."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from boxtune.boxes import Boxes
from boxtune.tiny.lessons import MAX_ASKED
from boxtune.tiny.scenes import NAMES, SceneMaker

SEED = 1_000_000_007
"""Far from every seed that pre-training draws its scenes from."""
SIDE = 336


@dataclass(frozen=True, kw_only=True)
class Question:
    """A picture, the names asked for in the order asked, and every box that bears one of them, in pixels."""

    image: Image.Image
    asked: tuple[str, ...]
    boxes: Boxes


def draw_questions(num: int, *, max_objects: int = 4, seed: int = SEED) -> list[Question]:
    """`num` scenes of SIDE x SIDE pixels with one to `max_objects` boxes, asked for all names they bear.

    The names come in random order. Scenes without a box, and those with more names than were ever asked for at once,
    are passed over.
    """
    maker, questions, drawn = SceneMaker(side=SIDE), list[Question](), 0
    shuffle = random.Random(seed)
    while len(questions) < num:
        scenes = maker.draw(seed + drawn, 64, max_objects=max_objects)
        drawn += 1
        for pixels, boxes, labels in zip(scenes.images, scenes.boxes_px, scenes.labels, strict=True):
            there = labels >= 0
            names = tuple(NAMES[int(label)] for label in labels[there])
            asked = list(dict.fromkeys(names))
            if not 1 <= len(asked) <= MAX_ASKED:
                continue
            shuffle.shuffle(asked)
            questions.append(
                Question(
                    image=Image.fromarray(pixels.permute(1, 2, 0).numpy()),
                    asked=tuple(asked),
                    boxes=Boxes(xyxy_px=boxes[there].double().numpy(), labels=names),
                )
            )
    return questions[:num]
