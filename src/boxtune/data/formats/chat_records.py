"""One entry of a conversation file, whatever its shape -> its pictures, and questions with their answers.

Shapes: `messages` with role and content (ms-swift, OpenAI), `conversations` with from and value (LLaVA, Qwen-VL,
InternVL), `conversation` with human and assistant, query and response, instruction and output (alpaca), prefix and
suffix (PaliGemma, Florence-2). LLaMA-Factory's dataset_info.json may give every key another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from boxtune.errors import DataError

Entry = Mapping[str, Any]

_ASKS, _ANSWERS = ("user", "human"), ("assistant", "gpt", "model", "bot", "function_call")
_ENDS = ("<eos>", "</s>", "<pad>", "<|im_end|>", "<|endoftext|>")  # what data made from token ids has behind answers
_PICTURE_IN_TEXT = re.compile(r"<img>(.*?)</img>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One question with its answer; each may be empty."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Chat:
    """One entry: where it stands, the names of its pictures, its turns, and ms-swift's `objects` beside them."""

    where: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    objects: Any = None


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What the keys of an entry are called; an empty name is a key that is not there."""

    messages: str = "messages"
    images: str = "images"
    role: str = "role"
    content: str = "content"
    asks: tuple[str, ...] = _ASKS
    answers: tuple[str, ...] = _ANSWERS
    prompt: str = ""
    query: str = ""
    response: str = ""
    history: str = ""


# In this order: the first shape whose keys an entry has is its shape.
SHAPES: Mapping[str, Keys] = {
    "messages": Keys(),
    "conversations": Keys(messages="conversations", role="from", content="value"),
    "conversation": Keys(messages="conversation"),
    "prefix": Keys(messages="", prompt="prefix", response="suffix"),
    "query": Keys(messages="", prompt="query", response="response", history="history"),
    "alpaca": Keys(messages="", prompt="instruction", query="input", response="output", history="history"),
}


def shape_of(entry: Entry) -> str | None:
    """The name of the shape in SHAPES that an entry has; None if it is no conversation."""
    for name, keys in SHAPES.items():
        if isinstance(entry.get(keys.messages), list) or (
            keys.response in entry and isinstance(entry.get(keys.prompt), str)
        ):
            return name
    return None


def read_chat(entry: Entry, where: str, keys: Keys | None = None) -> Chat:
    """The entry as pictures and turns; `keys` where it is known what they are called.

    Raises DataError with `where` if it is no conversation, or if a message or a picture in it is none.
    """
    if keys is None:
        shape = shape_of(entry)
        if shape is None:
            raise _unreadable(
                f"the entry is no conversation; its keys are {', '.join(map(str, entry)) or 'none'}", where
            )
        keys = SHAPES[shape]
    images = [*_pictures(entry.get(keys.images), where), *_pictures(entry.get("image"), where)]
    if keys.messages and isinstance(entry.get(keys.messages), list):
        said = list(_messages(entry[keys.messages], keys, images, where))
    else:
        said = list(_prompt_and_response(entry, keys, where))
    turns = tuple(_pair(said))
    if not images:
        images = [name for turn in turns for name in _PICTURE_IN_TEXT.findall(turn.question)]
    turns = tuple(replace(turn, question=_PICTURE_IN_TEXT.sub("", turn.question)) for turn in turns)
    named = tuple(name.removeprefix("file://") for name in images)
    return Chat(where=where, images=named, turns=turns, objects=entry.get("objects"))


def _messages(messages: Sequence[Any], keys: Keys, images: list[str], where: str) -> Iterator[tuple[bool, str]]:
    """Whether it is an answer, and the text, of each message; pictures inside of a message go into `images`."""
    for number, message in enumerate(messages):
        here = f"{where}, message {number}"
        if not isinstance(message, Mapping):
            raise _unreadable(f"a message is {message!r}", here)
        if "human" in message and "assistant" in message:
            yield False, _text(message["human"], images, here)
            yield True, _text(message["assistant"], images, here)
            continue
        # Some tools write LLaVA's list with the keys of OpenAI, and the other way round.
        forms = ((keys.role, keys.content), ("role", "content"), ("from", "value"))
        role, content = next(((r, c) for r, c in forms if r in message and c in message), ("", ""))
        if not role:
            raise _unreadable(f"a message has the keys {', '.join(map(str, message)) or 'none'}", here)
        if message[role] in keys.answers:
            yield True, _text(message[content], images, here)
        elif message[role] in keys.asks:
            yield False, _text(message[content], images, here)


def _prompt_and_response(entry: Entry, keys: Keys, where: str) -> Iterator[tuple[bool, str]]:
    nothing: list[str] = []
    for pair in entry.get(keys.history) or [] if keys.history else []:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise _unreadable(f"{keys.history} holds {pair!r}, no question with its answer", where)
        yield False, _text(pair[0], nothing, where)
        yield True, _text(pair[1], nothing, where)
    asked = [_text(entry.get(key), nothing, where) for key in (keys.prompt, keys.query) if key and entry.get(key)]
    yield False, "\n".join(asked)
    yield True, _text(entry.get(keys.response), nothing, where)


def _pair(said: Sequence[tuple[bool, str]]) -> Iterator[Turn]:
    question = ""
    for is_answer, text in said:
        if is_answer:
            yield Turn(question=question, answer=_without_ends(text))
        else:
            question = text


def _without_ends(answer: str) -> str:
    """The answer without the special tokens behind it, which are no part of a name or a box."""
    while (bare := answer.rstrip()).endswith(_ENDS):
        answer = next(bare.removesuffix(end) for end in _ENDS if bare.endswith(end))
    return answer


def _text(content: Any, images: list[str], where: str) -> str:
    """The text of a message: a string, or a list of parts of text and pictures."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _unreadable(f"a message says {content!r}", where)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif not isinstance(part, Mapping):
            raise _unreadable(f"a message holds {part!r}", where)
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            found = next((part[key] for key in ("image", "image_url", "url", "path") if part.get(key)), None)
            images += _pictures(found, where) if part.get("type", "image") in ("image", "image_url") else []
    return "".join(texts)


def _pictures(value: Any, where: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [value] if value else []
    if isinstance(value, Mapping):
        return _pictures(next((value[key] for key in ("path", "url", "image") if value.get(key)), None), where)
    if isinstance(value, list):
        return [name for one in value for name in _pictures(one, where)]
    raise _unreadable(f"a picture is {value!r}, no name of a file", where)


def _unreadable(what: str, where: str) -> DataError:
    fix = "write entries with messages, conversations, query and response, or prefix and suffix"
    return DataError(what, where=where, fix=fix)
