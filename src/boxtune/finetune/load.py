"""The base model in memory: quantised, on the right device, in a precision the device really has."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from boxtune.errors import Finding, ModelError
from boxtune.finetune.encode import Encoder
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
    """A base model with what is needed to feed it. `tokenizer` pads on the right, as training does."""

    source: ModelSource
    placement: Placement
    model: Any
    tokenizer: Any
    image_processor: Any
    findings: tuple[Finding, ...]

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


def load_base(source: ModelSource, placement: Placement, *, min_pixels: int, max_pixels: int) -> Loaded:
    """The base model with tokenizer and image processor, ready for an adapter or for prediction.

    The image budget is the area in pixels after the resize. Raises ModelError where a part cannot be loaded or a
    special token of the family's grammar is not one token.
    """
    import transformers
    from safetensors import SafetensorError

    _quiet_optional_kernel()
    arguments: dict[str, Any] = {"dtype": DTYPES[placement.precision], "device_map": {"": placement.device}}
    if placement.quantization != "none":
        arguments["quantization_config"] = _quantization(placement)
    config = _load_part(source, "config.json", lambda: transformers.AutoConfig.from_pretrained(source.folder))
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            source.folder, config=config, attn_implementation="sdpa", **arguments
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        fix = "read the reason above; fetch the model again where a file of it is broken"
        raise ModelError(f"the model cannot be loaded: {error}", where=str(source.folder), fix=fix) from error
    model.config.use_cache = False
    findings = _avoid_packed_weights(model)
    tokenizer = _load_part(
        source,
        "tokenizer.json",
        lambda: transformers.AutoTokenizer.from_pretrained(source.folder, padding_side="right"),
    )
    for token in source.family.special_tokens:
        if len(tokenizer(token, add_special_tokens=False)["input_ids"]) != 1:
            raise ModelError(
                f"the tokenizer splits {token!r}, which the grammar of {source.family.name} needs as one token",
                where=str(source.folder),
                fix="take the instruct checkpoint of this family, with its own tokenizer",
            )
    if tokenizer.pad_token_id is None or tokenizer.pad_token == source.family.end_of_turn:
        raise ModelError(
            "the tokenizer has no padding token of its own: the end of the answer would be masked with the padding",
            where=str(source.folder),
            fix="set pad_token in tokenizer_config.json to a token that answers never hold",
        )
    # What TRL would set later, with a warning that asks the reader to do nothing.
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return Loaded(
        source=source,
        placement=placement,
        model=model,
        tokenizer=tokenizer,
        image_processor=_load_image_processor(source, min_pixels, max_pixels),
        findings=findings,
    )


def build_encoder(loaded: Loaded, classes: Sequence[str]) -> Encoder:
    """The encoder for these classes, with the loaded tokenizer, image processor and image budget."""
    size = loaded.image_processor.size
    return Encoder(
        family=loaded.source.family,
        tokenizer=loaded.tokenizer,
        image_processor=loaded.image_processor,
        classes=classes,
        min_pixels=size["shortest_edge"],
        max_pixels=size["longest_edge"],
    )


def forget() -> None:
    """Give back the memory of models that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _quantization(placement: Placement) -> Any:
    from transformers import BitsAndBytesConfig

    if placement.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[placement.precision],
    )


def _quiet_optional_kernel() -> None:
    """Drop one line that bitsandbytes 0.50 logs at its import on a CPU with AVX512-BF16: that a kernel of another
    package "failed to load". It serves generation from packed weights alone, which are turned off below.
    """
    ops = logging.getLogger("bitsandbytes.backends.cpu.ops")
    if not ops.filters:
        ops.addFilter(lambda record: "gemm_4bit_forward" not in record.getMessage())


def _avoid_packed_weights(model: Any) -> tuple[Finding, ...]:
    """Keep 4-bit layers trainable after an evaluation on a CPU with AVX512-BF16.

    There bitsandbytes 0.50 packs each weight at the first forward in eval mode into a layout without a backward:
    the next training step raises, or silently loses the gradient. To go when packed layers can be trained through;
    tests/finetune/test_load.py watches for it.
    """
    packable = [m for m in model.modules() if getattr(m, "support_avx512bf16_for_cpu", False)]
    for module in packable:
        module.support_avx512bf16_for_cpu = False
    if not packable:
        return ()
    seen = f"inference packing turned off on {len(packable)} 4-bit layers, so that they can be trained through"
    return (Finding(check="load.packed_weights", level="ok", seen=seen),)


def _load_part(source: ModelSource, file: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; ModelError that names the file it comes from where it raises anything."""
    try:
        return load()
    except Exception as error:  # plain Exception is what the tokenizers library raises for a file it cannot read
        what = f"the model's {file} cannot be used: {error}"
        raise ModelError(what, where=str(source.folder), fix=f"fetch {file} of this model again") from error


def _load_image_processor(source: ModelSource, min_pixels: int, max_pixels: int) -> Any:
    """The family's image processor with our budget, from torchvision where it works, else from Pillow alone.

    Built by class and not through AutoProcessor, which needs a video processor and so torchvision. `size` is set as
    a whole: transformers reads nothing else, and needs both of its edges.
    """
    from transformers import AutoImageProcessor

    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    try:
        return AutoImageProcessor.from_pretrained(source.folder, size=size, backend=_image_backend())
    except (OSError, ValueError, ImportError) as error:
        fix = "fetch preprocessor_config.json of this model again"
        raise ModelError(f"the image processor cannot be built: {error}", where=str(source.folder), fix=fix) from error


def _image_backend() -> str:
    """`torchvision` where it is installed and works, else `pil`; ModelError where it is installed and broken."""
    if importlib.util.find_spec("torchvision") is None:
        return "pil"
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        # A torchvision built for another torch also breaks transformers, so going on without it is no way out.
        raise ModelError(
            f"torchvision is installed but does not work with torch {torch.__version__}: {error}",
            fix="pip uninstall torchvision (boxtune does without), or install the one made for this torch",
        ) from error
    return "torchvision"
