"""Which part of a model a parameter belongs to, from its name."""

from __future__ import annotations

import re
from collections.abc import Mapping

OTHER = "other"
COMMON: Mapping[str, str] = {
    "projector": r"(^|\.)(merger|deepstack_merger_list|multi_modal_projector|mm_projector|connector|aligner|"
    r"image_projection|modality_projection|mlp1|abstractor)(\.|$)",
    "vision": r"(^|\.)(visual|vision_\w+|vision|image_encoder|vision_tower|vision_model|vit|davit)(\.|$)",
    "language": r"(^|\.)(language_model|text_model|llm|lm_head|embed_tokens|layers|h|transformer|decoder|model)(\.|$)",
}
"""Names that the transformers library uses in its vision-language models; the first that matches counts."""
LAYER = re.compile(r"^(.*?\.(?:layers|layer|blocks|h|block)\.(\d+))(?:\.|$)")


class Towers:
    """`patterns` maps a tower's name to a regular expression, the common ones by default; a parameter belongs to the
    first that its name matches, else to `other`."""

    def __init__(self, patterns: Mapping[str, str] | None = None) -> None:
        wanted = COMMON if patterns is None else patterns
        self.patterns = {name: re.compile(pattern) for name, pattern in wanted.items()}

    def of(self, name: str) -> str:
        """The tower of a parameter, `other` where no pattern matches."""
        return next((tower for tower, pattern in self.patterns.items() if pattern.search(name)), OTHER)


def layer_of(name: str) -> tuple[str, int] | None:
    """The stack that a parameter lies in and the number of its layer, None outside of any."""
    found = LAYER.match(name)
    return None if found is None else (found[1].rsplit(".", 1)[0], int(found[2]))
