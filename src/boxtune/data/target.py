"""The model that a data set is looked at for: how it sees images, what its grammar and its tokenizer can hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxtune.errors import ConfigError, ModelError
from boxtune.families import FAMILIES, Family, require_family

DEFAULT_FAMILY = "qwen2_vl"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A model's tokenizer: `count` gives the tokens of a text, `keeps` says whether a text comes back unchanged.

    White space is not looked at: tokenizers that put it back in other places exist, and names are compared without.
    """

    count: Callable[[str], int]
    keeps: Callable[[str], bool]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A family with its image budget, in pixels after the resize; `why` says who chose it; `patch_px` is the side
    of a patch in those pixels, None where it is not known.

    Without a `vocabulary` texts are measured in characters.
    """

    family: Family
    min_pixels: int
    max_pixels: int
    why: str
    vocabulary: Vocabulary | None = None
    patch_px: int | None = None

    @classmethod
    def of_model(
        cls, family: Family, image: tuple[int | None, int | None], *, ref: str, folder: Path, config: Mapping[str, Any]
    ) -> Target:
        """The target that a model is, under an image budget (least and most pixels) that is settled."""
        least, most = image
        assert least and most
        return cls(
            family=family,
            min_pixels=least,
            max_pixels=most,
            why=f"model={ref}",
            vocabulary=read_vocabulary(folder),
            patch_px=_patch_px(config),
        )


def _patch_px(config: Mapping[str, Any]) -> int | None:
    """Side of a patch in seen pixels, as the model's own config has it; None where it says none, or several."""
    side = (config.get("vision_config") or {}).get("patch_size")
    return side if isinstance(side, int) else None


def build_target(
    *,
    family: str | None = None,
    model: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Target:
    """The target that is asked for; the family's own image budget where none is given, Qwen2-VL without a family.

    `model` is a local model folder, of which `config.json` is read, and `tokenizer.json` where there is one.
    Raises ModelError for a folder or a family that is not known, ConfigError for a budget that is none.
    """
    config: dict[str, Any] = {}
    vocabulary = None
    if model is not None:
        folder = Path(model).expanduser()
        config = _read_config(folder)
        vocabulary = read_vocabulary(folder)
        found = require_family(str(config.get("model_type")), where=str(folder / "config.json"), asked=family)
        why = f"model={model}"
    else:
        found = require_family("", where="family", asked=family or DEFAULT_FAMILY)
        why = f"family={family}" if family else "by default; family=NAME or model=FOLDER say otherwise"
    own = found.defaults_for(config) if config else found.defaults
    least = own.min_pixels if min_pixels is None else min_pixels
    most = own.max_pixels if max_pixels is None else max_pixels
    if min_pixels is None:
        least = min(least, most)
    if not 0 < least <= most:
        what = f"an image budget of min_pixels={least} to max_pixels={most}"
        raise ConfigError(what, where="min_pixels, max_pixels", fix="give areas in pixels, the smaller one first")
    return Target(
        family=found,
        min_pixels=least,
        max_pixels=most,
        why=why,
        vocabulary=vocabulary,
        patch_px=_patch_px(config),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        what = f"{folder} is no model folder: it holds no config.json"
        families = ", ".join(FAMILIES)
        raise ModelError(what, where=str(folder), fix=f"give a local model folder, or family= one of {families}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the model's config cannot be read: {error}", where=str(path), fix="mend it") from error
    if not isinstance(config, dict):
        raise ModelError("the model's config is no JSON object", where=str(path), fix="mend it")
    return config


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The tokenizer of a model folder, None where there is no `tokenizer.json`. Raises ModelError if it is broken."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise ModelError(f"the tokenizer cannot be read: {error}", where=str(path), fix="download it again") from error
    # A file may carry the padding and the cut of the run that it comes from.
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def keeps(text: str) -> bool:
        back = tokenizer.decode(ids(text), skip_special_tokens=False)
        return "".join(back.split()) == "".join(text.split())

    return Vocabulary(count=lambda text: len(ids(text)), keeps=keeps)
