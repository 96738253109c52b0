"""The loss of samples in one row is that of each alone, and its gradient that of torch's own cross entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from packed import CASES, CLASSES, EVEN, RAGGED, load_family, make_examples, make_talk, packer_for, scoring
from reads import Reads

from boxtune.finetune import build_encoder
from boxtune.finetune import quicken as quicken_
from boxtune.finetune.collate import IGNORED, collate_for_training
from boxtune.finetune.scoring import AT_ONCE, install_scoring, score_tokens

COUNTED, MASKED = "import_utils.py:torch_compilable_check", "masking_utils.py:find_packed_sequence_indices"
ASKED = {
    "qwen3_vl": {"vision_utils.py:get_vision_interpolation_indices_and_weights"},
    "internvl": {"modeling_internvl.py:get_placeholder_mask", COUNTED, MASKED},
    "deepseek_vl": {"modeling_deepseek_vl.py:get_placeholder_mask", COUNTED, MASKED},
    "idefics3": {"masking_utils.py:_ignore_bidirectional_mask_sdpa", COUNTED, MASKED},
    "smolvlm": {
        *("masking_utils.py:_ignore_bidirectional_mask_sdpa", "modeling_smolvlm.py:get_placeholder_mask"),
        *(COUNTED, MASKED),
    },
    "llava_onevision": {
        *("modeling_llava_onevision.py:<listcomp>", "modeling_llava_onevision.py:get_placeholder_mask"),
        *(COUNTED, MASKED),
    },
}
"""Where transformers' own forwards ask the device for a number, by family; the others never do."""
WIDTH, WORDS = 32, 97
TOLERANCE = 1e-6


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    loaded = load_family(request.param, tmp_path_factory.mktemp("scoring"))
    loaded.model.eval()
    yield loaded, build_encoder(loaded, CLASSES)


def alone(loaded: Any, encoder: Any, example: Any) -> torch.Tensor:
    """The losses of the answer's tokens, by the model as it is."""
    batch = collate_for_training([example], encoder.layout)
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        logits = loaded.model(**batch).logits[:, :-1]
    return F.cross_entropy(logits[labels != IGNORED], labels[labels != IGNORED], reduction="none")


def in_row(loaded: Any, encoder: Any, examples: list[Any]) -> list[dict[str, Any]]:
    """What is said of each sample, all of them being in the row."""
    batch, packing = collate_for_training(examples, encoder.layout), packer_for(loaded, encoder).pack(examples)
    said = []
    with scoring(loaded.model), torch.no_grad():
        for scored in packing["scored"].split([len(example.answer_ids) for example in examples]):
            said.append(loaded.model(**batch, packing=packing | {"scored": scored}, score=True))
        whole = loaded.model(**batch, packing=packing, score=True)
    for name in ("loss", "right", "entropy"):
        assert torch.isclose(whole[name].float(), sum(one[name] for one in said).float(), rtol=1e-6)
    assert whole["num"] == sum(len(example.answer_ids) for example in examples)
    return said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ragged", "even", "one", "talk"])
def test_a_sample_in_a_row_is_scored_as_alone(case: Any, kind: str) -> None:
    loaded, encoder = case
    sizes = {"ragged": RAGGED, "even": EVEN, "one": RAGGED[:1], "talk": RAGGED[1:3]}[kind]
    examples = make_examples(encoder, sizes)
    if kind == "even":
        examples = [examples[1]] * 2 + [make_examples(encoder, sizes, seed=1)[1]]  # of one length to the last token
    if kind == "talk":
        talk = make_talk(encoder)
        examples = [talk, examples[0], talk, examples[1]]
    said = in_row(loaded, encoder, examples)
    assert len(said) == len(examples)
    for example, got in zip(examples, said, strict=True):
        wanted = alone(loaded, encoder, example)
        assert got["num"] == len(example.answer_ids) == len(wanted)
        assert abs(float(got["loss"] / wanted.sum()) - 1) < TOLERANCE
        assert got["loss"].dtype == torch.float32


def test_conversations_alone_fill_a_row_too(case: Any) -> None:
    loaded, encoder = case
    talk = make_talk(encoder)
    for got in in_row(loaded, encoder, [talk, talk]):
        assert abs(float(got["loss"] / alone(loaded, encoder, talk).sum()) - 1) < TOLERANCE


@pytest.mark.slow
def test_nothing_of_a_sample_is_in_another(case: Any) -> None:
    """Another image and another answer beside it change no bit of what is said of a sample."""
    loaded, encoder = case
    first, second = make_examples(encoder, RAGGED), make_examples(encoder, RAGGED, seed=1)
    mixed = [second[0], first[1], second[2], first[3]]
    before, after = in_row(loaded, encoder, first), in_row(loaded, encoder, mixed)
    same = [torch.equal(one["loss"], other["loss"]) for one, other in zip(before, after, strict=True)]
    assert same == [False, True, False, True]


@pytest.mark.slow
def test_the_last_layer_works_where_an_answer_is_said(case: Any) -> None:
    """And what is said there is the same."""
    loaded, encoder = case
    examples, undos = make_examples(encoder, RAGGED), []
    last, rows = quicken_._last_layer(loaded.model), []
    quicken_._override(last, quicken_._last_forward, undos)
    hook = last.mlp.down_proj.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[1]))
    said = in_row(loaded, encoder, examples)
    answers = [len(example.answer_ids) for example in examples]
    assert rows == [*answers, sum(answers)]
    rows.clear()
    for example, got in zip(examples, said, strict=True):
        assert abs(float(got["loss"] / alone(loaded, encoder, example).sum()) - 1) < TOLERANCE
    assert rows == [len(example.prompt_ids) + len(example.answer_ids) for example in examples]
    hook.remove()
    undos[0]()
    assert not any("forward" in vars(part) for part in last.modules())


