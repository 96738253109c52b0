"""Things that must be the same, and things that must not: batch and single, saved and loaded, image and blank, base and
adapter, what comes after and what came before. Run where the weights have already moved."""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from boxtune.guard.batches import Batches, answers_in_order, collate_rows, copy_of, num_supervised, tensor_of
from boxtune.guard.finding import Finding
from boxtune.guard.probe import autocast_of, loss_of, train_on

PIXELS = ("pixel_values", "pixel_values_videos", "image_pixel_values", "flattened_patches")
CLOSE = {"float32": 2e-3, "bfloat16": 3e-2, "float16": 1e-2}
"""How far losses of the same samples may lie apart, as a share, by the format that is computed in."""
APART = {"float32": 2e-2, "bfloat16": 2e-1, "float16": 1e-1}
"""The same of their gradients."""


def logits_of(trainer: Any, batch: Mapping[str, Any]) -> torch.Tensor | None:
    """Logits of a batch under the run's mixed precision, dropout off; None where the model gives none."""
    model = trainer.model
    model.eval()
    inputs = {key: value for key, value in copy_of(batch).items() if key != "labels"}
    with torch.no_grad(), autocast_of(trainer):
        logits = getattr(model(**inputs), "logits", None)
    return logits.detach().float() if isinstance(logits, torch.Tensor) else None


class Shown:
    """A batch, and what the model says of it, which several checks start from before anything more is trained.

    `logits` are None where the model gives none; `positions` are what it handed to its rotary embeddings.
    """

    def __init__(self, trainer: Any, batch: Mapping[str, Any]) -> None:
        self.trainer, self.batch = trainer, batch

    @functools.cached_property
    def _said(self) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        positions: list[torch.Tensor] = []

        def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = kwargs.get("position_ids", args[1] if len(args) > 1 else None)
            if isinstance(given, torch.Tensor):
                positions.append(given.detach())

        hooks = [
            module.register_forward_pre_hook(look, with_kwargs=True)
            for name, module in self.trainer.model.named_modules()
            if name.endswith("rotary_emb") and "visual" not in name
        ]
        try:
            return logits_of(self.trainer, self.batch), positions
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def logits(self) -> torch.Tensor | None:
        return self._said[0]

    @property
    def positions(self) -> list[torch.Tensor]:
        return self._said[1]


def show_few(trainer: Any, batches: Batches) -> Shown:
    """Two samples, or the first batch where they do not make one like it: what is asked here takes no more."""
    first, rows = batches.train[0], batches.rows
    ids = tensor_of(first, "input_ids")
    if rows is None or batches.collate is None or len(rows) < 2 or ids is None or ids.shape[0] <= 2:
        return Shown(trainer, first)
    few = collate_rows(batches, rows[:2], trainer)
    alike = isinstance(few, Mapping) and few.keys() == first.keys() and bool(num_supervised(few))
    return Shown(trainer, few if alike else first)


def holds_image(row: Any) -> bool:
    """Whether a data set's row comes with an image: a column of that name, or a part of a message."""
    if isinstance(row, Mapping):
        named = any(key in ("image", "images", "pixel_values") and row[key] is not None for key in row)
        return named or row.get("type") == "image" or any(holds_image(value) for value in row.values())
    return isinstance(row, (list, tuple)) and any(holds_image(part) for part in row)


def check_image(trainer: Any, batches: Batches, shown: Shown) -> list[Finding]:
    """Whether another image gives other logits."""
    batch = batches.train[0]
    names = [name for name in PIXELS if torch.is_tensor(batch.get(name))]
    vision = getattr(getattr(trainer.model, "config", None), "vision_config", None) is not None
    if not names:
        if not vision or any(batch.get(name) is not None for name in PIXELS):
            # No vision tower, or pixels in a form that cannot be blanked (lists of one tensor an image).
            return []
        seen = "the batches hold no pixels, though the model has a vision tower"
        fix = "the collator drops the images: look at its column names and at remove_unused_columns"
        # Text alone may be meant; not so where the data brings images.
        level = "fail" if any(map(holds_image, batches.rows or ())) else "warn"
        return [Finding(check="image.used", level=level, seen=seen, fix=fix)]  # type: ignore[arg-type]
    first, batch = shown.logits, shown.batch
    if first is None:
        return []
    blank = copy_of(batch)
    for name in names:
        blank[name] = torch.full_like(blank[name], float(blank[name].float().mean()))
    other = logits_of(trainer, blank)
    difference = 0.0 if other is None else float((other - first).abs().max())
    if difference > 0:
        if same := _all_the_same(batches, names[0]):
            return [same]
        return [Finding(check="image.used", level="ok", seen=f"a blank image moves logits by up to {difference:.3g}")]
    if all(float(batch[name].float().std()) == 0 for name in names):
        seen, fix = "all images of the first batch are of one colour", "look at the files, and at what opens them"
        return [Finding(check="image.used", level="fail", seen=seen, fix=fix)]
    seen = "a blank image gives the same logits: the model does not see its images"
    fix = "the prompt lacks the image token, or the vision tower's output is not put in its place"
    return [Finding(check="image.used", level="fail", seen=seen, fix=fix)]


