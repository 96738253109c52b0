"""Every change of a parameter is recorded with the line that made it, and nothing else is."""

from __future__ import annotations

import copy

import pytest
import torch

from boxtune.guard import Tracer
from boxtune.guard.trace import Frame, short_chain


def _freeze(parameter: torch.nn.Parameter) -> None:
    parameter.requires_grad = False


def test_each_kind_of_change_names_its_line() -> None:
    layer = torch.nn.Linear(3, 3)
    with Tracer() as tracer:
        _freeze(layer.weight)
        layer.bias.requires_grad_(False)
        layer.weight.data = layer.weight.data.bfloat16()
        layer.weight.detach_()
        layer.weight = torch.nn.Parameter(torch.zeros(3, 3))
        layer.requires_grad_(True)
    kinds = [change.kind for change in tracer.changes]
    assert kinds == ["frozen", "frozen", "cast", "detached", "unfrozen", "replaced", "unfrozen"]
    # The annotations that tests enforce put frames of their own round ours.
    functions = [frame.function for frame in tracer.changes[0].chain if frame.package not in ("jaxtyping", "beartype")]
    assert functions[:2] == ["_freeze", "test_each_kind_of_change_names_its_line"]
    assert tracer.changes[2].detail == "float32 to bfloat16"
    assert tracer.changes[5].detail == "bfloat16 to float32"
    assert all(change.chain[0].file for change in tracer.changes)
    assert tracer.last(layer.bias, "frozen") is tracer.changes[1]
    assert tracer.last(layer.bias, "cast") is None


def test_what_changes_nothing_is_not_recorded() -> None:
    layer = torch.nn.Linear(3, 3)
    with Tracer() as tracer:
        layer.requires_grad_(True)
        layer.weight.requires_grad = True
        out = layer(torch.ones(1, 3)).requires_grad_(True)
        out.detach_()
        copy.deepcopy(layer)
    assert tracer.changes == []
    layer.requires_grad_(False)
    assert tracer.changes == []


def test_packed_weights_are_seen() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    weight = bitsandbytes.nn.Params4bit(torch.randn(64, 64), requires_grad=False, quant_type="nf4")
    weight = weight.to("cpu")
    assert weight.quant_state is not None
    weight = bitsandbytes.nn.Params4bit(torch.randn(64, 64), requires_grad=True, quant_type="nf4")
    with Tracer() as tracer:
        weight.requires_grad = False
    assert [change.kind for change in tracer.changes] == ["frozen"]


def test_a_chain_is_cut_to_what_a_person_needs() -> None:
    def at(package: str, function: str) -> Frame:
        folder = f"/x/lib/python3/site-packages/{package}" if package else "/home/someone"
        return Frame(f"{folder}/file.py", 7, function)

    chain = [
        Frame(torch.nn.modules.module.__file__, 1, "requires_grad_"),
        at("peft", "prepare"),
        at("peft", "outer"),
        at("trl", "wrap"),
        at("trl", "__init__"),
        at("", "main"),
        at("", "<module>"),
        at("runner", "launch"),
    ]
    short = short_chain(chain)
    assert [frame.function for frame in short] == ["prepare", "wrap", "main", "<module>"]
    assert str(short[0]) == "peft/file.py:7 prepare" and str(short[3]) == "/home/someone/file.py:7"
