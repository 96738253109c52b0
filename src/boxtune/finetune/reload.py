"""Saving an adapter so that it can be found again, and loading it so that nothing of it is lost in silence."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from boxtune.artifacts import RUN_CARD, read_json, write_json
from boxtune.errors import NotLearningError
from boxtune.finetune.collate import collate_for_training
from boxtune.finetune.encode import Encoder
from boxtune.finetune.load import Loaded
from boxtune.finetune.processors import save_processor
from boxtune.finetune.ranks import is_first, wait_for_all
from boxtune.finetune.sharding import is_sharded, whole, whole_adapter
from boxtune.finetune.weights import WEIGHTS, read_weights, write_weights


def save_adapter(model: Any, folder: Path, loaded: Loaded, card: dict[str, Any]) -> None:
    """Adapter weights, their config, processor files and run card into `folder`, all or nothing.

    All ranks come here: weights may be spread over them. The first one writes.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    state = whole_adapter(model) if is_sharded(model) else None
    if is_first():
        model.save_pretrained(part, state_dict=state)
    write_weights(model, part)
    if is_first():
        _finish(folder, part, loaded, card)
    wait_for_all()


def _finish(folder: Path, part: Path, loaded: Loaded, card: dict[str, Any]) -> None:
    """The rest of an adapter's files, and the folder in its place."""
    save_processor(loaded.processor, loaded.source, part)
    write_json(part / RUN_CARD, card)
    # PEFT's model card is a template without content; the run card says what is known.
    (part / "README.md").unlink(missing_ok=True)
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_adapter(base: Any, folder: Path) -> Any:
    """The base with the adapter of `folder` on it, and the weights that were trained themselves, for prediction.

    PEFT drops keys it does not know and leaves those it misses at their start, with a warning at most. Here the
    saved tensors are compared with the loaded ones, one by one; NotLearningError names the first that differs.
    """
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import load_file

    with warnings.catch_warnings():
        # peft 0.21 asks the model by a property that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", r".*gradient_checkpointing\w*` is deprecated", FutureWarning)
        model = PeftModel.from_pretrained(base, folder, is_trainable=False)
    saved = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    wrong = sorted(saved.keys() ^ loaded.keys()) or [
        name
        for name, tensor in saved.items()
        if not torch.allclose(tensor, loaded[name].to(tensor), rtol=0, atol=0, equal_nan=True)
    ]
    if wrong:
        raise NotLearningError(
            f"{len(wrong)} of {len(saved)} adapter tensors in {folder} did not reach the model, the first is {wrong[0]}"
        )
    card = folder / RUN_CARD
    full = read_json(card).get("full_towers") if card.is_file() else None
    if full and not (folder / WEIGHTS).is_file():
        raise NotLearningError(f"{WEIGHTS} is missing in {folder}: it holds the trained weights of {', '.join(full)}")
    read_weights(model, folder)
    return model


def put_back(model: Any, folder: Path) -> None:
    """Set a PeftModel's adapter, and what else was trained, to the weights saved in `folder`, as they are there."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    read_weights(model, folder)


def trainable_digest(model: Any) -> str:
    """A digest of every trainable tensor with its name: equal only if every bit is."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(whole(parameter).reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def logits_digest(loaded: Loaded, encoder: Encoder, samples: Any) -> str:
    """A digest of the logits on these samples, under the autocast of training: equal only if every bit is."""
    examples = [encoder.encode_sample(sample) for sample in samples]
    batch = collate_for_training(examples, encoder.layout)
    batch.pop("labels")
    was_training = loaded.model.training
    loaded.model.eval()
    with loaded.placement.autocast():
        logits = loaded.model(**{name: tensor.to(loaded.placement.device) for name, tensor in batch.items()}).logits
    loaded.model.train(was_training)
    return hashlib.sha256(logits.float().cpu().contiguous().numpy().tobytes()).hexdigest()
