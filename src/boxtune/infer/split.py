"""A model's answers to the images of a split, shared among the ranks of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tqdm import tqdm

from boxtune.data import Sample, open_image
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Loaded
from boxtune.finetune.ranks import is_first
from boxtune.infer.generate import Answer
from boxtune.infer.tiled import answer_images


def answer_split(
    loaded: Loaded,
    encoder: Encoder,
    samples: Sequence[Sample],
    *,
    max_new_tokens: int,
    at_once: int,
    what: str,
    watch: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """One answer for each sample, on every rank, with a bar named `what` over the images.

    `watch` is called as answers come. Several ranks share the batches; the answers are those of one. The truth is never
    seen here.
    """

    def tell(num: int) -> None:
        bar.update(num)
        watch()

    with tqdm(total=len(samples), unit="image", desc=what, dynamic_ncols=True, disable=not is_first()) as bar:
        answers = answer_images(
            loaded,
            encoder,
            [partial(open_image, sample.image) for sample in samples],
            sizes=[sample.size_wh for sample in samples],
            max_new_tokens=max_new_tokens,
            at_once=at_once,
            progress=tell,
            over_ranks=True,
        )
        bar.update(len(samples) - bar.n)
    return answers
