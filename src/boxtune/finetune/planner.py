"""How a step is cut up, decided before the run: images at once, layers computed twice, and what both will take.

From the model's shape, the data's own lengths and the device. The formulas count what the compiled layers of
`quicken` keep for the backward; on an H200 the peak they predict lay within 3 % of the real one for all of
docs/speed.md. Speeds are rougher: they say which of two plans is the faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from boxtune.settings import TrainSettings

GIB = 2**30
USABLE = 0.95
"""Share of a card's memory that a plan fills."""
GAPS = 7
"""Tensors as wide as an MLP that would fit into the gaps which torch leaves between those in use: it held 2.8, 2.6 and
1.5 GB more than the peak with 10,736 and 5,368 tokens at once (25, 27 and 12 of 28 layers twice, H200)."""
BYTES_PER_TRAINED = 14
"""Weight and both moments of AdamW in fp32, and a copy in 16 bits. Gradients come while activations go: they are no
part of the peak."""
UNFUSED = 1.35
"""What eager layers keep, as a multiple of what compiled ones do (65 against 51 GB with weights, in a trial, H200)."""
RATES = {"language": 0.68, "vision": 0.60, "fp8": 1.16, "dropout": 0.95}
"""Shares of the card's rate for dense products that the towers reach, and what float8 and dropout multiply them by."""
MICRO_BATCH_S = 0.03
"""Seconds that a micro-batch takes beyond those of its samples."""
HOST_S = {"language": 0.0073, "vision": 0.0036, "step": 0.055}
"""Seconds that the host needs to launch a layer's forward and backward, and around a micro-batch (H200's host)."""
SMALL_BATCH = 2
"""Images at once where nothing is planned: on CPUs, where more bring nothing, and for families without a shape."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of a model decides memory and time. Widths are numbers a token; `vision_*` 0 where they are not known.

    `linear` and `vision_linear` are the numbers of weights in the layers of either tower; `merge` patches make a token.
    """

    layers: int
    hidden: int
    inner: int
    queries: int
    keys: int
    heads: int
    linear: int
    vision_layers: int
    vision_hidden: int
    vision_inner: int
    vision_linear: int
    merge: int


