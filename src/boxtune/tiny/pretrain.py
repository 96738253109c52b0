"""Pre-training of the embedded model on procedural scenes: `python -m boxtune.tiny.pretrain out=FOLDER minutes=15`.

Resumable: the state in FOLDER is written every two minutes, and the same command goes on from it. One GPU; on a CPU
it runs too, for tests. What it does and why:

- scenes are drawn on the GPU into a pool and cropped, scaled and tinted anew each time they are used;
- one forward pass of our own over transformers' modules (`fast.py`), layers compiled, bf16 autocast;
- two auxiliary losses while training, on heads that are thrown away: every visual token says how far the edges of the
  object under it are (the vision tower has relative positions only), and every image position of the language tower
  where they lie in the image;
- the mean of the weights over the last steps is what is kept (exponential moving average).
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from boxtune.config import parse_pairs
from boxtune.tiny.fast import FastForward, Grid, build_grid, build_rope, patchify
from boxtune.tiny.lessons import NAME_TOKENS, Lesson, Teacher
from boxtune.tiny.model import build_config, build_image_processor, build_tokenizer
from boxtune.tiny.pool import Pool
from boxtune.tiny.scenes import NAMES, SceneMaker

GRIDS = ((24, 24), (20, 28), (28, 20), (16, 16), (14, 22), (22, 14))
GRID_SHARES = (0.5, 0.15, 0.15, 0.08, 0.06, 0.06)
"""Grids of patches (rows, columns) that a batch may have, and how often."""
LENGTHS = {4: 160, 10: 320, 20: 600}
"""Most objects in a scene -> length of the rows behind the image."""
LENGTH_SHARES = (0.72, 0.18, 0.1)
TAP = 2
"""The layer of the language tower whose image positions the auxiliary loss reads."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one pre-training is asked to do; `minutes` bound the training itself, all sessions together."""

    out: str
    minutes: float = 15.0
    steps: int = 20_000
    batch: int = 256
    rate: float = 1.5e-3
    weight_decay: float = 0.02
    warmup: int = 300
    auxiliary: float = 1.0
    average: float = 0.999
    pool: int = 60_000
    fresh: int = 60
    seed: int = 0
    device: str = "cuda"
    compiled: bool = True


class Heads(torch.nn.Module):
    """The auxiliary heads: edges and class from a visual token, corners from an image position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edges = torch.nn.Linear(width, 4)
        self.label = torch.nn.Linear(width, len(NAMES) + 1)
        self.corners = torch.nn.Linear(width, 4)


def auxiliary_loss(
    heads: Heads, tokens: torch.Tensor, tapped: torch.Tensor, grid: Grid, unit: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Loss of the auxiliary heads; the object under a token is the smallest one whose box holds the token's centre."""
    rows, columns = grid.rows // 2, grid.columns // 2
    device = tokens.device
    y = ((torch.arange(rows, device=device) + 0.5) / rows).repeat_interleave(columns)
    x = ((torch.arange(columns, device=device) + 0.5) / columns).repeat(rows)
    centre = torch.stack([x, y], dim=-1)
    there = (labels >= 0)[:, None]
    inside = (centre[None, :, None] > unit[:, None, :, :2]).all(-1) & (
        centre[None, :, None] < unit[:, None, :, 2:]
    ).all(-1)
    area = (unit[..., 2:] - unit[..., :2]).prod(-1)[:, None].expand(-1, len(centre), -1)
    area, which = torch.where(inside & there, area, 9.0).min(-1)
    hit = area < 9
    box = unit.gather(1, which[..., None].expand(-1, -1, 4))
    target = torch.where(hit, labels.gather(1, which), len(NAMES))
    wanted_edges = torch.cat([centre - box[..., :2], box[..., 2:] - centre], dim=-1)
    weight = hit.float() / hit.sum().clamp(min=1)
    loss = F.cross_entropy(heads.label(tokens).flatten(0, 1).float(), target.flatten())
    loss = loss + 5 * ((heads.edges(tokens).float() - wanted_edges).abs().mean(-1) * weight).sum()
    return loss + 5 * ((heads.corners(tapped).float() - box).abs().mean(-1) * weight).sum()


