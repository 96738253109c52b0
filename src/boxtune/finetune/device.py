"""The base loaded for a run, and the plan of its steps for the data in hand, on the device that there is."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from boxtune.finetune import ranks
from boxtune.finetune.adapters import RECIPES, Plan, full_towers
from boxtune.finetune.lengths import Longest
from boxtune.finetune.load import Loaded, Placement, load_base
from boxtune.finetune.planner import GIB, SMALL_BATCH, Card, Load, StepPlan, has_shape, plan_step, read_shape
from boxtune.finetune.quantization import tower_of
from boxtune.finetune.quicken import language_layers
from boxtune.finetune.sharding import choose_sharding
from boxtune.finetune.source import ModelSource
from boxtune.settings import Settings

PROBED = 4096
"""Side of the matrices by whose product the card's rate is measured, in some 20 ms."""


def load_to_train(source: ModelSource, settings: Settings, placement: Placement) -> Loaded:
    """The base as a run's settings want it: its image budget, towers that train, weights that will be spread."""
    image = settings.image
    assert image.min_pixels and image.max_pixels
    return load_base(
        source,
        placement,
        min_pixels=image.min_pixels,
        max_pixels=image.max_pixels,
        full=full_towers(settings.adapter.recipe),
        spread=choose_sharding(settings, placement.device.type, ranks.num_ranks()) == "fsdp",
    )


def plan_training(loaded: Loaded, adapter: Plan, longest: Longest, settings: Settings) -> StepPlan:
    """How a step is cut up, printed, the same on all ranks; a small micro-batch where nothing can be predicted."""
    train, lengths = settings.train, tuple(longest.train.sum(axis=1).tolist())
    assert train.effective_batch
    on_card = loaded.placement.device.type == "cuda"
    if not on_card or not has_shape(loaded.model.config):
        step, share = small_step(loaded, settings), train.effective_batch // ranks.num_ranks()
        why = "this family's memory is not known" if on_card else "a CPU is not planned for"
        print(f"plan: up to {step.micro_batch} images at once, {share} a step; {why}\n", flush=True)
        return replace(step, lengths=lengths)
    family, recipe = loaded.source.family, RECIPES[settings.adapter.recipe or "language"]
    towers: dict[str, list[str]] = {"language": [], "vision": []}
    head = loaded.model.get_output_embeddings()
    for name, module in loaded.model.named_modules():
        tower = tower_of(f"{name}.weight", family)
        if hasattr(module, "in_features") and module is not head and tower in towers:
            towers[tower].append(name)
    spread = choose_sharding(settings, loaded.placement.device.type, ranks.num_ranks()) == "fsdp"
    parts = ranks.num_ranks() if spread else 1
    load = Load(
        weights=torch.cuda.memory_allocated(loaded.placement.device) // parts,
        trained=adapter.num_parameters // parts,
        tokens=longest.train.sum(axis=1),
        answers=longest.train[:, 1],
        images=longest.train[:, 0],  # nearly all of a prompt is its image
        lora_rank=settings.adapter.r or 0,
        vision_trains="vision" in recipe,
        compiled=family.packing is not None and train.compile != "off" and train.packing == "auto" and not spread,
        float8=settings.quantization == "fp8",
        dropout=bool(settings.adapter.dropout),
    )
    shape = read_shape(loaded.model, towers["language"], towers["vision"])
    card = read_card(loaded.placement.device, train.memory_gb)
    step = ranks.first_does(lambda: plan_step(shape, load, card, train, ranks.num_ranks()))
    print(*step.reasons, "", sep="\n", flush=True)
    return replace(step, lengths=lengths)


def small_step(loaded: Loaded, settings: Settings) -> StepPlan:
    """A few images at once; on a GPU, whose memory is then not reckoned with, every layer is computed twice."""
    on_card, asked = loaded.placement.device.type == "cuda", settings.train.checkpointing
    twice = asked == "on" or (asked == "auto" and on_card)
    again = len(language_layers(loaded.model, loaded.source.family)) if twice else 0
    micro = settings.train.micro_batch or SMALL_BATCH
    return StepPlan(micro_batch=micro, checkpointed=again, peak=0, samples_s=0.0, reasons=())


def read_card(device: torch.device, memory_gb: float | None) -> Card:
    """What is free on the card together with what this process holds, or `memory_gb` of it; and its rate, measured.

    With `memory_gb` the process is held to it: what goes beyond fails as it would on a card of that size.
    """
    free, total = torch.cuda.mem_get_info(device)
    memory = free + torch.cuda.memory_reserved(device)
    if memory_gb is not None:
        memory = min(memory, int(memory_gb * GIB))
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory / total), device)
    left, right = (torch.randn(PROBED, PROBED, device=device).to(torch.bfloat16) for _ in range(2))
    for _ in range(5):  # the first calls choose a kernel and wake the card
        left @ right
    torch.cuda.synchronize(device)
    started, times = time.perf_counter(), 20
    for _ in range(times):
        left @ right
    torch.cuda.synchronize(device)
    return Card(memory=memory, tflops=times * 2 * PROBED**3 / (time.perf_counter() - started) / 1e12)
