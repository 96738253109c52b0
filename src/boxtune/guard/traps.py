"""What is known to go wrong in exactly the versions that are installed, and which check of the guard finds it."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "torchvision")


@dataclass(frozen=True, kw_only=True)
class Trap:
    """`since` and `until` (exclusive, empty for open) bound the versions of `package`; `check` is what finds it."""

    package: str
    since: str
    until: str
    what: str
    fix: str
    check: str


TRAPS = (
    Trap(
        package="trl",
        since="0.22",
        until="0.23",
        what="a 4-bit model with its adapter is prepared again, and every LoRA tensor frozen (trl issue 3926)",
        fix="pass peft_config and the unwrapped model, or upgrade",
        check="ledger.frozen",
    ),
    Trap(
        package="trl",
        since="0.29",
        until="",
        what="the adapter of a quantised model is cast to bf16, where updates below a 256th of a weight are lost",
        fix="after the trainer is built: p.data = p.data.float() for every trainable p",
        check="ledger.cast, move.lost",
    ),
    Trap(
        package="trl",
        since="0.13",
        until="",
        what="max_length is 1024 unless set: image tokens, boxes and the end of turn are cut",
        fix="SFTConfig(max_length=None)",
        check="labels.cut",
    ),
    Trap(
        package="bitsandbytes",
        since="0.49",
        until="",
        what="on a CPU with AVX512-BF16, 4-bit weights lose their backward in the first evaluation",
        fix="layer.support_avx512bf16_for_cpu = False for every layer that has it, after loading",
        check="quantization.packed",
    ),
    Trap(
        package="transformers",
        since="5.0",
        until="",
        what="towers are named model.language_model.layers and model.visual: a pattern on model.layers matches nothing",
        fix="look at the ledger's towers; target modules by their last name",
        check="ledger, grad.tower",
    ),
)


def installed() -> dict[str, str]:
    """Versions of Python and of the libraries that matter, empty where one is not installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    return versions


def known_traps(versions: dict[str, str]) -> list[Trap]:
    """The traps that apply to these versions."""
    return [
        trap
        for trap in TRAPS
        if versions.get(trap.package)
        and _number(versions[trap.package]) >= _number(trap.since)
        and (not trap.until or _number(versions[trap.package]) < _number(trap.until))
    ]


def _number(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split("."):
        digits = "".join(c for c in part if c.isdigit())
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
