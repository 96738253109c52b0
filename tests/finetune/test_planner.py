"""How a step is cut up: what was measured is predicted, what is asked is kept, and more memory is never slower."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxtune.finetune.planner import GIB, USABLE, Card, Load, Shape, gap_bytes, peak_bytes, plan_step, seconds
from boxtune.settings import TrainSettings

QWEN2_VL_7B = Shape(
    layers=28,
    hidden=3584,
    inner=18944,
    queries=3584,
    keys=512,
    heads=28,
    linear=28 * (3584 * 3584 * 2 + 2 * 3584 * 512 + 3 * 3584 * 18944),
    vision_layers=32,
    vision_hidden=1280,
    vision_inner=5120,
    vision_linear=32 * (1280 * 3840 + 1280 * 1280 + 2 * 1280 * 5120),
    merge=2,
)
TFLOPS = 790.0
"""Of an H200, as `read_card` measures it."""


def make_load(weights_gib: float = 5.49, **changed: Any) -> Load:
    """LoRA of rank 64 on the language tower, by default samples of one length; in NF4 unless said otherwise."""
    tokens = changed.get("tokens", np.array([1342]))
    known: dict[str, Any] = {
        "weights": int(weights_gib * GIB),
        "trained": 161_480_704,
        "tokens": tokens,
        "answers": np.full(len(tokens), 40),
        "images": tokens * 1260 // 1342,
        "lora_rank": 64,
        "vision_trains": False,
        "compiled": True,
        "float8": False,
        "dropout": False,
    }
    return Load(**(known | changed))


def plan(memory_gib: float, load: Load | None = None, ranks: int = 1, shape: Shape = QWEN2_VL_7B, **train: Any) -> Any:
    asked = TrainSettings(**{"effective_batch": 16, **train})
    card = Card(memory=int(memory_gib * GIB), tflops=TFLOPS)
    return plan_step(shape, make_load() if load is None else load, card, asked, ranks)


@pytest.mark.parametrize(
    ("weights", "float8", "micro", "measured", "within"),
    [
        (5.53, False, 8, 52.53, 0.01),
        (5.53, False, 4, 30.08, 0.01),
        (8.75, True, 8, 55.74, 0.01),
        # Before the last layer was shortened.
        (5.49, False, 2, 18.82, 0.05),
        (5.49, False, 12, 76.43, 0.05),
        (15.44, False, 8, 63.36, 0.05),
    ],
)
def test_the_peak_is_what_was_measured(
    weights: float, float8: bool, micro: int, measured: float, within: float
) -> None:
    """On an H200, every layer computed once (docs/speed.md)."""
    predicted = peak_bytes(QWEN2_VL_7B, make_load(weights, float8=float8), micro, 0) / GIB
    assert abs(predicted / measured - 1) < within


@pytest.mark.parametrize(
    ("micro", "again", "measured", "held"),
    [(4, 12, 21.63, 23.11), (8, 25, 14.32, 17.01), (8, 27, 11.95, 14.57), (8, 28, 11.95, None), (2, 14, 14.32, None)],
)
def test_the_peak_with_checkpoints_is_what_was_measured(
    micro: int, again: int, measured: float, held: float | None
) -> None:
    """On an H200, eight images a step (docs/speed.md), and what torch held with gaps where that was looked at."""
    load = make_load(5.53)
    predicted = peak_bytes(QWEN2_VL_7B, load, micro, again, accumulates=micro < 8)
    assert abs(predicted / GIB / measured - 1) < 0.03
    if held is not None:
        assert abs((predicted + gap_bytes(QWEN2_VL_7B, load, micro)) / GIB / held - 1) < 0.03


def test_a_batch_of_all_there_is_is_as_long_as_all_together() -> None:
    """On an H200, eight samples of 266 to 1,918 tokens in one batch: 42.19 GB."""
    tokens, answers = np.array([1342, 453, 1918, 266, 733, 1037, 1142, 1126]), [40, 20, 600, 80, 300, 120, 200, 60]
    load = make_load(5.53, tokens=tokens, answers=np.array(answers), images=tokens - answers)
    assert abs(peak_bytes(QWEN2_VL_7B, load, 8, 0) / GIB / 42.19 - 1) < 0.03


@pytest.mark.parametrize("gigabytes", [16, 24, 80])
def test_plans_for_common_cards(gigabytes: int) -> None:
    step = plan(gigabytes)
    assert step.peak + gap_bytes(QWEN2_VL_7B, make_load(), step.micro_batch) <= USABLE * gigabytes * GIB
    more = step.micro_batch < 16
    assert step.peak == peak_bytes(QWEN2_VL_7B, make_load(), step.micro_batch, step.checkpointed, accumulates=more)
    assert 16 % step.micro_batch == 0 and 0 <= step.checkpointed <= 28
    assert not any("may not fit" in line for line in step.reasons)
    assert step.longest == 1342
    said = " ".join(step.reasons)
    assert f"{step.micro_batch} images at once, {16 // step.micro_batch} times a step" in said
    assert f"{step.peak / GIB:.1f} of {gigabytes:.1f} GB" in said and f"{step.samples_s:.1f} samples a second" in said


def test_a_large_card_computes_every_layer_once() -> None:
    assert plan(139).checkpointed == 0 and plan(139).micro_batch >= 8
    assert plan(80).checkpointed == 0
    small = plan(16)
    assert "every layer once" in plan(139).reasons[0]
    assert small.checkpointed > 0 and "layers of the language tower twice" in small.reasons[0]
    assert plan(16).samples_s <= plan(24).samples_s <= plan(80).samples_s


MEMORY = st.floats(min_value=6, max_value=200)
LENGTHS = st.lists(st.integers(min_value=20, max_value=20_000), min_size=1, max_size=40)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    memory=st.tuples(MEMORY, MEMORY).map(sorted),
    tokens=LENGTHS,
    effective=st.sampled_from([1, 2, 6, 16, 64]),
    checkpointing=st.sampled_from(["auto", "on", "off"]),
    vision_trains=st.booleans(),
    compiled=st.booleans(),
)
def test_more_memory_is_never_slower(
    memory: list[float], tokens: list[int], effective: int, checkpointing: str, vision_trains: bool, compiled: bool
) -> None:
    lengths = np.array(tokens)
    load = make_load(tokens=lengths, images=lengths // 2, vision_trains=vision_trains, compiled=compiled)
    less, more = (plan(size, load, effective_batch=effective, checkpointing=checkpointing) for size in memory)
    fits = less.peak + gap_bytes(QWEN2_VL_7B, load, less.micro_batch) <= USABLE * memory[0] * GIB
    assert fits == (not any("may not fit" in line for line in less.reasons))
    assert more.samples_s >= less.samples_s
    if fits:
        assert more.peak <= USABLE * memory[1] * GIB
        # No other way to cut up the step is faster and fits too.
        card = Card(memory=int(memory[0] * GIB), tflops=TFLOPS)
        for micro in (n for n in range(1, effective + 1) if effective % n == 0):
            for again in {"auto": range(29), "on": [28], "off": [0]}[checkpointing]:
                more_steps = micro < effective
                peak = peak_bytes(QWEN2_VL_7B, load, micro, again, accumulates=more_steps)
                if peak + gap_bytes(QWEN2_VL_7B, load, micro) <= USABLE * card.memory:
                    each = seconds(QWEN2_VL_7B, load, card, micro, again) / micro
                    assert 1 / each <= less.samples_s * (1 + 1e-9)
    else:
        assert less.micro_batch == 1


@settings(max_examples=50)
@given(
    tokens=LENGTHS, micro=st.integers(min_value=1, max_value=64), again=st.integers(min_value=2, max_value=28),
    vision_trains=st.booleans(),
)  # fmt: skip
def test_peaks_grow_with_the_batch_and_fall_with_checkpoints(
    tokens: list[int], micro: int, again: int, vision_trains: bool
) -> None:
    load = make_load(tokens=np.array(tokens), vision_trains=vision_trains)
    peak = peak_bytes(QWEN2_VL_7B, load, micro, again)
    assert peak_bytes(QWEN2_VL_7B, load, micro + 1, again) > peak > load.weights + 14 * load.trained
    assert peak_bytes(QWEN2_VL_7B, load, micro, again - 1) >= peak
    assert peak_bytes(QWEN2_VL_7B, replace(load, compiled=False), micro, again) > peak
    assert peak_bytes(QWEN2_VL_7B, replace(load, vision_trains=True), micro, again) >= peak


def test_settings_are_kept() -> None:
    for memory in (16, 24, 80):
        for micro in (1, 2, 8, 16):
            assert plan(memory, micro_batch=micro).micro_batch == micro
        on, off = plan(memory, checkpointing="on"), plan(memory, checkpointing="off")
        assert (on.checkpointed, off.checkpointed) == (28, 0)
        assert "28 of 28 layers of the language tower twice" in on.reasons[0] and "every layer once" in off.reasons[0]
    both = plan(24, micro_batch=4, checkpointing="off")
    assert (both.micro_batch, both.checkpointed) == (4, 0) and any("may not fit" in line for line in both.reasons)


def test_where_nothing_fits_the_smallest_is_tried_and_said() -> None:
    step = plan(6)
    assert (step.micro_batch, step.checkpointed) == (1, 28) and step.peak > USABLE * 6 * GIB
    assert "this may not fit: lower image.max_pixels" in step.reasons[-1]
    assert plan(6, micro_batch=4).micro_batch == 4 and plan(6, checkpointing="off").checkpointed == 0
    assert len(plan(24).reasons) == len(step.reasons) - 1


@pytest.mark.parametrize(("ranks", "effective"), [(2, 16), (4, 16), (16, 16), (3, 6), (4, 4)])
def test_ranks_share_the_effective_batch(ranks: int, effective: int) -> None:
    share, step = effective // ranks, plan(139, ranks=ranks, effective_batch=effective)
    assert share % step.micro_batch == 0
    assert f"{step.micro_batch} images at once, {share // step.micro_batch} times a step" in step.reasons[0]
    assert step.micro_batch == plan(139, effective_batch=share).micro_batch


@pytest.mark.parametrize("micro", [3, 5, 32])
def test_what_is_said_of_a_fixed_micro_batch_is_what_will_be_done(micro: int) -> None:
    """A rank's share is cut into equal parts, none larger than asked: `share_batch`."""
    from boxtune.finetune.ranks import share_batch

    done, times = share_batch(16, micro, 1)
    step = plan(139, micro_batch=micro)
    assert step.micro_batch == done and f"{done} images at once, {times} times a step" in step.reasons[0]


