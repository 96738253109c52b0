"""What a server is sent of an image: the user's turn, which its chat template makes the trained prompt of."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from jinja2 import TemplateError
from PIL import Image

from boxtune.errors import DataError, ModelError
from boxtune.families import Family, Frame
from boxtune.finetune.encode import Encoder

SPOT, PLACE = "(the question stands here)", "(the image stands here)"
TRIED_WH = (500, 375)
"""Size of the blank image on which a rendered prompt is compared, and a server is tried."""
ANSWERS_AT_ONCE: tuple[Mapping[str, Any], ...] = ({}, {"enable_thinking": False})
"""What a chat template may have to be told so that the turn begins as it was trained: some write an empty thought."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The user's words among all that the template writes: `lead` stands between image and words, `tail` behind them.

    `told` is what the template is told (`chat_template_kwargs`).
    """

    encoder: Encoder
    lead: str
    tail: str
    told: Mapping[str, Any]

    def words(self, classes: Sequence[str]) -> str:
        """The user's words that ask for these classes."""
        rest = self.encoder.prompt(classes, PLACE).partition(PLACE)[2]
        return rest.removeprefix(self.lead).removesuffix(self.tail)

    def messages(self, url: str, classes: Sequence[str]) -> list[dict[str, Any]]:
        """The messages of a chat request with an image."""
        image = {"type": "image_url", "image_url": {"url": url}}
        return [{"role": "user", "content": [image, {"type": "text", "text": self.words(classes)}]}]


def find_turn(encoder: Encoder, where: str) -> Turn:
    """The user's turn of a model, tried on a blank image: the token ids that come out are those of training.

    Raises ModelError where the model has no chat template, or one that does not lead to the trained prompt.
    """
    processor = encoder.processor
    template = processor if getattr(processor, "chat_template", None) else encoder.tokenizer
    if not getattr(template, "chat_template", None):
        raise ModelError(
            "the model has no chat template, so a server would put other words around the question than were trained",
            where=where,
            fix="predict with the model in memory, or serve it from a folder whose chat_template.jinja writes the "
            f"prompt {encoder.prompt(encoder.classes, encoder.family.image_token)!r}",
        )
    blank = Image.new("RGB", TRIED_WH)
    trained = encoder.encode_image(blank).prompt_ids
    rendered = ""
    for told in ANSWERS_AT_ONCE:
        rendered = _render(template, SPOT, told, where)
        before, _, tail = rendered.rpartition(SPOT)
        turn = Turn(encoder=encoder, lead=before.rpartition(encoder.family.image_token)[2], tail=tail, told=told)
        whole = _render(template, turn.words(encoder.classes), told, where)
        ids = processor(text=[whole], images=[blank])["input_ids"][0]
        if tuple(int(number) for number in ids) == trained:
            return turn
    raise ModelError(
        "the model's chat template writes another prompt than the adapter was trained with: "
        f"{rendered!r} around the question, instead of {encoder.prompt([SPOT], encoder.family.image_token)!r}",
        where=where,
        fix="predict with the model in memory, or serve it with the chat template of the family's instruct checkpoint",
    )


def _render(template: Any, words: str, told: Mapping[str, Any], where: str) -> str:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": words}]}
    try:
        return str(template.apply_chat_template([message], tokenize=False, add_generation_prompt=True, **told))
    except (TemplateError, TypeError, ValueError) as error:  # templates of text models want plain text
        raise ModelError(
            f"the model's chat template cannot render an image with a question: {error}",
            where=where,
            fix="take the chat template of the family's instruct checkpoint",
        ) from error


def show(image: Image.Image, encoder: Encoder) -> tuple[str, Frame]:
    """An upright RGB image as a data URL, and its frame.

    It is resized here as the family's rule says, so that a server's own processor has nothing to do. Where the rule
    would make something else of what it has made (LLaVA-OneVision's and MiniCPM-V's do at some sizes), the image goes
    as it is, and the server's processor must have the budget of training; the length of the prompt tells where it has
    not. DataError for a shape that the rule refuses.
    """
    family, budget = encoder.family, (encoder.min_pixels, encoder.max_pixels)
    try:
        seen_wh = family.seen_wh(image.size, *budget)
    except ValueError as error:
        raise DataError(f"it cannot be shown to the model: {error}", where="image", fix="crop it") from error
    shown = image
    if seen_wh != image.size and stays(family, image.size, budget):
        shown = image.resize(seen_wh, Image.Resampling(encoder.processor.image_processor.resample))
    buffer = BytesIO()
    # A fast level: what is sent is read once. No colour profile, which a reader might apply.
    shown.save(buffer, "PNG", compress_level=1, icc_profile=None)
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return url, Frame(original_wh=image.size, seen_wh=seen_wh)


def stays(family: Family, size_wh: tuple[int, int], budget: tuple[int, int]) -> bool:
    """Whether an image of that size, once resized as the rule says, would be seen the same by the rule."""
    seen_wh = family.seen_wh(size_wh, *budget)
    try:
        same = family.seen_wh(seen_wh, *budget) == seen_wh
    except ValueError:  # a shape that the rule refuses, which it was not before
        return False
    return same and family.image_text(seen_wh, *budget) == family.image_text(size_wh, *budget)
