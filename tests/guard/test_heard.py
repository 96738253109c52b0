"""What a library warns of reaches the diagnosis where it matters, and only there."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
from toys import build, healthy

from boxtune import guard
from boxtune.guard.heard import listening


def test_messages_that_matter_are_kept_once_and_shown_as_ever() -> None:
    heard: list[guard.Finding] = []
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with listening(heard):
            for _ in range(2):
                warnings.warn("None of the inputs have requires_grad=True. Gradients will be None", stacklevel=1)
            warnings.warn("the weather is fine", stacklevel=1)
            logging.getLogger("transformers.modeling_utils").warning(
                "Some weights of X were not initialized from the model checkpoint at Y and are newly initialized"
            )
            logging.getLogger("transformers.modeling_utils").warning(
                "Some weights of Y were not initialized from the model checkpoint at Z: ['classifier.weight']"
            )
            logging.getLogger("somebody").warning("missing adapter keys")
    assert [finding.check for finding in heard] == ["heard.no_gradient", "heard.new_weights"]
    assert {finding.level for finding in heard} == {"warn"}
    assert len(shown) == 3


@pytest.mark.slow
def test_it_stands_among_the_findings_of_the_run(tmp_path: Path) -> None:
    with warnings.catch_warnings(), guard.watch(tell=lambda finding: None) as stages:
        parts = healthy(tmp_path)
        logging.getLogger("peft").warning("Found missing adapter keys while loading the checkpoint")
        build(parts).train()
    assert "heard.adapter_keys" in stages.callbacks[0].first_seen
