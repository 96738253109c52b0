"""What `python -m compat.doctor` takes for a right diagnosis."""

from __future__ import annotations

import pytest

from compat.doctor import SCRIPT, is_right

LINE = 1 + SCRIPT.read_text(encoding="utf-8").splitlines().index("    model.requires_grad_(False)")
WELL = "trainer: 14 checks passed, 0 findings\n\nverdict: learning: the loss of 16 fell"
FROZEN = f"[fail] ledger.frozen: 12 LoRA tensors were frozen by compat/script.py:{LINE}"


@pytest.mark.parametrize(
    ("how", "code", "shown", "right"),
    [
        ("well", 0, WELL, True),
        ("well", 3, WELL, False),
        ("well", 0, WELL.replace("0 findings", "1 finding"), False),
        ("freeze", 3, FROZEN, True),
        ("freeze", 0, FROZEN, False),
        ("freeze", 3, FROZEN.replace(f":{LINE}", f":{LINE + 1}"), False),
    ],
)
def test_only_a_right_diagnosis_is_right(how: str, code: int, shown: str, right: bool) -> None:
    assert is_right(how, code, shown) == right
