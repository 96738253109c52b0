"""Answers for whole images, tile by tile where the model was tuned on tiles: the same tiles, and boxes joined again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from boxtune.boxes import join_boxes, repeated
from boxtune.data.tiles import Tile, open_tiles, tile_windows
from boxtune.data.tiles_merge import merge_tiles
from boxtune.errors import DataError
from boxtune.finetune.ranks import gather, num_ranks, rank
from boxtune.infer.answer import Answer
from boxtune.infer.engine import Engine, Opener
from boxtune.infer.generate import SAME


def answer_images(
    engine: Engine,
    images: Sequence[Opener],
    *,
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[Sequence[str]] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    over_ranks: bool = False,
    freely: bool = False,
) -> list[Answer]:
    """One answer for each image, in the order given; `progress` is told of each.

    See `Engine.iter_answers`. An image that cannot be opened or answered raises: nobody's answer is ever made up. With
    `over_ranks` every rank answers its share of the batches, of which `progress` is told, and gets all the answers: to
    the letter those of one process.
    """
    if over_ranks and num_ranks() > 1:
        return _answer_over_ranks(engine, _cut(engine, images, sizes, classes), progress, freely=freely)
    answers: dict[int, Answer] = {}
    for i, answer in iter_images(engine, images, sizes=sizes, classes=classes, freely=freely):
        if isinstance(answer, DataError):
            raise answer
        answers[i] = answer
        progress(1)
    return [answers[i] for i in range(len(images))]


def _answer_over_ranks(engine: Engine, cut: Cut, progress: Callable[[int], None], *, freely: bool) -> list[Answer]:
    """See `answer_images`; tiles of one image may be answered on several ranks, and are joined on each."""
    own: dict[int, Answer] = {}
    for at, answer in cut.ask(engine, part=(rank(), num_ranks()), freely=freely):
        if isinstance(answer, DataError):
            raise answer
        own[at] = answer
        # How many images a share of tiles makes is known once they are joined.
        progress(1 if engine.tiling is None else 0)
    answers = {at: answer for each in gather(own) for at, answer in each.items()}
    by_owner: dict[int, dict[int, Answer]] = {owner: {} for owner in cut.owners}
    for at, answer in sorted(answers.items()):
        by_owner[cut.owners[at]][at] = answer
    return [engine.selection.of(_join_sound(by_owner[owner], cut)) for owner in sorted(by_owner)]


def iter_images(
    engine: Engine,
    images: Sequence[Opener],
    *,
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[Sequence[str]] | None = None,
    freely: bool = False,
) -> Iterator[tuple[int, Answer | DataError]]:
    """(place, answer) of every image as soon as it is done; see `Engine.iter_answers`.

    With tiles (`Engine.tiling`) the answer's text is that of all its tiles, one in a line, its problems are theirs,
    and it is truncated if one of them is.
    """
    cut = _cut(engine, images, sizes, classes)
    left = Counter(cut.owners)
    found: dict[int, dict[int, Answer | DataError]] = {}
    for at, answer in cut.ask(engine, freely=freely):
        owner = cut.owners[at]
        found.setdefault(owner, {})[at] = answer
        left[owner] -= 1
        if not left[owner]:
            joined = _join(found.pop(owner), cut)
            yield owner, joined if isinstance(joined, DataError) else engine.selection.of(joined)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What is shown of several images, one by one: their tiles, or themselves.

    `owners` are the places of their images, `windows` where they lie in them; None where images are not cut.
    """

    owners: list[int]
    openers: list[Opener]
    sizes: list[tuple[int, int]]
    classes: list[Sequence[str]] | None
    windows: list[Tile] | None

    def ask(self, engine: Engine, **how: Any) -> Iterator[tuple[int, Answer | DataError]]:
        """(place, answer) of each."""
        return engine.iter_answers(self.openers, sizes=self.sizes, classes=self.classes, **how)


def _cut(
    engine: Engine,
    images: Sequence[Opener],
    sizes: Sequence[tuple[int, int]],
    classes: Sequence[Sequence[str]] | None,
) -> Cut:
    owners, openers, seen, windows = list(range(len(images))), list(images), list(sizes), None
    if engine.tiling is not None:
        tiles = [tile_windows(size_wh, engine.tiling) for size_wh in sizes]
        owners = [place for place, own in enumerate(tiles) for _ in own]
        openers = [opener for whole, own in zip(images, tiles, strict=True) for opener in open_tiles(whole, own)]
        windows = [window for own in tiles for window in own]
        seen = [(right - x, bottom - y) for x, y, right, bottom in windows]
    asked = None if classes is None else [classes[owner] for owner in owners]
    return Cut(owners=owners, openers=openers, sizes=seen, classes=asked, windows=windows)


def _join(answers: dict[int, Answer | DataError], cut: Cut) -> Answer | DataError:
    sound: dict[int, Answer] = {}
    for at, answer in sorted(answers.items()):
        if isinstance(answer, DataError):
            return answer
        sound[at] = answer
    return _join_sound(sound, cut)


def _join_sound(answers: dict[int, Answer], cut: Cut) -> Answer:
    if cut.windows is None:
        (alone,) = answers.values()
        return alone
    parts = [(cut.windows[at], answer) for at, answer in sorted(answers.items())]
    boxes, further = (
        merge_tiles([(window, found) for (window, _), found in zip(parts, side, strict=True)])
        for side in ([answer.boxes for _, answer in parts], [answer.further for _, answer in parts])
    )
    return Answer(
        text="\n".join(answer.text for _, answer in parts),
        boxes=boxes,
        further=further.take(~repeated(join_boxes([boxes, further]), threshold=SAME)[len(boxes) :]),
        problems=tuple(problem for _, answer in parts for problem in answer.problems),
        truncated=any(answer.truncated for _, answer in parts),
        looped=any(answer.looped for _, answer in parts),
    )
