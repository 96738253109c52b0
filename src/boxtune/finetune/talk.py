"""Other conversations (`data.mix`) as training examples, in the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from boxtune.data import open_image, read_size
from boxtune.data.mix import IMAGE, Conversation, check_mix, read_mix
from boxtune.errors import DataError, ModelError, name_some
from boxtune.families import Frame
from boxtune.finetune.collate import Example
from boxtune.finetune.encode import Encoder
from boxtune.finetune.pixels import see_image

MOST_ASKED = 8
"""Conversations that are kept back and asked after training, with the adapter on and off."""


@dataclass(frozen=True, kw_only=True)
class Talk:
    """Conversations of `data.mix`: those to learn from, and the last few of the file, to be asked afterwards."""

    learned: Sequence[Conversation] = ()
    kept_back: Sequence[Conversation] = ()


def read_talk(encoder: Encoder, path: str | None, max_tokens: int) -> Talk:
    """The conversations of a file, every one rendered and measured; nothing where there is no file.

    Kept back is the last tenth, at most 8 and at least one. Raises DataError for a file that cannot be read, a single
    conversation, an image that cannot be opened, and conversations longer than `max_tokens`; ModelError where the
    model's chat template cannot render them.
    """
    if path is None:
        return Talk()
    talker, mix = Talker(encoder), read_mix(path)
    tokens = [token for token in encoder.tokenizer.all_special_tokens if token]
    for finding in (*mix.findings, *check_mix(mix, tokens)):
        print(finding, flush=True)
        if finding.level == "fail":
            raise DataError(finding.seen, where=finding.where, fix=finding.fix)
    every = mix.conversations
    if len(every) < 2:
        what = "a single conversation cannot be both learned from and asked afterwards"
        raise DataError(what, where=path, fix="give a file of several conversations")
    with ThreadPoolExecutor() as pool:  # to the last pixel: a broken image would end the run in its midst
        list(pool.map(_decode, (image for conversation in every for image in conversation.images)))
    lengths = [talker.measure(conversation) for conversation in every]
    too_long = [f"conversation {i} ({n} tokens)" for i, n in enumerate(lengths, start=1) if n > max_tokens]
    if too_long:
        what = f"{len(too_long)} of {len(every)} conversations are longer than the model's {max_tokens} positions"
        raise DataError(what, where=f"{path}: {name_some(too_long)}", fix="take them out of the file")
    num = min(MOST_ASKED, max(1, len(every) // 10))
    return Talk(learned=every[:-num], kept_back=every[-num:])


def _decode(image: Path) -> None:
    open_image(image)


class Talker:
    """Turns conversations into examples with labels on the last answer and the end of turn.

    Raises ModelError for a model without a chat template.
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
        try:
            return str(self.template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except (TemplateError, TypeError, ValueError) as error:  # templates of text models want plain text
            raise ModelError(
                f"the model's chat template cannot render a conversation of {len(messages)} turns: {error}",
                where="data.mix",
                fix="leave such turns (a system turn, an image) out of the file, or data.mix away",
            ) from error

    def measure(self, conversation: Conversation) -> int:
        """Tokens of the conversation; of its image only the header is read."""
        text = self.prompt(conversation)
        if conversation.images:
            text = text.replace(self._placeholder(text), self.encoder.image_text(read_size(conversation.images[0])))
        return len(self.encoder.ids(text)) + len(self.encoder.ids(conversation.turns[-1][1].strip())) + 1

    def encode(self, conversation: Conversation) -> Example:
        """The conversation as an example. Raises DataError if its image cannot be opened, ModelError if the template
        does not put one place for it."""
        text, inputs, size_wh = self.prompt(conversation), {}, (1, 1)
        if conversation.images:
            image = open_image(conversation.images[0])
            seen = see_image(self.encoder.processor, image, as_bytes=self.encoder.as_bytes)
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