@dataclass(frozen=True, kw_only=True)
class Card:
    """The device: how much memory a run may use in all (bytes), and its rate for dense products in TFLOP/s."""

    memory: int
    tflops: float


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """Images at once, how many of the language tower's layers are computed twice, and what is expected of it.

    `peak` in bytes and `samples_s` are of one process; 0 where nothing was planned. `reasons` say why, a line each.
    `longest` is the number of tokens of the longest sample, `lengths` that of each training sample that was measured.
    """

    micro_batch: int
    checkpointed: int
    peak: int
    samples_s: float
    reasons: tuple[str, ...]
    longest: int = 0
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked of the device: `weights` and `trained` as bytes in memory and number of trained parameters.

    `tokens` are of whole samples, `answers` of their answers; `lora_rank` of the layers, `vision_trains` whether the
    vision tower keeps activations too. `compiled`, `float8` and `dropout`: how layers are computed.
    """

    weights: int
    trained: int
    tokens: Int[np.ndarray, " k"]
    answers: Int[np.ndarray, " k"]
    images: Int[np.ndarray, " k"]
    lora_rank: int
    vision_trains: bool
    compiled: bool
    float8: bool
    dropout: bool

    @property
    def told(self) -> float:
        """Share of the tokens that are answers."""
        return min(1.0, float(self.answers.sum() / max(1, self.tokens.sum())))


def peak_bytes(shape: Shape, load: Load, micro: int, checkpointed: int, *, accumulates: bool = False) -> int:
    """The most that is in use at once, in one of the longest batches of that many samples.

    Where it `accumulates`, the gradients of the micro-batches before are there too.
    """
    tokens, patches = _long_batch(load.tokens, micro), _long_batch(load.images, micro) * shape.merge**2
    grows = 1.0 if load.compiled else UNFUSED
    kept = grows * layer_bytes(shape, load.lora_rank)
    # The last layer is not compiled, and its MLP works at the answers alone.
    last = UNFUSED * (layer_bytes(shape, load.lora_rank) - 6 * shape.inner * (1 - load.told))
    once = (shape.layers - checkpointed - 1) * kept + last if checkpointed < shape.layers else 0
    # The first layers are computed twice. When their turn comes, one at a time, what the others kept is gone.
    layers = checkpointed * 2 * shape.hidden + max(once, kept if checkpointed else 0)
    # While one layer is run backward: the gradients of its activations.
    busy = 2 * (2 * shape.inner + 2 * shape.hidden)
    language = tokens * (layers + busy + 4 * shape.hidden)
    vision_layer = 2 * (6 * shape.vision_hidden + 2 * shape.vision_inner)
    vision_pass = patches * 2 * vision_layer
    if load.vision_trains:
        language += patches * shape.vision_layers * grows * (vision_layer + 4 * shape.vision_hidden)
    per_trained = BYTES_PER_TRAINED + 4 * accumulates
    return int(load.weights + per_trained * load.trained + max(language, vision_pass))


def gap_bytes(shape: Shape, load: Load, micro: int) -> int:
    """What torch holds beyond the peak, between tensors, while it runs batches of that many samples."""
    return int(GAPS * 2 * shape.inner * _long_batch(load.tokens, micro))


def layer_bytes(shape: Shape, rank: int) -> int:
    """What one compiled decoder layer keeps for the backward of each token, in 16 bits.

    The stream before attention and before the MLP, both after their norms, query, key, value and what attention makes
    of them with its sums in fp32, gate, up and their product, and what the seven adapters have between A and B.
    """
    numbers = 4 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 3 * shape.inner + 7 * rank
    return 2 * numbers + 4 * shape.heads


def seconds(shape: Shape, load: Load, card: Card, micro: int, checkpointed: int) -> float:
    """Time of one micro-batch of average samples: what the card needs, or the host where that is more."""
    tokens, images = float(load.tokens.mean()) * micro, float(load.images.mean()) * micro
    patches, each = images * shape.merge**2, float(load.images.mean()) * shape.merge**2
    attention = 2 * float((load.tokens.astype(float) ** 2).mean()) * micro * shape.queries * shape.layers
    # All but keys and values of the last layer is computed at the answers alone.
    spared = (shape.linear / shape.layers - 2 * shape.hidden * shape.keys) * (1 - load.told)
    forward = 2.0 * (shape.linear - spared) * tokens + attention
    again = checkpointed / shape.layers
    seen = 2.0 * shape.vision_linear * patches + 4 * patches * each * shape.vision_hidden * shape.vision_layers
    rate = card.tflops * 1e12 * (RATES["fp8"] if load.float8 else 1.0) * (RATES["dropout"] if load.dropout else 1.0)
    on_card = MICRO_BATCH_S + forward * (2 + again) / (rate * RATES["language"])
    on_card += seen * (3 if load.vision_trains else 1) / (rate * RATES["vision"])
    host = HOST_S["language"] * shape.layers * (1 + again / 2) + HOST_S["vision"] * shape.vision_layers + HOST_S["step"]
    return max(on_card, host)


def _long_batch(lengths: Int[np.ndarray, " k"], micro: int) -> float:
    """Tokens of one of the longest batches of a run: the mean and 3.5 deviations, at most the longest samples together.

    Of lengths with a long tail one batch in a hundred may be longer.
    """
    if len(lengths) == 0:
        return 0.0
    spread = float(lengths.mean()) * micro + 3.5 * float(lengths.std()) * math.sqrt(micro)
    # Again from the longest where the batch holds more than there are.
    return min(spread, float(np.resize(np.sort(lengths)[::-1], micro).sum()))


def plan_step(shape: Shape, load: Load, card: Card, train: TrainSettings, num_ranks: int) -> StepPlan:
    """The fastest way to cut up a step that fits into the card, within what the settings leave open."""
    assert train.effective_batch
    share = max(1, train.effective_batch // num_ranks)
    micros = [n for n in range(1, min(share, train.micro_batch or 64) + 1) if share % n == 0]
    micros = micros[-1:] if train.micro_batch else micros  # what `share_batch` makes of it
    ways = {"on": [shape.layers], "off": [0], "auto": list(range(shape.layers + 1))}[train.checkpointing]
    room = USABLE * card.memory
    best: tuple[float, int, int] | None = None
    for micro in micros:
        more = micro < share
        left = room - gap_bytes(shape, load, micro)
        fits = next((way for way in ways if peak_bytes(shape, load, micro, way, accumulates=more) <= left), None)
        if fits is not None:
            each = seconds(shape, load, card, micro, fits) / micro
            best = min(best or (math.inf, 0, 0), (each, micro, fits))
    if best is None:
        micro, fits = min(micros), ways[-1]
        best = (seconds(shape, load, card, micro, fits) / micro, micro, fits)
    return _told(shape, load, card, share, *best)


def _told(shape: Shape, load: Load, card: Card, share: int, each: float, micro: int, again: int) -> StepPlan:
    peak = peak_bytes(shape, load, micro, again, accumulates=micro < share)
    gaps = gap_bytes(shape, load, micro)
    how = "every layer once" if not again else f"{again} of {shape.layers} layers of the language tower twice"
    reasons = [
        f"plan: {micro} images at once, {share // micro} times a step; {how}, "
        f"{'compiled' if load.compiled else 'not compiled'}",
        f"memory: peak about {peak / GIB:.1f} of {card.memory / GIB:.1f} GB: weights {load.weights / GIB:.1f}, adapter "
        f"and optimizer {BYTES_PER_TRAINED * load.trained / GIB:.1f}, activations the rest (samples of "
        f"{load.tokens.mean():,.0f} tokens, the longest {load.tokens.max():,}); {gaps / GIB:.1f} more in gaps",
        f"speed: about {1 / each:.1f} samples a second and process ({card.tflops:,.0f} TFLOP/s in dense products)",
    ]
    if peak + gaps > USABLE * card.memory:
        reasons.append(
            "this may not fit: lower image.max_pixels, or split images into tiles (data.tile); it is tried all the same"
        )
    return StepPlan(
        micro_batch=micro,
        checkpointed=again,
        peak=peak,
        samples_s=1 / each,
        reasons=tuple(reasons),
        longest=int(load.tokens.max()),
    )


def has_shape(config: Any) -> bool:
    """Whether a model's config says what `read_shape` needs; those of Florence-2 and Kosmos-2 have other words."""
    text = config.get_text_config()
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    return all(getattr(text, name, None) for name in needed)


def read_shape(model: Any, layers: Sequence[str], vision: Sequence[str]) -> Shape:
    """The shape of a base model from its config, and from the linear layers of its language and vision towers."""
    text = model.config.get_text_config()
    seen = getattr(model.config, "vision_config", None)
    linear = dict(model.named_modules())
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    hidden = _number(seen, "embed_dim", "hidden_size")
    return Shape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=text.intermediate_size,
        queries=text.num_attention_heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or text.num_attention_heads) * width,
        heads=text.num_attention_heads,
        linear=sum(linear[name].in_features * linear[name].out_features for name in layers),
        vision_layers=_number(seen, "depth", "num_hidden_layers"),
        vision_hidden=hidden,
        vision_inner=_number(seen, "intermediate_size") or 4 * hidden,
        vision_linear=sum(linear[name].in_features * linear[name].out_features for name in vision),
        merge=getattr(seen, "spatial_merge_size", 1),
    )


def _number(config: Any, *names: str) -> int:
    """The first of these that a config says, 0 where it says none."""
    return next((int(getattr(config, name)) for name in names if getattr(config, name, None)), 0)