def test_a_few_long_samples_among_many() -> None:
    """Batches are planned for the longest that is likely, not for all of them being the longest."""
    common, rare = [1342] * 995, [20_000] * 5
    tailed = make_load(tokens=np.array(common + rare))
    level, worst = make_load(tokens=np.array(common)), make_load(tokens=np.array(rare))
    for micro in (1, 4, 16):
        peaks = [peak_bytes(QWEN2_VL_7B, load, micro, 0) for load in (level, tailed, worst)]
        assert peaks == sorted(set(peaks))
    # As a share of what the batch takes the rare ones matter less, the larger it is.
    shares = [peak_bytes(QWEN2_VL_7B, tailed, m, 0) / peak_bytes(QWEN2_VL_7B, worst, m, 0) for m in (2, 8, 32)]
    assert shares == sorted(shares, reverse=True)
    assert plan(80, tailed).longest == 20_000
    assert plan(80, tailed).micro_batch <= plan(80, level).micro_batch
    assert any("the longest 20,000" in line for line in plan(80, tailed).reasons)


def test_draws_of_the_data_stay_below_the_plan() -> None:
    """Of batches drawn from a long tail one in fifty at most is longer than what was planned for."""
    rng = np.random.default_rng(0)
    tokens = rng.lognormal(np.log(1300), 0.5, 4000).astype(int)
    load = make_load(tokens=tokens, images=np.zeros_like(tokens))
    for micro in (2, 8):
        planned, over = peak_bytes(QWEN2_VL_7B, load, micro, 0), 0
        for drawn in rng.choice(tokens, (500, micro)).sum(axis=1, keepdims=True):
            over += peak_bytes(QWEN2_VL_7B, make_load(tokens=drawn, images=np.zeros(1, dtype=int)), 1, 0) > planned
        assert over < 0.02 * 500
        assert planned < peak_bytes(QWEN2_VL_7B, make_load(tokens=tokens[[tokens.argmax()]]), micro, 0)


def test_float8_and_less_work_are_faster() -> None:
    card = Card(memory=139 * GIB, tflops=TFLOPS)
    usual = seconds(QWEN2_VL_7B, make_load(), card, 8, 0)
    assert (
        seconds(QWEN2_VL_7B, make_load(float8=True), card, 8, 0)
        < usual
        < seconds(QWEN2_VL_7B, make_load(), card, 8, 28)
    )
    assert usual < seconds(QWEN2_VL_7B, make_load(vision_trains=True), card, 8, 0)
    assert usual < seconds(QWEN2_VL_7B, make_load(), replace(card, tflops=300.0), 8, 0)
    # Of a small batch the host is the bound: a faster card brings nothing.
    slow = make_load(tokens=np.array([10]), images=np.array([4]))
    assert seconds(QWEN2_VL_7B, slow, card, 1, 0) == seconds(QWEN2_VL_7B, slow, replace(card, tflops=9e3), 1, 0)
