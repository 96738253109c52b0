"""Images a second from disk to batch: TRL's collator beside ours, on the same photographs, prompts and budget.

    python bench/preparation.py [folder=DIR] [images=240] [batch=8] [repeats=3] [family=qwen2_vl]

Writes photographs of 0.5 to 12 megapixels (smooth shapes of every scale and grain, JPEG of quality 90, some 6 boxes
each; seeded; `folder` keeps them for another time) and prints three tables:

- Images a second and core, by size and of all: the same batches through TRL's DataCollatorForVisionLanguageModeling
  (string prompt and completion, images opened lazily) and through ours, by turns in one process with one thread.
  Seconds are those of the processor, so that other work on the machine does not count; the median of the repeats.
- Where ours goes: open (read, decode, turn upright), see (resize, patches), text (ids), collate.
- Both behind a DataLoader of 0, 1 and 2 workers, images a second by the clock; and the memory of a process that
  prepares 200 images of a set of 100, and of one of 10,000.

The processor is the family's own, as boxtune builds it: with torchvision where it is installed, else with Pillow.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from boxtune.boxes import Boxes  # noqa: E402
from boxtune.data import Sample  # noqa: E402
from boxtune.data.tiles import open_sample  # noqa: E402
from boxtune.families import Frame  # noqa: E402
from boxtune.finetune.collate import Example, collate_for_training  # noqa: E402
from boxtune.finetune.collator import TrainingCollator  # noqa: E402
from boxtune.finetune.encode import Encoder  # noqa: E402
from boxtune.finetune.patches import find_fast_way  # noqa: E402
from boxtune.finetune.pixels import load_image_processor, see_image  # noqa: E402
from boxtune.finetune.processors import build_processor  # noqa: E402
from boxtune.finetune.source import find_model  # noqa: E402

MEGAPIXELS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
CLASSES = ("cat", "traffic light", "bottle", "package")
BOXES = 6
QUALITY = 90
KINDS = ("trl", "ours")
PARTS = ("open", "see", "text", "collate")
PREPARED = 200
"""Images that a process prepares while its memory is watched."""


@dataclass(frozen=True, kw_only=True)
class Lazily:
    """TRL's collator over rows that name an image file: it is opened in the worker, as a data set does it."""

    collator: Any

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Any:
        return self.collator([{**row, "images": [Image.open(row["images"])]} for row in rows])


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """The same samples for both: by kind the rows and the collator that takes them."""

    samples: Sequence[Sample]
    encoder: Encoder
    rows: dict[str, list[Any]]
    collators: dict[str, Callable[[Sequence[Any]], Any]]
    batch: int
    megapixels: Sequence[float]

    def collate(self, kind: str, places: Sequence[int]) -> Any:
        """One batch."""
        return self.collators[kind]([self.rows[kind][place] for place in places])

    def batches(self, size: float | None = None) -> list[list[int]]:
        """Places in batches; of images of one size alone, else of all sizes in turn."""
        places = [
            place
            for place in range(len(self.samples))
            if size is None or self.megapixels[place % len(self.megapixels)] == size
        ]
        return [list(places[start : start + self.batch]) for start in range(0, len(places), self.batch)]


