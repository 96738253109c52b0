"""Batches of answers shared among ranks: together they are those of one process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boxtune.data import open_image, read_dataset
from boxtune.data.tiles import Tiling
from boxtune.infer import Answer, LocalEngine, answer_images, tiled


def told(answer: Answer) -> tuple[Any, ...]:
    """All that an answer says, to be compared."""
    return answer.text, answer.boxes.xyxy_px.tolist(), answer.boxes.labels, answer.problems, answer.truncated


@pytest.fixture(scope="module")
def ask(tiny: Any, encoder: Any, squares: Path) -> Callable[..., list[Answer]]:
    samples = read_dataset(squares).splits["valid"]
    openers = [lambda path=sample.image: open_image(path) for sample in samples]  # type: ignore[misc]
    sizes = [sample.size_wh for sample in samples]

    def answer(*, tiles: bool = False, **more: Any) -> list[Answer]:
        own = copy.copy(encoder)
        own.tiling = Tiling(size=64, overlap=0.25, min_visible=0.4) if tiles else None
        engine = LocalEngine(loaded=tiny, encoder=own, max_new_tokens=4, at_once=2)
        return answer_images(engine, openers, sizes=sizes, **more)

    return answer


def test_parts_are_the_batches_of_the_whole(tiny: Any, encoder: Any, squares: Path) -> None:
    samples = read_dataset(squares).splits["valid"]
    openers = [lambda path=sample.image: open_image(path) for sample in samples]  # type: ignore[misc]
    engine = LocalEngine(loaded=tiny, encoder=encoder, max_new_tokens=4, at_once=2)
    sizes = [sample.size_wh for sample in samples]
    whole = dict(engine.iter_answers(openers, sizes=sizes))
    parts = [dict(engine.iter_answers(openers, sizes=sizes, part=(number, 2))) for number in range(2)]
    assert [sorted(part) for part in parts] == [[0, 1, 4, 5], [2, 3]]
    together = {**parts[0], **parts[1]}
    assert len(whole) == 6 and all(told(together[at]) == told(answer) for at, answer in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("num", [2, 4])
def test_every_rank_gets_all_answers(
    ask: Callable[..., list[Answer]], tiles: bool, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four ranks one has no batch without tiles."""
    alone = ask(tiles=tiles)
    here, all_here = threading.local(), threading.Barrier(num)
    shares: dict[int, Any] = {}
    got: dict[int, list[Answer]] = {}
    done: list[int] = []
    # The model is one and the same here, and generates for one rank at a time.
    turn = threading.Lock()

    def gather(own: Any) -> list[Any]:
        shares[here.rank] = own
        turn.release()
        all_here.wait(timeout=60)
        turn.acquire()
        return [shares[rank] for rank in range(num)]

    def work(rank: int) -> None:
        here.rank = rank
        with turn:
            got[rank] = ask(tiles=tiles, over_ranks=True, progress=done.append)

    for name, value in (("gather", gather), ("num_ranks", lambda: num), ("rank", lambda: here.rank)):
        monkeypatch.setattr(tiled, name, value)
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert sorted(got) == list(range(num))
    assert all([*map(told, answers)] == [*map(told, alone)] for answers in got.values())
    assert not set.intersection(*(set(share) for share in shares.values()))
    assert sum(done) == (0 if tiles else 6) and len(alone) == 6
