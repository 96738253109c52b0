"""Where a base model lies, and what its weights are: a local folder or a hub id, its config, its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.data.target import Target
from boxtune.errors import ModelError, name_some
from boxtune.families import Family, require_family
from boxtune.settings import ImageSettings


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A base model on disk.

    `ref` is what the user wrote; `folder` holds config, weights and processor files in transformers' layout;
    `config` is the parsed config.json.
    """

    ref: str
    folder: Path
    family: Family
    config: dict[str, Any]

    @property
    def max_positions(self) -> int:
        """Longest sequence in tokens that the model has positions for."""
        text = self.config.get("text_config") or self.config
        return int(text.get("max_position_embeddings") or self.config.get("max_position_embeddings") or 32768)

    def target(self, image: ImageSettings) -> Target:
        """Whose eyes the data is seen with: this model's, under an image budget that is settled."""
        budget = image.min_pixels, image.max_pixels
        return Target.of_model(self.family, budget, ref=self.ref, folder=self.folder, config=self.config)


def find_model(ref: str | Path, *, ref_as: str | None = None, family: str | None = None) -> ModelSource:
    """The model a user named: a local folder, else a hub id taken from the cache or downloaded.

    `ref_as` is what to call it, where the user named it otherwise (`tiny`); `family` is the family that the user asked
    for, instead of that of its config.

    Raises ModelError if neither is there, if config or weights are missing, or if the family is unknown. Honours
    HF_HUB_OFFLINE.
    """
    folder, ref = Path(ref).expanduser(), str(ref)
    if not folder.is_dir():
        is_path = ref.startswith((".", "/", "~")) or ref.count("/") != 1
        folder = _missing(ref) if is_path else _download(ref)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError("the model's folder holds no config.json", where=str(folder), fix=_FIX) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"the model's config cannot be read: {error}", where=str(path), fix=_FETCH) from error
    if not isinstance(config, dict):
        raise ModelError("the model's config is no JSON object", where=str(path), fix=_FETCH)
    known = require_family(str(config.get("model_type")), where=str(path), asked=family)
    _require_weights(folder)
    return ModelSource(ref=ref_as or ref, folder=folder, family=known, config=config)


_FIX = "give a folder in transformers' layout, a hub id such as Qwen/Qwen2-VL-7B-Instruct, or model=tiny"

_FETCH = "fetch the model again, or take another copy of it"


def _require_weights(folder: Path) -> None:
    """Raises ModelError unless there are weights, and every shard that an index names."""
    here = {path.name for path in folder.glob("*.safetensors")}
    if not here:
        raise ModelError("the model's folder holds no *.safetensors", where=str(folder), fix=_FETCH)
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ModelError(f"the index of the weights is broken: {error}", where=str(index), fix=_FETCH) from error
        if missing := sorted(named - here):
            what = f"{len(missing)} of {len(named)} weight files are missing: {name_some(missing)}"
            raise ModelError(what, where=str(folder), fix=_FETCH)


def _missing(ref: str) -> Path:
    raise ModelError(f"there is no model {ref!r}", where=str(Path(ref).expanduser().absolute()), fix=_FIX)


def _download(ref: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(ref, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except LocalEntryNotFoundError as error:
        why = f"the model {ref!r} is neither a local folder nor in the hub cache, and the hub cannot be reached"
        raise ModelError(why, where=_looked(ref), fix=_FIX) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        why = f"the model {ref!r} is no local folder, and cannot be had from the hub: {said}"
        raise ModelError(why, where=_looked(ref), fix=_FIX) from error


def _looked(ref: str) -> str:
    return f"{Path(ref).absolute()}, then the hub"


def fingerprint(folder: Path) -> str:
    """A digest of the weights: name, dtype, shape and 32 values from the middle of every tensor in the checkpoint.

    Read from the files, so it does not depend on device, precision or quantisation, and costs one page a tensor.
    """
    from safetensors import SafetensorError, safe_open

    _require_weights(folder)
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    slices: dict[str, tuple[Path, list[int], str]] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118 (not a dict)
                    part = weights.get_slice(name)
                    slices[name] = (path, part.get_shape(), part.get_dtype())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"a weight file cannot be read: {error}", where=str(path), fix=_FETCH) from error
    opened = {path: safe_open(path, framework="pt") for path in files}
    for name, (path, shape, dtype) in sorted(slices.items()):
        part = opened[path].get_slice(name)
        head = tuple(slice(size // 2, size // 2 + 1) for size in shape[:-1])
        values = part[(*head, slice(0, 32))] if shape else opened[path].get_tensor(name)
        digest.update(f"{name} {dtype} {shape} ".encode())
        digest.update(values.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
