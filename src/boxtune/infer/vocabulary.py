"""A tokenizer's tokens as letters of `families.spelling`, so that what an answer may go on with can be looked up."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from boxtune.errors import ModelError
from boxtune.families.spelling import Letters, Spelling, State

SPACE = "▁"
"""A space in the tokens of sentencepiece (SpaceLetter)."""
BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class Vocabulary:
    """Every token that an answer may hold, with its letters.

    Two kinds of tokenizers are known: those whose tokens are bytes (as GPT-2's), and those whose tokens are text with
    a letter for the space and tokens for single bytes (as sentencepiece's). `specials` are the family's tokens, a
    letter each; no other added token is ever part of an answer. Raises ModelError for a tokenizer that is not of the
    tokenizers library.
    """

    def __init__(self, tokenizer: Any, specials: Sequence[str]) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ModelError(
                f"{type(tokenizer).__name__} is no tokenizer of the tokenizers library, whose tokens can be looked up",
                where="tokenizer",
                fix="load the model with its fast tokenizer (tokenizer.json)",
            )
        self._as_bytes = _byte_alphabet() if _is_byte_level(tokenizer) else None
        self.tokenizer = tokenizer
        self.letters = Letters(specials, self._plain if self._puts_spaces() else str.encode)
        added = tokenizer.get_added_vocab()
        spelt = {}
        for token, number in tokenizer.get_vocab().items():
            if token in self.letters.numbers:
                spelt[number] = chr(self.letters.numbers[token])
            elif token not in added and token not in tokenizer.all_special_tokens:
                letters = Letters.of_bytes(self._bytes(token))
                if letters:
                    spelt[number] = letters
        self.spelt = spelt
        """The letters of a token, by its id."""
        by_letters = sorted((letters, number) for number, letters in spelt.items())
        self._sorted, self._ids = [pair[0] for pair in by_letters], [pair[1] for pair in by_letters]

    def allowed(self, spelling: Spelling, state: State) -> list[int]:
        """The ids of all tokens that may come next, sorted."""
        found: list[int] = []
        # (state, its letters so far, where tokens that begin with them lie)
        open_: list[tuple[State, str, int, int]] = [(state, "", 0, len(self._sorted))]
        while open_:
            here, prefix, low, high = open_.pop()
            for letter in set(spelling.next_letters(here)):
                longer = prefix + letter
                first = bisect_left(self._sorted, longer, low, high)
                last = bisect_left(self._sorted, prefix + chr(ord(letter) + 1), first, high)
                if first == last:
                    continue
                whole = first
                while whole < last and self._sorted[whole] == longer:
                    found.append(self._ids[whole])
                    whole += 1
                if whole < last:
                    open_.append((spelling.follow(here, letter), longer, whole, last))
        return sorted(found)

    def ids(self, letters: str) -> list[int] | None:
        """The tokens that the tokenizer itself takes for letters; None where they are other letters then, or none."""
        names = {number: text for text, number in self.letters.numbers.items()}
        parts = re.split(f"([{chr(256)}-{chr(256 + len(names))}])", letters) if names else [letters]
        try:
            text = "".join(
                names[ord(part)] if len(part) == 1 and ord(part) in names else part.encode("latin-1").decode()
                for part in parts
            )
        except UnicodeDecodeError:
            return None
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids if "".join(self.spelt.get(number, "") for number in ids) == letters else None

    def _bytes(self, token: str) -> bytes:
        if self._as_bytes is not None:
            return bytes(self._as_bytes[letter] for letter in token if letter in self._as_bytes)
        one = BYTE.fullmatch(token)
        return bytes([int(one[1], 16)]) if one else token.replace(SPACE, " ").encode()

    def _plain(self, text: str) -> bytes:
        """A text without special tokens as this tokenizer writes it, spaces of its own included."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return b"".join(self._bytes(token) for token in self.tokenizer.convert_ids_to_tokens(ids))

    def _puts_spaces(self) -> bool:
        return self._plain("a") != b"a"


def _is_byte_level(tokenizer: Any) -> bool:
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    return "ByteLevel" in [part["type"] for part in (decoder, *decoder.get("decoders", ()))]


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level token stands for: printable ones for themselves, the others in order
    behind the last of Latin-1 (GPT-2, encoder.py, bytes_to_unicode).
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + place): byte for place, byte in enumerate(others)}