class Pretraining:
    """The model, its optimizer and its data; `step` is one optimizer step."""

    def __init__(self, plan: Plan) -> None:
        from transformers import Qwen2VLForConditionalGeneration

        self.plan, self.device = plan, torch.device(plan.device)
        self.tokenizer = build_tokenizer()
        torch.manual_seed(plan.seed)
        self.model = Qwen2VLForConditionalGeneration(build_config(self.tokenizer.convert_tokens_to_ids)).to(self.device)
        self.heads = Heads(self.model.config.text_config.hidden_size).to(self.device)
        self.fast = FastForward(self.model, compiled=plan.compiled)
        processor = build_image_processor()
        self.mean = torch.tensor(processor.image_mean, device=self.device)
        self.std = torch.tensor(processor.image_std, device=self.device)
        self.teacher = Teacher(self.tokenizer, self.device)
        self.grids = [build_grid(self.model, rows, columns, self.device) for rows, columns in GRIDS]
        self.ropes = {
            (grid.rows, grid.columns, length): build_rope(
                self.model, grid, len(self.teacher.before), length, self.device
            )
            for grid in self.grids
            for length in LENGTHS.values()
        }
        decayed = [p for p in self.model.parameters() if p.ndim >= 2 and p is not self.model.lm_head.weight]
        decayed = [p for p in decayed if p is not self.model.model.language_model.embed_tokens.weight]
        ids = {id(p) for p in decayed}
        plain = [p for p in [*self.model.parameters(), *self.heads.parameters()] if id(p) not in ids]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=plan.rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda",
        )
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.done, self.seconds = 0, 0.0
        self.log: list[dict[str, float]] = []

    def rate(self, progress: float) -> float:
        """Share of the peak learning rate: warm-up, then a cosine down to 1 %; `progress` is 0..1 of the training."""
        warm = min(1.0, (self.done + 1) / self.plan.warmup)
        return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def lesson(
        self, pool: Pool, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Grid, Lesson]:
        """Patches, boxes in 0..1, labels, grid and token rows of one batch."""
        # Chosen on the CPU: reading a number back from the GPU would wait for the step before.
        choose = random.Random(self.plan.seed * 1_000_003 + self.done)
        grid = choose.choices(self.grids, GRID_SHARES)[0]
        most, length = choose.choices(list(LENGTHS.items()), LENGTH_SHARES)[0]
        images, unit, labels = pool.take(self.plan.batch, most, grid.rows * 14, grid.columns * 14, generator)
        asked = self.teacher.choose(labels, generator)
        lesson = self.teacher.teach(labels, unit, asked, length, alias=self._alias(labels, asked, generator))
        return patchify(images, self.mean, self.std), unit, labels, grid, lesson

    def _alias(
        self, labels: torch.Tensor, asked: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A made-up name for a third of the scenes that hold things of one name and are asked for that one alone.

        So the model learns to copy any name from the question, and its token rows are all trained.
        """
        batch = len(labels)
        one = ((labels < 0) | (labels == asked[:, :1])).all(1) & (labels >= 0).any(1) & (asked[:, 1:] < 0).all(1)

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator, device=self.device)

        renamed = one & (uniform(batch) < 0.33)
        ordinary = self.teacher.ordinary
        tokens = ordinary[(uniform(batch, NAME_TOKENS) * len(ordinary)).long()]
        num = (uniform(batch, 1) * NAME_TOKENS).long() + 1
        return tokens, (torch.arange(NAME_TOKENS, device=self.device) < num) & renamed[:, None]

    def step(self, pool: Pool, generator: torch.Generator, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimizer step; gives the loss on the answers and the auxiliary loss, on the device."""
        patches, unit, labels, grid, lesson = self.lesson(pool, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * self.rate(progress)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            tokens = self.fast.see(patches, grid)
            rope = self.ropes[grid.rows, grid.columns, lesson.after.shape[1]]
            before = lesson.before.expand(len(tokens), -1)
            hidden, tapped = self.fast.read(tokens, before, lesson.after, rope, tap=TAP)
            assert tapped is not None
            logits = self.model.lm_head(hidden)
            extra = auxiliary_loss(self.heads, tokens, tapped, grid, unit, labels)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), lesson.labels.flatten(), ignore_index=-100)
        (loss + self.plan.auxiliary * (1 - progress) * extra).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        keep = min(self.plan.average, (1 + self.done) / (10 + self.done))
        mine = [p.detach() for p in self.model.parameters()]
        torch._foreach_lerp_(list(self.average.values()), mine, 1 - keep)
        self.done += 1
        return loss.detach(), extra.detach()

    def train(self) -> None:
        """Until the steps or the minutes are over; prints a line every hundred steps."""
        plan = self.plan
        maker = SceneMaker(side=Pool.SIDE, device=self.device)
        pool = Pool(maker, plan.pool, seed=plan.seed * 1_000_003 + self.done)
        generator = torch.Generator(self.device).manual_seed(plan.seed + self.done)
        started = time.monotonic() - self.seconds
        kept = time.monotonic()
        while self.done < plan.steps and self.seconds < plan.minutes * 60:
            progress = max(self.done / plan.steps, self.seconds / (plan.minutes * 60))
            loss, extra = self.step(pool, generator, progress)
            if plan.fresh and self.done % plan.fresh == 0:
                pool.refresh(self.done)
            if self.done % 100 == 0:
                row = {"step": self.done, "loss": loss.item(), "auxiliary": extra.item()}
                self.seconds = time.monotonic() - started
                rate = self.done / self.seconds
                self.log.append({**row, "seconds": round(self.seconds, 1)})
                print(
                    f"step {self.done:6d}  loss {row['loss']:.4f}  auxiliary {row['auxiliary']:.4f}  "
                    f"{rate:.1f} steps/s  {self.seconds / 60:.1f} of {plan.minutes:g} min",
                    flush=True,
                )
                if time.monotonic() - kept > 120:
                    self.save()
                    kept = time.monotonic()
        self.seconds = time.monotonic() - started
        self.save()

    def save(self) -> None:
        """State for resuming, the averaged weights in bf16 as a checkpoint folder, and the log, into `out`."""
        out = Path(self.plan.out)
        out.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "done": self.done,
            "seconds": self.seconds,
            "log": self.log,
        }
        torch.save(state, out / "state.part")
        (out / "state.part").replace(out / "state.pt")
        write_weights(self.average, self.model.config, self.tokenizer, out / "tiny")
        (out / "log.json").write_text(json.dumps({"plan": asdict(self.plan), "log": self.log}, indent=1))

    def resume(self) -> None:
        """Go on from the state in `out`, if there is one."""
        path = Path(self.plan.out) / "state.pt"
        if not path.is_file():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.done = state["average"], state["done"]
        self.seconds, self.log = state["seconds"], state["log"]
        print(f"going on from step {self.done}, {self.seconds / 60:.1f} min", flush=True)


def write_weights(weights: dict[str, torch.Tensor], config: Any, tokenizer: Any, folder: Path) -> None:
    """The checkpoint folder that is shipped: weights in bf16, config, tokenizer, image processor."""
    from transformers import Qwen2VLForConditionalGeneration

    model = Qwen2VLForConditionalGeneration(config)
    model.load_state_dict({name: tensor.cpu() for name, tensor in weights.items()})
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    build_image_processor().save_pretrained(folder)


def main(argv: list[str] | None = None) -> None:
    """Pre-train as the words say: `out=FOLDER minutes=15 steps=20000 ...`."""
    _, settings = parse_pairs(list(sys.argv[1:] if argv is None else argv))
    training = Pretraining(Plan(**settings))
    training.resume()
    training.train()


if __name__ == "__main__":
    main()
