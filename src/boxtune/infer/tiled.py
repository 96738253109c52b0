"""Answers for whole images, tile by tile where the model was tuned on tiles: the same tiles, and boxes joined again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from PIL.Image import Image

from boxtune.boxes import join_boxes, repeated
from boxtune.data.tiles import Tile, Tiling, open_tiles, tile_windows
from boxtune.data.tiles_merge import merge_tiles
from boxtune.errors import DataError
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Loaded
from boxtune.finetune.ranks import gather, num_ranks, rank
from boxtune.infer.generate import SAME, Answer, iter_answers


def answer_images(
    loaded: Loaded,
    encoder: Encoder,
    images: Sequence[Callable[[], Image]],
    *,
    sizes: Sequence[tuple[int, int]],
    max_new_tokens: int,
    at_once: int,
    classes: Sequence[Sequence[str]] | None = None,
    progress: Callable[[int], None] = lambda done: None,
    over_ranks: bool = False,
    freely: bool = False,
) -> list[Answer]:
    """One answer for each image, in the order given; `progress` is told of each.

    `images` open an upright RGB image when called, `sizes` are their (width, height); images of like length are
    answered together. Each image is asked for its own of `classes`, or for all those of the encoder. An image that
    cannot be opened raises: nobody's answer is ever made up. With `over_ranks` every rank answers its share of the
    batches, of which `progress` is told, and gets all the answers: to the letter those of one process. `freely` asks
    without a guide.
    """
    if over_ranks and num_ranks() > 1:
        return _answer_over_ranks(
            loaded,
            encoder,
            images,
            sizes=sizes,
            max_new_tokens=max_new_tokens,
            at_once=at_once,
            classes=classes,
            progress=progress,
            freely=freely,
        )
    answers: dict[int, Answer] = {}
    for i, answer in iter_images(
        loaded,
        encoder,
        images,
        sizes=sizes,
        max_new_tokens=max_new_tokens,
        at_once=at_once,
        classes=classes,
        freely=freely,
    ):
        if isinstance(answer, DataError):
            raise answer
        answers[i] = answer
        progress(1)
    return [answers[i] for i in range(len(images))]


def _answer_over_ranks(
    loaded: Loaded,
    encoder: Encoder,
    images: Sequence[Callable[[], Image]],
    *,
    sizes: Sequence[tuple[int, int]],
    max_new_tokens: int,
    at_once: int,
    classes: Sequence[Sequence[str]] | None,
    progress: Callable[[int], None],
    freely: bool,
) -> list[Answer]:
    """See `answer_images`; tiles of one image may be answered on several ranks, and are joined on each."""
    tiling = encoder.tiling
    if tiling is None:
        owners, openers = list(range(len(images))), list(images)
    else:
        windows, owners, openers = _cut(images, sizes, tiling)
        sizes = [(right - x, bottom - y) for x, y, right, bottom in windows]
    own: dict[int, Answer] = {}
    for at, answer in iter_answers(
        loaded,
        encoder,
        openers,
        sizes=sizes,
        max_new_tokens=max_new_tokens,
        at_once=at_once,
        classes=None if classes is None else [classes[owner] for owner in owners],
        part=(rank(), num_ranks()),
        freely=freely,
    ):
        if isinstance(answer, DataError):
            raise answer
        own[at] = answer
        # How many images a share of tiles makes is known once they are joined.
        progress(1 if tiling is None else 0)
    answers = {at: answer for each in gather(own) for at, answer in each.items()}
    if tiling is None:
        return [answers[at] for at in range(len(images))]
    by_owner: dict[int, dict[int, Answer]] = {}
    for at, answer in sorted(answers.items()):
        by_owner.setdefault(owners[at], {})[at] = answer
    return [_join_sound(by_owner[owner], windows) for owner in range(len(images))]


def iter_images(
    loaded: Loaded,
    encoder: Encoder,
    images: Sequence[Callable[[], Image]],
    *,
    sizes: Sequence[tuple[int, int]],
    max_new_tokens: int,
    at_once: int,
    classes: Sequence[Sequence[str]] | None = None,
    freely: bool = False,
) -> Iterator[tuple[int, Answer | DataError]]:
    """(place, answer) of every image as soon as it is done; see `iter_answers`.

    With tiles (`encoder.tiling`) the answer's text is that of all its tiles, one in a line, its problems are theirs,
    and it is truncated if one of them is.
    """
    if encoder.tiling is None:
        yield from iter_answers(
            loaded,
            encoder,
            images,
            sizes=sizes,
            max_new_tokens=max_new_tokens,
            at_once=at_once,
            classes=classes,
            freely=freely,
        )
        return
    windows, owners, openers = _cut(images, sizes, encoder.tiling)
    left = Counter(owners)
    found: dict[int, dict[int, Answer | DataError]] = {}
    for at, answer in iter_answers(
        loaded,
        encoder,
        openers,
        sizes=[(right - x, bottom - y) for x, y, right, bottom in windows],
        max_new_tokens=max_new_tokens,
        at_once=at_once,
        classes=None if classes is None else [classes[owner] for owner in owners],
        freely=freely,
    ):
        owner = owners[at]
        found.setdefault(owner, {})[at] = answer
        left[owner] -= 1
        if not left[owner]:
            yield owner, _join(found.pop(owner), windows)


def _cut(
    images: Sequence[Callable[[], Image]], sizes: Sequence[tuple[int, int]], tiling: Tiling
) -> tuple[list[Tile], list[int], list[Callable[[], Image]]]:
    """Every tile of every image: its window, the place of its image, and what opens it."""
    windows: list[Tile] = []
    owners: list[int] = []
    openers: list[Callable[[], Image]] = []
    for place, (open_whole, size_wh) in enumerate(zip(images, sizes, strict=True)):
        own = tile_windows(size_wh, tiling)
        windows += own
        owners += [place] * len(own)
        openers += open_tiles(open_whole, own)
    return windows, owners, openers


def _join(answers: dict[int, Answer | DataError], windows: Sequence[Tile]) -> Answer | DataError:
    sound: dict[int, Answer] = {}
    for at, answer in sorted(answers.items()):
        if isinstance(answer, DataError):
            return answer
        sound[at] = answer
    return _join_sound(sound, windows)


def _join_sound(answers: dict[int, Answer], windows: Sequence[Tile]) -> Answer:
    parts = [(windows[at], answer) for at, answer in sorted(answers.items())]
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
