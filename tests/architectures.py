"""Tiny models of every family's real architecture, with random weights, as checkpoint folders in the hub's layout.

transformers' own configs with two narrow layers a tower, a tokenizer of the family's kind without words, and the
family's real processor files. Image sizes are the published ones, so that what is measured is what a user gets.
"""

from __future__ import annotations

import json
from pathlib import Path

import architectures_grids as grids
import architectures_squares as squares
import architectures_tiles as tiles

from boxtune.families import FAMILIES

CHAT_TEMPLATE = """{% for message in messages %}<|im_start|>{{ message.role }}
{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}\
{{ part.text }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

BUILDERS = {
    **grids.BUILDERS,
    **squares.BUILDERS,
    **tiles.BUILDERS,
    # Any model with a chat template may be called so.
    "json1000": grids.BUILDERS["qwen2_vl"],
}
"""Family -> function of the special tokens that its grammar needs -> the parts of a tiny model."""


def write_architecture(name: str, folder: Path) -> Path:
    """Write the tiny model of the family `name` into `folder`; the folder."""
    import torch
    import transformers

    parts = BUILDERS[name](FAMILIES[name].special_tokens)
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(parts.config)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            # Gemma 3's projector begins at zero, and would let no gradient through to the vision tower.
            torch.nn.init.normal_(parameter, std=0.02)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    parts.image.save_pretrained(folder)
    # As published checkpoints have them: the class without its backend, and the processor's own file.
    path = folder / "preprocessor_config.json"
    written = json.loads(path.read_text())
    written["image_processor_type"] = written["image_processor_type"].removesuffix("Pil")
    written["processor_class"] = parts.processor["processor_class"]
    path.write_text(json.dumps(written, indent=2))
    (folder / "processor_config.json").write_text(json.dumps(parts.processor, indent=2))
    if not FAMILIES[name].knows_processor:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder
