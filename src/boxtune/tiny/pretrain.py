"""Pre-training of the embedded model on procedural scenes: `python -m boxtune.tiny.pretrain out=FOLDER minutes=20`.

Resumable: the state in FOLDER is written every two minutes, and the same command goes on from it. One GPU; on a CPU
it runs too, for tests. What it does and why:

- scenes are drawn on the GPU into a pool and cropped, scaled and tinted anew each time they are used (`pool.py`);
- one forward pass of our own over transformers' modules (`fast.py`), layers compiled, bf16 autocast; forward and
  backward of each shape of batch are one CUDA graph, and so is the optimizer (`replay.py`);
- the matrices are stepped by Muon, everything else by AdamW (`muon.py`);
- small pictures first, large ones later;
- the learning rate stays at its height and falls to nothing in the last part, so that a longer training can go on
  from the weights before that part (`trunk.safetensors`, by `start=`);
- auxiliary losses on heads that are thrown away (`auxiliary.py`).
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from boxtune.config import parse_pairs
from boxtune.tiny.auxiliary import Heads, auxiliary_loss
from boxtune.tiny.fast import FastForward, Grid, build_grid, build_rope, patchify
from boxtune.tiny.lessons import NAME_TOKENS, Lesson, Rows, Teacher
from boxtune.tiny.model import build_config, build_image_processor, build_tokenizer
from boxtune.tiny.muon import Muon
from boxtune.tiny.pool import Pool
from boxtune.tiny.replay import Replay
from boxtune.tiny.scenes import SceneMaker

SMALL = ((16, 16), (14, 18), (18, 14), (12, 22), (22, 12))
MIDDLE = ((24, 24), (20, 26), (26, 20), (22, 24), (24, 22), (18, 28), (28, 18))
LARGE = ((28, 28), (24, 32), (32, 24))
GRIDS = (*SMALL, *MIDDLE, *LARGE)
"""Grids of patches (rows, columns) that a batch may have."""
EARLY_SHARES, LATE_SHARES = (0.75, 0.25, 0.0), (0.3, 0.64, 0.06)
"""In the first part of the training, and after it: how often a batch is small, middle, large."""
LENGTHS = {2: 112, 4: 152, 10: 256, 20: 472}
"""Most objects in a scene -> length of the rows behind the image: 99 in 100 fit."""
LENGTH_SHARES = (0.4, 0.32, 0.18, 0.1)
TAP = 2
"""The layer of the language tower whose image positions the auxiliary loss reads."""
TOLD_EVERY, KEPT_EVERY_S = 100, 120


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one pre-training is asked to do; `minutes` bound the training itself, all sessions together.

    `rate` is of the matrices, `plain_rate` of everything else; `early` is the share of the training with small
    pictures, `decay` that in which the rate falls; `fresh` is the number of steps after which a chunk of the pool is
    drawn anew; `start` names weights to begin from.
    """

    out: str
    start: str = ""
    minutes: float = 20.0
    steps: int = 100_000
    batch: int = 256
    rate: float = 2.5e-3
    plain_rate: float = 1.5e-3
    momentum: float = 0.95
    weight_decay: float = 0.05
    warmup: int = 300
    early: float = 0.3
    decay: float = 0.3
    auxiliary: float = 1.0
    pool: int = 40_000
    fresh: int = 240
    seed: int = 0
    device: str = "cuda"
    compiled: bool = True


