"""Fixtures that hold the embedded model, loaded once for all the tests of a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from squares import CLASSES, write_squares

BUDGET = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
"""Image budget of the tests: 16 visual tokens at most."""

QUICK = {**BUDGET, "epochs": 2, "micro_batch": 4, "effective_batch": 4, "max_new_tokens": 12, "answers": 2}
"""Settings under which a whole run takes some seconds."""


def refuse(sample: Any, error: Exception) -> None:
    """For collators whose images are all sound."""
    raise error


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of 16 training and 6 validation images."""
    return write_squares(tmp_path_factory.mktemp("squares") / "squares")


@pytest.fixture(scope="session")
def load_tiny() -> Any:
    """Loads the embedded model afresh: `load_tiny(quantization="nf4", precision="fp32")`."""
    from boxtune.finetune import choose_placement, load_base
    from boxtune.run import find_source

    def load(quantization: str = "nf4", precision: str = "fp32") -> Any:
        return load_base(find_source("tiny"), choose_placement(quantization, precision), **BUDGET)

    return load


@pytest.fixture(scope="session")
def tiny(load_tiny: Any) -> Any:
    """The embedded model in NF4 with fp32 compute. Do not change it: others use it too."""
    return load_tiny()


@pytest.fixture(scope="session")
def encoder(tiny: Any) -> Any:
    """An encoder for the classes of `squares`."""
    from boxtune.finetune import build_encoder

    return build_encoder(tiny, CLASSES)


def make_settings(recipe: str, rate: Any = 1e-3, batch: int = 1) -> Any:
    """Settings for steps of `batch` images at a level rate, in fp32."""
    from boxtune.settings import Settings

    return Settings(
        model="tiny",
        data={"path": "."},  # type: ignore[arg-type]
        adapter={"recipe": recipe, "r": 4, "alpha": 8, "dropout": 0.0},  # type: ignore[arg-type]
        train={  # type: ignore[arg-type]
            "epochs": 1, "effective_batch": batch, "micro_batch": batch, "learning_rate": rate, "precision": "fp32",
            "schedule": "constant_with_warmup", "warmup_share": 0.0,
        },
        eval={"per_epoch": 1},  # type: ignore[arg-type]
    )  # fmt: skip
