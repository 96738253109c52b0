"""The real Qwen2 vocabulary, from the package that ships it: digits and box tokens are one token each, and come back.

The vocabulary is a file of byte strings with ranks (tiktoken's form). What the tokenizers library needs, pairs to merge
in order, is worked out from it here, and held against tiktoken itself.
"""

from __future__ import annotations

import base64
import importlib.util
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES, Family

from .answers import AWKWARD, NAMES, as_rows, frame_of

# Digits one by one: `\p{N}`, where converters' default would take three at a time.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
).split()
FIRST_SPECIAL = 151_643
QWEN = [FAMILIES[name] for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")]


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    """Byte string -> rank."""
    spec = importlib.util.find_spec("dashscope")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs dashscope, which ships the Qwen vocabulary")
    path = Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    rows = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in rows}


def merged_from(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that a token is merged from: what byte pair encoding makes of it short of the token itself."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        rank, place = min(
            (ranks.get(left + right, len(ranks)), place) for place, (left, right) in enumerate(pairwise(parts))
        )
        assert rank < ranks[token]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


@pytest.fixture(scope="module")
def tokenizer(ranks: dict[bytes, int]) -> Any:
    """The Qwen2 tokenizer with the special tokens of the Qwen2-VL checkpoints."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [b for b in range(256) if chr(b) in letters]
    others = iter(range(256, 512))
    letter_of = {b: chr(b) if b in printable else chr(next(others)) for b in range(256)}
    word = {token: "".join(letter_of[b] for b in token) for token in ranks}
    ordered = sorted(ranks, key=ranks.__getitem__)
    merges = [merged_from(token, ranks) for token in ordered if len(token) > 1]
    inner = Tokenizer(
        models.BPE(
            vocab={word[token]: rank for token, rank in ranks.items()},
            merges=[(word[left], word[right]) for left, right in merges],
        )
    )
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return inner


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_vocabulary_is_whole(ranks: dict[bytes, int], tokenizer: Any) -> None:
    assert len(ranks) == FIRST_SPECIAL == max(ranks.values()) + 1
    for place, token in enumerate(SPECIAL):
        assert ids(tokenizer, token) == [FIRST_SPECIAL + place]
    assert [tokenizer.token_to_id(f"<|box_{end}|>") for end in ("start", "end")] == [151_648, 151_649]
    assert tokenizer.token_to_id("<|image_pad|>") == 151_655


def test_ids_are_those_of_tiktoken(ranks: dict[bytes, int], tokenizer: Any) -> None:
    import tiktoken

    theirs = tiktoken.Encoding("qwen", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    texts = [
        text for text in (*NAMES, *AWKWARD) if "\ud800" not in text and not any(token in text for token in SPECIAL)
    ]
    texts += [family.encode(BOXES, frame_of(family, SIZE), NAMES) for family in QWEN[1:]]
    assert len(texts) > 50
    for text in texts:
        assert ids(tokenizer, text) == theirs.encode_ordinary(unicodedata.normalize("NFC", text)), text


def test_each_digit_is_one_token(tokenizer: Any) -> None:
    of_digit = {digit: ids(tokenizer, digit)[0] for digit in "0123456789"}
    assert len(set(of_digit.values())) == 10
    for number in range(1001):
        assert ids(tokenizer, str(number)) == [of_digit[digit] for digit in str(number)]
    # Also beside what the grammars put around numbers.
    assert [of_digit[digit] for digit in "1234"] == [
        one for one in ids(tokenizer, "(12,34)") if one in of_digit.values()
    ]
    assert [of_digit[digit] for digit in "1234"] == [
        one for one in ids(tokenizer, "[12, 34]") if one in of_digit.values()
    ]


@pytest.mark.parametrize("family", QWEN, ids=lambda family: family.name)
def test_special_tokens_are_single(family: Family, tokenizer: Any) -> None:
    assert len(family.special_tokens) >= 5
    for token in family.special_tokens:
        assert ids(tokenizer, token) == [tokenizer.token_to_id(token)]


SIZE = (640, 480)
LABELS = [*NAMES, *(label for label in AWKWARD if label not in NAMES)]
ROWS = np.random.default_rng(3).random((len(LABELS), 4)) * 0.5 + np.array([0, 0, 0.5, 0.5])
BOXES = Boxes(xyxy_px=ROWS[: len(NAMES)] * np.array([*SIZE, *SIZE]), labels=tuple(NAMES))


@pytest.mark.parametrize("family", QWEN, ids=lambda family: family.name)
def test_answers_come_back_through_ids(family: Family, tokenizer: Any) -> None:
    frame = frame_of(family, SIZE)
    kept = [i for i, label in enumerate(LABELS) if not family.check_classes([label])]
    assert len(kept) >= len(LABELS) - 8
    labels = [LABELS[i] for i in kept]
    boxes = Boxes(xyxy_px=ROWS[kept] * np.array([*SIZE, *SIZE]), labels=tuple(labels))
    answer = family.encode(boxes, frame, labels)
    written = ids(tokenizer, answer + family.end_of_turn)
    assert written[-1] == tokenizer.token_to_id(family.end_of_turn)
    text = tokenizer.decode(written[:-1], skip_special_tokens=False)
    assert text == answer
    decoded = family.decode(text, frame, labels)
    assert decoded.problems == ()
    assert as_rows(decoded.boxes) == as_rows(family.decode(answer, frame, labels).boxes)
    # Prompt and answer, tokenised apart and joined as ids, are the same text.
    prompt = family.prompt(labels[:3], family.visual_token)
    joined = [*ids(tokenizer, prompt), *written]
    assert tokenizer.decode(joined, skip_special_tokens=False) == prompt + answer + family.end_of_turn


@pytest.mark.parametrize(
    ("name", "tokens", "further", "nothing"),
    [("qwen2_vl", 22, 22, 4), ("qwen2_5_vl", 39, 33, 5), ("qwen3_vl", 39, 33, 5)],
)
def test_lengths_of_answers(name: str, tokens: int, further: int, nothing: int, tokenizer: Any) -> None:
    """Tokens of an answer with one box of three digits a corner, of each further one, and of the answer for nothing."""
    family = FAMILIES[name]
    frame = frame_of(family, SIZE)
    one = Boxes(xyxy_px=np.array([[160.0, 120.0, 320.0, 240.0]]), labels=("cat",))
    two = Boxes(xyxy_px=np.array([[160.0, 120.0, 320.0, 240.0], [320.0, 240.0, 400.0, 300.0]]), labels=("cat", "cat"))
    lengths = [len(ids(tokenizer, family.encode(boxes, frame, ["cat"]))) for boxes in (one, two, Boxes.none())]
    assert lengths == [tokens, tokens + further, nothing]


@pytest.mark.slow
@pytest.mark.parametrize("family", QWEN[:2], ids=lambda family: family.name)
def test_a_guide_forces_the_tokens_of_trained_answers(family: Family, tokenizer: Any) -> None:
    """With merges over punctuation and names, what is forced is still what the whole answer is made of."""
    from transformers import PreTrainedTokenizerFast

    from boxtune.infer.guide import Guides

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    end_id = tokenizer.token_to_id(family.end_of_turn)
    names = ["nutrition-table", "cat", "cat-like (small)", "Straßenschild", "犬", 'a "b"', "x"]
    frame = frame_of(family, SIZE)
    guides = Guides(family, fast, end_id)
    for asked in (names, names[:1]):
        guide = guides.of(frame, asked)
        shown = BOXES.take([i for i, label in enumerate(BOXES.labels) if i < 40])
        shown = Boxes(xyxy_px=shown.xyxy_px, labels=tuple(asked[i % len(asked)] for i in range(len(shown))))
        answer = [*ids(tokenizer, family.encode(shown, frame, asked)), end_id]
        state, forced_in_all, skip_to = guide.start, 0, 0
        for place, token in enumerate(answer):
            forced = list(guide.forced(state, answer[place - 1] if place else None))
            assert answer[place : place + len(forced)] == forced
            if place >= skip_to and forced:
                forced_in_all, skip_to = forced_in_all + len(forced), place + len(forced)
            assert token in guide.allowed(state)
            if token != end_id:
                state = guide.step(state, token).state
        # A third of all tokens need not be asked for; names that share no beginning are most of the rest.
        assert forced_in_all > len(answer) / 4, (forced_in_all, len(answer))
