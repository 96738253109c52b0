"""What the guard costs: building with the tracer and without, the preflight, training steps with the callback and
without.

    python bench/guard_cost.py tiny                  the embedded model on the demo's packages, NF4 QLoRA, on the CPU
    python bench/guard_cost.py FOLDER                the shape of Qwen2-VL-7B (python bench/story.py make FOLDER)

In one run the callback is on for ten optimizer steps, off for the next ten, and so on: both see the same machine in
the same minutes. The first twenty steps, which the guard looks at closely, are counted apart. Not in it: the preflight
(said apart), and the sums of all weights that each evaluation takes.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from boxtune import guard
from boxtune.config import parse_pairs

BLOCK, CLOSE, TURNS = 10, 2, 5
"""Steps of a block, blocks that hold the steps looked at closely, and pairs of trainers that are built."""
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))


EVENTS = ("on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_step_end", "on_log")


class Switched(guard.LearningCallback):
    """The guard, on and off by turns; `blocks` are the seconds of each block of steps, `inside` those that were spent
    in the guard's own methods, in each block too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks: list[float] = []
        self.inside: list[float] = []
        for name in EVENTS:
            setattr(self, name, self._timed(getattr(self, name)))

    def _timed(self, call: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any, **kwargs: Any) -> None:
            num, started = len(self.marks), time.perf_counter()
            call(*args, **kwargs)
            # On a GPU a step that begins a block has waited for it first, which is not the guard's doing.
            if self.marks and (len(self.marks) == num or not torch.cuda.is_available()):
                self.inside[-1] += time.perf_counter() - started

        return timed

    @property
    def blocks(self) -> list[float]:
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % BLOCK == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())
            self.inside.append(0.0)
            number = state.global_step // BLOCK
            # The blocks of close steps are on; behind them every second one.
            self.begun = self.stepped = None
            self.mode = "stop" if number < CLOSE or number % 2 else "off"
        super().on_step_begin(args, state, control, **kwargs)


def measure_building(build: Callable[[], object]) -> list[tuple[float, float]]:
    """Seconds of loading a model and building its trainer, under the tracer and without, by turns."""
    pairs = []
    for turn in range(TURNS + 1):
        seconds = []
        for watched in (True, False) if turn % 2 else (False, True):
            started = time.perf_counter()
            with guard.watch("off") if watched else contextlib.nullcontext():
                build()
            seconds.append(time.perf_counter() - started)
            gc.collect()
        seconds = seconds if turn % 2 else seconds[::-1]
        # The first turn pays for imports and files that are not yet in memory.
        pairs += [(seconds[0], seconds[1])] if turn else []
    return pairs


def measure_tiny(steps: int) -> Switched:
    """The embedded model through boxtune's own main path."""
    import boxtune
    import boxtune.guard
    from boxtune.tiny.packages import write_packages

    made: list[Switched] = []

    def make(*args: Any, **kwargs: Any) -> Switched:
        made.append(Switched(*args, **kwargs))
        return made[-1]

    boxtune.guard.LearningCallback = make  # type: ignore[misc, assignment]
    with tempfile.TemporaryDirectory() as folder:
        write_packages(Path(folder) / "packages", num_train=steps * 2, num_valid=10, seed=0)
        batch = {"micro_batch": 2, "effective_batch": 2}
        boxtune.train(model="tiny", data=f"{folder}/packages", runs=folder, epochs=1, per_epoch=1, **batch)
    return made[0]


def measure_seven_b(folder: str, steps: int) -> Switched:
    """The shape of the 7B model through TRL's SFTTrainer as it comes."""
    import story

    with guard.watch("off"):
        callback = Switched()
        trainer = story.build("peft_config", folder, max_steps=steps, logging_steps=BLOCK, eval_strategy="no")
    trainer.add_callback(callback)
    trainer.train()
    return callback


def main() -> None:
    """Measure and print."""
    (what, *_), options = parse_pairs(sys.argv[1:])
    steps = int(options.get("steps", 140))
    if what == "tiny":
        from toys_of_pictures import healthy_pictures

        def build() -> None:
            parts = healthy_pictures(Path(tempfile.gettempdir()) / "guard_cost")
            parts.build(parts)
    else:
        import story

        def build() -> None:
            story.build("peft_config", what)

    built = measure_building(build)
    callback = measure_tiny(steps) if what == "tiny" else measure_seven_b(what, steps)
    first, rest = callback.blocks[:CLOSE], callback.blocks[CLOSE:]
    on, off = rest[1::2], rest[0::2]
    assert callback.preflight is not None
    plain = statistics.median(off for _, off in built)
    ratios = sorted(on / off - 1 for on, off in built)
    print(f"building, without the tracer {plain:8.2f} s")
    print(f"with it                      {statistics.median(ratios):+8.2%}    (of {len(ratios)} pairs)")
    print(f"preflight                    {callback.preflight.seconds:8.1f} s")
    print(f"a step without the guard     {statistics.median(off) / BLOCK:8.4f} s  ({len(off)} blocks of {BLOCK})")
    pairs = [a / b - 1 for a, b in zip(on, off, strict=False)]
    spread = f"pairs {min(pairs):+.2%} to {max(pairs):+.2%}"
    print(f"with it                      {statistics.median(on) / statistics.median(off) - 1:+8.2%}    ({spread})")
    within = sum(callback.inside[CLOSE + 1 : len(callback.blocks) : 2]) / sum(on)
    print(f"spent in its own methods     {within:8.2%}    (where it also waits for the GPU)")
    close = statistics.mean(first) / statistics.median(off) - 1
    print(f"with it, first {CLOSE * BLOCK} steps      {close:+8.2%}")
    print(f"verdict: {callback.verdict}; findings: {[f.check for f in callback.findings if f.level != 'ok']}")


if __name__ == "__main__":
    main()
