"""Every family on a tiny model of its real architecture: what it is fed, what is trained, what comes back.

A family in the registry is covered without an edit here, once `architectures.py` can build a model for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import write_architecture
from models import make_settings, refuse
from PIL import Image
from transformers import TrainerCallback

from boxtune.boxes import Boxes, iou_matrix
from boxtune.data import Sample
from boxtune.errors import ModelError
from boxtune.families import FAMILIES
from boxtune.finetune import (
    Encoder,
    Loaded,
    ModelSource,
    TrainingCollator,
    build_encoder,
    build_trainer,
    choose_placement,
    find_model,
    forget,
    load_base,
    plan_adapter,
    save_adapter,
)
from boxtune.finetune.adapters import RECIPES, full_towers
from boxtune.finetune.collate import IGNORED, Example, answers_begin, collate_for_prediction, collate_for_training
from boxtune.finetune.patches import find_fast_way
from boxtune.finetune.pixels import see_image
from boxtune.finetune.quantization import tower_of
from boxtune.infer import LocalEngine, answer_images

pytestmark = pytest.mark.slow

CLASSES = ("cat", "traffic light", "Café (Tür) 12")
NUM_SAMPLES = 32
SHAPES = ((320, 240), (240, 320), (300, 300), (480, 160), (150, 450), (640, 480))
SEEN = (*SHAPES, (20, 20), (400, 100), (37, 50), (3000, 400), (800, 3000), (1000, 1000), (1, 60))
COARSE = 0.01
"""A step of a grammar's numbers, as a share of the side, from which on IoU is no measure of the round trip: of
Kosmos-2's 32 cells one is 3 % of the side, and a corner moves by half of it."""
TOLERANCE = 1e-5
"""Largest difference of first-token logits, batched against alone, as a share of the largest logit."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One family's tiny model: where it lies, its budget, and the base in NF4 with its encoder."""

    source: ModelSource
    budget: tuple[int, int]
    loaded: Loaded
    encoder: Encoder

    def load(self, quantization: str, full: tuple[str, ...] = ()) -> Loaded:
        """The base afresh."""
        least, most = self.budget
        placement = choose_placement(quantization, "fp32")
        return load_base(self.source, placement, min_pixels=least, max_pixels=most, full=full)


