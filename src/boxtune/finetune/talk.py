"""Other conversations (`data.mix`) as training examples, in the model's own chat template."""

from __future__ import annotations

from typing import Any

from boxtune.data import open_image
from boxtune.data.mix import IMAGE, Conversation, check_mix, read_mix
from boxtune.errors import DataError, ModelError
from boxtune.families import Frame
from boxtune.finetune.collate import Example
from boxtune.finetune.encode import Encoder
from boxtune.finetune.pixels import see_image
from boxtune.settings import DataSettings


def require_talk(encoder: Encoder, data: DataSettings) -> None:
    """Raises ModelError or DataError where `data.mix` is asked for and cannot be had, before anything is trained."""
    if data.mix is None:
        return
    Talker(encoder)
    mix = read_mix(data.mix)
    tokens = [token for token in encoder.tokenizer.all_special_tokens if token]
    for finding in (*mix.findings, *check_mix(mix, tokens)):
        print(finding, flush=True)
        if finding.level == "fail":
            raise DataError(finding.seen, where=finding.where, fix=finding.fix)


class Talker:
    """Turns conversations into examples with labels on the last answer and the end of turn.

    Raises ModelError for a model without a chat template, or whose batches need an image in every row.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        processor = encoder.processor
        self.template = processor if getattr(processor, "chat_template", None) else encoder.tokenizer
        if not getattr(self.template, "chat_template", None):
            raise ModelError(
                "this model has no chat template, so other conversations cannot be mixed in",
                where="data.mix",
                fix="leave data.mix away, or take an instruct model of a family that chats",
            )

    def prompt(self, conversation: Conversation) -> str:
        """Everything before the last answer, with the model's placeholder where the image goes."""
        messages = [{"role": role, "content": _parts(text)} for role, text in conversation.turns[:-1]]
        return str(self.template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def encode(self, conversation: Conversation) -> Example:
        """The conversation as an example. Raises DataError if its image cannot be opened, ModelError if the template
        does not put one place for it."""
        text, inputs, size_wh = self.prompt(conversation), {}, (1, 1)
        if conversation.images:
            image = open_image(conversation.images[0])
            seen = see_image(self.encoder.processor, image)
            place = self._placeholder(text)
            text, inputs, size_wh = text.replace(place, seen.text), seen.inputs, image.size
        answer = conversation.turns[-1][1].strip()
        return Example(
            classes=(),
            prompt_ids=self.encoder.ids(text),
            answer_ids=(*self.encoder.ids(answer), self.encoder.end_id),
            inputs=inputs,
            frame=Frame(original_wh=size_wh, seen_wh=size_wh),
        )

    def _placeholder(self, text: str) -> str:
        token = self.encoder.family.image_token
        if text.count(token) != 1:
            raise ModelError(
                f"the chat template puts {text.count(token)} places {token!r} for one image",
                where="data.mix",
                fix="leave images out of data.mix",
            )
        return token


def _parts(text: str) -> Any:
    """Text as the parts that a chat template of a vision model takes."""
    parts: list[dict[str, str]] = []
    for i, piece in enumerate(text.split(IMAGE)):
        if i:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip("\n")})
    return parts
