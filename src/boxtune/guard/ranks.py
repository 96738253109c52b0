"""What several processes that train together must agree on, so that none waits for another that has gone elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from boxtune.guard.finding import Finding


def rank() -> int:
    """The number of this process among those that train together, 0 where it is alone."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def num_ranks() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def any_rank(flag: bool) -> bool:
    """Whether it is so on any of the processes. All of them must ask."""
    if num_ranks() == 1:
        return flag
    flags: list[Any] = [None] * num_ranks()
    torch.distributed.all_gather_object(flags, flag)
    return any(flags)


def of_all_ranks(findings: list[Finding]) -> list[Finding]:
    """The findings of every process, each once: all of them stop together, and say which of them is at fault."""
    ranks = num_ranks()
    if ranks == 1:
        return findings
    gathered: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(gathered, [finding.as_json() for finding in findings])
    numbers: dict[str, set[int]] = {}
    first: dict[str, dict[str, Any]] = {}
    for number, each in enumerate(gathered):
        for finding in each:
            numbers.setdefault(finding["check"], set()).add(number)
            first.setdefault(finding["check"], finding)
    for check, on in numbers.items():
        if len(on) < ranks:
            first[check]["seen"] = f"on rank {', '.join(map(str, sorted(on)))} of {ranks}: {first[check]['seen']}"
    return [Finding(**finding) for finding in first.values()]
