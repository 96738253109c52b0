"""Whether batches change what a tuned model says: texts and average precision, one by one and sixteen at a time.

    python bench/batched_answers.py RUN [num=40]

Asks the first `num` images of the scored split of the run, in NF4 and without quantisation, in bf16 and fp32, and
prints a line for each.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import boxtune
from boxtune.artifacts import RUN_CARD
from boxtune.config import read_settings
from boxtune.data import prepare_data
from boxtune.data.tiles import open_sample
from boxtune.infer import answer_images
from boxtune.measure import average_precision


def main(run: Path, num: int) -> None:
    """Ask, compare and print."""
    settings = read_settings(run / "recipe.yaml", {}).settings
    dataset = prepare_data(settings.data, seed=settings.seed)
    samples = list(dataset.splits[settings.data.split])[:num]
    openers, sizes = [partial(open_sample, sample) for sample in samples], [sample.size_wh for sample in samples]
    for quantization, precision in (("none", "fp32"), ("none", "bf16"), ("nf4", "bf16")):
        with tempfile.TemporaryDirectory() as folder:
            adapter = Path(shutil.copytree(run / "adapter", Path(folder) / "adapter"))
            card = json.loads((adapter / RUN_CARD).read_text())
            changed = {**card, "quantization": quantization, "precision": precision}
            (adapter / RUN_CARD).write_text(json.dumps(changed))
            engine = boxtune.load(adapter).engine
        told, texts = [], []
        for at_once in (1, 16):
            said = answer_images(replace(engine, at_once=at_once), openers, sizes=sizes)
            boxes = {sample.image_id: answer.everything for sample, answer in zip(samples, said, strict=True)}
            scores = average_precision(samples, boxes, dataset.classes)
            told.append(f"{at_once} at a time: AP {scores['map']:.4f}, AP50 {scores['map50']:.4f}")
            texts.append([answer.text for answer in said])
        same = sum(one == other for one, other in zip(*texts, strict=True))
        print(f"{quantization} {precision}: {'; '.join(told)}; {same} of {len(samples)} texts the same", flush=True)


if __name__ == "__main__":
    asked = dict(word.split("=", 1) for word in sys.argv[2:])
    main(Path(sys.argv[1]), int(asked.get("num", 40)))
