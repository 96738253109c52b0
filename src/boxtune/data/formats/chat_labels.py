"""What a question says of the boxes in its answer: their name, and whether boxes are asked for at all."""

from __future__ import annotations

import re

_TAGS = re.compile(
    r"<\|object_ref_start\|>(.+?)<\|object_ref_end\|>|<ref>(.+?)</ref>|<\|ref\|>(.+?)<\|/ref\|>|<phrase>(.+?)</phrase>",
    re.DOTALL,
)
_ONE_THING = (
    r"(?:(?:the|an?|all|every|each|of) )*(\w[\w '-]*?)(?: in (?:the|this) (?:image|picture|photo))?\s*[.?!:]*\s*$"
)
# Each is the question of one family or of a well-known data set; the name is what it leaves open.
_QUESTIONS = tuple(
    re.compile(pattern, re.IGNORECASE | re.DOTALL)
    for pattern in (
        # LLaVA and InternVL:
        r"(?:sentence|expression|phrase|description|caption)s? (?:describes?|refers? to)\s*:?\s*(.+)",
        r"as per the given description[\s.:]*(.+)",  # GLM-V
        r"help me to locate (.+?) in the image and give me",  # GLM-V
        r"<(?:OPEN_VOCABULARY_DETECTION|CAPTION_TO_PHRASE_GROUNDING)>\s*(.+)",  # Florence-2
        r"^\s*(?:<image>\s*)?(?-i:detect) ([^;:,]+)$",  # PaliGemma, asked for one class
        # Anybody's: "the bounding box of the cat", "Locate all cats in the image."
        rf"\bbounding box(?:es)?(?: coordinates?)? (?:of|for|around) {_ONE_THING}",
        rf"^\W*(?:<image>)?\s*(?:please )?(?:detect|locate|find|ground|outline|where (?:is|are)) {_ONE_THING}",
    )
)
_NO_NAMES = frozenset(
    "it them they this that these those everything anything something object objects thing things item items instance "
    "instances region regions box boxes and or".split()
)
_ASKS = re.compile(
    r"bbox|bounding|\bbox(?:es)?\b|detect|locat|coordinate|ground|outline|<OD>|<ref-object>|object_ref|<ref>|<\|ref\|>"
    r"|\u6846|\u68c0\u6d4b|\u5b9a\u4f4d",  # Chinese: box, detect, locate
    re.IGNORECASE,
)
_DENIES = re.compile(
    r"^\W*(?:no\b|none\b|nothing\b|empty\b|not (?:found|present|visible|detected)"
    r"|there (?:is|are|was|were) (?:no|none|nothing|not)\b|i (?:can(?:no|')t|do(?: no|n')t) (?:see|find|detect)"
    r"|\u6ca1\u6709|\u65e0)",  # Chinese: there is no, without
    re.IGNORECASE,
)
_BEFORE = re.compile(r"(?:^|[\n,;.\]]|\band\b)\s*((?:[^\W_]|[-'])+(?:[ _](?:[^\W_]|[-'])+){0,3})\s*[:=]?\s*$")


def label_in_question(question: str) -> str | None:
    """The one thing that a question asks for; None if it names none, or several."""
    tagged = {next(filter(None, found)).strip() for found in _TAGS.findall(question)}
    if tagged:
        return tagged.pop() if len(tagged) == 1 else None
    for pattern in _QUESTIONS:
        if found := pattern.search(question):
            name = found[1].strip().strip("\"'`").rstrip(".?! \n")
            generic = pattern in _QUESTIONS[-3:] and not _NO_NAMES.isdisjoint(name.lower().split())
            return None if generic else name or None
    return None


def label_before(text: str) -> str | None:
    """The name that stands right before a box, up to four words: "cat: " or ", white car "; None if there is none."""
    found = _BEFORE.search(text.rstrip(" ["))
    return found[1] if found else None


def asks_for_boxes(question: str) -> bool:
    """Whether a question speaks of boxes, places or detection."""
    return _ASKS.search(question) is not None


def denies(answer: str) -> bool:
    """Whether an answer says in words that there is nothing."""
    return _DENIES.search(answer) is not None


def is_nothing(answer: str) -> bool:
    """Whether an answer is an empty list, or nothing at all."""
    bare = re.sub(r"```(?:json)?|\s|<\|(?:begin|end)_of_box\|>", "", answer)
    return bare in ("", "[]", "{}", "[[]]")