def test_the_host_asks_for_no_number_of_its_own(case: Any) -> None:
    loaded, encoder = case
    examples = make_examples(encoder, RAGGED)
    batch, packing = collate_for_training(examples, encoder.layout), packer_for(loaded, encoder).pack(examples)
    with scoring(loaded.model), torch.no_grad(), Reads() as reads:
        loaded.model(**batch, packing=packing, score=True)
    assert set(reads.found) == ASKED.get(loaded.source.family.name, set())
    if loaded.source.family.packing == "grid":
        # What is not counted in a step is counted in any other call.
        *grids, last = batch["image_grid_thw"]
        cut = {"pixel_values": batch["pixel_values"][: -int(last.prod())], "image_grid_thw": torch.stack(grids)}
        with pytest.raises(ValueError, match="do not match"):
            loaded.model(**batch | cut)


def test_without_being_asked_to_score_the_model_is_as_before(case: Any) -> None:
    loaded, encoder = case
    examples = make_examples(encoder, RAGGED[:2])
    batch, packing = collate_for_training(examples, encoder.layout), packer_for(loaded, encoder).pack(examples)
    with torch.no_grad():
        wanted = loaded.model(**batch)
        take_back = install_scoring(loaded.model)
        assert "forward" in vars(loaded.model)
        got = loaded.model(**batch, packing=packing)
        take_back()
    assert torch.equal(got.logits, wanted.logits) and torch.equal(got.loss, wanted.loss)
    assert "forward" not in vars(loaded.model)


def test_a_forward_of_the_models_own_comes_back() -> None:
    model = torch.nn.Linear(2, 2)

    def own(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    model.forward = own
    take_back = install_scoring(model)
    assert model.forward is not own and torch.equal(model(torch.zeros(2), packing={}), torch.ones(2))
    take_back()
    assert model.forward is own


def make_tokens(num: int, *, bias: bool, dtype: torch.dtype) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(num, WIDTH).to(dtype).requires_grad_()
    targets = torch.randint(WORDS, (num,))
    head = torch.nn.Linear(WIDTH, WORDS, bias=bias, dtype=dtype)
    with torch.no_grad():
        targets[::3] = head(hidden[::3]).argmax(dim=-1)
    return hidden, head, targets


@pytest.mark.parametrize("num", [1, 7, AT_ONCE, 2 * AT_ONCE + 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_sums_are_those_of_cross_entropy(trained: bool, bias: bool, num: int) -> None:
    hidden, head, targets = make_tokens(num, bias=bias, dtype=torch.float32)
    head.requires_grad_(trained)
    loss, right, entropy = score_tokens(hidden, head, targets)
    logits = head(hidden)
    wanted = F.cross_entropy(logits, targets, reduction="sum")
    assert torch.isclose(loss, wanted, rtol=1e-5)
    assert int(right) == int((logits.argmax(dim=-1) == targets).sum()) > 0
    assert torch.isclose(entropy, torch.distributions.Categorical(logits=logits).entropy().sum(), rtol=1e-5)
    assert not right.requires_grad and not entropy.requires_grad
    asked = [hidden, *(head.parameters() if trained else ())]
    got, expected = torch.autograd.grad(loss / 5, asked), torch.autograd.grad(wanted / 5, asked)
    assert len(got) == 1 + trained * (1 + bias)
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-6) for one, other in zip(got, expected, strict=True))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_bf16_is_summed_in_fp32(trained: bool, autocast: bool) -> None:
    hidden, head, targets = make_tokens(AT_ONCE + 9, bias=True, dtype=torch.float32 if autocast else torch.bfloat16)
    head.requires_grad_(trained)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss, right, entropy = score_tokens(hidden, head, targets)
        logits = head(hidden)
    assert logits.dtype == torch.bfloat16 and loss.dtype == entropy.dtype == torch.float32
    wanted = F.cross_entropy(logits.float(), targets, reduction="sum")
    assert torch.isclose(loss, wanted, rtol=1e-3)
    assert abs(int(right) - int((logits.argmax(dim=-1) == targets).sum())) <= 0.02 * len(targets)
    got, expected = torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(wanted, hidden)[0]
    assert got.dtype == hidden.dtype
    assert float((got - expected).float().norm() / expected.float().norm()) < 0.02


def test_logits_are_made_and_dropped_in_pieces() -> None:
    """Of a frozen head nothing as wide as the vocabulary is kept for the backward but its own weight."""
    hidden, head, targets = make_tokens(2 * AT_ONCE, bias=False, dtype=torch.float32)
    kept: list[torch.Size] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.shape)
        return tensor

    for trained in (False, True):
        head.requires_grad_(trained)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            score_tokens(hidden, head, targets)
        assert ((len(hidden), WORDS) in {tuple(shape) for shape in kept}) == trained
        assert trained or {tuple(shape) for shape in kept} == {(len(hidden), WIDTH)}


def test_hidden_states_without_a_gradient_are_scored_too() -> None:
    hidden, head, targets = make_tokens(9, bias=False, dtype=torch.float32)
    head.requires_grad_(False)
    with torch.no_grad():
        loss, _, _ = score_tokens(hidden, head, targets)
    assert not loss.requires_grad
    assert torch.isclose(loss, F.cross_entropy(head(hidden), targets, reduction="sum"), rtol=1e-5)
