"""The signals of boxes that a server wrote, from the log-probabilities that it gives of each token.

The tokens are gone through under the guide that would have led them, so that there are the very choices of an answer
written here: of each token what else the grammar allowed, as far as the server tells it (its likeliest twenty).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boxtune.boxes import Boxes
from boxtune.families import Frame
from boxtune.finetune.encode import Encoder
from boxtune.infer.confidence import Signals, read_signals
from boxtune.infer.decode import Choice
from boxtune.infer.guide import Guide, Step, guides_of
from boxtune.infer.vocabulary import Vocabulary

AS_ID = "token_id:"
"""What vLLM writes before the id of a token where it is asked for ids (`return_tokens_as_token_ids`)."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One token that a server wrote, and the natural logarithms of the probabilities that it tells, by token id."""

    id: int
    logs: Mapping[int, float]


class TokenIds:
    """Finds the id of a token in a server's record: the id itself, or the token's text or bytes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._added: dict[str, int] = vocabulary.tokenizer.get_added_vocab()
        # Of tokens of the same letters the last: sentencepiece has its single bytes first, and writes them last.
        self._by_letters = {letters: number for number, letters in sorted(vocabulary.spelt.items())}

    def of(self, record: Mapping[str, Any]) -> int | None:
        """None where no token is known by what the record says."""
        number, text, as_bytes = record.get("id"), record.get("token"), record.get("bytes")
        if isinstance(number, int):  # llama.cpp
            return number
        if not isinstance(text, str):
            return None
        if text.startswith(AS_ID):
            digits = text.removeprefix(AS_ID)
            return int(digits) if digits.isdecimal() else None
        if text in self._added:
            return self._added[text]
        try:
            spelt = bytes(as_bytes) if isinstance(as_bytes, list) else text.encode()
        except (TypeError, ValueError):  # no bytes, or half of a character
            return None
        return self._by_letters.get(spelt.decode("latin-1"))


def read_tokens(ids: TokenIds, records: Sequence[Any]) -> list[Told] | None:
    """The tokens of an answer; None where one of them is not known, or has no log-probability.

    An alternative that is not known is left out: it is none that the grammar allows.
    """
    found = []
    for record in records:
        if not isinstance(record, Mapping):
            return None
        number, log = ids.of(record), _log(record)
        if number is None or log is None:
            return None
        others = record.get("top_logprobs") or ()
        logs = {
            other: least
            for one in others
            if isinstance(one, Mapping) and (other := ids.of(one)) is not None and (least := _log(one)) is not None
        }
        found.append(Told(id=number, logs={**logs, number: log}))
    return found


def _log(record: Mapping[str, Any]) -> float | None:
    value = record.get("logprob")
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """An answer gone through under a guide: what it chose, the ids before its end, and the boxes that it began."""

    choices: tuple[Choice, ...]
    ids: tuple[int, ...]
    num_begun: int


def replay(guide: Guide, tokens: Sequence[Told]) -> Replayed | None:
    """What was chosen at each token; None where the guide would not have let it be written.

    As in `decode.Row`, what must come is no choice.
    """
    state, last, begun = guide.start, None, 0
    choices: list[Choice] = []
    ids: list[int] = []
    coming: list[int] = []
    for told in tokens:
        allowed = guide.allowed(state)
        if told.id not in allowed:
            return None
        ends = told.id == guide.end_id
        step = None if ends else guide.step(state, told.id)
        if coming and coming[0] == told.id:
            del coming[0]
        else:
            coming = []
            if len(allowed) > 1:
                choices.append(_choose(allowed, told, begun, step))
        if step is None:
            break
        state, last, begun = step.state, told.id, begun + step.begins
        ids.append(told.id)
        coming = coming or list(guide.forced(state, last))
    return Replayed(choices=tuple(choices), ids=tuple(ids), num_begun=begun)


def _choose(allowed: Sequence[int], told: Told, begun: int, step: Step | None) -> Choice:
    among = sorted(set(allowed) & told.logs.keys())
    logs = np.array([told.logs[number] for number in among])
    mass = float(np.logaddexp.reduce(logs))
    return Choice(
        ids=tuple(among),
        log_probs=logs - mass,
        taken=among.index(told.id),
        mass=min(1.0, math.exp(mass)),
        swayed=False,
        box=begun,
        step=step,
    )


def read_served_signals(
    encoder: Encoder, ids: TokenIds, records: Sequence[Any], boxes: Boxes, frame: Frame, classes: Sequence[str]
) -> tuple[Signals, ...] | None:
    """The signals of the boxes that an answer was read as; None where its tokens do not say them.

    That is so where a token is not known, the guide would have written other ones, or the tokens are not those of the
    answer. Behind the boxes there may be one that was cut.
    """
    tokens = read_tokens(ids, records)
    if tokens is None:
        return None
    guide = guides_of(encoder).of(frame, classes)
    found = replay(guide, tokens)
    if found is None or found.num_begun < len(boxes):
        return None
    text = encoder.tokenizer.decode(found.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    again = encoder.family.decode(text, frame, classes).boxes
    if again.labels != boxes.labels or not np.array_equal(again.xyxy_px, boxes.xyxy_px):
        return None
    return tuple(read_signals(guide, found.choices, boxes, frame))
