"""The base model in memory: quantised, on the right device, in a precision the device really has."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from PIL.Image import new as new_image

from boxtune.data.tiles import Tiling
from boxtune.errors import ConfigError, Finding, ModelError
from boxtune.finetune.chat import fit_family
from boxtune.finetune.encode import Encoder
from boxtune.finetune.float8 import fitting, require_float8, to_float8_layers
from boxtune.finetune.patches import accept_bytes, check_patches
from boxtune.finetune.pixels import load_image_processor, see_image
from boxtune.finetune.processors import build_processor
from boxtune.finetune.quantization import avoid_packed_weights, build_quantization, check_quantised, find_unquantised
from boxtune.finetune.source import ModelSource

Precision = Literal["bf16", "fp16", "fp32"]
DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how the base computes; `notes` says in one line each what was chosen and why."""

    device: torch.device
    precision: Precision
    quantization: str
    notes: tuple[str, ...]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context that training, evaluation and prediction all run the model in."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A base model with the processor that feeds it, and the image budget that the processor was given.

    `full` are the towers kept out of the quantisation because their weights themselves are trained.
    """

    source: ModelSource
    placement: Placement
    model: Any
    processor: Any
    min_pixels: int
    max_pixels: int
    full: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def tokenizer(self) -> Any:
        """The processor's; it pads on the right, as training does."""
        return self.processor.tokenizer

    @property
    def image_processor(self) -> Any:
        """The processor's part for images, with our budget."""
        return self.processor.image_processor

    def with_model(self, model: Any) -> Loaded:
        """The same with another model in its place (the base under its adapter)."""
        return replace(self, model=model)


def choose_placement(quantization: str, precision: str) -> Placement:
    """Device, compute precision and quantisation for this machine.

    bf16 where the device has it natively, else fp16 on a GPU (with loss scaling) and fp32 on a CPU, where emulated
    bf16 is many times slower. Apple GPUs have no 4-bit or 8-bit kernels, so the base stays unquantised there.
    """
    notes = []
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        native: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        why = f"{torch.cuda.get_device_name(device)} has {'native' if native == 'bf16' else 'no native'} bf16"
    elif torch.backends.mps.is_available():
        device, native, why = torch.device("mps"), "fp32", "half precision has not been tried on Apple GPUs"
        if quantization != "none":
            notes.append(f"quantization={quantization} became none: Apple GPUs have no such kernels")
            quantization = "none"
    else:
        device = torch.device("cpu")
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native, why = ("bf16", "this CPU has native bf16") if has else ("fp32", "this CPU has no native bf16")
    chosen: Precision = native if precision == "auto" else precision  # type: ignore[assignment]
    if chosen == "fp16" and device.type != "cuda":
        raise ModelError("precision=fp16 needs a CUDA GPU", where="train.precision", fix="use precision=auto")
    notes.insert(0, f"{chosen} compute on {device.type}: {why if precision == 'auto' else 'as asked'}")
    weights = chosen if quantization == "none" else quantization
    notes.append(f"base weights in {weights}, while training and for every score, of the base as of the tuned model")
    return Placement(device=device, precision=chosen, quantization=quantization, notes=tuple(notes))


def load_base(
    source: ModelSource,
    placement: Placement,
    *,
    min_pixels: int,
    max_pixels: int,
    full: Collection[str] = (),
    spread: bool = False,
) -> Loaded:
    """The base model with its tokenizer and processor, ready for an adapter or for prediction.

    The image budget is the area in pixels after the resize. `full` are the towers whose weights are trained
    themselves: they are kept out of the quantisation. `spread`: FSDP2 is to cut the weights up. Raises ModelError where
    a part cannot be loaded or a special token of the family's grammar is not one token that the model has an embedding
    for.
    """
    import transformers
    from safetensors import SafetensorError

    _quiet_optional_kernel()
    arguments: dict[str, Any] = {"dtype": DTYPES[placement.precision], "device_map": {"": placement.device}}
    config = _load_part(source, "config.json", lambda: transformers.AutoConfig.from_pretrained(source.folder))
    if placement.quantization != "none":
        quantised, left = find_unquantised(config, source.family, full)
        if not quantised:
            raise ConfigError(
                f"nothing is left to store in {placement.quantization}: the weights of all towers are trained",
                where="adapter.recipe",
                fix="quantization=none, or another adapter.recipe",
            )
        if placement.quantization != "fp8":
            dtype = DTYPES[placement.precision]
            quantization = build_quantization(placement.quantization, dtype, left, spread=spread)
            arguments["quantization_config"] = quantization
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            source.folder, config=config, attn_implementation="sdpa", **arguments
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        fix = "read the reason above; fetch the model again where a file of it is broken"
        raise ModelError(f"the model cannot be loaded: {error}", where=str(source.folder), fix=fix) from error
    if placement.quantization == "fp8":
        require_float8(placement.device)
        quantised = fitting(model, quantised)
        to_float8_layers(model, quantised)
    model.config.use_cache = False
    findings = avoid_packed_weights(model)
    if placement.quantization != "none":
        findings = (*findings, check_quantised(model, quantised))
    tokenizer = _load_part(
        source,
        "tokenizer.json",
        lambda: transformers.AutoTokenizer.from_pretrained(source.folder, padding_side="right"),
    )
    images = load_image_processor(source, min_pixels, max_pixels)
    if hasattr(images, "image_grid_pinpoints"):
        # The model chooses the grid of tiles again, from the same list.
        model.config.image_grid_pinpoints = images.image_grid_pinpoints
    processor = build_processor(source, tokenizer, images)
    findings = (*findings, *check_patches(images))
    # Whatever loads a model may be handed the batches of an encoder built for another load of it.
    accept_bytes(model, images)
    if source.family.knows_processor:
        _require_budget(source, processor, min_pixels, max_pixels)
    else:
        source = replace(source, family=fit_family(source, processor, getattr(config, "image_token_id", None)))
    _require_tokens(source, tokenizer, model.get_input_embeddings().num_embeddings)
    # What TRL would set later, with a warning that asks the reader to do nothing.
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    # Answers end where the family says, whatever the checkpoint stops at.
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(source.family.end_of_turn)
    return Loaded(
        source=source,
        placement=placement,
        model=model,
        processor=processor,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        full=tuple(full),
        findings=findings,
    )


