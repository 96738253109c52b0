"""Warnings are errors in tests, but for a named list; each name on it is still needed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

# Brings about each warning that pyproject.toml excuses, in a fresh process, since some come at import only.
PROVOKE = """
import bitsandbytes
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from trl import SFTConfig

SFTConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none")
small = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
get_peft_model(LlamaForCausalLM(small), LoraConfig(r=1, target_modules=["q_proj"]))
"""


def read_excused(root: Path) -> list[str]:
    """The beginnings of the messages that pyproject.toml excuses."""
    lines = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"][
        "filterwarnings"
    ]
    assert lines[0] == "error"
    actions, messages = zip(*(line.split(":")[:2] for line in lines[1:]), strict=True)
    assert set(actions) == {"ignore"} and all(messages), "an exception names its message"
    return list(messages)


def find_unneeded(excused: list[str], seen: str) -> list[str]:
    """The excused messages that nothing brought about."""
    return [message for message in excused if f"Warning: {message}" not in seen]


@pytest.mark.slow  # imports torch and trl anew
def test_every_exception_is_needed(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROVOKE], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    excused = read_excused(root)
    assert len(excused) >= 1
    assert find_unneeded(excused, done.stderr) == [], "gone upstream: take it off the list in pyproject.toml"


def test_unneeded_exception_is_reported() -> None:
    seen = "x.py:3: FutureWarning: `old` is deprecated, use `new`\n  warnings.warn(\n"
    assert find_unneeded(["`old` is deprecated"], seen) == []
    assert find_unneeded(["`old` is deprecated", "`older` is"], seen) == ["`older` is"]


def test_other_warnings_are_errors() -> None:
    with pytest.raises(UserWarning, match="anything"):
        warnings.warn("anything", UserWarning, stacklevel=1)
