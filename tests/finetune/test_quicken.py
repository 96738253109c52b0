"""The fast step on a model with its adapter: the same losses and gradients, in few graphs, and off again."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from packed import CLASSES, RAGGED, load_family, make_examples, packer_for

from boxtune.finetune import attention, build_encoder, lora_linear, plan_adapter
from boxtune.finetune import quicken as quicken_
from boxtune.finetune.collate import IGNORED, collate_for_training
from boxtune.finetune.float8 import to_float8_layers
from boxtune.finetune.quantization import tower_of
from boxtune.finetune.quicken import checkpoint_layers, quicken
from boxtune.settings import AdapterSettings

EXACT = 1e-5
FAMILIES = ("qwen2_vl", "llava_onevision")
"""One whose tokens have positions in three numbers, and one that counts them."""


class Case:
    """A tiny model in NF4, or as asked, under an adapter that is not zero."""

    def __init__(self, loaded: Any, recipe: str = "joint", dropout: float = 0.0) -> None:
        import peft

        self.loaded, self.family = loaded, loaded.source.family
        self.encoder = build_encoder(loaded, CLASSES)
        settings = AdapterSettings(recipe=recipe, r=8, alpha=16, dropout=dropout)  # type: ignore[arg-type]
        self.plan = plan_adapter(loaded.model, self.family, settings)
        self.model = peft.get_peft_model(loaded.model, self.plan.config)
        torch.manual_seed(0)
        for name, parameter in self.model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.05)
        self.packer = packer_for(loaded, self.encoder, longest=2048, max_pixels=loaded.max_pixels)
        self.model.train()

    def batch(self, sizes: Any = RAGGED, seed: int = 0) -> dict[str, Any]:
        examples = make_examples(self.encoder, sizes, seed)
        return {**collate_for_training(examples, self.encoder.layout), "packing": self.packer.pack(examples)}

    def plain(self, batch: dict[str, Any]) -> torch.Tensor:
        """The sum over supervised tokens, of the padded batch."""
        labels = batch["labels"][:, 1:]
        logits = self.logits(batch)[:, :-1]
        return F.cross_entropy(logits[labels != IGNORED], labels[labels != IGNORED], reduction="sum")

    def logits(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.model(**{k: v for k, v in batch.items() if k not in ("labels", "packing")}).logits

    def fast(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.model(**batch, score=True)["loss"]

    def gradients(self, loss: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
        self.model.zero_grad()
        loss.backward()
        found = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad()
        return float(loss.detach()), found


def require_equal(one: Any, other: Any, tolerance: float = EXACT) -> None:
    (loss, found), (wanted, right) = one, other
    assert abs(loss / wanted - 1) < tolerance
    assert found.keys() == right.keys() and found
    for name, gradient in right.items():
        assert float((found[name] - gradient).norm()) <= tolerance * float(gradient.norm()), name


@pytest.fixture(scope="module", params=[FAMILIES[0], pytest.param(FAMILIES[1], marks=pytest.mark.slow)])
def make_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    loaded = load_family(request.param, tmp_path_factory.mktemp("quicken"), "nf4")

    def make(**more: Any) -> Case:
        return Case(loaded.with_model(copy.deepcopy(loaded.model)), **more)

    yield make


hushed = pytest.mark.filterwarnings(r"ignore:The \.grad attribute of a Tensor")
"""torch 2.13 asks every tensor that it traces for a gradient, and hides the warning in a way that an error passes."""


@pytest.fixture()
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """torch.compile without a compiler behind it, and the counters of what was traced.

    The checker that tests put round every function is none that can be traced: it is taken off what layers call.
    """
    from torch._dynamo.utils import counters

    for module in (quicken_, attention, lora_linear):
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value.__module__.startswith("boxtune."):
                monkeypatch.setattr(module, name, inspect.unwrap(value))

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    yield counters
    torch._dynamo.reset()


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_the_plain_model(make_case: Callable[..., Case]) -> None:
    case = make_case()
    batch = case.batch()
    wanted = case.gradients(case.plain(batch))
    names = {name for name, p in case.model.named_parameters() if p.requires_grad}
    put_on = quicken(case.model, packs=True, compiled=False)
    assert put_on.packs and put_on.compiled_layers == 0
    assert put_on.lora_layers == len(case.plan.layers)
    assert {name for name, p in case.model.named_parameters() if p.requires_grad} == names >= wanted[1].keys()
    require_equal(case.gradients(case.fast(batch)), wanted)
    # A padded batch, without a score, goes through the same layers.
    require_equal(case.gradients(case.plain(batch)), wanted)


def test_without_packing_the_layers_are_quick_all_the_same(make_case: Callable[..., Case]) -> None:
    case = make_case(recipe="language")
    batch = case.batch()
    wanted = case.gradients(case.plain(batch))
    put_on = quicken(case.model, packs=False, compiled=True)
    assert not put_on.packs and put_on.compiled_layers == 0 and put_on.frozen_layers > 0
    assert {m.config._attn_implementation for m in case.model.modules() if hasattr(m, "config")} == {"sdpa"}
    require_equal(case.gradients(case.plain(batch)), wanted)


@pytest.mark.slow
def test_linear_layers_are_left_to_peft_where_asked(make_case: Callable[..., Case]) -> None:
    case = make_case()
    batch = case.batch()
    wanted = case.gradients(case.plain(batch))
    put_on = quicken(case.model, packs=True, compiled=False, linears=False)
    assert (put_on.lora_layers, put_on.frozen_layers) == (0, 0)
    require_equal(case.gradients(case.fast(batch)), wanted)


@hushed
@pytest.mark.slow
def test_patches_are_embedded_by_a_product(load_tiny: Any) -> None:
    base = load_tiny().model
    (convolution,) = [module for module in base.modules() if isinstance(module, torch.nn.Conv3d)]
    patches = torch.randn(7, convolution.in_channels, *convolution.kernel_size)
    wider = torch.randn(2, convolution.in_channels, *(2 * side for side in convolution.kernel_size))
    wanted, of_wider = convolution(patches), convolution(wider)
    undos: list[Any] = []
    quicken_._quicken_patches(base, undos)
    got = convolution(patches)
    assert "forward" in vars(convolution)
    assert got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-5)
    assert torch.equal(convolution(wider), of_wider)
    (undo,) = undos
    undo()
    assert "forward" not in vars(convolution)


@pytest.mark.slow
def test_all_comes_off_again(make_case: Callable[..., Case], traced: Any) -> None:
    case = make_case()
    batch, names = case.batch(), [*case.model.state_dict()]
    before = [m for m in case.model.modules() if "forward" in vars(m)]
    configs = {id(m.config): m.config._attn_implementation for m in case.model.modules() if hasattr(m, "config")}
    with torch.no_grad():
        logits = case.logits(batch)
        put_on = quicken(case.model, packs=True, compiled=True)
        assert put_on.compiled_layers > 0 and [*case.model.state_dict()] == names
        case.fast(batch)
        put_on.undo()
        assert torch.equal(case.logits(batch), logits)
    assert [m for m in case.model.modules() if "forward" in vars(m)] == before
    after = {id(m.config): m.config._attn_implementation for m in case.model.modules() if hasattr(m, "config")}
    assert after == configs
    quicken(case.model, packs=True, compiled=True).undo()


@pytest.mark.slow
def test_without_its_adapter_it_is_the_base(make_case: Callable[..., Case]) -> None:
    case = make_case()
    batch = case.batch()
    with torch.no_grad():
        tuned = float(case.plain(batch))
        with case.model.disable_adapter():
            wanted = float(case.plain(batch))
        quicken(case.model, packs=True, compiled=False)
        with case.model.disable_adapter():
            assert abs(float(case.fast(batch)) / wanted - 1) < EXACT
            assert abs(float(case.plain(batch)) / wanted - 1) < EXACT
        assert abs(float(case.fast(batch)) / tuned - 1) < EXACT < abs(tuned / wanted - 1)


@pytest.mark.slow
def test_dropout_is_for_training_alone(make_case: Callable[..., Case]) -> None:
    case = make_case(dropout=0.5)
    batch = case.batch()
    with torch.no_grad():
        case.model.eval()
        wanted = float(case.plain(batch))
        quicken(case.model, packs=True, compiled=False)
        assert abs(float(case.fast(batch)) / wanted - 1) < EXACT
        case.model.train()
        torch.manual_seed(1)
        first = float(case.fast(batch))
        assert float(case.fast(batch)) != first
        torch.manual_seed(1)
        assert float(case.fast(batch)) == first
        assert abs(first / wanted - 1) > EXACT


@hushed
@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpoints_change_no_gradient(make_case: Callable[..., Case], dropout: float, traced: Any) -> None:
    """Dropout's seeds are drawn again for what is computed twice."""
    case = make_case(recipe="joint", dropout=dropout)
    base, batch, found = case.model.get_base_model(), case.batch(), []
    for compiled in (False, True):
        put_on = quicken(case.model, packs=True, compiled=compiled)
        for num in (0, 1, 2):
            checkpoint_layers(base, case.family, num)
            torch.manual_seed(3)
            found.append(case.gradients(case.fast(batch)))
        put_on.undo()
    assert len(found) == 6
    for other in found[1:]:
        require_equal(other, found[0])


