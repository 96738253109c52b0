"""Samples in one row: positions and borders are those that the model would count itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from packed import CASES, CLASSES, EVEN, PACKED, RAGGED, load_family, make_examples, make_talk, packer_for

from boxtune.families import FAMILIES
from boxtune.finetune import build_encoder
from boxtune.finetune.collate import IGNORED, Example, collate_for_training
from boxtune.finetune.packing import GRIDS_ON_HOST, Packer, build_packer

GRIDS = tuple(name for name in PACKED if FAMILIES[name].packing == "grid")
IMAGE, TEXT = 9, 1


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    loaded = load_family(request.param, tmp_path_factory.mktemp("packing"))
    yield loaded, build_encoder(loaded, CLASSES)


def test_positions_are_the_models_own(case: Any) -> None:
    loaded, encoder = case
    packer, compared = packer_for(loaded, encoder), 0
    for example in [*make_examples(encoder, RAGGED), make_talk(encoder)]:
        batch = collate_for_training([example], encoder.layout)
        num = batch["input_ids"].shape[1]
        if FAMILIES[loaded.source.family.name].packing == "line":
            assert torch.equal(packer.positions(example), torch.arange(num)[None])
            continue
        if not example.inputs:
            assert torch.equal(packer.positions(example), torch.arange(num).expand(3, -1))
            continue
        wanted, _ = loaded.model.base_model.get_rope_index(
            batch["input_ids"],
            batch["mm_token_type_ids"],
            batch["image_grid_thw"],
            attention_mask=batch["attention_mask"],
        )
        assert torch.equal(packer.positions(example), wanted[:, 0])
        compared += 1
    assert compared == (len(RAGGED) if packer.grid else 0)


@pytest.mark.parametrize("sizes", [RAGGED, EVEN, RAGGED[:1]])
def test_a_row_holds_every_sample_once(case: Any, sizes: Any) -> None:
    loaded, encoder = case
    examples = make_examples(encoder, sizes)
    packing, batch = packer_for(loaded, encoder).pack(examples), collate_for_training(examples, encoder.layout)
    ids = [(*example.prompt_ids, *example.answer_ids) for example in examples]
    row = batch["input_ids"].flatten()[packing["keep"]]
    assert row.tolist() == [token for sample in ids for token in sample]
    assert packing["borders"].dtype == torch.int32
    assert packing["borders"].diff().tolist() == [len(sample) for sample in ids]
    assert row[packing["scored"] + 1].tolist() == [token for example in examples for token in example.answer_ids]
    assert torch.equal(row[packing["scored"] + 1], batch["labels"][batch["labels"] != IGNORED])
    assert packing["text_evenly"] == (len({len(sample) for sample in ids}) == 1)
    positions = packing["position_ids"]
    assert positions.shape == ((3, 1, len(row)) if loaded.source.family.packing == "grid" else (1, len(row)))
    assert bool((positions.flatten(0, -2)[:, packing["borders"][:-1].long()] == 0).all())


def test_bounds_are_powers_of_two_and_never_below_what_is_there(case: Any) -> None:
    """Then one compiled graph fits most batches, also those of images that were enlarged beyond the budget."""
    loaded, encoder = case
    packed = [make_examples(encoder, sizes) for sizes in (RAGGED, EVEN, RAGGED[:1])]
    for bound in (0, 1, 100_000):
        packer = packer_for(loaded, encoder, longest=bound, max_pixels=bound)
        for examples in packed:
            packing = packer.pack(examples)
            least = max(bound, int(packing["borders"].diff().max()))
            assert least <= packing["longest"] < 2 * least and packing["longest"].bit_count() == 1
            if packer.grid:
                least = max(packer.most_patches, int(packing["image_cu_seqlens"].diff().max()))
                assert least <= packing["image_max_seqlen"] < 2 * least
                assert packing["image_max_seqlen"].bit_count() == 1
            if packer.window is not None:
                assert packing["image_max_window_seqlen"] >= int(packing["image_cu_window_seqlens"].diff().max())
    assert (packer.most_patches > 0) == packer.grid


def test_images_are_told_of_only_where_there_are_some(case: Any) -> None:
    loaded, encoder = case
    packer = packer_for(loaded, encoder)
    assert not [name for name in packer.pack([make_talk(encoder)] * 2) if name.startswith("image_") or name == "grids"]
    mixed = packer.pack([make_talk(encoder), *make_examples(encoder, RAGGED[:2])])
    told = {name for name in mixed if name.startswith("image_")}
    assert bool(told) == packer.grid
    assert ("grids" in mixed) == (loaded.source.family.name in GRIDS_ON_HOST)
    if packer.grid:
        assert len(mixed["image_cu_seqlens"]) == 3
        assert mixed["image_position_ids"].shape[0] == int(mixed["image_cu_seqlens"][-1])


def test_images_count_as_even_only_where_all_that_attend_are(case: Any) -> None:
    """One word for all layers of the tower: where some see windows, these are of several lengths."""
    loaded, encoder = case
    packer = packer_for(loaded, encoder)
    for sizes in (RAGGED, EVEN, RAGGED[:1]):
        packing = packer.pack(make_examples(encoder, sizes))
        if not packer.grid:
            assert "image_evenly" not in packing
            continue
        borders = [packing[name] for name in ("image_cu_seqlens", "image_cu_window_seqlens") if name in packing]
        assert len(borders) == (1 if packer.window is None else 2)
        are_even = all(len(set(ends.diff().tolist())) == 1 for ends in borders)
        assert are_even or not packing["image_evenly"]
        assert packing["image_evenly"] == are_even or packer.window is not None


def make_packer(**changed: Any) -> Packer:
    known: dict[str, Any] = {"image_token_id": IMAGE, "grid": True, "merge": 2, "window": None, "on_host": False}
    return Packer(**{**known, **changed})


@pytest.fixture(scope="module")
def example(tiny: Any, encoder: Any) -> Example:
    from PIL import Image

    return encoder.encode_image(Image.new("RGB", (112, 112)))


def asked(example: Example, prompt: list[int], grids: list[list[int]], answer: tuple[int, ...] = (TEXT,)) -> Example:
    inputs = {"image_grid_thw": torch.tensor(grids)} if grids else {}
    return replace(example, prompt_ids=tuple(prompt), answer_ids=answer, inputs=inputs)


def test_positions_by_hand(example: Example) -> None:
    """Two images of 2 x 3 and 1 x 1 tokens, text before, between and behind."""
    prompt = [TEXT, TEXT, *[IMAGE] * 6, TEXT, IMAGE]
    found = make_packer().positions(asked(example, prompt, [[1, 4, 6], [1, 2, 2]], (TEXT, TEXT)))
    assert found.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 7, 8],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 7, 8],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8],
    ]
    assert make_packer(grid=False).positions(asked(example, prompt, [[1, 4, 6]])).tolist() == [[*range(11)]]


@pytest.mark.parametrize(
    ("prompt", "grids", "words"),
    [
        ([TEXT, *[IMAGE] * 5], [[1, 4, 6]], "an image of 2 x 3 tokens has other places"),
        ([TEXT, *[IMAGE] * 5, TEXT, IMAGE], [[1, 4, 6]], "an image of 2 x 3 tokens has other places"),
        ([TEXT, TEXT], [[1, 2, 2]], "an image of 1 x 1 tokens has other places"),
        ([TEXT, IMAGE], [[1, 2, 2], [1, 2, 2]], "an image of 1 x 1 tokens has other places"),
        ([TEXT, *[IMAGE] * 7], [[1, 4, 6]], "more places for images than images"),
        ([TEXT, IMAGE], [], "more places for images than images"),
    ],
)
def test_grids_that_do_not_fit_are_an_error(example: Example, prompt: Any, grids: Any, words: str) -> None:
    packer = make_packer()
    with pytest.raises(ValueError, match=words):
        packer.positions(asked(example, prompt, grids))
    with pytest.raises(ValueError, match=words):
        packer.pack([asked(example, [TEXT, TEXT], []), asked(example, prompt, grids)])


def test_families_that_cannot_be_packed_have_no_packer(tiny: Any) -> None:
    others = [family for family in FAMILIES.values() if family.packing is None]
    assert others and all(build_packer(family, tiny.model.config, IMAGE) is None for family in others)
    made = [build_packer(FAMILIES[name], tiny.model.config, IMAGE) for name in PACKED]
    assert all(packer is not None and packer.grid == (name in GRIDS) for name, packer in zip(PACKED, made, strict=True))
