"""Other conversations that are mixed into training, so that the model keeps what it could do before.

Read are a JSON list or JSON lines, each entry one conversation in one of the shapes that people have:

- `messages` of `role` and `content`, as OpenAI, Hugging Face and ms-swift write them; content is text, or a list of
  parts of type `text`, `image` or `image_url`; images stand in the parts or under `images`;
- `conversations` of `from` and `value`, as LLaVA, ShareGPT and the Qwen-VL scripts write them, with `image`;
- `query`, `response` and perhaps `history` and `system`, as older ms-swift wrote them, with `images`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from boxtune.data.broken import MAX_LEFT_OUT
from boxtune.errors import DataError, Finding, name_some

IMAGE = "<image>"
"""Stands in the text of a turn where the image goes."""
Role = Literal["system", "user", "assistant"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_TOOL_ROLES = (
    "tool tools tool_call tool_calls tool_response function function_call function_response observation".split()
)
_OTHER_KINDS = "objects videos video audios audio tools functions rejected_response rejected_messages rejected".split()


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """One conversation: perhaps a system turn, then user and assistant by turns, the assistant last.

    `turns` are (role, text). `images` are the files; for each one IMAGE stands once in the text of a user turn.
    """

    images: tuple[Path, ...]
    turns: tuple[tuple[Role, str], ...]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """The conversations of a file that can be used, and what was seen while reading it."""

    path: Path
    conversations: tuple[Conversation, ...]
    findings: tuple[Finding, ...]


class _Fault(Exception):
    """An entry is not what it should be."""


class _OtherKind(Exception):
    """An entry may be sound, but is of a kind that is not trained on here."""


def read_mix(path: Path | str, *, images: Path | None = None) -> Mix:
    """The conversations of a .json or .jsonl file; images are looked for below `images`, else beside the file.

    Left out, with a finding that counts and names them, are entries of kinds that are not trained on: with several
    images, images on the web or inside the text, video, audio, tools, boxes apart from the text (`objects`: read such a
    set as data), and pairs of a preferred and a rejected answer. Entries that are broken, or whose image is missing,
    are left out up to 1 %; DataError names them by line if there are more, or if nothing is left. An image without a
    place in the text stands before the first question.
    """
    file = Path(path)
    root = file.parent if images is None else images
    found, faults, others = [], [], []
    num = 0
    for where, entry in _entries(file):
        num += 1
        try:
            found.append(_conversation(entry, root))
        except _Fault as fault:
            faults.append(f"{where}: {fault}")
        except _OtherKind as kind:
            others.append((str(kind), where))
    if len(faults) > MAX_LEFT_OUT * num or not found:
        reasons = [*faults, *(f"{where}: {kind}" for kind, where in others)]
        raise DataError(
            f"{len(faults)} of {num} conversations are broken"
            if faults
            else f"none of {num} conversations can be trained on",
            where=f"{file}: {name_some(reasons, limit=5)}" if reasons else str(file),
            fix="mend these entries or take them out of the file",
        )
    return Mix(path=file, conversations=tuple(found), findings=tuple(_findings(file, found, faults, others)))


def _findings(
    file: Path, found: Sequence[Conversation], faults: Sequence[str], others: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    num_with = sum(bool(one.images) for one in found)
    seen = f"{len(found):,} conversations, {num_with:,} with an image"
    yield Finding(check="mix.read", level="ok", seen=seen, where=str(file))
    if faults:
        seen = f"{len(faults)} broken conversations left out: {name_some(faults, limit=5)}"
        yield Finding(check="mix.left_out", level="warn", seen=seen, where=str(file), fix="mend them or take them out")
    kinds: dict[str, list[str]] = {}
    for kind, where in others:
        kinds.setdefault(kind, []).append(where)
    if kinds:
        told = name_some([f"{kind}: {len(w)} ({name_some(w)})" for kind, w in kinds.items()], limit=5)
        seen = f"{len(others)} conversations of kinds that are not trained on left out: {told}"
        yield Finding(check="mix.other_kinds", level="warn", seen=seen, where=str(file))


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    """(place, value) of each entry; a line that is no JSON comes as the _Fault it is."""
    if not file.is_file():
        reason = "is a folder" if file.is_dir() else "does not exist"
        raise DataError(f"{file} {reason}", where="data.mix", fix="give a .json or .jsonl file of conversations")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise DataError(f"{file} is not UTF-8: {problem}", where=str(file), fix="save it as UTF-8") from problem
    if text.lstrip()[:1] != "[":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", _parse_line(line)
        return
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{file} is not sound JSON: {problem}", where=str(file), fix="mend it") from problem
    for number, entry in enumerate(entries, start=1):
        yield f"entry {number}", entry


def _parse_line(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as problem:
        return _Fault(f"no JSON ({problem})")


def _conversation(entry: Any, root: Path) -> Conversation:
    if isinstance(entry, _Fault):
        raise entry
    if not isinstance(entry, dict):
        raise _Fault(f"expected is an object, not {type(entry).__name__}")
    for key in _OTHER_KINDS:
        if entry.get(key):
            raise _OtherKind(f"it has {key!r}")
    named = [*_listed(entry.get("image")), *_listed(entry.get("images"))]
    inside: list[Any] = []
    turns = [(role, _text(content, inside)) for role, content in _turns(entry)]
    placed = [one for one in inside if one is not None]
    if named and placed:
        raise _Fault("images stand in the messages and beside them")
    files = named or placed
    if len(files) > 1:
        raise _OtherKind("it has several images")
    _require_turns(turns)
    num_places = sum(text.count(IMAGE) for _, text in turns)
    if files and not num_places:
        first = next(i for i, (role, _) in enumerate(turns) if role == "user")
        turns[first] = ("user", IMAGE + turns[first][1])
    elif num_places != len(files):
        raise _Fault(f"{num_places} places for an image, but {len(files)} images")
    return Conversation(images=tuple(_image(one, root) for one in files), turns=tuple(turns))


def _listed(value: Any) -> list[Any]:
    return [one for one in (value if isinstance(value, list) else [value]) if one]


def _turns(entry: Mapping[str, Any]) -> Iterator[tuple[Role, Any]]:
    """Role and content of each turn, whatever the entry calls them."""
    shape = next((key for key in ("messages", "conversations", "query") if key in entry), None)
    if shape is None:
        raise _Fault(f"neither messages, conversations nor query; its keys are {name_some(sorted(entry), limit=6)}")
    if entry.get("system"):
        yield "system", entry["system"]
    if shape == "query":
        for pair in entry.get("history") or []:
            if not isinstance(pair, list) or len(pair) != 2:
                raise _Fault("history is not a list of [query, response]")
            yield from (("user", pair[0]), ("assistant", pair[1]))
        yield from (("user", entry["query"]), ("assistant", entry.get("response")))
        return
    if not isinstance(entry[shape], list) or not entry[shape]:
        raise _Fault(f"{shape!r} is not a list of turns")
    for number, turn in enumerate(entry[shape], start=1):
        if not isinstance(turn, dict):
            raise _Fault(f"turn {number} is not an object")
        if turn.get("tool_calls") or turn.get("function_call"):
            raise _OtherKind("a tool is called")
        named, content = (turn.get(new, turn.get(old)) for new, old in (("role", "from"), ("content", "value")))
        if named in _TOOL_ROLES:
            raise _OtherKind("a tool is called")
        if not isinstance(named, str) or named not in _ROLES:
            raise _Fault(f"turn {number} is of {named!r}; known are {', '.join(_ROLES)}")
        yield _ROLES[named], content


def _text(content: Any, images: list[Any]) -> str:
    """The text of a turn with IMAGE where images stand; what names them goes to `images`, None where nothing does."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _Fault(f"the content of a turn is {type(content).__name__}, not text")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str) or (kind == "text" and isinstance(part.get("text"), str)):
            texts.append(part if isinstance(part, str) else part["text"])
        elif kind in ("image", "image_url"):
            named = next((part[key] for key in ("image_url", "image", "path", "url") if part.get(key)), None)
            images.append(named.get("url") if isinstance(named, dict) and "url" in named else named)
            texts.append(IMAGE)
        elif kind in ("video", "video_url", "audio", "audio_url", "input_audio", "file"):
            raise _OtherKind(f"a turn has a part of type {kind!r}")
        else:
            raise _Fault(f"a turn has a part of type {kind!r}")
    return "".join(texts)