@pytest.mark.slow
def test_exactly_so_many_layers_are_computed_twice(load_tiny: Any) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    for recipe in ("language", "vision"):
        case = Case(load_tiny(), recipe=recipe)
        base = case.model.get_base_model()
        towers: dict[str | None, list[Any]] = {"language": [], "vision": []}
        for name, module in base.named_modules():
            if isinstance(module, GradientCheckpointingLayer):
                towers[tower_of(f"{name}.weight", case.family)].append(module)
        num_layers = base.config.get_text_config().num_hidden_layers
        assert len(towers["language"]) == num_layers == 5 and len(towers["vision"]) == 8
        for num in range(num_layers + 1):
            checkpoint_layers(base, case.family, num)
            marked = [place for place, layer in enumerate(towers["language"]) if layer.gradient_checkpointing]
            assert marked == list(range(num))
            seen = {layer.gradient_checkpointing for layer in towers["vision"]}
            assert seen == {num > 0 and recipe == "vision"}


@hushed
@pytest.mark.slow
def test_batches_of_all_sizes_share_a_few_graphs(make_case: Callable[..., Case], traced: Any) -> None:
    """One graph for each kind of layer, whatever the number of tokens and of samples; none of it is broken."""
    case = make_case(recipe="joint")
    # Samples of one length each: on a CPU others are gone through one by one, which breaks the graph.
    examples = [(make_examples(case.encoder, [size] * 2, num)[1], num) for num, size in enumerate(RAGGED[:3], start=2)]
    batches = [
        {**collate_for_training([one] * num, case.encoder.layout), "packing": case.packer.pack([one] * num)}
        for one, num in examples
    ]
    wanted = [case.gradients(case.plain(batch)) for batch in batches]
    assert len({loss for loss, _ in wanted}) == 3
    quicken(case.model, packs=True, compiled=True)
    graphs = []
    for batch, right in zip(batches, wanted, strict=True):
        require_equal(case.gradients(case.fast(batch)), right)
        graphs.append(traced["stats"]["unique_graphs"])
    assert not traced["graph_break"] and not traced["recompiles"]
    # A first layer whose input has no gradient is a kind of its own.
    assert 1 <= graphs[0] == graphs[1] == graphs[2] <= 3