class Pretraining:
    """The model, its optimizers and its data; `step` is one optimizer step."""

    def __init__(self, plan: Plan) -> None:
        from transformers import Qwen2VLForConditionalGeneration

        self.plan, self.device = plan, torch.device(plan.device)
        self.tokenizer = build_tokenizer()
        torch.manual_seed(plan.seed)
        model = Qwen2VLForConditionalGeneration(build_config(self.tokenizer.convert_tokens_to_ids))
        self.model = model.to(self.device)
        self.fast = FastForward(self.model, compiled=plan.compiled)
        self.patchify = torch.compile(patchify, dynamic=True) if plan.compiled else patchify
        processor = build_image_processor()
        self.mean = torch.tensor(processor.image_mean, device=self.device)
        self.std = torch.tensor(processor.image_std, device=self.device)
        self.maker = SceneMaker(side=Pool.SIDE, device=self.device)
        sprite_kinds = self.maker.atlas.index.kinds.tolist()
        self.teacher = Teacher(self.tokenizer, self.device, sprite_kinds)
        self.heads = Heads(model.config.text_config.hidden_size, len(sprite_kinds)).to(self.device)
        if plan.start:
            self._begin_from(load_file(plan.start))
        self.grids = {shape: build_grid(self.model, *shape, self.device) for shape in GRIDS}
        self.ropes = {
            (shape, length): build_rope(self.model, grid, len(self.teacher.before), length, self.device)
            for shape, grid in self.grids.items()
            for length in LENGTHS.values()
        }
        self._build_optimizers()
        # Read by the recorded steps, so on the device: sums of the losses since they were last told, and of steps.
        self.auxiliary_weight = torch.tensor(plan.auxiliary, device=self.device)
        self.totals = torch.zeros(3, device=self.device)
        self.learn, self.update = Replay(self._learn, self.device), Replay(self._update, self.device)
        # Every shape twice to begin with (once plainly, once recorded), the largest first: so all recordings fit into
        # the memory of the first.
        shapes = [(grid, most, length) for grid in GRIDS for most, length in LENGTHS.items()]
        shapes.sort(key=lambda shape: (shape[2], shape[0][0] * shape[0][1]))
        self.tour = [shape for shape in shapes for _ in range(2)] if self.learn.recorded else []
        self.done, self.seconds = 0, 0.0
        self.log: list[dict[str, float]] = []

    def _begin_from(self, weights: dict[str, torch.Tensor]) -> None:
        """Weights of the model and, where their shapes still fit, of the heads."""
        heads = {name: weights.pop(name) for name in list(weights) if name.startswith("heads.")}
        self.model.load_state_dict(weights)
        mine = self.heads.state_dict()
        kept = {name.removeprefix("heads."): tensor for name, tensor in heads.items()}
        self.heads.load_state_dict(
            {**mine, **{n: t for n, t in kept.items() if n in mine and mine[n].shape == t.shape}}
        )

    def _build_optimizers(self) -> None:
        plan = self.plan
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        tables = {self.model.lm_head.weight, self.model.model.language_model.embed_tokens.weight}
        matrices = {
            parameter: 3 if name.endswith("qkv.weight") else 1
            for name, parameter in self.model.named_parameters()
            if parameter.ndim == 2 and parameter not in tables
        }
        self.rate = torch.zeros((), device=self.device)
        self.plain_rate = torch.zeros((), device=self.device)
        self.muon = Muon(matrices, self.rate, momentum=plan.momentum, weight_decay=plan.weight_decay)
        on_gpu = self.device.type == "cuda"
        self.adamw = torch.optim.AdamW(
            [p for p in self.parameters if p not in matrices],
            lr=self.plain_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=on_gpu,
            capturable=on_gpu,
        )

    def height(self, progress: float) -> float:
        """Share of the peak learning rate at `progress` (0..1): warm-up, level, and down to nothing in a line."""
        warm = min(1.0, (self.done + 1) / self.plan.warmup)
        return warm * min(1.0, max(0.0, 1 - progress) / self.plan.decay)

    def lesson(
        self, pool: Pool, generator: torch.Generator, progress: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Grid, Lesson]:
        """uint8 images, boxes in 0..1, name, drawing and colour of each thing, grid and token rows of one batch."""
        # Chosen on the CPU: reading a number back from the GPU would wait for the step before.
        choose = random.Random(self.plan.seed * 1_000_003 + self.done)
        early = progress < self.plan.early
        sizes = choose.choices((SMALL, MIDDLE, LARGE), EARLY_SHARES if early else LATE_SHARES)[0]
        rows_columns = choose.choice(sizes)
        most, length = choose.choices(list(LENGTHS.items()), LENGTH_SHARES)[0]
        if self.tour:
            rows_columns, most, length = self.tour.pop()
        grid = self.grids[rows_columns]
        images, unit, told = pool.take(self.plan.batch, most, grid.rows * 14, grid.columns * 14, generator)
        labels = self.teacher.name(told, generator)
        asked = self.teacher.choose(labels, generator)
        lesson = self.teacher.teach(labels, unit, asked, length, alias=self._alias(labels, asked, generator))
        return images, unit, told, grid, lesson

    def _alias(self, labels: torch.Tensor, asked: torch.Tensor, generator: torch.Generator) -> Rows:
        """A random name for a third of the scenes that hold things of one name and are asked for that one alone.

        So the model learns to copy any name from the question, and its token rows are all trained. Half of those
        that are asked for nothing that they hold get one too: else a strange name would mean all there is.
        """
        batch = len(labels)
        one = ((labels < 0) | (labels == asked[:, :1])).all(1) & (labels >= 0).any(1) & (asked[:, 1:] < 0).all(1)

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator, device=self.device)

        absent = ~((labels[..., None] == asked[:, None]) & (labels[..., None] >= 0)).flatten(1).any(1)
        chance = uniform(batch)
        renamed = (one & (chance < 0.33)) | (absent & (chance < 0.5))
        ordinary = self.teacher.ordinary
        tokens = ordinary[(uniform(batch, NAME_TOKENS) * len(ordinary)).long()]
        num = (uniform(batch, 1) * NAME_TOKENS).long() + 1
        return tokens, (torch.arange(NAME_TOKENS, device=self.device) < num) & renamed[:, None]

    def step(self, pool: Pool, generator: torch.Generator, progress: float) -> None:
        """One optimizer step; its losses are added to `totals`."""
        images, unit, told, grid, lesson = self.lesson(pool, generator, progress)
        height = self.height(progress)
        self.rate.fill_(self.plan.rate * height)
        self.plain_rate.fill_(self.plan.plain_rate * height)
        self.auxiliary_weight.fill_(self.plan.auxiliary * (1 - progress))
        shape = ((grid.rows, grid.columns), lesson.after.shape[1], unit.shape[1])
        self.learn(shape, (images, unit, told, lesson.after, lesson.labels))
        self.update("all")
        self.done += 1

    def _learn(
        self,
        shape: tuple[tuple[int, int], int, int],
        images: torch.Tensor,
        unit: torch.Tensor,
        told: torch.Tensor,
        after: torch.Tensor,
        wanted: torch.Tensor,
    ) -> None:
        """The gradients of one batch, into the parameters' own tensors."""
        grid = self.grids[shape[0]]
        torch._foreach_zero_([parameter.grad for parameter in self.parameters])
        # The cache of cast weights would outlive the recording.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda", cache_enabled=False):
            tokens = self.fast.see(self.patchify(images, self.mean, self.std), grid)
            before = self.teacher.before.expand(len(tokens), -1)
            hidden, tapped = self.fast.read(tokens, before, after, self.ropes[shape[0], shape[1]], tap=TAP)
            assert tapped is not None
            logits = self.model.lm_head(hidden)
            extra = auxiliary_loss(self.heads, tokens, tapped, grid, unit, told)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=-100)
        (loss + self.auxiliary_weight * extra).backward()
        self.totals += torch.stack([loss.detach(), extra.detach(), torch.ones_like(extra)])

    def _update(self, _: Hashable) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.muon.step()
        self.adamw.step()

    def train(self) -> None:
        """Until the steps or the minutes are over; prints a line every hundred steps."""
        plan = self.plan
        begun = time.monotonic()
        pool = Pool(self.maker, plan.pool, seed=plan.seed * 1_000_003 + self.done, compiled=plan.compiled)
        print(f"{pool.num} scenes drawn in {time.monotonic() - begun:.1f} s", flush=True)
        generator = torch.Generator(self.device).manual_seed(plan.seed + self.done)
        started = time.monotonic() - self.seconds
        kept, trunk_kept = time.monotonic(), self.progress >= 1 - plan.decay
        while self.progress < 1:
            self.step(pool, generator, self.progress)
            if plan.fresh and self.done % plan.fresh == 0:
                pool.refresh()
            if self.done % TOLD_EVERY == 0:
                loss, extra, num = self.totals.tolist()
                self.totals.zero_()
                now = time.monotonic() - started
                rate, self.seconds = TOLD_EVERY / max(now - self.seconds, 1e-9), now
                row = {"step": self.done, "loss": loss / num, "auxiliary": extra / num, "seconds": round(now, 1)}
                self.log.append(row)
                print(
                    f"step {self.done:6d}  loss {row['loss']:.4f}  auxiliary {row['auxiliary']:.4f}  "
                    f"{rate:.1f} steps/s  {self.seconds / 60:.1f} of {plan.minutes:g} min",
                    flush=True,
                )
                if not trunk_kept and self.progress >= 1 - plan.decay:
                    heads = {f"heads.{name}": tensor.cpu() for name, tensor in self.heads.state_dict().items()}
                    save_file({**self.weights(), **heads}, self._out("trunk.safetensors"))
                    trunk_kept = True
                if time.monotonic() - kept > KEPT_EVERY_S:
                    self.save()
                    kept = time.monotonic()
        self.seconds = time.monotonic() - started
        self.save()

    @property
    def progress(self) -> float:
        """0..1 of the training, by steps or by time as of the last report, whichever is further."""
        return max(self.done / self.plan.steps, self.seconds / (self.plan.minutes * 60))

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's weights in fp32, on the CPU."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}

    def _out(self, name: str) -> Path:
        folder = Path(self.plan.out)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def save(self) -> None:
        """State for resuming, the weights in bf16 as a checkpoint folder, and the log, into `out`."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "adamw": self.adamw.state_dict(),
            "momenta": self.muon.momenta,
            "done": self.done,
            "seconds": self.seconds,
            "log": self.log,
        }
        torch.save(state, self._out("state.part"))
        self._out("state.part").replace(self._out("state.pt"))
        write_weights(self.weights(), self.model.config, self.tokenizer, self._out("tiny"))
        self._out("log.json").write_text(json.dumps({"plan": asdict(self.plan), "log": self.log}, indent=1))

    def resume(self) -> None:
        """Go on from the state in `out`, if there is one."""
        path = Path(self.plan.out) / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.adamw.load_state_dict(state["adamw"])
        # The rate stays the tensor that a recorded step reads.
        self.adamw.param_groups[0]["lr"] = self.plain_rate
        for shape, momentum in state["momenta"].items():
            self.muon.momenta[shape].copy_(momentum)
        self.done, self.seconds, self.log = state["done"], state["seconds"], state["log"]
        print(f"going on from step {self.done}, {self.seconds / 60:.1f} min", flush=True)


def write_weights(weights: Mapping[str, torch.Tensor], config: Any, tokenizer: Any, folder: Path) -> None:
    """The checkpoint folder that is shipped: weights in bf16, config, tokenizer, image processor."""
    from transformers import Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration(config)
    model.load_state_dict(dict(weights))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    """Pre-train as the words say: `out=FOLDER minutes=20 ...`."""
    _, settings = parse_pairs(list(sys.argv[1:] if argv is None else argv))
    training = Pretraining(Plan(**settings))
    training.resume()
    training.train()


if __name__ == "__main__":
    main()
