"""The token rows made in batches are those that family and tokenizer give one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boxtune.boxes import Boxes
from boxtune.families import FAMILIES, Frame
from boxtune.tiny.lessons import MAX_ASKED, NAME_TOKENS, Teacher
from boxtune.tiny.made_names import BY_DRAWING, BY_TINT
from boxtune.tiny.model import build_tokenizer
from boxtune.tiny.scene_names import NAMES

FAMILY = FAMILIES["qwen2_vl"]
SIDE = 336


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    return build_tokenizer()


@pytest.fixture(scope="module")
def teacher(tokenizer) -> Teacher:  # type: ignore[no-untyped-def]
    return Teacher(tokenizer, torch.device("cpu"))


def scenes(batch: int, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(NAMES), (batch, num))
    labels[:, num // 2 :] = labels[:, : num - num // 2]
    labels[rng.random((batch, num)) < 0.3] = -1
    corners = np.sort(rng.random((batch, num, 2, 2)), axis=2).reshape(batch, num, 4)
    corners[0, 0] = (0, 0.5, 1, 0.5001)
    return torch.tensor(labels), torch.tensor(corners)


def test_rows_equal_the_familys_text(teacher: Teacher, tokenizer) -> None:  # type: ignore[no-untyped-def]
    labels, unit = scenes(24, 6)
    asked = teacher.choose(labels, torch.Generator().manual_seed(1))
    lesson = teacher.teach(labels, unit, asked, 320)
    frame = Frame(original_wh=(SIDE, SIDE), seen_wh=(SIDE, SIDE))
    answered_nothing = 0
    for row in range(24):
        classes = [NAMES[i] for i in asked[row].tolist() if i >= 0]
        kept = [i for i, label in enumerate(labels[row].tolist()) if label >= 0 and NAMES[label] in classes]
        boxes = Boxes(xyxy_px=unit[row][kept].numpy() * SIDE, labels=tuple(NAMES[int(labels[row][i])] for i in kept))
        answer = FAMILY.encode(boxes, frame, classes) + "<|im_end|>"
        answered_nothing += not kept
        supervised = lesson.labels[row] != -100
        assert tokenizer.decode(lesson.labels[row][supervised]) == answer
        prompt = FAMILY.prompt(classes, FAMILY.image_token)
        ids = tokenizer(prompt)["input_ids"]
        split = ids.index(tokenizer.convert_tokens_to_ids("<|image_pad|>"))
        assert lesson.before.tolist() == ids[:split]
        wanted = ids[split + 1 :] + tokenizer(answer)["input_ids"]
        assert lesson.after[row][: len(wanted)].tolist() == wanted
        assert (lesson.after[row][len(wanted) :] == teacher.pad).all()
        # Each label is the next token.
        places = torch.nonzero(supervised).flatten()
        assert torch.equal(lesson.labels[row][places], lesson.after[row][places + 1])
    assert 0 < answered_nothing < 24


def test_a_row_that_does_not_fit_is_not_taught(teacher: Teacher) -> None:
    labels, unit = scenes(4, 6)
    asked = teacher.choose(labels, torch.Generator().manual_seed(1))
    assert (teacher.teach(labels, unit, asked, 20).labels == -100).all()


def test_choice_of_names(teacher: Teacher) -> None:
    labels, _ = scenes(400, 6)
    asked = teacher.choose(labels, torch.Generator().manual_seed(3))
    assert asked.shape == (400, MAX_ASKED)
    everything = nothing = 0
    for row in range(400):
        names = [i for i in asked[row].tolist() if i >= 0]
        present = {i for i in labels[row].tolist() if i >= 0}
        assert names and len(names) == len(set(names))
        everything += present <= set(names)
        nothing += not present & set(names)
        level = max((teacher.levels[i].item() for i in present), default=0)
        assert all(teacher.fair[level, i] for i in set(names) - present)
    assert 0.4 < everything / 400 < 0.8
    assert 0.05 < nothing / 400 < 0.25


def test_an_alias_takes_the_place_of_the_first_name(teacher: Teacher, tokenizer) -> None:  # type: ignore[no-untyped-def]
    labels, unit = torch.tensor([[3, 3, -1]]), torch.rand(1, 3, 4).sort().values
    asked = torch.full((1, MAX_ASKED), -1)
    asked[0, 0] = 3
    tokens = torch.tensor([tokenizer("zq7")["input_ids"] + [0] * NAME_TOKENS])[:, :NAME_TOKENS]
    mask = torch.arange(NAME_TOKENS)[None] < len(tokenizer("zq7")["input_ids"])
    lesson = teacher.teach(labels, unit, asked, 200, alias=(tokens, mask))
    text = tokenizer.decode(lesson.after[0])
    assert "each: zq7." in text
    assert text.count("<|object_ref_start|>zq7<|object_ref_end|>") == 2


def test_made_up_names_are_read_as_the_family_writes_them(tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Things told by drawing, or by kind and colour: the same name for the same thing, others beside it."""
    kinds = [kind for kind in range(4) for _ in range(10)]
    teacher = Teacher(tokenizer, torch.device("cpu"), kinds)
    book = teacher.book
    assert len(set(book.names)) == len(book.names) == len(book.kinds) == len(book.levels)
    sprites = torch.tensor([[0, 0, 2], [13, 14, 25]]).repeat(200, 1)
    colours = torch.tensor([[1, 1, -1], [2, 3, 2]]).repeat(200, 1)
    told = torch.stack([torch.tensor([[5, 5, 5], [9, 9, 11]]).repeat(200, 1), sprites, colours], dim=-1)
    generator = torch.Generator().manual_seed(2)
    named = teacher.name(told, generator)
    levels = teacher.levels[named]
    drawn, tinted = (levels == BY_DRAWING).all(1), (levels == BY_TINT).any(1)
    assert 0.2 < drawn.float().mean() < 0.4 and 0.04 < tinted.float().mean() < 0.16
    assert torch.equal(named[drawn], book.of_drawing(sprites[drawn]))
    # Without a colour a thing keeps its plain name.
    first = tinted & (sprites[:, 0] == 0)
    assert (named[first, 2] == 5).all() and (named[first, 0] == book.of_tint(0, 1)).all()

    unit = torch.rand((400, 3, 4), generator=generator).sort().values[..., [0, 1, 2, 3]]
    asked = teacher.choose(named, generator)
    near = total = 0
    for row in torch.nonzero(drawn).flatten().tolist():
        absent = [i for i in asked[row].tolist() if i >= 0 and i not in named[row].tolist()]
        assert all(teacher.levels[i] == BY_DRAWING for i in absent)
        near += sum(int(book.kinds[i]) in {kinds[s] for s in sprites[row].tolist()} for i in absent)
        total += len(absent)
    assert total > 20 and near / total > 0.6
    lesson = teacher.teach(named, unit, asked, 320)
    frame = Frame(original_wh=(SIDE, SIDE), seen_wh=(SIDE, SIDE))
    for row in range(40):
        classes = [book.names[i] for i in asked[row].tolist() if i >= 0]
        kept = [i for i, label in enumerate(named[row].tolist()) if book.names[label] in classes]
        labels = tuple(book.names[int(named[row][i])] for i in kept)
        answer = FAMILY.encode(Boxes(xyxy_px=unit[row][kept].double().numpy() * SIDE, labels=labels), frame, classes)
        assert tokenizer.decode(lesson.labels[row][lesson.labels[row] != -100]) == answer + "<|im_end|>"


def test_a_thing_that_is_not_there_has_no_name(tokenizer) -> None:  # type: ignore[no-untyped-def]
    teacher = Teacher(tokenizer, torch.device("cpu"), [0, 1])
    none = torch.full((50, 4, 3), -1)
    assert (teacher.name(none, torch.Generator().manual_seed(0)) == -1).all()