def test_what_the_operators_do_not_know_is_left_alone(load_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seven layers with adapters: 8 bits, another format, blocks of another size, DoRA, a second adapter, a bias."""
    import bitsandbytes as bnb
    import peft

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.conv = torch.nn.Linear(64, 64), torch.nn.Conv2d(3, 3, 1)
            self.small = torch.nn.Linear(64, 64)
            self.nf4 = bnb.nn.Linear4bit(64, 64, quant_type="nf4").to("cpu")
            self.bare = bnb.nn.Linear4bit(64, 64, quant_type="nf4").to("cpu")
            self.fp4 = bnb.nn.Linear4bit(64, 64, quant_type="fp4").to("cpu")
            self.int8 = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
            to_float8_layers(self, ["small"])

    names = ["plain", "small", "nf4", "fp4", "conv", "int8"]

    def build(**more: Any) -> Any:
        return peft.get_peft_model(Layers(), peft.LoraConfig(target_modules=names, r=4, **more))

    def touched(model: Any) -> set[str]:
        return {name.rpartition(".")[2] for name, m in model.named_modules() if "forward" in vars(m)} - {"model"}

    model = build()
    put_on = quicken_linears(model)
    assert touched(model) == {"plain", "small", "nf4", "bare"} and put_on == (3, 1)
    model = build()
    model.base_model.model.nf4.base_layer.weight.quant_state.blocksize = 128
    model.base_model.model.bare.weight.quant_state.blocksize = 128
    assert quicken_linears(model) == (2, 0) and touched(model) == {"plain", "small"}
    model = build()
    model.add_adapter("other", peft.LoraConfig(target_modules=["plain", "nf4"], r=4))
    assert quicken_linears(model) == (1, 1) and touched(model) == {"small", "bare"}
    for left in ({"use_dora": True}, {"lora_bias": True}):
        found = peft.get_peft_model(Layers(), peft.LoraConfig(target_modules=["plain"], r=4, **left))
        assert quicken_linears(found) == (0, 2) and touched(found) == {"nf4", "bare"}
    model = build()
    model.base_model.model.plain.base_layer.weight.requires_grad_(True)
    assert quicken_linears(model) == (2, 1) and touched(model) == {"small", "nf4", "bare"}


def quicken_linears(model: Any) -> tuple[int, int]:
    """How many layers with LoRA, and without, were given another forward."""
    undos: list[Any] = []
    lora, frozen = quicken_._quicken_linears(model, undos)
    assert len(undos) == len(lora) + frozen
    return len(lora), frozen
