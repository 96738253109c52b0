"""Which layers of a base are stored in 4 or 8 bits, and that exactly these are."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from boxtune.errors import Finding, ModelError, name_some
from boxtune.families import Family
from boxtune.finetune.float8 import Float8Linear


def find_unquantised(config: Any, family: Family, full: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Full names of the linear layers to quantise, and of those to leave as they are.

    Left as they are: the output layer; what torch's MultiheadAttention reads the weights of without calling it; and
    all of the towers in `full`, whose weights are to be trained. Without weights in memory.
    """
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    head = model.get_output_embeddings()
    quantised: list[str] = []
    left: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        read_alone = isinstance(module, torch.nn.modules.linear.NonDynamicallyQuantizableLinear)
        leave = module is head or read_alone or tower_of(f"{name}.weight", family) in full
        (left if leave else quantised).append(name)
    return quantised, left


def tower_of(parameter: str, family: Family) -> str | None:
    """The tower that a parameter belongs to: the first whose pattern is found in its name."""
    return next((tower for tower, pattern in family.towers.items() if re.search(pattern, parameter)), None)


def build_quantization(kind: str, dtype: Any, left: list[str], *, spread: bool = False) -> Any:
    """transformers' config for `nf4` (with double quantisation) or `int8`, without the layers in `left`.

    Where weights will be `spread` over ranks, the bytes of 4-bit ones are stored as if they were numbers of `dtype`:
    FSDP2 cuts up parameters of floating types alone, and casts those of another than it computes in.

    The layers are named in full: a name that is a part of others would match those too, and one that matches nothing
    is no error there.
    """
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if spread else "uint8",
        llm_int8_skip_modules=left,
    )


def check_quantised(model: Any, wanted: Collection[str]) -> Finding:
    """That exactly the wanted layers are quantised; ModelError that names the others."""
    import bitsandbytes

    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt, Float8Linear)
    is_so = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    if wrong := sorted(is_so ^ set(wanted)):
        raise ModelError(
            f"{len(wrong)} layers are quantised and should not be, or the other way round",
            where=name_some(wrong),
            fix="report the versions of transformers and bitsandbytes; quantization=none goes around it",
        )
    return Finding(check="load.quantised", level="ok", seen=f"{len(is_so)} linear layers are quantised, as planned")


def avoid_packed_weights(model: Any) -> tuple[Finding, ...]:
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