def _all_the_same(batches: Batches, name: str) -> Finding | None:
    """A warning where several samples with different answers come with one and the same image."""
    images: list[torch.Tensor] = []
    answers: set[tuple[int, ...]] = set()
    for batch in batches.train:
        pixels, grid, labels = (tensor_of(batch, key) for key in (name, "image_grid_thw", "labels"))
        if pixels is None or labels is None:
            return None
        images += pixels.split(grid.prod(-1).tolist()) if grid is not None else list(pixels)
        answers |= {tuple(row[row != -100].tolist()) for row in labels}
    if len(images) < 4 or len(answers) < 4 or any(not torch.equal(image, images[0]) for image in images[1:]):
        return None
    seen = f"all {len(images)} images of the first batches are the same picture, with {len(answers)} different answers"
    fix = "fine if each image is asked about many times in a row; else the images are read wrongly"
    return Finding(check="image.used", level="warn", seen=seen, fix=fix)


def check_image_tokens(trainer: Any, batch: Mapping[str, Any]) -> list[Finding]:
    """As many places for image tokens in each batch as the grid of its images makes."""
    config = getattr(trainer.model, "config", None)
    grid, ids = tensor_of(batch, "image_grid_thw"), tensor_of(batch, "input_ids")
    token = getattr(config, "image_token_id", None)
    merge = getattr(getattr(config, "vision_config", None), "spatial_merge_size", None)
    if grid is None or ids is None or token is None or merge is None:
        return []
    there, made = int((ids == token).sum()), int(grid.prod(-1).sum()) // merge**2
    if there == made:
        return [Finding(check="image.tokens", level="ok", seen=f"{there} image tokens, as the grid says")]
    seen = f"{there} places for image tokens in the first batch, its grid makes {made}"
    return [Finding(check="image.tokens", level="fail", seen=seen, fix="images or tokens were cut: raise max_length")]


def check_positions(trainer: Any, shown: Shown) -> list[Finding]:
    """Three-dimensional positions where the family has them, with height and width that vary over an image."""
    config = getattr(trainer.model, "config", None)
    text = getattr(config, "text_config", config)
    ropes = [getattr(text, name, None) for name in ("rope_scaling", "rope_parameters")]
    if not any(isinstance(rope, Mapping) and rope.get("mrope_section") for rope in ropes):
        return []
    if not any(hasattr(module, "get_rope_index") for module in trainer.model.modules()):
        # MiniCPM-V 4.6 has the text model of a family with such positions, and counts its images in one dimension.
        return []
    token, ids = getattr(config, "image_token_id", None), tensor_of(shown.batch, "input_ids")
    if token is None or ids is None or not bool((ids == token).any()) or not shown.positions:
        return []
    positions = shown.positions[0]
    flat = positions.ndim != 3 or positions.shape[0] < 3
    if not flat:
        width = (ids == token) if positions.shape[-2:] == ids.shape else None
        time, height, across = (positions[-3 + axis] for axis in range(3))
        flat = (
            bool((height == across).all() and (time == height).all())
            if width is None
            else bool((height[width] == across[width]).all())
        )
    if flat:
        fix = "position_ids must come from the model's get_rope_index (three rows: time, height, width)"
        return [
            Finding(check="positions.3d", level="fail", seen="positions of image tokens are one-dimensional", fix=fix)
        ]
    return [Finding(check="positions.3d", level="ok", seen="positions of image tokens are three-dimensional")]


