"""ms-swift's `objects` beside a conversation -> boxes, each with the name that the text gives it.

The text holds <ref-object> for the next name and <bbox> for the next box, in the order of the lists. An older form is a
list of {"caption", "bbox", "bbox_type", "image"}.
Source: docs/source_en/Customization/Custom-dataset.md of modelscope/ms-swift, Grounding
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from boxtune.data.formats.chat_dialects import Box, Four
from boxtune.data.formats.chat_labels import label_in_question
from boxtune.data.formats.chat_records import Chat, Turn
from boxtune.data.formats.json_files import is_finite
from boxtune.errors import DataError

_UNITS = {"real": "px", "norm1": "unit", "norm1000": "bin1000"}
_SPOT = re.compile(r"<ref-object>|<bbox>")
_NAME_BEHIND = re.compile(r"<bbox>[\]\s]*,\s*\"label\"\s*:\s*\"((?:[^\"\\]|\\.)*)\"")
_NAME_BEFORE = re.compile(r"\"label\"\s*:\s*\"((?:[^\"\\]|\\.)*)\"\s*,\s*\"\w+\"\s*:\s*\[*$")
_TAG_BEFORE = re.compile(
    r"(?:<\|object_ref_start\|>|<ref>)([^<]+)(?:<\|object_ref_end\|>|</ref>)(?:<\|box_start\|>|<box>)?\s*$"
)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A box and the place of its picture among those of the conversation."""

    box: Box
    image: int


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The boxes of a conversation's `objects`, and how many points stand among them."""

    boxes: tuple[Placed, ...]
    num_points: int


def read_objects(chat: Chat) -> Objects | None:
    """The boxes in `objects`; None if the conversation has no `objects`.

    Raises DataError with the place of the conversation if a box is neither four finite numbers nor a point, if its
    type is unknown, if its picture is not there, or if names or boxes are not as many as their spots in the text.
    """
    said = chat.objects
    if isinstance(said, str):
        try:
            said = msgspec.json.decode(said.encode()) if said.strip() else None
        except msgspec.DecodeError as problem:
            raise _broken(chat, f"objects is text that is no JSON: {problem}") from problem
    if said is None:
        return None
    if isinstance(said, list):
        rows = list(_older(chat, said))
    elif isinstance(said, Mapping):
        rows = list(_newer(chat, said)) if said.get("bbox") is not None else []
    else:
        raise _broken(chat, f"objects is {said!r}")
    boxes = [_placed(chat, *row) for row in rows]
    return Objects(boxes=tuple(box for box in boxes if box is not None), num_points=boxes.count(None))


def _older(chat: Chat, said: list[Any]) -> Iterator[tuple[str | None, Any, str, Any]]:
    for one in said:
        if not isinstance(one, Mapping) or "bbox" not in one:
            raise _broken(chat, f"objects holds {one!r}")
        boxes = one["bbox"]
        several = isinstance(boxes, list) and bool(boxes) and all(isinstance(box, list) for box in boxes)
        for box in boxes if several else [boxes]:
            yield one.get("caption"), box, one.get("bbox_type") or "real", one.get("image") or 0


def _newer(chat: Chat, said: Mapping[str, Any]) -> Iterator[tuple[str | None, Any, str, Any]]:
    boxes, names, images = said["bbox"], said.get("ref") or [], said.get("image_id")
    if not isinstance(boxes, list) or not isinstance(names, list):
        raise _broken(chat, "objects.ref and objects.bbox are no lists")
    images = images if isinstance(images, list) else [images or 0] * len(boxes)
    if len(images) != len(boxes):
        raise _broken(chat, f"there are {len(boxes)} bbox but {len(images)} image_id")
    labels = _names(chat, [str(name) for name in names], len(boxes))
    for label, box, image in zip(labels, boxes, images, strict=True):
        yield label, box, said.get("bbox_type") or "real", image


def _names(chat: Chat, names: list[str], count: int) -> list[str | None]:
    """The name of each box, told by the spots in the text; by their places in the lists where the text has none."""
    texts = [text for turn in chat.turns for text in (turn.question, turn.answer)]
    spots = [spot for text in texts for spot in _SPOT.findall(text)]
    num_names, num_boxes = spots.count("<ref-object>"), spots.count("<bbox>")
    if not spots:
        return [*names] if len(names) == count else [names[0] if len(names) == 1 else None] * count
    if num_boxes != count or num_names not in (0, len(names)):
        raise _broken(
            chat,
            f"the text has spots for {num_names} names and {num_boxes} boxes, objects has {len(names)} and {count}",
        )
    left = iter(names)
    return [label for turn in chat.turns for label in _names_of_turn(turn, left)]


def _names_of_turn(turn: Turn, left: Iterator[str]) -> Iterator[str | None]:
    """The name of each box of a question and its answer; names are taken from `left` as the text has spots for them.

    As many names as boxes belong together, whichever stands first. Else a box has the last name before it, if the
    question does not name several, or the name that is written out beside it or in the question.
    """
    spots = _SPOT.findall(turn.question + turn.answer)
    if spots.count("<ref-object>") == spots.count("<bbox>"):
        yield from [next(left) for _ in range(spots.count("<bbox>"))]
        return
    last = None
    for text in (turn.question, turn.answer):
        found = [spot[0] for spot in _SPOT.finditer(text)]
        if found.count("<ref-object>") == found.count("<bbox>"):
            yield from [next(left) for _ in range(found.count("<bbox>"))]
            continue
        for spot in _SPOT.finditer(text):
            if spot[0] == "<ref-object>":
                last = next(left)
            else:
                yield last or _written(text, spot) or label_in_question(turn.question)
        last = last if found.count("<ref-object>") == 1 or text is turn.answer else None


def _written(text: str, spot: re.Match[str]) -> str | None:
    """The name that is written out beside the spot of a box, as in {"bbox_2d": <bbox>, "label": "cat"}."""
    behind, before = _NAME_BEHIND.match(text, spot.start()), _NAME_BEFORE.search(text[: spot.start()])
    if found := behind or before:
        return str(msgspec.json.decode(f'"{found[1]}"'.encode()))
    tagged = _TAG_BEFORE.search(text[: spot.start()])
    return tagged[1].strip() if tagged else None


def _placed(chat: Chat, label: str | None, box: Any, kind: Any, image: Any) -> Placed | None:
    """The box in its unit; None for a point."""
    unit = _UNITS.get(kind) if isinstance(kind, str) else None
    if unit is None:
        raise _broken(chat, f"bbox_type is {kind!r}; known are {', '.join(_UNITS)}")
    numbers = box if isinstance(box, list) else []
    if not all(map(is_finite, numbers)):
        raise _broken(chat, f"a bbox is {str(box)[:80]}, not finite numbers")
    if len(numbers) == 2:
        return None
    if len(numbers) != 4:
        raise _broken(chat, f"a bbox is {box!r}, not four numbers")
    if not isinstance(image, int) or not 0 <= image < len(chat.images):
        raise _broken(chat, f"a bbox is of image {image!r}, but there are {len(chat.images)}")
    four: Four = (float(numbers[0]), float(numbers[1]), float(numbers[2]), float(numbers[3]))
    return Placed(box=Box(label=label or None, numbers=four, unit=unit), image=image)


def _broken(chat: Chat, what: str) -> DataError:
    return DataError(what, where=chat.where, fix='write objects as {"ref": ["cat"], "bbox": [[x1, y1, x2, y2]]}')
