"""What findings tell of images that are both trained on and scored."""

from __future__ import annotations

import pytest

from boxtune.errors import Finding
from boxtune.measure import leakage_of

AMONG = "of 24 images looked at"
COPY = Finding(
    check="image.copy_in_two_splits",
    level="warn",
    seen=f"valid images with the bytes of one in train: 2 of 12 (a.jpg ~ 1.jpg, b.jpg ~ 2.jpg) {AMONG}",
)
NEAR = Finding(
    check="image.near_in_two_splits",
    level="warn",
    seen=f"valid images with the look of one in train: 11 of 12 (a.jpg ~ 1.jpg) {AMONG}",
)
ELSEWHERE = Finding(
    check="image.near_in_two_splits",
    level="warn",
    seen=f"valid images with the look of one in test: 3 of 12 (a.jpg ~ 1.jpg) {AMONG}",
)
NAMED = Finding(
    check="image.in_two_splits", level="warn", seen="image files in more than one split: 1 (a.jpg (train, valid))"
)
NAMED_ELSEWHERE = Finding(
    check="image.in_two_splits", level="warn", seen="image files in more than one split: 1 (a.jpg (test, valid))"
)
NONE_FOUND = Finding(check="image.alike", level="ok", seen=f"no copies or near-duplicates {AMONG}")
NOT_COMPARED = Finding(
    check="image.alike",
    level="ok",
    seen="images were not compared for copies: to decode their 900 megapixels takes a while",
    fix="alike=true compares them",
)
INSIDE = Finding(
    check="image.near_duplicates", level="ok", seen=f"near-duplicates inside splits: 4 in 2 groups {AMONG}"
)
DRAWN = Finding(
    check="data.split", level="ok", seen="no validation split: 4 of 40 training images set aside with seed 0"
)
PARTED = Finding(
    check="data.split", level="warn", seen="no validation split: 4 of 40 set aside; near-duplicates are in both splits"
)
OTHER = Finding(check="box.twice", level="warn", seen="boxes that are there twice: 3")


@pytest.mark.parametrize("finding", [COPY, NEAR, NAMED, PARTED])
def test_what_was_found_is_said(finding: Finding) -> None:
    assert leakage_of([OTHER, finding, INSIDE]) == f"Beware of what was learned by heart: {finding.seen}."


def test_several_are_said_together() -> None:
    sentence = leakage_of([COPY, NAMED, NEAR])
    assert all(finding.seen in sentence for finding in (COPY, NEAR, NAMED))
    assert sentence.count("; ") == 2 and NAMED.seen not in leakage_of([COPY, NEAR])


@pytest.mark.parametrize("findings", [[NONE_FOUND], [INSIDE], [DRAWN], [DRAWN, NOT_COMPARED], [ELSEWHERE]])
def test_nothing_is_said_where_it_was_looked_for_and_not_found(findings: list[Finding]) -> None:
    assert leakage_of(findings) == ""


@pytest.mark.parametrize("findings", [[], [OTHER], [NOT_COMPARED]])
def test_it_is_said_where_it_was_not_looked_for(findings: list[Finding]) -> None:
    assert leakage_of(findings) == "Whether images of valid are copies of training images was not looked for."


def test_only_the_scored_split_counts() -> None:
    assert leakage_of([COPY, PARTED], split="test") == ""
    assert "of test" in leakage_of([PARTED], split="test")
    of_test = Finding(check=NEAR.check, level="warn", seen=NEAR.seen.replace("valid", "test"))
    assert of_test.seen in leakage_of([of_test], split="test") and leakage_of([of_test]) == ""


def test_files_of_two_other_splits_are_no_leak() -> None:
    assert leakage_of([NAMED_ELSEWHERE, NONE_FOUND]) == ""
    many = Finding(
        check=NAMED.check, level="warn", seen="image files in more than one split: 9 (a.jpg (test, valid) and 8 more)"
    )
    assert leakage_of([many, NONE_FOUND])  # among those that are not named there may be some