def check_batching(trainer: Any, batches: Batches) -> list[Finding]:
    """The loss of n samples is that of the same samples one by one, each by its number of supervised tokens."""
    rows = batches.rows
    if rows is None or batches.collate is None or len(rows) < 2:
        return [Finding(check="batch.same", level="cannot_tell", seen=batches.why or "fewer than two samples")]
    together = collate_rows(batches, rows, trainer)
    if not isinstance(together, Mapping) or not num_supervised(together):
        return []
    singles, counts = [], []
    for row in rows:
        single = collate_rows(batches, [row], trainer)
        count = num_supervised(single)
        if count:
            singles.append(loss_of(trainer, single))
            counts.append(count)
    if not counts:
        return []
    expected = sum(loss * count for loss, count in zip(singles, counts, strict=True)) / sum(counts)
    found = loss_of(trainer, together)
    # A loss that is averaged by sample, not by token, is a choice and no fault.
    by_sample = sum(singles) / len(singles)
    close = CLOSE[computed_in(trainer)] * max(0.05, abs(expected))
    told = f"loss of {len(rows)} samples together {found:.5f}, one by one {expected:.5f}"
    if min(abs(found - expected), abs(found - by_sample)) <= close:
        return [Finding(check="batch.same", level="ok", seen=told)]
    level = "fail" if abs(found - expected) > 10 * close else "warn"
    fix = "padding, packing or the collator mixes samples: images with other answers, or attention across samples"
    return [Finding(check="batch.same", level=level, seen=told, fix=fix)]  # type: ignore[arg-type]


def check_accumulation(trainer: Any, batches: Batches) -> list[Finding]:
    """The gradient of n samples in one batch is that of the same samples accumulated one by one."""
    rows, model = batches.rows, trainer.model_wrapped
    if trainer.args.gradient_accumulation_steps < 2 or rows is None or batches.collate is None or len(rows) < 2:
        return []
    if any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in trainer.model.modules()):
        # What is left out differs from one pass to the next.
        return []
    together = collate_rows(batches, rows, trainer)
    singles = [collate_rows(batches, [row], trainer) for row in rows]
    if not all(map(num_supervised, [together, *singles])):
        return []
    trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]

    def gradient_of(parts: list[Any]) -> list[torch.Tensor]:
        model.zero_grad()
        train_on(trainer, model, parts)
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in trainable]

    once = gradient_of([together])
    share = _apart(once, gradient_of(singles))
    limit = APART[computed_in(trainer)]
    # Dropout that is no module, but a number in the config, shows only when the same is computed again.
    if share > limit and _apart(once, gradient_of([together])) > limit:
        model.zero_grad()
        return []
    model.zero_grad()
    told = f"gradients of {len(rows)} samples at once and accumulated one by one are {100 * share:.2g} % apart"
    if share <= limit:
        return [Finding(check="accumulation.same", level="ok", seen=told)]
    fix = "short answers and long ones count otherwise: upgrade transformers, or use larger batches and accumulate less"
    return [Finding(check="accumulation.same", level="warn", seen=told, fix=fix)]


def computed_in(trainer: Any) -> str:
    """The number format of the forward pass."""
    if trainer.args.bf16:
        return "bfloat16"
    if trainer.args.fp16:
        return "float16"
    dtypes = {p.dtype for p in trainer.model.parameters() if p.is_floating_point()}
    return "bfloat16" if torch.bfloat16 in dtypes else "float16" if torch.float16 in dtypes else "float32"


