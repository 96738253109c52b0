"""Model families: one file and one object each, found by the `model_type` of a model's config."""

from __future__ import annotations

from boxtune.errors import ModelError
from boxtune.families.family import Decoded, Defaults, Family, Frame, Problem
from boxtune.families.qwen2_vl import QWEN2_VL

__all__ = ["FAMILIES", "Decoded", "Defaults", "Family", "Frame", "Problem", "require_family"]

FAMILIES: dict[str, Family] = {family.name: family for family in (QWEN2_VL,)}


def require_family(model_type: str, *, where: str) -> Family:
    """The family of a config's `model_type`; ModelError with the list of known ones if there is none."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(kind for family in FAMILIES.values() for kind in family.model_types))
    raise ModelError(
        f"boxtune knows no box grammar for models of type {model_type!r}",
        where=where,
        fix=f"use a model of one of these types: {known}",
    )