def photograph(rng: np.random.Generator, size_wh: tuple[int, int]) -> Image.Image:
    """Noise of every scale, stronger the larger, as in natural images, with grain on top."""
    long = max(size_wh)
    field = np.zeros((2, 2, 3), dtype=np.float32)
    for side in [2**power for power in range(2, long.bit_length())]:
        wide, high = (max(2, length * side // long) for length in size_wh)
        field = enlarged(field, (wide, high)) + 50 * side**-0.45 * rng.standard_normal(
            (high, wide, 3), dtype=np.float32
        )
    grain = 5 * rng.standard_normal((size_wh[1], size_wh[0], 1), dtype=np.float32)
    return Image.fromarray(np.clip(118 + enlarged(field, size_wh) + grain, 0, 255).astype(np.uint8))


def enlarged(field: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """A field of floats (height, width, 3) drawn out to a larger size."""
    planes = (Image.fromarray(np.ascontiguousarray(field[..., channel])) for channel in range(3))
    return np.stack([plane.resize(size_wh, Image.Resampling.BICUBIC) for plane in planes], axis=-1)


def write_photographs(folder: Path, num: int, megapixels: Sequence[float] = MEGAPIXELS) -> list[Sample]:
    """That many photographs of the sizes in turn, upright and lying ones, as samples; files that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for number in range(num):
        rng = np.random.default_rng(number)
        long = round((megapixels[number % len(megapixels)] * 1e6 * 4 / 3) ** 0.5)
        size = (long, long * 3 // 4) if number // len(megapixels) % 2 == 0 else (long * 3 // 4, long)
        path = folder / f"{number:04d}.jpg"
        corners = rng.uniform(0, 0.7, (BOXES, 2)) * size
        sides = rng.uniform(0.05, 0.3, (BOXES, 2)) * size
        if not path.is_file():
            photograph(rng, size).save(path, quality=QUALITY)
        samples.append(
            Sample(
                image=path,
                image_id=number,
                size_wh=size,
                boxes=Boxes(
                    xyxy_px=np.concatenate([corners, corners + sides], axis=1),
                    labels=tuple(CLASSES[int(place)] for place in rng.integers(0, len(CLASSES), BOXES)),
                ),
                crowd=np.zeros(BOXES, dtype=bool),
                ignore=np.zeros(BOXES, dtype=bool),
            )
        )
    return samples


def build_sitting(
    folder: Path, samples: Sequence[Sample], family: str, batch: int, megapixels: Sequence[float] = MEGAPIXELS
) -> Sitting:
    """Both collators around one processor of that family, under the family's own budget; `folder` is for its files."""
    from architectures import write_architecture
    from transformers import AutoTokenizer
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    source = find_model(write_architecture(family, folder), family=family)
    budget = source.family.defaults_for(source.config)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    images = load_image_processor(source, budget.min_pixels, budget.max_pixels)
    processor = build_processor(source, tokenizer, images)
    encoder = Encoder(
        family=source.family,
        tokenizer=tokenizer,
        processor=processor,
        classes=CLASSES,
        min_pixels=budget.min_pixels,
        max_pixels=budget.max_pixels,
        as_bytes=find_fast_way(images) is not None,
    )
    prompt = encoder.prompt(CLASSES, source.family.image_token)
    trl = [{"prompt": prompt, "images": str(sample.image)} for sample in samples]
    for row, sample in zip(trl, samples, strict=True):
        row["completion"] = answer_text(encoder, sample)
    return Sitting(
        samples=samples,
        encoder=encoder,
        rows={"trl": trl, "ours": [{"split": "train", "i": place} for place in range(len(samples))]},
        collators={
            "trl": Lazily(collator=DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)),
            "ours": TrainingCollator(encoder, {"train": samples}, refuse),
        },
        batch=batch,
        megapixels=megapixels,
    )


def answer_text(encoder: Encoder, sample: Sample) -> str:
    """The text to learn, end of turn included."""
    family = encoder.family
    seen = family.seen_wh(sample.size_wh, encoder.min_pixels, encoder.max_pixels)
    frame = Frame(original_wh=sample.size_wh, seen_wh=seen)
    return family.encode(sample.targets, frame, encoder.classes) + family.end_of_turn


def refuse(sample: Sample, error: Exception) -> None:
    """The photographs are all sound."""
    raise error


def same(sitting: Sitting) -> list[str]:
    """The tensors of a batch that both make, each with whether they are equal bit for bit."""
    ours, theirs = (sitting.collate(kind, sitting.batches()[0]) for kind in ("ours", "trl"))
    way = find_fast_way(sitting.encoder.processor.image_processor)
    if way is not None and ours["pixel_values"].dtype == torch.uint8:
        # What the vision tower makes of them.
        ours["pixel_values"] = way.as_floats(ours["pixel_values"])
    names = [name for name in ours if name in theirs]
    return [f"{name} {'equal' if torch.equal(ours[name], theirs[name]) else 'DIFFERENT'}" for name in names]


def race(sitting: Sitting, repeats: int) -> dict[float, dict[str, float]]:
    """Seconds of one core an image, by size and kind: batch by batch in turn, the median of the repeats."""
    found = {}
    for size in sitting.megapixels:
        turns: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for repeat in range(repeats):
            spent = dict.fromkeys(KINDS, 0.0)
            for number, places in enumerate(sitting.batches(size)):
                for kind in KINDS if (number + repeat) % 2 else KINDS[::-1]:
                    began = time.process_time()
                    sitting.collate(kind, places)
                    spent[kind] += time.process_time() - began
            for kind in KINDS:
                turns[kind].append(spent[kind] / sum(map(len, sitting.batches(size))))
        found[size] = {kind: statistics.median(turns[kind]) for kind in KINDS}
    return found


def parts(sitting: Sitting, size: float) -> dict[str, float]:
    """Where ours goes: seconds of one core an image of that size, by part."""
    encoder, spent = sitting.encoder, dict.fromkeys(PARTS, 0.0)
    batches = sitting.batches(size)
    for places in batches:
        examples = []
        for sample in (sitting.samples[place] for place in places):
            marks = [time.process_time()]
            image = open_sample(sample)
            marks.append(time.process_time())
            seen = see_image(encoder.processor, image, as_bytes=encoder.as_bytes)
            marks.append(time.process_time())
            frame = Frame(original_wh=image.size, seen_wh=seen.size_wh)
            prompt = encoder.ids(encoder.prompt(CLASSES, seen.text))
            answer = encoder.answer_ids(sample.targets, frame, CLASSES)
            marks.append(time.process_time())
            examples.append(
                Example(classes=CLASSES, prompt_ids=prompt, answer_ids=answer, inputs=seen.inputs, frame=frame)
            )
            for part, (before, after) in zip(PARTS, pairwise(marks), strict=False):
                spent[part] += after - before
        began = time.process_time()
        collate_for_training(examples, encoder.layout)
        spent["collate"] += time.process_time() - began
    return {part: seconds / sum(map(len, batches)) for part, seconds in spent.items()}


def behind_workers(sitting: Sitting, kind: str, workers: int) -> tuple[float, float]:
    """Images a second by the clock through a DataLoader, and cores kept busy in this process and its workers."""
    loader = DataLoader(
        sitting.rows[kind],
        batch_size=sitting.batch,
        collate_fn=sitting.collators[kind],
        num_workers=workers,
    )
    began, busy = time.perf_counter(), cpu_seconds()
    num = sum(len(batch["input_ids"]) for batch in loader)
    wall = time.perf_counter() - began
    return num / wall, (cpu_seconds() - busy) / wall


def cpu_seconds() -> float:
    """Processor time of this process and of the workers that have ended."""
    own, ended = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def prepare_many(folder: Path, num_files: int, num_samples: int, family: str, batch: int) -> float:
    """Peak MB of this process after 200 images of a set of `num_samples`, which repeats the files of `folder`."""
    files = write_photographs(folder, num_files)
    samples = [replace(files[place % num_files], image_id=place) for place in range(num_samples)]
    with tempfile.TemporaryDirectory() as scratch:
        sitting = build_sitting(Path(scratch), samples, family, batch)
        step = max(1, num_samples // PREPARED)
        for start in range(0, PREPARED, batch):
            sitting.collate("ours", [place * step % num_samples for place in range(start, start + batch)])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def print_speed(found: dict[float, dict[str, float]]) -> None:
    """Images a second and core, by size and of as many images of each size."""
    print(f"{'megapixels':>12}  {'TRL':>7}  {'ours':>7}  {'ratio':>5}")
    mean = {kind: statistics.mean(row[kind] for row in found.values()) for kind in KINDS}
    for name, row in [*((f"{size:g}", row) for size, row in found.items()), ("all", mean)]:
        print(f"{name:>12}  {1 / row['trl']:7.2f}  {1 / row['ours']:7.2f}  {row['trl'] / row['ours']:5.2f}")


def main() -> None:
    asked = {"images": "240", "batch": "8", "repeats": "3", "family": "qwen2_vl", "folder": ""}
    asked.update(word.split("=", 1) for word in sys.argv[1:])
    num, batch, repeats, family = int(asked["images"]), int(asked["batch"]), int(asked["repeats"]), asked["family"]
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(asked["folder"] or scratch) / "photographs"
        if "prepare" in asked:
            print(prepare_many(folder, num, int(asked["prepare"]), family, batch))
            return
        sitting = build_sitting(Path(scratch) / family, write_photographs(folder, num), family, batch)
        processor = type(sitting.encoder.processor.image_processor).__name__
        print(f"{num} images, batches of {batch}, {processor}, torch {torch.__version__}")
        print(f"a batch of both: {', '.join(same(sitting))}")
        print("\nimages a second and core")
        print_speed(race(sitting, repeats))
        print(f"\nours, milliseconds an image\n{'megapixels':>12}  " + "  ".join(f"{part:>7}" for part in PARTS))
        for size in MEGAPIXELS:
            print(f"{size:>12g}  " + "  ".join(f"{1e3 * seconds:7.1f}" for seconds in parts(sitting, size).values()))
        print(f"\nbehind a DataLoader{'':>3}{'workers':>7}  {'images/s':>8}  {'cores busy':>10}")
        for workers in (0, 1, 2):
            for kind in KINDS:
                speed, busy = behind_workers(sitting, kind, workers)
                print(f"{kind:>22}{workers:>7}  {speed:8.2f}  {busy:10.2f}", flush=True)
        print("\npeak memory of a process")
        for samples in (100, 10_000):
            command = [sys.executable, __file__, f"prepare={samples}", f"folder={folder.parent}", f"images={num}"]
            ran = subprocess.run([*command, f"family={family}", f"batch={batch}"], stdout=subprocess.PIPE, check=True)
            print(f"{samples:>12,} samples  {float(ran.stdout.split()[-1]):7.0f} MB", flush=True)


if __name__ == "__main__":
    main()