def check_causal(trainer: Any, shown: Shown) -> list[Finding]:
    """Another last token does not change what is said before it (labels do not leak backwards)."""
    batch = shown.batch
    ids, labels = tensor_of(batch, "input_ids"), tensor_of(batch, "labels")
    if ids is None or labels is None or ids.shape != labels.shape or ids.ndim != 2:
        return []
    if not answers_in_order(trainer):
        return []
    spoken = (labels[0] != -100).nonzero().flatten()
    if len(spoken) < 2:
        return []
    last = int(spoken[-1])
    first = shown.logits
    if first is None or first.shape[:2] != ids.shape:
        return []
    other = copy_of(batch)
    other["input_ids"] = ids.clone()
    other["input_ids"][0, last] = ids[0, int(spoken[0])] if ids[0, last] != ids[0, int(spoken[0])] else ids[0, last - 1]
    if bool(other["input_ids"][0, last] == ids[0, last]):
        return []
    second = logits_of(trainer, other)
    if second is None:
        return []
    moved = (second[0, :last] - first[0, :last]).abs().max()
    if float(moved) <= 1e-3 * float(first[0, :last].abs().max()):
        return [Finding(check="labels.leak", level="ok", seen="later tokens do not change earlier logits")]
    seen = f"another last token changes the logits before it by up to {float(moved):.3g}"
    fix = "attention sees the answer: token_type_ids or the attention mask are wrong"
    return [Finding(check="labels.leak", level="fail", seen=seen, fix=fix)]


def _apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """How far apart two gradients are, as a share of the size of the first."""
    size = math.sqrt(sum(float(a.float().square().sum()) for a in one))
    off = math.sqrt(sum(float((a - b).float().square().sum()) for a, b in zip(one, other, strict=True)))
    return off / max(size, 1e-12)


def check_adapter(trainer: Any, batch: Mapping[str, Any]) -> list[Finding]:
    """After the steps the adapter makes a difference to the base."""
    model = trainer.model
    if not hasattr(model, "disable_adapter") or not hasattr(model, "peft_config"):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        # Only weights of the base are trained.
        return []
    tuned = logits_of(trainer, batch)
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with model.disable_adapter():
        base = logits_of(trainer, batch)
    for parameter, flag in trainable:
        # PEFT makes every adapter trainable when it switches it on again, also what was frozen on purpose.
        parameter.requires_grad_(flag)
    if tuned is None or base is None:
        return []
    difference = float((tuned - base).abs().max())
    if difference > 0:
        return [Finding(check="adapter.used", level="ok", seen=f"the adapter moves logits by up to {difference:.3g}")]
    seen, fix = "base and adapter give the same logits after the steps", "the adapter is disabled, or scaled by 0"
    return [Finding(check="adapter.used", level="fail", seen=seen, fix=fix)]


def check_saving(trainer: Any, batch: Mapping[str, Any]) -> list[Finding]:
    """The adapter, saved and loaded again into a model without it, gives the same logits.

    A trainer that keeps trained weights of the base in a file of its own has `write_weights` and `read_weights` of a
    folder.
    """
    model = trainer.model
    if not hasattr(model, "peft_config") or not hasattr(model, "save_pretrained"):
        return []
    from peft import load_peft_weights, set_peft_model_state_dict

    name = model.active_adapter if isinstance(model.active_adapter, str) else model.active_adapters[0]
    before = logits_of(trainer, batch)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    kept = {n: p.detach().clone() for n, p in trained.items()}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        model.save_pretrained(folder, selected_adapters=[name])
        if has_own := hasattr(trainer, "write_weights") and hasattr(trainer, "read_weights"):
            trainer.write_weights(folder)
        where = folder if name == "default" else f"{folder}/{name}"
        weights = load_peft_weights(where, device="cpu")
        try:
            with torch.no_grad():
                for parameter in trained.values():
                    parameter.zero_()
            set_peft_model_state_dict(model, weights, adapter_name=name)
            if has_own:
                trainer.read_weights(folder)
            missing = [n for n, p in trained.items() if not torch.equal(p.detach(), kept[n])]
            after = logits_of(trainer, batch)
        finally:
            with torch.no_grad():
                for n, parameter in trained.items():
                    parameter.copy_(kept[n])
    if before is None or after is None:
        return []
    if not missing and torch.equal(before, after):
        return [Finding(check="save.same", level="ok", seen=f"{len(kept)} tensors saved and loaded: the same logits")]
    difference = float((before - after).abs().max())
    level = "fail" if missing and difference > 0 else "warn"
    seen = f"after saving and loading, {len(missing)} of {len(kept)} trained tensors differ, logits by {difference:.3g}"
    where = ", ".join(missing[:2])
    fix = "what is trained outside the adapter is not saved: name it in modules_to_save or trainable_token_indices"
    return [Finding(check="save.same", level=level, seen=seen, where=where, fix=fix)]  # type: ignore[arg-type]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without PEFT's warnings about a base whose config it cannot find on the hub."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
