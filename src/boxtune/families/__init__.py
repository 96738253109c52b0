"""Model families: one file and one object each, found by the `model_type` of a model's config."""

from __future__ import annotations

from boxtune.errors import ModelError
from boxtune.families.deepseek_vl import DEEPSEEK_VL
from boxtune.families.family import About, Decoded, Defaults, Family, Frame, Problem, Said
from boxtune.families.florence2 import FLORENCE2
from boxtune.families.gemma3 import GEMMA3
from boxtune.families.glm4v import GLM4V
from boxtune.families.idefics3 import IDEFICS3
from boxtune.families.internvl import INTERNVL
from boxtune.families.json1000 import JSON1000
from boxtune.families.kosmos2 import KOSMOS2
from boxtune.families.llava_onevision import LLAVA_ONEVISION
from boxtune.families.minicpm_v import MINICPM_V
from boxtune.families.paligemma import PALIGEMMA
from boxtune.families.qwen2_5_vl import QWEN2_5_VL
from boxtune.families.qwen2_vl import QWEN2_VL
from boxtune.families.qwen3_5 import QWEN3_5
from boxtune.families.qwen3_vl import QWEN3_VL
from boxtune.families.smolvlm import SMOLVLM

__all__ = ["FAMILIES", "About", "Decoded", "Defaults", "Family", "Frame", "Problem", "Said", "require_family"]

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        QWEN2_VL,
        QWEN2_5_VL,
        QWEN3_VL,
        QWEN3_5,
        PALIGEMMA,
        FLORENCE2,
        INTERNVL,
        GEMMA3,
        GLM4V,
        DEEPSEEK_VL,
        KOSMOS2,
        IDEFICS3,
        SMOLVLM,
        LLAVA_ONEVISION,
        MINICPM_V,
        JSON1000,
        # A new family is one file beside these, and one line here.
    )
}


def require_family(model_type: str, *, where: str, asked: str | None = None) -> Family:
    """The family called `asked`, or that of a config's `model_type`.

    ModelError where there is none: it lists the known ones, how a family is added, and the way out.
    """
    if asked is not None:
        if asked not in FAMILIES:
            raise ModelError(f"there is no family {asked!r}", where="family", fix=f"one of: {', '.join(FAMILIES)}")
        return FAMILIES[asked]
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = ", ".join(sorted(kind for family in FAMILIES.values() for kind in family.model_types))
    raise ModelError(
        f"boxtune knows no box grammar for models of type {model_type!r}",
        where=where,
        fix=f"use a model of one of these types: {known}; or add the family (one file in boxtune/families and one "
        "line in its registry); or say family=json1000, which teaches the model a grammar that it never saw",
    )
