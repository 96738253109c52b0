"""What the format of the frozen base costs in quality: the embedded model tuned on the same data on each of them.

    python bench/base_formats.py DATA [formats=none,nf4,fp8] [seeds=3] [key=value ...]

DATA is any data set; further words are settings of the runs (epochs=3, data.limit=80, ...). The table has the
validation loss of the base, that of the best adapter, and the mean IoU on the scored split, as means over the seeds
with their spread (largest less smallest). On a CPU the values of nf4 and fp8 are those of a GPU, computed in fp32.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import boxtune
from boxtune.config import parse_pairs
from boxtune.finetune.checkpoints import read_metrics


def measure(data: str, quantization: str, seed: int, runs: Path, settings: dict[str, Any]) -> tuple[float, ...]:
    """Validation loss at first and at best, and mean IoU, of one run."""
    known = {"eval.base": False, "guard.mode": "off", "epochs": 3, "quantization": quantization, "seed": seed}
    run = boxtune.train(model="tiny", data=data, runs=str(runs), name=f"{quantization}-{seed}", **{**known, **settings})
    losses = [row["eval_loss"] for row in read_metrics(run.folder.metrics) if "eval_loss" in row]
    return losses[0], min(losses), run.scores["tuned"]["mean_iou"]


def main() -> None:
    """Print the table."""
    (data,), settings = parse_pairs(sys.argv[1:])
    formats, seeds = str(settings.pop("formats", "none,nf4,fp8")).split(","), int(settings.pop("seeds", 3))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for quantization in formats:
            found = [measure(data, quantization, seed, Path(name), settings) for seed in range(seeds)]
            rows.append((quantization, list(zip(*found, strict=True))))
    print(f"\n{'base':8}" + "".join(f"{what:>26}" for what in ("loss at first", "best loss", "mean IoU")))
    for quantization, columns in rows:
        told = [f"{statistics.mean(column):.4f} ({max(column) - min(column):.4f})" for column in columns]
        print(f"{quantization:8}" + "".join(f"{cell:>26}" for cell in told))


if __name__ == "__main__":
    main()
