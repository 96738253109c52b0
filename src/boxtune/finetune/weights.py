"""Weights of the base that were trained themselves: one file beside the adapter, every tensor of it checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boxtune.errors import NotLearningError
from boxtune.finetune.ranks import is_first
from boxtune.finetune.sharding import put, whole

ADAPTER = "adapter_model.safetensors"
"""PEFT's name of the adapter's weights; without the adapter's own name in those of the tensors."""
WEIGHTS = "trained_weights.safetensors"
"""Beside adapter_model.safetensors, only where a recipe trains weights of the base; names are those of the base."""


def trained_weights(model: Any) -> dict[str, Any]:
    """The trainable parameters of a PeftModel that are no adapter's, by their names in the base."""
    base = model.get_base_model()
    return {
        name: parameter
        for name, parameter in base.named_parameters()
        if parameter.requires_grad and ".lora_" not in name
    }


def write_weights(model: Any, folder: Path) -> None:
    """Write the trained weights of a PeftModel into `folder`, in fp32; nothing where there are none.

    Of several ranks the first one writes; all must come here where weights are spread over them.
    """
    from safetensors.torch import save_file

    tensors = {name: whole(parameter) for name, parameter in trained_weights(model).items()}
    if tensors and is_first():
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def read_adapter(model: Any, folder: Path) -> None:
    """Put the adapter saved in `folder` into a PeftModel whose weights may be spread over the ranks.

    Raises NotLearningError, naming the first, where a tensor is missing or has no place of its shape.
    """
    from safetensors.torch import load_file

    places = {
        name.replace(".default.", "."): parameter for name, parameter in model.named_parameters() if ".lora_" in name
    }
    saved = load_file(folder / ADAPTER) if places else {}
    wrong = sorted(saved.keys() ^ places.keys()) or [n for n, t in saved.items() if t.shape != places[n].shape]
    if wrong:
        raise NotLearningError(
            f"{len(wrong)} of {len(places)} adapter tensors do not fit those in {folder}, the first is {wrong[0]}"
        )
    for name, tensor in saved.items():
        put(places[name], tensor)


def read_weights(model: Any, folder: Path) -> None:
    """Put the trained weights of `folder` into a PeftModel, in fp32; nothing where there are none.

    Raises NotLearningError, naming the first, where a tensor has no place of its shape.
    """
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).is_file():
        return
    saved = load_file(folder / WEIGHTS)
    parameters = dict(model.get_base_model().named_parameters())
    wrong = [name for name, tensor in saved.items() if name not in parameters or parameters[name].shape != tensor.shape]
    if wrong:
        raise NotLearningError(
            f"{len(wrong)} of {len(saved)} trained weights in {folder} have no place in the model, the first is "
            f"{wrong[0]}: another base, or one with this tower quantised"
        )
    for name, tensor in saved.items():
        put(parameters[name], tensor)
