"""A model's answers to the images of a split, shared among the ranks of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tqdm import tqdm

from boxtune.data import Sample
from boxtune.data.tiles import open_sample
from boxtune.families import Said
from boxtune.finetune.ranks import is_first
from boxtune.infer.answer import Answer
from boxtune.infer.engine import Engine
from boxtune.infer.tiled import answer_images

NUM_FREELY = 32
"""Images that are also asked without a guide: a share of failures is then known to 0.09 at worst (one standard error),
and to 0.03 where one in thirty fails."""


def answer_split(
    engine: Engine,
    samples: Sequence[Sample],
    *,
    what: str | None,
    watch: Callable[[], None] = lambda: None,
    num_freely: int = NUM_FREELY,
) -> list[Answer]:
    """One answer for each sample, on every rank, with a bar named `what` over the images, or without one.

    `watch` is called as answers come. Several ranks share the batches; the answers are those of one. The truth is never
    seen here. `num_freely` of the images, evenly from all, are asked without a guide too (`Answer.freely`): a guide
    writes nothing but boxes, whatever the model has learned.
    """

    def ask(which: Sequence[int], bar: Any, *, freely: bool) -> list[Answer]:
        def tell(num: int) -> None:
            bar.update(num)
            watch()

        before = bar.n
        answers = answer_images(
            engine,
            [partial(open_sample, samples[i]) for i in which],
            sizes=[samples[i].size_wh for i in which],
            progress=tell,
            over_ranks=True,
            freely=freely,
        )
        bar.update(before + len(which) - bar.n)
        return answers

    num = min(num_freely, len(samples))
    some = [place * len(samples) // num for place in range(num)]
    silent = what is None or not is_first()
    with tqdm(total=len(samples) + num, unit="image", desc=what, dynamic_ncols=True, disable=silent) as bar:
        answers = ask(range(len(samples)), bar, freely=False)
        for i, said in zip(some, ask(some, bar, freely=True), strict=True):
            seen = Said(text=said.text, problems=said.problems, truncated=said.truncated)
            answers[i] = replace(answers[i], freely=seen)
    return answers