def small_budget(source: ModelSource) -> tuple[int, int]:
    """The family's own budget, with four times the smallest image at most where it leaves that open."""
    own = source.family.defaults_for(source.config)
    try:
        source.family.image_settings(own.min_pixels, min(own.max_pixels, 4 * own.min_pixels))
    except ValueError:
        return own.min_pixels, own.max_pixels
    return own.min_pixels, min(own.max_pixels, 4 * own.min_pixels)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    folder = write_architecture(request.param, tmp_path_factory.mktemp("models") / request.param)
    source = find_model(folder, family=request.param)
    least, most = small_budget(source)
    loaded = load_base(source, choose_placement("nf4", "fp32"), min_pixels=least, max_pixels=most)
    yield Case(source=loaded.source, budget=(least, most), loaded=loaded, encoder=build_encoder(loaded, CLASSES))
    forget()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Images of six shapes with one to three large boxes each; every eighth has none."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    made = []
    for number in range(NUM_SAMPLES):
        size = SHAPES[number % len(SHAPES)]
        noise = rng.integers(0, 255, (size[1] // 10, size[0] // 10, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size).save(folder / f"{number}.png")
        num = 0 if number % 8 == 7 else int(rng.integers(1, 4))
        sides = rng.uniform(0.4, 0.7, (num, 2)) * size
        corners = rng.uniform(0, 1, (num, 2)) * (np.array(size) - sides)
        labels = tuple(CLASSES[int(place)] for place in rng.integers(0, len(CLASSES), num))
        made.append(
            Sample(
                image=folder / f"{number}.png",
                image_id=number,
                size_wh=size,
                boxes=Boxes(xyxy_px=np.concatenate([corners, corners + sides], axis=1).reshape(-1, 4), labels=labels),
                crowd=np.zeros(num, dtype=bool),
                ignore=np.zeros(num, dtype=bool),
            )
        )
    return made


def test_labels_are_the_source_boxes(case: Case, samples: list[Sample]) -> None:
    encoder, family = case.encoder, case.encoder.family
    assert family.check_classes(CLASSES) == []
    examples = [encoder.encode_sample(sample) for sample in samples]
    num_boxes = 0
    for start in range(0, NUM_SAMPLES, 8):
        batch = collate_for_training(examples[start : start + 8], encoder.layout)
        for row, labels in enumerate(batch["labels"]):
            example, sample = examples[start + row], samples[start + row]
            supervised = labels[labels != IGNORED]
            assert supervised[-1] == encoder.end_id and encoder.end_id not in supervised[:-1]
            if not encoder.layout.decoder_start:
                assert (batch["input_ids"][row][labels != IGNORED] == supervised).all()
            text = encoder.tokenizer.decode(
                supervised[:-1].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            decoded = family.decode(text, example.frame, CLASSES)
            assert decoded.problems == ()
            assert sorted(decoded.boxes.labels) == sorted(sample.targets.labels)
            require_same(decoded.boxes, sample, np.array(family.bin_px(example.frame)))
            num_boxes += len(sample.targets)
    assert num_boxes > NUM_SAMPLES


def require_same(boxes: Boxes, sample: Sample, bin_px: Any) -> None:
    """Each source box is among the decoded ones, to within half a step and, where steps are small, IoU 0.98."""
    for label in set(sample.targets.labels):
        wanted = sample.targets.take([i for i, name in enumerate(sample.targets.labels) if name == label]).xyxy_px
        got = boxes.take([i for i, name in enumerate(boxes.labels) if name == label]).xyxy_px
        off = np.abs(got[:, None] - wanted[None]).max(axis=-1).argmin(axis=0)
        assert sorted(off) == list(range(len(wanted)))
        # Numbers that end one short of the side move a corner at its very end by a whole step.
        steps = np.where(wanted > np.tile(sample.size_wh - bin_px, 2), 1.0, 0.5)
        assert (np.abs(got[off] - wanted) <= steps * np.tile(bin_px, 2) + 1e-6).all()
        if max(bin_px / sample.size_wh) < COARSE:
            assert iou_matrix(got[off], wanted).diagonal().min() >= 0.98


def test_sizes_and_lengths_are_the_processors(case: Case) -> None:
    encoder, blank = case.encoder, Boxes.none()
    for size in SEEN:
        # encode_image itself compares the size and the text with the family's rules.
        example = encoder.encode_image(Image.new("RGB", size, (90, 160, 30)), blank)
        sample = Sample(
            image=Path("-"), image_id=0, size_wh=size, boxes=blank, crowd=np.zeros(0, bool), ignore=np.zeros(0, bool)
        )
        assert encoder.measure(sample) == (len(example.prompt_ids), len(example.answer_ids))
        assert example.prompt_ids.count(encoder.layout.image_token_id) > 0


def test_the_prompt_is_what_the_processor_makes_of_it(case: Case) -> None:
    """Through the processor's own call: the same ids, pixels and masks."""
    encoder, processor, family = case.encoder, case.loaded.processor, case.encoder.family
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    ours = collate_for_prediction([encoder.encode_image(image)], encoder.layout)
    if ours["pixel_values"].dtype == torch.uint8:
        way = find_fast_way(processor.image_processor)
        assert way is not None
        ours["pixel_values"] = way.as_floats(ours["pixel_values"])
    question = family.prompt(CLASSES, "\0").partition("\0")[2]
    # What these processors put round a text themselves.
    text = {
        "paligemma": "<image>" + question.removeprefix("<bos>").removesuffix("\n"),
        "florence2": question.removeprefix("<s>").removesuffix("</s>"),
        "kosmos2": question,
        "minicpm_v": family.prompt(CLASSES, family.image_token).replace("<image_id>0</image_id>", ""),
    }.get(family.name, family.prompt(CLASSES, family.image_token))
    # Kosmos-2's says by this whether it puts the start of a text before it.
    special = {} if family.name == "kosmos2" else {"add_special_tokens": False}
    theirs = {
        name: value if torch.is_tensor(value) else torch.as_tensor(np.array(value))
        for name, value in processor(images=[image], text=[text], **special).items()
    }
    inside = ours.get("image_embeds_position_mask", torch.zeros_like(ours["input_ids"])).bool()
    assert torch.equal(ours["input_ids"][~inside], theirs["input_ids"][~inside])
    compared = 0
    for name in set(theirs) & set(ours) - {"input_ids"}:
        assert torch.equal(ours[name].float(), theirs[name].float()), name
        compared += 1
    assert compared >= 2 and "pixel_values" in ours
    assert set(theirs) - set(ours) <= {"labels", "mm_token_type_ids"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_reach_their_towers_and_no_other(case: Case, recipe: str) -> None:
    family, full = case.source.family, full_towers(recipe)
    wanted = {tower for tower, way in RECIPES[recipe].items() if way == "full" or tower in family.adapted}
    if not wanted or (recipe == "two_stage" and len(wanted) < 2):
        with pytest.raises(ModelError, match=r"no linear layer that adapter|has one stage only"):
            plan_adapter(case.loaded.model, family, make_settings(recipe).adapter)
        return
    loaded = case.load("none" if recipe == "full" else "nf4", full) if full else case.loaded
    plan = plan_adapter(loaded.model, family, make_settings(recipe).adapter)
    assert {target.tower for target in plan.targets} == wanted
    for target in plan.targets:
        names = [name if target.way == "full" else f"{name}.weight" for name in target.names]
        assert {tower_of(name, family) for name in names} == {target.tower}
        assert target.quantised == (0 if target.way == "full" else len(names))
    if recipe == "full":
        # Every parameter belongs to a tower.
        assert set(plan.weights) == {name for name, _ in loaded.model.named_parameters()}


class LookAtGradients(TrainerCallback):
    def __init__(self) -> None:
        self.norms: dict[str, float] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                self.norms[name] = float(parameter.grad.norm())


def placed(loaded: Loaded, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch where the model is."""
    device = loaded.placement.device
    return {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}


def gradient(trainer: Any, batches: list[Any]) -> torch.Tensor:
    """The gradient of an optimizer step of these micro-batches, as one row."""
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = len(batches)
    batches, num = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
    for batch in batches:
        trainer.training_step(trainer.model, dict(batch), num_items_in_batch=num)
    row = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    trainer.model.zero_grad()
    return row


def test_one_step_reaches_every_tower(case: Case, samples: list[Sample], tmp_path: Path) -> None:
    """Through the trainer as a run builds it, in NF4: loss, gradients, moves, metrics, and what is saved."""
    loaded, family = case.load("nf4"), case.source.family
    settings = make_settings("joint", batch=2)
    plan = plan_adapter(loaded.model, family, settings.adapter)
    splits = {"train": samples[:2], "valid": samples[2:4]}
    look = LookAtGradients()
    collator = TrainingCollator(case.encoder, splits, refuse)
    folder = tmp_path / "c"
    trainer = build_trainer(loaded, plan, settings, collator, [look], checkpoints=folder, resuming=False)
    trainable = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainable.keys() == plan.tensor_names and all(".lora_" in name for name in trainable)
    before = {name: p.detach().clone() for name, p in trainable.items()}
    batch = placed(loaded, collator([{"split": "valid", "i": 0}, {"split": "valid", "i": 1}]))
    with torch.no_grad():
        own = float(trainer.model(**batch).loss)
        assert math.isclose(float(trainer.compute_loss(trainer.model, dict(batch))), own, rel_tol=1e-4)
    once = gradient(trainer, [batch])
    apart = gradient(trainer, [placed(loaded, collator([{"split": "valid", "i": i}])) for i in (0, 1)]) - once
    assert apart.norm() <= 1e-4 * once.norm() and (batch["labels"] != IGNORED).sum(dim=1).unique().numel() == 2
    trainer.train()
    rows = trainer.state.log_history
    losses = [row[key] for row in rows for key in ("loss", "eval_loss") if key in row]
    assert len(losses) == 3 and all(map(math.isfinite, losses)) and math.isclose(losses[0], own, rel_tol=1e-3)
    logged = {key for row in rows for key in row}
    assert logged >= {"mean_token_accuracy", "num_tokens", "eval_mean_token_accuracy", "eval_num_tokens"}
    for tower in {target.tower for target in plan.targets}:
        mine = [name for name in trainable if tower_of(name, family) == tower and ".lora_B." in name]
        dead = [name for name in mine if not look.norms.get(name)]
        assert mine and len(dead) <= 0.25 * len(mine), dead
        assert all(not torch.equal(before[name], trainable[name]) for name in mine if name not in dead)
    save_adapter(trainer.model, tmp_path / "adapter", loaded, {})
    check_saved_processor(tmp_path / "adapter", case)


def check_saved_processor(folder: Path, case: Case) -> None:
    """The files say the upstream class, and another load of them makes the same of an image."""
    import json
    from dataclasses import replace

    from boxtune.finetune.pixels import load_image_processor
    from boxtune.finetune.processors import build_processor

    for file in ("processor_config.json", "preprocessor_config.json"):
        written = json.loads((folder / file).read_text())
        base = json.loads((case.source.folder / file).read_text())
        assert written["processor_class"] == base["processor_class"]
    from transformers import AutoTokenizer

    source = replace(case.source, folder=folder)
    again = build_processor(source, AutoTokenizer.from_pretrained(folder), load_image_processor(source, *case.budget))
    image = Image.new("RGB", (200, 130), (10, 200, 90))
    first, second = see_image(case.loaded.processor, image), see_image(again, image)
    assert first.text == second.text
    assert all(torch.equal(first.inputs[name], second.inputs[name]) for name in first.inputs)


def first_logits(loaded: Loaded, encoder: Encoder, examples: list[Example]) -> torch.Tensor:
    loaded.model.eval()
    with torch.no_grad():
        batch = placed(loaded, collate_for_prediction(examples, encoder.layout))
        return loaded.model(**batch).logits[:, -1].float()


def test_batches_say_what_single_images_say(case: Case, samples: list[Sample]) -> None:
    loaded = case.load("none")
    encoder = build_encoder(loaded, CLASSES)
    images = [Image.open(sample.image).convert("RGB") for sample in samples[:3]]
    asked = [CLASSES, CLASSES[:1], CLASSES[1:]]
    examples = [encoder.encode_image(image, classes=names) for image, names in zip(images, asked, strict=True)]
    together = first_logits(loaded, encoder, examples)
    alone = torch.cat([first_logits(loaded, encoder, [example]) for example in examples])
    assert (together - alone).abs().max() <= TOLERANCE * alone.abs().max()
    assert answers_begin(collate_for_prediction(examples, encoder.layout)) > 0
    said = [
        answer_images(
            LocalEngine(loaded=loaded, encoder=encoder, max_new_tokens=5, at_once=at_once),
            [lambda image=image: image for image in images],  # type: ignore[misc]
            sizes=[image.size for image in images],
            classes=asked,
        )
        for at_once in (3, 1)
    ]
    assert [answer.text for answer in said[0]] == [answer.text for answer in said[1]]


def test_answers_do_not_leak_backwards(case: Case, samples: list[Sample]) -> None:
    """Another last token of the answer leaves the logits before it as they are; prompts may see in both directions."""
    encoder, model = case.encoder, case.loaded.model
    examples = [encoder.encode_sample(sample) for sample in samples[:2]]
    batch = placed(case.loaded, collate_for_training(examples, encoder.layout))
    labels = batch.pop("labels")
    key = "decoder_input_ids" if encoder.layout.decoder_start else "input_ids"
    last = int((labels[0] != IGNORED).nonzero()[-1])
    other = {**batch, key: batch[key].clone()}
    other[key][0, last] = batch[key][0, last - 1]
    model.eval()
    with torch.no_grad():
        first, second = model(**batch).logits[0], model(**other).logits[0]
    assert torch.equal(batch[key][0, :last], other[key][0, :last]) and not torch.equal(first[last], second[last])
    assert torch.allclose(first[:last], second[:last], rtol=0, atol=TOLERANCE * float(first.abs().max()))
