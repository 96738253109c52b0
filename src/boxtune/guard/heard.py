"""What the libraries themselves warn of where it matters for learning: in a long log most of it goes unread."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

from boxtune.guard.finding import Finding

LOGGERS = ("transformers", "trl", "peft", "accelerate", "torch")
MATTERS = (
    (
        r"None of the inputs have requires_grad=True",
        "heard.no_gradient",
        'gradient checkpointing cuts the gradient off: gradient_checkpointing_kwargs={"use_reentrant": False}',
    ),
    (
        r"[Cc]ould not find (the )?(response|instruction|assistant)|instance will be ignored in loss",
        "heard.no_answer",
        "the marker of the answer is not in the tokens, so that nothing of these samples is learned",
    ),
    (
        r"missing adapter keys|missing keys?.*lora_",
        "heard.adapter_keys",
        "the adapter was not loaded: its names are those of another version or another model",
    ),
    (
        # Not of the head of a classifier, which is new on purpose.
        r"^(?!.*(classifier|score\.weight|qa_outputs)).*(not initialized from the model checkpoint|newly initialized)",
        "heard.new_weights",
        "these weights are random: the checkpoint is of another class or another version",
    ),
    (
        r"longer than the specified maximum sequence length",
        "heard.too_long",
        "samples exceed what the tokenizer was made for: look at labels.cut",
    ),
    (
        r"image (features|tokens).*(not match|mismatch)|mismatch.*image tokens",
        "heard.image_tokens",
        "image tokens were cut or counted twice: raise max_length",
    ),
)
"""A pattern of the message, the check it becomes, and what to do."""


class _Ear(logging.Handler):
    def __init__(self, heard: list[Finding]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        self.hear(record.getMessage())

    def hear(self, message: str) -> None:
        for pattern, check, fix in MATTERS:
            if re.search(pattern, message) and check not in {finding.check for finding in self.heard}:
                said = " ".join(message.split())[:300]
                self.heard.append(Finding(check=check, level="warn", seen=f"a library warned: {said}", fix=fix))


@contextlib.contextmanager
def listening(heard: list[Finding]) -> Iterator[None]:
    """While open, warnings and log messages that matter go into `heard`, each kind once; they are shown as ever."""
    ear = _Ear(heard)
    original = warnings.showwarning

    def show(message: Any, *args: Any, **kwargs: Any) -> None:
        ear.hear(str(message))
        original(message, *args, **kwargs)

    warnings.showwarning = show
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(ear)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(ear)
        if warnings.showwarning is show:
            warnings.showwarning = original