def _require_turns(turns: Sequence[tuple[Role, str]]) -> None:
    talk = turns[1:] if turns[0][0] == "system" else turns
    roles = [role for role, _ in talk]
    wanted = ["user", "assistant"] * (len(talk) // 2 + 1)
    if roles != wanted[: len(talk)]:
        raise _Fault(f"user and assistant do not take turns: {', '.join(roles)}")
    if not talk or roles[-1] != "assistant":
        raise _Fault("it ends without an answer of the assistant")
    if empty := [role for role, text in talk if not text.strip()]:
        raise _Fault(f"a turn of {empty[0]} is empty")
    if misplaced := [role for role, text in turns if role != "user" and IMAGE in text]:
        raise _Fault(f"an image stands in a turn of {misplaced[0]}")


def _image(named: Any, root: Path) -> Path:
    """The file that an entry names. Raises where there is none."""
    if isinstance(named, dict) and named.get("bytes") and not named.get("path"):
        raise _OtherKind("its image is inside the text")
    ref = named.get("path") if isinstance(named, dict) else named
    if not isinstance(ref, str):
        raise _Fault(f"its image is named by {type(ref).__name__}, not by a path")
    if ref.startswith("data:"):
        raise _OtherKind("its image is inside the text")
    if ref.startswith(("http://", "https://")):
        raise _OtherKind("its image is on the web")
    file = root / ref.removeprefix("file://")
    try:
        there = file.is_file()
    except OSError as problem:  # a name that is too long, such as the bytes of an image as text
        raise _Fault(f"its image {ref[:40]!r}... cannot be looked for: {problem.strerror}") from problem
    if not there:
        raise _Fault(f"its image {file} does not exist")
    return file


def check_mix(mix: Mix, special_tokens: Sequence[str]) -> list[Finding]:
    """A finding where texts hold tokens of the model's own, which would end a turn or begin an image in their midst."""
    found = [
        (number, token)
        for number, one in enumerate(mix.conversations, start=1)
        for token in special_tokens
        if token != IMAGE and any(token in text for _, text in one.turns)
    ]
    if not found:
        return []
    told = name_some([f"conversation {number} {token!r}" for number, token in found])
    num = len({number for number, _ in found})
    return [
        Finding(
            check="mix.special_tokens",
            level="fail",
            seen=f"{num} of {len(mix.conversations):,} conversations hold special tokens of the model: {told}",
            where=str(mix.path),
            fix="take the tokens out of the texts: they are added where they belong",
        )
    ]


def num_mixed(num_samples: int, share: float) -> int:
    """How many conversations an epoch has beside `num_samples`, so that they are a `share` (0 to below 1) of it."""
    if not 0 <= share < 1:
        raise ValueError(f"a share of {share} is not in 0 to below 1")
    return round(share / (1 - share) * num_samples)


def mixed(
    row: int, *, num_samples: int, num_conversations: int, share: float, seed: int, epoch: int
) -> tuple[Literal["train", "mix"], int]:
    """What stands in a row of an epoch: ("train", place of the sample) or ("mix", place of the conversation).

    An epoch has `num_samples + num_mixed(num_samples, share)` rows. Every sample stands in one of them, in order, and
    conversations evenly between. They are drawn without repetition: none comes again, in this epoch or a later one,
    before each has come; every pass through them is in another order, by the seed. Raises IndexError for another row.
    """
    extra = num_mixed(num_samples, share)
    num_rows = num_samples + extra
    if not 0 <= row < num_rows:
        raise IndexError(f"row {row} of {num_rows}")
    before = row * extra // num_rows
    if (row + 1) * extra // num_rows == before:
        return "train", row - before
    turn, place = divmod(epoch * extra + before, num_conversations)
    return "mix", int(_order(num_conversations, seed, turn)[place])


@lru_cache(maxsize=4)
def _order(num: int, seed: int, turn: int) -> np.ndarray:
    return np.random.default_rng((seed, turn)).permutation(num)
