"""A grammar put into the turns of a model of no known family, as its own chat template writes them."""

from __future__ import annotations

from typing import Any

from boxtune.errors import ModelError
from boxtune.families import Family
from boxtune.families.json1000 import SPOT, fit_to_chat
from boxtune.finetune.source import ModelSource

ANSWER = "(the answer stands here)"


def fit_family(source: ModelSource, processor: Any, image_token_id: int | None) -> Family:
    """The family `json1000` in this model's own turns; `image_token_id` is what its config says of visual tokens.

    Raises ModelError where the model has no chat template, or one that does not place an image and a question.
    """
    where, fix = str(source.folder), "take an instruct checkpoint with a chat template, or add the family"
    if not processor.chat_template and not processor.tokenizer.chat_template:
        raise ModelError("the model has no chat template, so its turns are not known", where=where, fix=fix)
    image_token = getattr(processor, "image_token", None)
    if image_token is None or image_token_id is None:
        raise ModelError("the model's processor has no token that stands for an image", where=where, fix=fix)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": SPOT}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    asked = processor.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    whole = processor.apply_chat_template([question, answer], tokenize=False)
    if ANSWER not in whole:
        raise ModelError("the model's chat template leaves the answer out", where=where, fix=fix)
    try:
        return fit_to_chat(
            asked,
            image_token=image_token,
            visual_token=processor.tokenizer.convert_ids_to_tokens(image_token_id),
            end_of_turn=_end_of_turn(processor.tokenizer, whole.rpartition(ANSWER)[2]),
        )
    except ValueError as error:
        raise ModelError(str(error), where=where, fix=fix) from error


def _end_of_turn(tokenizer: Any, rest: str) -> str:
    """The token that the template puts right behind an answer, if it is one of the tokenizer's own; else its end."""
    ids = tokenizer(rest.lstrip(), add_special_tokens=False)["input_ids"]
    if ids and ids[0] in tokenizer.added_tokens_decoder:
        return str(tokenizer.convert_ids_to_tokens(ids[0]))
    return str(tokenizer.eos_token)
