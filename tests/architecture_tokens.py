"""Small tokenizers of each family's own kind: its class, its way with spaces, its special tokens, no words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LETTERS = "".join(chr(code) for code in range(33, 127)) + "äöüÄÖÜéñß"
"""What the tokenizers without bytes can write besides spaces."""


def _bytes() -> dict[str, int]:
    from tokenizers.pre_tokenizers import ByteLevel

    return {byte: place for place, byte in enumerate(sorted(ByteLevel.alphabet()))}


def _extended(vocabulary: dict[str, int], tokens: Sequence[str]) -> dict[str, int]:
    return {**vocabulary, **{token: len(vocabulary) + place for place, token in enumerate(dict.fromkeys(tokens))}}


def build_qwen(special: Sequence[str], **names: str) -> Any:
    """Qwen's: bytes, digits one by one. `names` are the attributes a processor asks for, such as `image_token`."""
    from transformers import Qwen2Tokenizer

    return _mark(
        Qwen2Tokenizer(
            vocab=_extended(_bytes(), ["<|endoftext|>", *special]),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            extra_special_tokens=names,
        ),
        special,
    )


def build_byte_level(special: Sequence[str], *, eos: str, pad: str, bos: str | None = None, **names: str) -> Any:
    """A plain byte-level tokenizer, as GLM, DeepSeek and Llama 3 have one; nothing is added around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token=pad, extra_special_tokens=names
    )
    return _mark(tokenizer, special)


def build_bart(special: Sequence[str], **names: str) -> Any:
    """Bart's, which Florence-2 has: bytes, `<s>` and `</s>` put around every text unless told not to."""
    from transformers import BartTokenizer

    start = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {token: place for place, token in enumerate(start)}
    return _mark(BartTokenizer(vocab=_extended(vocabulary, list(_bytes())), extra_special_tokens=names), special)


def build_gemma(special: Sequence[str], **names: str) -> Any:
    """Gemma's: spaces are a letter of their own, what is no letter falls back to bytes, `<bos>` before every text."""
    from transformers import GemmaTokenizer

    start = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*start, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "\n", *LETTERS]
    return _mark(GemmaTokenizer(vocab=_extended({}, pieces), extra_special_tokens=names), special)


def build_xlm(special: Sequence[str], **names: str) -> Any:
    """XLM-RoBERTa's, which Kosmos-2 has: a space before every word, also before the first behind a special token."""
    from transformers import XLMRobertaTokenizer

    start = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*start, "▁", *LETTERS]
    # A word's pieces must be worth more than the unknown one.
    vocabulary = [(piece, 0.0 if piece in start else -1.0) for piece in pieces]
    return _mark(XLMRobertaTokenizer(vocab=vocabulary, extra_special_tokens=names), special)


def _mark(tokenizer: Any, special: Sequence[str]) -> Any:
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(special)])
    return tokenizer
