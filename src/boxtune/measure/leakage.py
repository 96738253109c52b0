"""What is known of images that were trained on and are scored: it says how far to trust a good score."""

from __future__ import annotations

import re
from collections.abc import Iterable

from boxtune.errors import Finding

COMPARED = frozenset(
    {"image.alike", "image.copies", "image.near_duplicates", "image.copy_in_two_splits", "image.near_in_two_splits"}
)
"""Checks that only speak once images were compared; `image.alike` also says where they were not."""


def leakage_of(findings: Iterable[Finding], *, split: str = "valid") -> str:
    """A sentence about images of `split` that are also trained on, or that were not looked for; "" where all is well.

    `findings` are those of reading, splitting and comparing (`Inspection.findings`). A split that boxtune drew itself
    keeps near-duplicates together, and is well unless its finding says otherwise.
    """
    findings = list(findings)
    across = ("image.copy_in_two_splits", "image.near_in_two_splits")
    shared = [found.seen for found in findings if found.check == "image.in_two_splits" and _is_of(found.seen, split)]
    shared += [
        found.seen
        for found in findings
        if found.check in across and found.seen.startswith(f"{split} images") and " one in train: " in found.seen
    ]
    drawn = [found for found in findings if found.check == "data.split" and split == "valid"]
    shared += [found.seen for found in drawn if found.level == "warn"]
    if shared:
        return f"Beware of what was learned by heart: {'; '.join(shared)}."
    compared = [found for found in findings if found.check in COMPARED and "were not compared" not in found.seen]
    if compared or drawn:
        return ""
    return f"Whether images of {split} are copies of training images was not looked for."


def _is_of(seen: str, split: str) -> bool:
    """Whether a finding about files in several splits, three of which it names, may be about training images in this
    one."""
    named = [re.split(", ", one) for one in re.findall(r"\(([a-z_, ]+)\)", seen)]
    return any({"train", split} <= {*one} for one in named) or " more)" in seen