def _require_budget(source: ModelSource, processor: Any, min_pixels: int, max_pixels: int) -> None:
    """Raises ConfigError where the checkpoint's processor, under that budget, does something else than its family's.

    A square of another side than the vision tower was built for, for one; tried on a blank image.
    """
    blank = new_image("RGB", (64, 64))
    seen = see_image(processor, blank)
    expected = source.family.image_text(blank.size, min_pixels, max_pixels)
    if seen.text != expected:
        token = source.family.visual_token
        defaults = source.family.defaults_for(source.config)
        raise ConfigError(
            f"this checkpoint puts {seen.text.count(token)} visual tokens for an image, the rule of "
            f"{source.family.name} under this budget {expected.count(token)}",
            where="image",
            fix=f"image.min_pixels={defaults.min_pixels} image.max_pixels={defaults.max_pixels}, or leave both away",
        )


def _require_tokens(source: ModelSource, tokenizer: Any, num_embeddings: int) -> None:
    """Raises ModelError unless each token of the grammar is one, with an embedding, and padding is another one."""
    for token in source.family.special_tokens:
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        if len(ids) != 1 or ids[0] >= num_embeddings:
            what = "splits" if len(ids) != 1 else f"has more tokens than the model's {num_embeddings}, one of them is"
            raise ModelError(
                f"the tokenizer {what} {token!r}, which the grammar of {source.family.name} needs as one token",
                where=str(source.folder),
                fix="take the instruct checkpoint of this family, with its own tokenizer",
            )
    if tokenizer.pad_token_id is None or tokenizer.pad_token == source.family.end_of_turn:
        raise ModelError(
            "the tokenizer has no padding token of its own: the end of the answer would be masked with the padding",
            where=str(source.folder),
            fix="set pad_token in tokenizer_config.json to a token that answers never hold",
        )


def build_encoder(
    loaded: Loaded,
    classes: Sequence[str],
    descriptions: Mapping[str, str] | None = None,
    tiling: Tiling | None = None,
) -> Encoder:
    """The encoder for these classes, with the loaded processor and image budget."""
    return Encoder(
        family=loaded.source.family,
        tokenizer=loaded.tokenizer,
        processor=loaded.processor,
        classes=classes,
        min_pixels=loaded.min_pixels,
        max_pixels=loaded.max_pixels,
        descriptions=descriptions,
        tiling=tiling,
        as_bytes=accept_bytes(loaded.model, loaded.processor.image_processor),
    )


def forget() -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quiet_optional_kernel() -> None:
    """Drop one line that bitsandbytes 0.50 logs at its import on a CPU with AVX512-BF16: that a kernel of another
    package "failed to load". It serves generation from packed weights alone, which are turned off below.
    """
    ops = logging.getLogger("bitsandbytes.backends.cpu.ops")
    if not ops.filters:
        ops.addFilter(lambda record: "gemm_4bit_forward" not in record.getMessage())


def _load_part(source: ModelSource, file: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; ModelError that names the file it comes from where it raises anything."""
    try:
        return load()
    except Exception as error:  # plain Exception is what the tokenizers library raises for a file it cannot read
        what = f"the model's {file} cannot be used: {error}"
        raise ModelError(what, where=str(source.folder), fix=f"fetch {file} of this model again") from error
